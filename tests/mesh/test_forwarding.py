"""Communication settings, through a mesh in memory: what stays on a server is asked of it when somebody looks."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from mesh.clock import EPOCH_NS
from mesh.inside import MemoryMesh
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.jobs.task import Task
from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.model import facts
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.entries import SourceException
from caso_mesh.model.ids import attempt_id, local_id, run_now_id
from caso_mesh.model.jobs import Counts
from caso_mesh.model.states import AttemptState
from caso_mesh.server.attempts import Attempts


async def setting(mesh: MemoryMesh, name: str, value: str) -> None:
    await mesh.call("alpha", "settings.set", q.SettingSet(name, value, server="beta"), v.SettingList)

    async def obeyed() -> bool:
        return mesh.nodes["beta"].server.orders.settings[name] == value

    await wait_for_async(obeyed, 30.0, what=f"beta knows {name}")


async def log(mesh: MemoryMesh, run: str) -> o.JobLogView:
    return await mesh.call("alpha", "job.log", q.JobLogRequest(run), o.JobLogView)


async def told(mesh: MemoryMesh, run: str) -> tuple[int, int]:
    """How many lines and exceptions of a run the administrator has itself."""
    voter = mesh.nodes["alpha"].seat.voter
    attempts = voter.keeper.state.attempts_of(run)
    lines = [line for attempt in attempts for line in await voter.tables.log(attempt)]
    return len(lines), len(await voter.tables.exceptions(attempts))


@pytest.mark.jumping
async def test_job_log_and_history_forwarding_never_leave_both_on_the_server_which_is_asked_for_them(
    memory_mesh, tmp_path: pathlib.Path
) -> None:
    tree = make_tree(tmp_path / "data", files=20)
    mesh: MemoryMesh = await memory_mesh(2)
    await mesh.stop("beta")
    with (mesh.state("beta") / "config.toml").open("a", encoding="utf-8") as file:
        file.write('[commands.after]\nkind = "post"\nargv = ["/bin/false"]\n')
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    await mesh.add_device("beta")
    await setting(mesh, "joblog-forwarding", "never")
    await setting(mesh, "history-forwarding", "never")
    result = await mesh.result((await mesh.backup("beta", tree, "server:beta", post="after")).run)
    assert result.state == "succeeded-with-exceptions" and result.exceptions, result
    assert await told(mesh, result.run) == (0, 0)
    (lines,) = (await log(mesh, result.run)).attempts
    assert lines.lines

    await mesh.stop("beta")
    away = await log(mesh, result.run)
    assert (away.attempts, away.away) == ((), ("beta",))
    again = await mesh.result(result.run)
    assert again.exceptions == () and any("beta" in warning for warning in again.warnings)

    # what was held back is told once it may be
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    assert (await log(mesh, result.run)).attempts == (lines,)
    await setting(mesh, "joblog-forwarding", "at-end")
    await setting(mesh, "history-forwarding", "at-end")

    async def arrived() -> bool:
        return all(await told(mesh, result.run))

    await wait_for_async(arrived, 60.0, what="the administrator is told")
    assert await log(mesh, result.run) == o.JobLogView((lines,))
    assert (await mesh.result(result.run)).exceptions == result.exceptions


class Jobs:
    """Jobs that run at a server for as long as a test wants, and what the administrator has of them. Made before the mesh."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        self._running = set[str]()
        holding = Attempts.holding
        monkeypatch.setattr(Attempts, "holding", lambda attempts: (*holding(attempts), *self._running))

    def at(self, mesh: MemoryMesh) -> None:
        self._mesh = mesh

    async def begin(self, server: str) -> str:
        """A job that has logged a line and an exception, and runs."""
        self._count += 1
        job = local_id(f"job{self._count}".ljust(26, "j"), self._mesh.nodes[server].server.keys.id)
        attempt = attempt_id(run_now_id(job, 1), 1)
        line = facts.LogLine(self._mesh.clock(server).now_ns(), "info", "it runs")
        exception = SourceException(b"/srv/odd", "permission-denied")
        self._running.add(attempt)
        await self._mesh.nodes[server].server.facts.append(
            facts.AttemptStarted(attempt, server, "disk"),
            facts.JobLog(attempt, (line,)),
            facts.AttemptExceptions(attempt, (exception,)),
        )
        return attempt

    async def end(self, server: str, attempt: str) -> None:
        self._running.discard(attempt)
        end = facts.AttemptEnded(attempt, AttemptState.SUCCEEDED_WITH_EXCEPTIONS, Counts(), 1.0)
        await self._mesh.nodes[server].server.facts.append(end)

    async def seen(self, attempt: str) -> tuple[str | None, int, int]:
        """The state, and how many log lines and exceptions, as the administrator has them."""
        tables = self._mesh.nodes["alpha"].seat.voter.tables
        rows = await tables._rows("SELECT state FROM attempt WHERE id = ?", (attempt,))
        logs = await tables._rows("SELECT count(*) FROM log_line WHERE attempt = ?", (attempt,))
        history = await tables._rows("SELECT count(*) FROM exception WHERE attempt = ?", (attempt,))
        return (rows[0][0] if rows else None), logs[0][0], history[0][0]

    async def go(self, server: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Log lines and exceptions that the administrator has while a job runs, and after its end."""
        attempt = await self.begin(server)
        await self._until(attempt, "running")
        running = (await self.seen(attempt))[1:]
        await self.end(server, attempt)
        await self._until(attempt, "succeeded-with-exceptions")
        return running, (await self.seen(attempt))[1:]

    async def _until(self, attempt: str, state: str) -> None:
        async def told() -> bool:
            return (await self.seen(attempt))[0] == state

        await wait_for_async(told, 60.0, every_s=0.5, what=f"the administrator knows that {attempt} is {state}")
        await asyncio.sleep(5.0)  # virtual: whatever else is to be told has come


async def put(mesh: MemoryMesh, name: str, value: str | None, *servers: str, **scope: str) -> None:
    """Until the servers know it."""
    await mesh.call("alpha", "settings.set", q.SettingSet(name, value, **scope), v.SettingList)
    shown = await mesh.call("alpha", "settings.list", q.SettingsListRequest(**scope), v.SettingList)
    (now,) = [row.value for row in shown.settings if row.name == name]

    async def known() -> bool:
        return all(str(mesh.nodes[each].server.orders.settings[name]) == str(now) for each in servers)

    await wait_for_async(known, 60.0, every_s=0.5, what=f"{servers} know {name}")


AT_ONCE = ((1, 0), (1, 1))
LOG_AT_END = ((0, 0), (1, 1))
NO_LOG = ((0, 0), (0, 1))


@pytest.mark.jumping
async def test_logs_and_histories_are_forwarded_as_the_default_says_also_of_new_servers_or_the_pool_or_the_server(
    memory_mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(monkeypatch)
    mesh: MemoryMesh = await memory_mesh(2)
    jobs.at(mesh)
    assert await jobs.go("beta") == AT_ONCE
    # of all, those that join later included
    await put(mesh, "joblog-forwarding", "at-end", "beta")
    await mesh.join("gamma")
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    assert await jobs.go("beta") == await jobs.go("gamma") == LOG_AT_END
    # of all of a pool, where it is narrower than the default
    await mesh.add_pool("west", "beta")
    await put(mesh, "joblog-forwarding", "never", "beta", pool="west")
    assert (await jobs.go("beta"), await jobs.go("gamma")) == (NO_LOG, LOG_AT_END)
    await put(mesh, "history-forwarding", "never", "beta", pool="west")
    assert (await jobs.go("beta"), await jobs.go("gamma")) == (((0, 0), (0, 0)), LOG_AT_END)
    # of one server, which counts more than its pool; what was held back leaves then
    held = await jobs.begin("beta")
    await put(mesh, "joblog-forwarding", "at-once", "beta", server="beta")
    await put(mesh, "history-forwarding", "at-end", "beta", server="beta")
    assert (await jobs.go("beta"), await jobs.go("gamma")) == (AT_ONCE, LOG_AT_END)

    async def let_go() -> bool:
        return (await jobs.seen(held))[1:] == (1, 1)

    await jobs.end("beta", held)
    await wait_for_async(let_go, 120.0, every_s=1.0, what="what was held back has come")


@pytest.mark.jumping
async def test_logs_of_a_pool_are_forwarded_on_a_schedule_in_its_hours_alone(
    memory_mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is Monday, midnight in UTC, when a mesh in memory begins."""
    jobs = Jobs(monkeypatch)
    mesh: MemoryMesh = await memory_mesh(2)
    jobs.at(mesh)
    await mesh.add_pool("west", "beta")
    await put(mesh, "joblog-forwarding", "zone UTC; mon 00:03-00:05", "beta", pool="west")

    async def is_later_than(minutes: float) -> None:
        past_s = (mesh.clock("beta").now_ns() - EPOCH_NS) / 1e9
        assert past_s < minutes * 60.0
        await asyncio.sleep(minutes * 60.0 - past_s)

    assert await jobs.go("beta") == NO_LOG
    attempt = await jobs.begin("beta")
    await jobs.end("beta", attempt)
    await is_later_than(2.9)
    assert (await jobs.seen(attempt))[1:] == (0, 1)
    await is_later_than(3.3)
    assert (await jobs.seen(attempt))[1:] == (1, 1), "all that has gathered comes when the hour has come"
    assert await jobs.go("beta") == AT_ONCE
    await is_later_than(5.1)
    assert await jobs.go("beta") == NO_LOG, "the hour is over"


@pytest.mark.jumping
async def test_the_status_interval_of_a_job_is_that_of_its_server_its_pool_or_the_default(
    memory_mesh, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a worker keeps it: tests/jobs/test_jobs_faults."""
    started, start = list[float](), ThreadRunner.start

    async def noted(runner: ThreadRunner, task: Task) -> object:
        started.append(task.status_interval_s)
        return await start(runner, task)

    monkeypatch.setattr(ThreadRunner, "start", noted)
    tree = make_tree(tmp_path / "data", files=2)
    mesh: MemoryMesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await mesh.add_pool("west", "beta")
    scopes: list[dict[str, str]] = [{}, {"pool": "west"}, {"server": "beta"}]
    for number, scope in enumerate(scopes):
        await put(mesh, "status-interval-s", f"{20 + number}", "beta", **scope)
        assert (await mesh.result((await mesh.backup("beta", tree, "server:beta")).run)).state == "succeeded"
        assert started and set(started) == {20.0 + number}
        started.clear()
