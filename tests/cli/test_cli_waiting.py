"""``--wait`` and ``job watch``: exit statuses, streams, bars, restarts of the daemon, Ctrl-C."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import msgspec
import pytest
from cli_world import FakeDaemon, Shell, material
from waiting import in_one_of_three

from caso_mesh.cli.bars import Bars
from caso_mesh.cli.program import run_inside
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NoAdmin

RUN = "job1@1"
SUBMITTED = o.Submitted("job1", RUN, "backup-alpha", None, ("a device is inside of it",))


def part(state: str = "running", percent: float | None = None, **fields: Any) -> o.JobView:
    values: dict[str, Any] = {
        "job": "job1", "name": "n", "kind": "backup", "run": RUN, "attempt": f"{RUN}#1", "state": state, "type": "full",
        "priority": "medium", "source": "alpha", "server": "beta", "device": "disk1", "reason": None,
        "reason_fields": {}, "reason_text": None, "percent": percent, "files": 0, "bytes": 0, "bytes_read": 0,
        "bytes_stored": 0, "rate": 0.0, "path": None, "due": None, "started": None, "ended": None,
    }  # fmt: skip
    return o.JobView(**{**values, **fields})


def result(state: str, **fields: Any) -> o.RunResult:
    values: dict[str, Any] = {
        "job": "job1", "run": RUN, "attempt": f"{RUN}#1", "state": state, "type": "full", "server": "beta",
        "device": "disk1", "set": "set1", "sets": (o.SetOutcome("alpha", "set1", state),), "files": 10, "bytes": 2000,
        "bytes_read": 1000, "bytes_stored": 300, "seconds": 1.5, "exceptions": (),
    }  # fmt: skip
    return o.RunResult(**{**values, **fields})


def progress(state: str, *parts: o.JobView, done: o.RunResult | None = None) -> o.RunProgress:
    return o.RunProgress(RUN, state, parts, done)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caso_mesh.cli.waiting._WAIT_S", 0.01)
    monkeypatch.setattr("caso_mesh.cli.waiting._SILENT_WAIT_S", 0.02)


async def test_the_end_of_a_restore_says_where_its_files_are_and_so_does_the_job(
    daemon: FakeDaemon, shell: Shell
) -> None:
    places = tuple(o.Destination("alpha", f"/srv/{n}", "beta", f"/back/srv/{n}") for n in range(23))
    done = result("succeeded", type=None, destinations=places)
    daemon.answers["restore"] = SUBMITTED
    daemon.answers["run.follow"] = progress("succeeded", part("succeeded"), done=done)
    plain = await shell("restore", "set1", "--wait")
    assert "goes to  beta:/back/srv/0 from alpha:/srv/0" in plain.out
    assert "goes to  3 more: --json lists them" in plain.out
    assert len((await shell("restore", "set1", "--wait", "--json")).document["destinations"]) == 23
    left = (o.Destination("alpha", None, "beta", "/back"),)
    daemon.answers["job.show"] = o.JobDetail(
        "job1", "n", "restore", "active", "medium", "2025-01-01T00:00:00Z", "ann", None, None, None, {}, (),
        destinations=left,
    )  # fmt: skip
    assert "goes to   beta:/back\n" in (await shell("job", "show", "job1")).out


@pytest.mark.parametrize(
    ("ends_as", "status"),
    [
        ("succeeded", 0),
        ("succeeded-with-exceptions", 7),
        ("failed", 1),
        ("canceled", 1),
        ("timed-out", 1),
        ("missed", 1),
    ],
)
@pytest.mark.parametrize("command", ["backup alpha:/x --to any", "restore set1", "verify set1", "job run nightly"])
async def test_the_exit_status_of_wait_is_the_state_of_the_run_and_json_is_its_result(
    daemon: FakeDaemon, shell: Shell, command: str, ends_as: str, status: int
) -> None:
    words = command.split()
    done = result(ends_as, exceptions=(o.ExceptionView("/x/y", "vanished"),))
    daemon.answers["job.run" if words[0] == "job" else words[0]] = SUBMITTED
    daemon.answers["run.follow"] = progress(ends_as, part(ends_as), done=done)
    as_json = await shell(*words, "--wait", "--json")
    assert as_json.status == status
    assert msgspec.convert(as_json.document, o.RunResult) == done
    assert "a device is inside of it" in as_json.err
    plain = await shell(*words, "--wait")
    assert plain.status == status
    assert "set1" in plain.out
    assert "/x/y: vanished" in plain.err


async def test_of_many_exceptions_the_first_are_listed_and_the_command_for_all(
    daemon: FakeDaemon, shell: Shell
) -> None:
    lost = tuple(o.ExceptionView(f"/x/{number:03}", "vanished") for number in range(103))
    daemon.answers["verify"] = SUBMITTED
    done = result("succeeded-with-exceptions", exceptions=lost)
    daemon.answers["run.follow"] = progress(done.state, part(done.state), done=done)
    plain = await shell("verify", "set1", "--wait")
    assert plain.err.count("vanished") == 100
    assert f"3 more; caso-mesh job watch {done.run} --json lists all" in plain.err


async def test_waiting_goes_on_until_the_facts_have_arrived(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["verify"] = SUBMITTED
    daemon.answers["run.follow"] = [
        progress("ready", part("ready")),
        progress("running", part(percent=10.0)),
        progress("succeeded", part("succeeded")),
        progress("succeeded", part("succeeded"), done=result("succeeded")),
    ]
    assert (await shell("verify", "set1", "--wait")).status == 0
    assert [each.request for each in daemon.received[1:]] == [q.RunFollow(RUN, 0.02, until_end=True)] * 4


async def test_what_a_run_waits_for_is_told_once_to_whoever_reads_a_log(daemon: FakeDaemon, shell: Shell) -> None:
    """A command in a script said nothing for as long as the pool of its target was empty."""
    waits = part(
        "ready", reason="device-paused", reason_text="paused: disk1", reason_ends="ends when one of these is resumed"
    )
    daemon.answers["verify"] = SUBMITTED
    daemon.answers["run.follow"] = [
        *[progress("ready", waits)] * 3,
        progress("succeeded", part("succeeded"), done=result("succeeded")),
    ]
    told = await shell("verify", "set1", "--wait")
    assert told.err.count("job1@1 waits: paused: disk1; it ends when one of these is resumed") == 1


async def test_json_lines_are_the_changes_and_end_with_the_result(daemon: FakeDaemon, shell: Shell) -> None:
    records = [progress("running", part(percent=each)) for each in (10.0, 10.0, 20.0)]
    records.append(
        progress("failed", part("failed"), done=result("failed", error={"code": "x", "message": "m", "hint": ""}))
    )
    daemon.answers["backup"] = SUBMITTED
    daemon.answers["run.follow"] = list(records)
    told = await shell("backup", "alpha:/x", "--to", "any", "--wait", "--json-lines")
    assert told.status == 1
    lines = [msgspec.convert(json.loads(line), o.RunProgress) for line in told.out.splitlines()]
    assert lines == [records[0], records[2], records[3]]
    asked = [each.request for each in daemon.received if each.call == "run.follow"]
    assert asked == [q.RunFollow(RUN, 0.01)] * 4  # whoever is told of the way asks for it
    daemon.answers["run.follow"] = list(records)
    assert (await shell("job", "watch", RUN, "--json-lines")).out == told.out


async def test_why_a_run_failed_is_told_to_people(daemon: FakeDaemon, shell: Shell) -> None:
    error = {"code": "device-full", "message": "The device disk1 is full.", "hint": "Free space on it."}
    daemon.answers["run.follow"] = progress("failed", done=result("failed", error=error, set=None))
    told = await shell("job", "watch", RUN)
    assert told.status == 1
    assert "failed: The device disk1 is full. Free space on it." in told.err


async def test_watch_takes_a_job_and_an_attempt_too(daemon: FakeDaemon, shell: Shell) -> None:
    newest = o.RunView(RUN, "running", "2025-01-01T00:00:00Z", None, (), ())
    daemon.answers["job.show"] = o.JobDetail(
        "job1", "nightly", "backup", "active", "medium", "", "x", None, None, None, {}, (newest,)
    )
    daemon.answers["run.follow"] = progress("succeeded", done=result("succeeded"))
    assert (await shell("job", "watch", "nightly")).status == 0
    assert (await shell("job", "watch", f"{RUN}#1")).status == 0
    assert [each.request for each in daemon.received if each.call == "run.follow"] == [
        q.RunFollow(RUN, 0.02, until_end=True)
    ] * 2
    daemon.answers["job.show"] = msgspec.structs.replace(daemon.answers["job.show"], runs=())
    assert (await shell("job", "watch", "nightly")).status == 5


async def test_a_restart_of_the_daemon_does_not_end_waiting(state: Any, shell: Shell) -> None:
    first, second = FakeDaemon(state, material()), FakeDaemon(state, material())
    first.answers["verify"] = SUBMITTED
    second.answers["run.follow"] = progress("succeeded", done=result("succeeded"))
    asked = asyncio.Event()

    def running(_: q.RunFollow) -> o.RunProgress:
        asked.set()
        return progress("running", part(percent=10.0))

    first.answers["run.follow"] = running
    async with asyncio.TaskGroup() as group:
        async with first.listening():
            waiting = group.create_task(shell("verify", "set1", "--wait"))
            await asked.wait()
        async with second.listening():
            assert (await waiting).status == 0


async def test_being_without_an_answer_for_longer_than_the_timeout_ends_waiting(
    daemon: FakeDaemon, shell: Shell
) -> None:
    daemon.answers["verify"] = SUBMITTED

    async def attempt() -> None:
        daemon.answers["run.follow"] = [progress("running", part()), NoAdmin(server="alpha")]
        told = await shell("verify", "set1", "--wait", "--json", "--timeout", "1500ms")
        assert (told.status, told.document["error"]["code"]) == (3, "no-admin")
        assert "The job goes on" in told.err

    await in_one_of_three(attempt)


async def test_a_call_that_is_on_its_way_when_the_connection_breaks_is_asked_again(
    daemon: FakeDaemon, shell: Shell
) -> None:
    async def drop(_: q.RunFollow) -> o.RunProgress:
        if len(daemon.links) == 1:
            (link,) = daemon.links
            await link.close()
            await asyncio.Event().wait()  # the end of the link cancels this
        return progress("succeeded", done=result("succeeded"))

    daemon.answers.update({"verify": SUBMITTED, "run.follow": drop})
    assert (await shell("verify", "set1", "--wait")).status == 0
    assert [each.call for each in daemon.received] == ["verify", "run.follow", "run.follow"]
    assert daemon.received[1].request_id == daemon.received[2].request_id


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, text in {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"}.items():
        monkeypatch.setenv(name, text)
    return Terminal()


async def test_bars_move_on_a_terminal_and_go_away_at_the_end(
    daemon: FakeDaemon, shell: Shell, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", terminal)
    daemon.answers["verify"] = msgspec.structs.replace(SUBMITTED, warnings=())
    daemon.answers["run.follow"] = [
        progress("running", part(percent=37.0)),
        progress("succeeded", done=result("succeeded")),
    ]
    told = await shell("verify", "set1", "--wait", "--json")
    assert told.document["state"] == "succeeded"
    assert "\x1b[" in terminal.getvalue()


def test_a_bar_shows_percent_files_bytes_rate_time_left_and_path(terminal: Terminal) -> None:
    now = [100.0]
    bars = Bars(terminal, clock=lambda: now[0])
    bars.update(progress("running", part(percent=10.0)))
    now[0] += 30.0
    bars.update(
        progress("running", part(percent=40.0, files=5, bytes=2_000_000, rate=1_500_000.0, path="/srv/\x1b[2Jx"))
    )
    bars._progress.refresh()
    bars.close()
    bars.close()
    shown = terminal.getvalue()
    for text in ("backup alpha -> disk1 running", "40 %", "5 files, 2.0 MB, 1.5 MB/s", "1m 00s left", "/srv/\\x1b[2Jx"):
        assert text in shown, text
    assert "\x1b[2Jx" not in shown


def test_a_bar_without_percent_pulses_and_says_why_the_run_waits(terminal: Terminal) -> None:
    bars = Bars(terminal)
    bars.update(progress("ready", part("ready", reason_text="all devices of the target are busy: disk1")))
    bars._progress.refresh()
    (task,) = bars._progress.tasks
    bars.close()
    assert task.total is None
    assert "all devices of the target are busy: disk1" in terminal.getvalue()


async def test_tables_are_drawn_on_a_terminal_and_colours_obey_no_color(
    daemon: FakeDaemon, shell: Shell, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = v.ServerView("beta", "b" * 52, "enabled", True, False, True, (), "[link=x]10.0.0.2:1[/link]", "0.1")
    daemon.answers["server.list"] = v.ServerList((server,))
    daemon.answers["pool.delete"] = NoAdmin(server="alpha")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    argv = ["server", "list", "--state", str(shell.state)]
    assert await run_inside(argv) == 0
    coloured = terminal.getvalue()
    assert "\x1b[32menabled" in coloured
    assert "─" in coloured
    assert "[link=x]10.0.0.2:1[/link]" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.seek(0)
    terminal.truncate()
    assert await run_inside(argv) == 0

    async def attempt() -> None:
        assert await run_inside(["pool", "delete", "x", "--timeout", "1s", "--state", str(shell.state)]) == 3
        assert "error: No administrator" in terminal.getvalue()

    await in_one_of_three(attempt)
    assert "enabled" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()
