"""What the office makes of queues on hold, of history, and of space; and what it says of who waits."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.model import nodes as n
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.documents import DevicePoolDoc, PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import UsageError, WrongState
from caso_mesh.model.jobs import Counts, Progress
from caso_mesh.model.states import AttemptState, Priority, RunState

pytestmark = pytest.mark.jumping
SECOND = 1_000_000_000


async def view_of(w: World, run: str) -> o.JobView:
    listed = await w.ask("job.list", q.JobListRequest(state="all"))
    return next(each for each in listed.jobs if each.run == run)


async def waits(w: World, run: str, reason: str) -> o.JobView:
    """The view of a run once it waits for that."""

    def found() -> Any:
        waiting = w.office.means.live.waiting.get((run, w.state.run(run).parts[0].source))
        return waiting is not None and waiting.reason == reason

    await w.until(found)
    return await view_of(w, run)


async def ran(w: World, run: str, number: int = 1, **fields: Any) -> Any:
    """The attempt of a run, after it made a set."""
    attempt = await w.delegated(run, number)
    made = w.made_set(attempt, **fields)
    await w.report("beta" if attempt.server == node("beta") else "gamma", *w.success(attempt, made))
    await w.until(lambda: w.state.run(run).state is RunState.SUCCEEDED)
    return attempt


async def test_what_is_in_a_queue_on_hold_waits_and_says_how_to_release_it(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("queue.hold", q.QueueHold(True, server="beta"))
        run = await w.backup(to="device:dbeta")
        view = await waits(w, run, "queue-on-hold")
        assert view.reason_text == "the queue is on hold: beta"
        assert (
            view.reason_ends
            == "ends when the queue of one of these is released, with caso-mesh server release-queue NAME: beta"
        )
        other = await w.backup(source="gamma")
        assert (await w.delegated(other)).server == node("gamma")
        servers = await w.ask("queue.hold", q.QueueHold(False, server="beta"))
        assert not any(each.queue_on_hold for each in servers.servers)
        await w.delegated(run)


async def test_all_queues_are_held_and_one_of_them_or_all_are_released(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        servers = await w.ask("queue.hold", q.QueueHold(True))
        assert all(each.queue_on_hold for each in servers.servers)
        one, other = await w.backup(to="device:dbeta"), await w.backup(source="gamma", to="device:dgamma")
        await waits(w, one, "queue-on-hold")
        await w.ask("queue.hold", q.QueueHold(False, server="beta"))
        await w.delegated(one)
        await waits(w, other, "queue-on-hold")
        await w.ask("queue.hold", q.QueueHold(True, pool="p"))
        servers = await w.ask("queue.hold", q.QueueHold(False))
        assert not any(each.queue_on_hold for each in servers.servers)
        await w.delegated(other)
        with pytest.raises(UsageError):
            await w.ask("queue.hold", q.QueueHold(True, server="beta", pool="p"))


async def learnt(w: World) -> None:
    """History is read once a minute."""
    began = w.clock.monotonic_s()
    await w.until(lambda: w.clock.monotonic_s() > began + 61, 70)


async def test_who_waits_for_a_device_is_told_when_history_expects_it_to_be_idle(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("device.set", q.DeviceSet("dbeta", concurrency=1))
        start = w.clock.now_ns()
        first = await w.backup(to="device:dbeta", name="nightly")
        await ran(w, first, started_at_ns=start, ended_at_ns=start + 600 * SECOND)
        await learnt(w)
        again = str((await w.ask("job.run", q.JobName("nightly"))).run)
        attempt = await w.delegated(again)
        waiting = await w.backup(source="gamma", to="device:dbeta")
        view = await waits(w, waiting, "no-idle-device")
        expected = view.reason_fields["expected"]
        assert (
            view.reason_ends
            == f"ends when a job on one of these ends: dbeta; the first is expected to end at {expected}"
        )
        from_start = w.office.runs.delegation._learning.running(w.state)[0][attempt.id] - attempt.delegated_at_ns
        assert from_start == pytest.approx(600 * SECOND)
        # what it reports itself counts for more
        done = Progress(attempt.id, AttemptState.RUNNING, Counts(bytes=50), w.clock.now_ns(), 30.0, total_bytes=100)
        await w.node_call(attempt.server, "attempt.progress", n.ProgressReport((done,)))
        ends = w.office.runs.delegation._learning.running(w.state)[0][attempt.id]
        assert ends - w.clock.now_ns() == pytest.approx(30 * SECOND, abs=SECOND)


async def test_what_a_job_will_store_is_reserved_on_its_device_while_it_runs(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("device.set", q.DeviceSet("dbeta", concurrency=4, low_space_bytes=100))
        w.free_bytes = 1000
        first = await w.backup(to="device:dbeta", name="nightly")
        await ran(w, first, bytes_stored=9000)
        await ran(w, str((await w.ask("job.run", q.JobName("nightly"))).run), bytes_stored=700)
        await learnt(w)
        again = str((await w.ask("job.run", q.JobName("nightly"))).run)
        attempt = await w.delegated(again)
        other = await w.backup(source="gamma", to="device:dbeta", name="other")
        await ran(w, other)  # what nobody can predict is let in
        w.free_bytes = 700
        await w.heartbeat(node("beta"))
        third = await w.backup(source="gamma", to="device:dbeta")
        view = await waits(w, third, "device-low-on-space")
        assert view.reason_fields == {"devices": ["dbeta"]}
        # what is stored already is not reserved any more
        done = Progress(attempt.id, AttemptState.RUNNING, Counts(bytes_stored=700), w.clock.now_ns(), 30.0)
        await w.node_call(attempt.server, "attempt.progress", n.ProgressReport((done,)))
        await w.delegated(third)


async def test_a_waiting_run_gets_another_priority_and_goes_first_and_a_job_with_all_of_its_runs(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("queue.hold", q.QueueHold(True))
        await w.ask("device.set", q.DeviceSet("dbeta", concurrency=1))
        runs = [await w.backup(to="device:dbeta", name=f"job{number}") for number in range(3)]
        await w.ask("job.set", q.JobSet(runs[2], Priority.HIGH))
        await w.ask("job.set", q.JobSet("job1", Priority.HIGHEST))
        assert [(await view_of(w, run)).priority for run in runs] == ["medium", "highest", "high"]
        await w.ask("queue.hold", q.QueueHold(False))
        for run in (runs[1], runs[2], runs[0]):
            await ran(w, run)
        with pytest.raises(WrongState):
            await w.ask("job.set", q.JobSet(runs[0], Priority.LOW))


async def test_of_hundreds_of_ready_runs_each_is_delegated_once_and_what_came_meanwhile_goes_by_its_priority(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        for name in ("server-concurrency", "source-concurrency"):
            await w.ask("settings.set", q.SettingSet(name, "256"))
        await w.ask("device.set", q.DeviceSet("dbeta", concurrency=256))
        await w.ask("queue.hold", q.QueueHold(True))
        runs = [await w.backup(to="device:dbeta", name=f"job{number}") for number in range(200)]
        released = asyncio.create_task(w.ask("queue.hold", q.QueueHold(False)))
        while not w.state.active_attempts():
            await w.keeper.wait_change(w.keeper.position.index)
        urgent = await w.backup(to="device:dbeta", priority=Priority.HIGHEST)
        await w.until(lambda: len(w.state.active_attempts()) == 201)
        await released
        assert all(w.state.run(run).parts[0].attempts == 1 for run in runs)
        order = list(w.state.attempts)
        assert order.index(f"{urgent}#1") < 200


async def test_a_server_that_used_up_its_quota_gets_nothing_more_on_that_device(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        view = await w.ask("device.set", q.DeviceSet("dbeta", quotas={"beta": 500}))
        assert view.quotas == {"beta": 500}
        await ran(w, await w.backup(to="device:dbeta"), bytes_stored=500)
        second = await w.backup(to="device:dbeta")
        await waits(w, second, "device-low-on-space")
        view = await w.ask("device.set", q.DeviceSet("dbeta", quotas={"beta": None}))
        assert view.quotas == {}
        await w.delegated(second)


async def test_a_device_that_holds_sets_of_the_source_is_preferred_also_after_a_change_of_office(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await ran(w, await w.backup(to="device:dgamma"))
        assert (await w.delegated(await w.backup())).device == "dev-gamma"
        await w.another_office()
        assert (await w.delegated(await w.backup(source="alpha", name="later"))).device == "dev-gamma"


async def test_a_device_that_its_servers_have_no_key_for_is_waited_for_and_that_is_said(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        w.problem["dev-beta"] = "no-key"
        await w.until(lambda: w.facts.alerts("device-error"))
        run = await w.backup(to="device:dbeta")
        shown = await waits(w, run, "no-key-for-device")
        assert shown.reason_ends == "ends when the server has been handed the key of dbeta"
        del w.problem["dev-beta"]
        await w.delegated(run)


async def test_of_a_device_pool_the_smallest_number_that_is_free_is_taken_and_a_list_is_written_only_by_whom_it_says(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        pool = DevicePoolDoc(("dgamma:10", "dbeta:20"))
        await w.ask("device-pool.create", q.DevicePoolEdit("disks", pool))
        for device in ("dbeta", "dgamma"):
            await w.ask("device.set", q.DeviceSet(device, None, concurrency=1))
        first = await w.delegated(await w.backup(to="devices:disks"))
        second = await w.delegated(await w.backup(to="devices:disks"))
        assert [first.device, second.device] == ["dev-gamma", "dev-beta"]
        for attempt, name in ((first, "gamma"), (second, "beta")):
            await w.report(name, *w.success(attempt))
        only = SelectionDoc(("alpha:/srv",), within="server:beta")
        await w.ask("selection.create", q.SelectionCreate("only", only))
        await w.ask("policy.create", q.PolicyCreate("p", PolicyDoc({"full": TemplateDoc("full", to="devices:disks")})))
        await w.ask("associate", q.AssociationEdit("only", "p"))
        run = str((await w.ask("job.run", q.JobName("only.p.full"))).run)
        assert (await w.delegated(run)).device == "dev-beta", "the one with the smaller number is not of that server"
