"""Attempts of a server, over scripted workers and a folder that survives its daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from server_world import (
    ADMIN,
    NODE,
    FakeRunner,
    ScriptedWorker,
    World,
    backs_up,
    backup_set,
    changed,
    daemon,
    order,
    orders,
)
from waiting import wait_for_async

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import bulk_token
from caso_mesh.model import facts
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.errors import DeviceFull, StateFull, TimedOut
from caso_mesh.model.jobs import Counts, Failure, RestoreSpec
from caso_mesh.model.mesh import RosterRow
from caso_mesh.model.orders import Authority, SecondEnd
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import Medium

GOOD = AttemptState.SUCCEEDED


class Mortal:
    """A database of a daemon that is killed at its n-th write, just before or just after the commit: from then on
    nothing returns."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write(self, fn: Any) -> Any:
        self._fate.writes += 1
        if self._fate.writes > self._fate.last or (self._fate.writes == self._fate.last and not self._fate.commits):
            await self._fate.die()
        result = await self._inner.write(fn)
        if self._fate.writes == self._fate.last:
            await self._fate.die()
        return result


class Fate:
    def __init__(self, last: int, commits: bool) -> None:
        self.last, self.commits, self.writes = last, commits, 0
        self.dead = asyncio.Event()

    async def die(self) -> None:
        self.dead.set()
        await asyncio.get_running_loop().create_future()


async def test_a_good_backup_is_told_from_start_to_end_in_order(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with daemon(tmp_path, world, FakeRunner(backs_up(world))) as d:
        d.attempts.use(orders(order()))
        await wait_for_async(d.ends)
        kinds = [facts.fact_kind(fact) for fact in await d.all_facts()]
        assert kinds == [
            "job-log", "attempt-started", "publishing", "set-published", "catalog-detail", "medium-changed",
            "attempt-ended",
        ]  # fmt: skip
        assert [p.counts.files for p in d.reported] == [1]
        assert d.attempts.holding() == ()


async def test_what_a_worker_logged_is_written_in_one_step_with_what_it_says_next(tmp_path: Path) -> None:
    """Each write is a wait for the disk, and makes the administrator look: a small job has few of them."""
    world = World(tmp_path)

    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        plain = worker.task.order.end == "both"
        yield say.Began(None, lines=(facts.LogLine(1, "info", "begins"),))
        failure = Failure(code=DeviceFull.code, fields={"device": "d"})
        lines = (facts.LogLine(2, "error", "full"), facts.LogLine(3, "error", "ended"))
        yield say.Ended(
            AttemptState.FAILED if plain else AttemptState.CANCELED, Counts(), 0.1, None, None, failure, lines
        )

    for end, expected in (
        ("both", ["job-log", "attempt-started", "job-log", "attempt-ended"]),
        ("source", ["job-log", "job-log"]),  # the other end tells how it goes
    ):
        folder = tmp_path / end
        folder.mkdir()
        async with daemon(folder, world, FakeRunner(script)) as d:
            d.attempts.use(orders(order(end=end)))
            await wait_for_async(lambda d=d: not d.attempts.holding() and d.attempts._held)
            kinds = [facts.fact_kind(fact) for fact in await d.all_facts()]
            assert kinds[-len(expected) :] == expected
            written = [line.text for log in await d.of(facts.JobLog) for line in log.lines]
            assert written[-3:] == ["begins", "full", "ended"]


async def test_what_runs_is_given_the_ticket_of_the_term_that_its_server_knows(tmp_path: Path) -> None:
    """The two ends of an attempt may have begun under different administrators, and then refused each other."""

    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        await worker.wait_for(say.Term)
        yield say.Ended(AttemptState.CANCELED, Counts(), 0.1)

    one, other = (
        order(end="source", ticket=ticket, second=SecondEnd("j@1#2", "third", "dev", number, b"secret"))
        for ticket, number in ((b"one", b"1"), (b"two", b"2"))
    )
    row = RosterRow(ADMIN, "admin", "node", b"its key", b"")
    later = orders(other, index=2)
    later = structs.replace(later, authority=Authority(1, 2, 2), roster=structs.replace(later.roster, rows=(row,)))
    runner = FakeRunner(script)
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(one))
        await wait_for_async(d.attempts.running)
        d.attempts.use(orders(one, index=2))
        d.attempts.use(later)
        await wait_for_async(lambda: not d.attempts.holding() and d.attempts._held)
        told = [each for each in runner.workers[one.attempt].heard if isinstance(each, say.Term)]
        assert told == [say.Term({one.attempt: b"two", "j@1#2": b"2"}, b"its key", (1, 2))]


@pytest.mark.parametrize("commits", [False, True])
async def test_killed_at_any_write_the_attempt_has_exactly_one_end_and_it_is_true(
    tmp_path: Path, commits: bool
) -> None:
    for last in range(1, 40):
        folder = tmp_path / f"{last}"
        folder.mkdir()
        world, fate = World(folder), Fate(last, commits)
        finished = False
        async with daemon(folder, world, FakeRunner(backs_up(world)), wrap=lambda db, f=fate: Mortal(db, f)) as d:
            d.attempts.use(orders(order()))
            dead = asyncio.create_task(fate.dead.wait())
            done = asyncio.create_task(wait_for_async(lambda: not d.attempts.holding() and d.attempts._held))
            await asyncio.wait([dead, done], return_when=asyncio.FIRST_COMPLETED)
            finished = done.done()
            for task in (dead, done):
                task.cancel()
            await asyncio.gather(dead, done, return_exceptions=True)
        async with daemon(folder, world, FakeRunner(backs_up(world))) as d:
            d.attempts.use(orders(order()))
            end = (await wait_for_async(d.ends))[0]
            await wait_for_async(lambda: not d.attempts.holding())
            assert len(await d.ends()) == 1, last
            published = await d.of(facts.SetPublished)
            assert (end.state is GOOD) == bool(world.vault), last
            assert {fact.set.id for fact in published} == set(world.vault), last
            media = [fact.medium for fact in await d.of(facts.MediumChanged)]
            assert {m.sets for m in media} <= {1}, "a set counts once on its medium"
        if finished:
            return
    raise AssertionError("the attempt was never finished")


async def test_a_set_in_a_device_that_is_away_at_the_start_is_found_when_the_device_is_back(tmp_path: Path) -> None:
    """It was reported as interrupted before: the run began again although its set was there."""
    world = World(tmp_path)

    async def dies_publishing(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.MayPublish(worker.task.set)
        await worker.wait_for(say.Publish)
        world.vault[worker.task.set] = backup_set(worker.task.set, worker.task.order, worker.task.medium)
        world.device_away = True
        await asyncio.Event().wait()

    async with daemon(tmp_path, world, FakeRunner(dies_publishing)) as d:
        d.attempts.use(orders(order()))
        await wait_for_async(lambda: world.device_away)
    again = FakeRunner(backs_up(world))
    async with daemon(tmp_path, world, again) as d:
        d.attempts.use(orders(order()))
        assert d.attempts.holding() == ("j@1#1",)
        assert await d.ends() == []
        world.device_away = False
        end = (await wait_for_async(d.ends))[0]
        assert end.state is GOOD and end.set in world.vault
        assert again.started == []


async def test_a_worker_that_dies_after_it_may_publish_is_not_called_interrupted_if_the_set_is_there(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)

    async def dies(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.MayPublish(worker.task.set)
        await worker.wait_for(say.Publish)
        world.vault[worker.task.set] = backup_set(worker.task.set, worker.task.order, worker.task.medium)

    async with daemon(tmp_path, world, FakeRunner(dies)) as d:
        d.attempts.use(orders(order()))
        assert [(end.state, end.set) for end in await wait_for_async(d.ends)] == [(GOOD, *world.vault)]
        # its catalog detail is not there, as after a loss of power: that is said, too, so that it is made anew
        assert await d.of(facts.CatalogDetail) == [facts.CatalogDetail(*world.vault, b"", 0)]


async def test_a_worker_that_fails_while_it_publishes_has_failed_if_the_set_is_not_there(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def fails(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.MayPublish(worker.task.set)
        await worker.wait_for(say.Publish)
        yield say.Ended(AttemptState.FAILED, Counts(), 1.0, failure=Failure("device-full", {"device": "d"}))

    async with daemon(tmp_path, world, FakeRunner(fails)) as d:
        d.attempts.use(orders(order()))
        (end,) = await wait_for_async(d.ends)
        assert end.state is AttemptState.FAILED and end.failure is not None and end.failure.code == "device-full"


async def test_a_worker_that_dies_early_was_interrupted(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def dies(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.Began()

    async with daemon(tmp_path, world, FakeRunner(dies)) as d:
        d.attempts.use(orders(order()))
        assert [end.state for end in await wait_for_async(d.ends)] == [AttemptState.INTERRUPTED]


def _works_until_canceled(started: asyncio.Event) -> Any:
    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.Began()
        started.set()
        await worker.wait_for(say.Cancel)
        yield say.Ended(AttemptState.CANCELED, Counts(), 1.0)

    return script


async def test_an_attempt_that_orders_cancel_ends_canceled_and_is_told_so_once(tmp_path: Path) -> None:
    world, started = World(tmp_path), asyncio.Event()
    runner = FakeRunner(_works_until_canceled(started))
    async with daemon(tmp_path, world, runner) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        for index in (2, 3, 4):
            d.attempts.use(orders(order(cancel=True), index=index))
            await asyncio.sleep(0)
        assert [end.state for end in await wait_for_async(d.ends)] == [AttemptState.CANCELED]
        assert runner.workers["j@1#1"].heard == [say.Cancel()]


async def test_a_worker_whose_attempt_is_over_though_nobody_canceled_it_is_told_why(tmp_path: Path) -> None:
    """Its job log said "canceled", and nobody had."""
    world, started = World(tmp_path), asyncio.Event()
    runner = FakeRunner(_works_until_canceled(started))
    async with daemon(tmp_path, world, runner) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        d.attempts.use(orders(index=2))
        await wait_for_async(d.ends)
        assert runner.workers["j@1#1"].heard == [say.Cancel("gamma ended it: there is nothing to read")]


async def test_what_is_canceled_before_it_began_never_starts_a_worker(tmp_path: Path) -> None:
    world = World(tmp_path)
    runner = FakeRunner(backs_up(world))
    async with daemon(tmp_path, world, runner) as d:
        d.attempts.use(orders(order(cancel=True)))
        assert [end.state for end in await wait_for_async(d.ends)] == [AttemptState.CANCELED]
        assert runner.started == []


async def test_a_worker_that_ignores_a_cancel_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caso_mesh.server.attempts.CANCEL_GRACE_S", 0.05)
    world, started = World(tmp_path), asyncio.Event()

    async def deaf(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.Began()
        started.set()
        await asyncio.Event().wait()

    async with daemon(tmp_path, world, FakeRunner(deaf)) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        d.attempts.use(orders(order(cancel=True), index=2))
        assert [end.state for end in await wait_for_async(d.ends)] == [AttemptState.CANCELED]


async def test_a_worker_is_killed_at_once_when_its_end_is_asked_for_by_force_also_after_it_was_asked_nicely(
    tmp_path: Path,
) -> None:
    world, started = World(tmp_path), asyncio.Event()

    async def deaf(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.Began()
        started.set()
        await asyncio.Event().wait()

    async with daemon(tmp_path, world, FakeRunner(deaf)) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        d.attempts.use(orders(order(cancel=True), index=2))
        await asyncio.sleep(0)
        d.attempts.use(orders(order(cancel=True, by_force=True), index=3))
        assert [end.state for end in await wait_for_async(d.ends)] == [AttemptState.CANCELED]


async def test_an_attempt_that_left_the_orders_is_ended_and_then_forgotten(tmp_path: Path) -> None:
    world, started = World(tmp_path), asyncio.Event()
    async with daemon(tmp_path, world, FakeRunner(_works_until_canceled(started))) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        d.attempts.use(orders(index=2))

        async def forgotten() -> bool:
            return await d.queue.attempts() == {}

        await wait_for_async(forgotten)
        assert len(await d.ends()) == 1


async def test_an_ended_attempt_that_late_orders_still_name_is_not_begun_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    runner = FakeRunner(backs_up(world))
    async with daemon(tmp_path, world, runner) as d:
        d.attempts.use(orders(order()))
        await wait_for_async(d.ends)
        d.attempts.use(orders(order(), index=2))
    async with daemon(tmp_path, world, runner) as d:
        d.attempts.use(orders(order(), order("j@2#1"), index=3))
        await wait_for_async(lambda: d.ends("j@2#1"))
        assert runner.started == ["j@1#1", "j@2#1"]


async def test_the_next_attempt_of_a_part_begins_only_when_the_one_before_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caso_mesh.server.attempts.CANCEL_GRACE_S", 0.05)
    world, started = World(tmp_path), asyncio.Event()
    first_ended = asyncio.Event()

    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        if worker.attempt.endswith("#1"):
            yield say.Began()
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                first_ended.set()
        assert first_ended.is_set()
        yield say.Ended(GOOD, Counts(), 1.0)

    async with daemon(tmp_path, world, FakeRunner(script)) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        d.attempts.use(orders(order("j@1#2", number=2), index=2))
        (second,) = await wait_for_async(lambda: d.ends("j@1#2"))
        assert second.state is GOOD
        assert [end.state for end in await d.ends("j@1#1")] == [AttemptState.CANCELED]


def restores(attempt: str = "j@1#1", **changes: Any) -> Any:
    return changed(order(attempt, **changes), spec=RestoreSpec(set="s", server=NODE))


@pytest.mark.parametrize("end", ["both", "source"])
async def test_a_restore_is_held_and_the_next_one_does_not_begin_while_a_process_of_it_hangs_in_a_file_system(
    tmp_path: Path, end: str
) -> None:
    """What was killed may still write there once that answers. Its end is told, for who canceled it waits for no file system."""
    runner = FakeRunner(_works_until_canceled(asyncio.Event()))
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(restores(end=end)))
        await wait_for_async(d.attempts.running)
        runner.workers["j@1#1"].left.clear()
        told = d.ended_writing
        d.attempts.use(orders(restores("j@1#2", number=2, end=end), index=2))
        await wait_for_async(lambda: d.attempts._held["j@1#1"].ended)
        await wait_for_async(lambda: "j@1#2" in d.attempts._running)
        assert d.attempts.holding() == ("j@1#1", "j@1#2") and d.attempts.running() == ()
        assert (runner.started, told) == (["j@1#1"], [])
        runner.workers["j@1#1"].left.set()
        await wait_for_async(lambda: runner.started == ["j@1#1", "j@1#2"])
        await wait_for_async(lambda: d.attempts.holding() == ("j@1#2",))
        await wait_for_async(lambda: told)


async def test_what_hangs_is_waited_for_also_where_its_end_could_not_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = FakeRunner(_works_until_canceled(asyncio.Event()))
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(restores()))
        await wait_for_async(d.attempts.running)
        runner.workers["j@1#1"].left.clear()

        async def full(*new: Any) -> None:
            raise StateFull(state="state")

        with monkeypatch.context() as patch:
            patch.setattr(d.facts, "append", full)
            d.attempts.use(orders(restores("j@1#2", number=2), index=2))
            await wait_for_async(lambda: runner.workers["j@1#1"].asked_whether_gone)
        assert runner.started == ["j@1#1"] and "j@1#1" in d.attempts.holding()
        runner.workers["j@1#1"].left.set()
        await wait_for_async(lambda: runner.started == ["j@1#1", "j@1#2"], 30.0)


async def test_what_waits_for_an_attempt_that_hangs_can_be_canceled(tmp_path: Path) -> None:
    runner = FakeRunner(_works_until_canceled(asyncio.Event()))
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(restores()))
        await wait_for_async(d.attempts.running)
        runner.workers["j@1#1"].left.clear()
        d.attempts.use(orders(restores("j@1#2", number=2), index=2))
        await wait_for_async(lambda: "j@1#2" in d.attempts._running)
        d.attempts.use(orders(restores("j@1#2", number=2, cancel=True), index=3))
        assert [end.state for end in await wait_for_async(lambda: d.ends("j@1#2"))] == [AttemptState.CANCELED]
        assert runner.started == ["j@1#1"]
        runner.workers["j@1#1"].left.set()


async def test_that_nothing_of_a_restore_is_left_is_told_once_the_orders_are_without_it(tmp_path: Path) -> None:
    runner = FakeRunner(_works_until_canceled(asyncio.Event()))
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(restores(), order("j@2#1")))
        await wait_for_async(lambda: len(d.attempts.running()) == 2)
        d.attempts.use(orders(restores(cancel=True), index=2))
        await wait_for_async(lambda: d.ends("j@1#1"))
        await wait_for_async(lambda: d.attempts.holding() == ())
        assert d.ended_writing == []  # its end is in the journal, and a backup that leaves is nobody's wait
        d.attempts.use(orders(index=3))
        await wait_for_async(lambda: d.ended_writing == [True])


async def test_the_end_of_an_erase_is_told_only_when_nothing_of_it_is_left(tmp_path: Path) -> None:
    """Another server may begin on that device as soon as it is told."""
    started = asyncio.Event()
    erase = changed(order(), spec=EraseSpec("dev", "another-vault"))
    runner = FakeRunner(_works_until_canceled(started))
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(erase))
        await started.wait()
        worker = runner.workers["j@1#1"]
        worker.left.clear()
        d.attempts.use(orders(changed(erase, cancel=True), index=2))
        await worker.wait_for(say.Cancel)
        await wait_for_async(lambda: worker.asked_whether_gone)
        assert await d.ends() == [] and d.attempts.holding() == ("j@1#1",)
        worker.left.set()
        assert [end.state for end in await wait_for_async(d.ends)] == [AttemptState.CANCELED]


async def test_an_attempt_that_leaves_its_source_as_it_was_is_not_killed_meanwhile_and_the_next_one_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed at once, and a database that its pre command had stopped stayed so for the next one."""
    monkeypatch.setattr("caso_mesh.server.attempts.CANCEL_GRACE_S", 0.05)
    cleans, done, canceled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.Began()
        if worker.attempt.endswith("#1"):
            yield say.CleansUp(60.0)
            cleans.set()
            await worker.wait_for(say.Cancel)
            canceled.set()
            await done.wait()
            yield say.Ended(AttemptState.CANCELED, Counts(), 1.0)
        yield say.Ended(GOOD, Counts(), 1.0)

    runner = FakeRunner(script)
    async with daemon(tmp_path, World(tmp_path), runner) as d:
        d.attempts.use(orders(order()))
        await cleans.wait()
        d.attempts.use(orders(order("j@1#2", number=2), index=2))
        await canceled.wait()
        await asyncio.sleep(0.3)  # longer than who does not clean up is given
        assert runner.started == ["j@1#1"] and not runner.workers["j@1#1"].dead.is_set()
        done.set()
        assert [end.state for end in await wait_for_async(lambda: d.ends("j@1#2"))] == [GOOD]


async def test_the_end_at_the_source_leaves_the_telling_to_the_device_unless_it_died(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def script(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        yield say.Began()
        if worker.attempt.startswith("j@1"):
            yield say.Ended(GOOD, Counts(), 1.0)

    async with daemon(tmp_path, world, FakeRunner(script)) as d:
        d.attempts.use(orders(order(end="source"), order("j@2#1", end="source")))
        (died,) = await wait_for_async(lambda: d.ends("j@2#1"))
        assert died.state is AttemptState.INTERRUPTED
        await wait_for_async(lambda: not d.attempts.holding())
        assert await d.ends("j@1#1") == [] and await d.of(facts.AttemptStarted) == []


@pytest.mark.parametrize(
    ("error", "state"),
    [(DeviceFull(device="d"), AttemptState.FAILED), (TimedOut(what="d", seconds=1), AttemptState.INTERRUPTED)],
)
async def test_what_cannot_start_has_failed_unless_it_may_pass_by_itself(
    tmp_path: Path, error: Exception, state: AttemptState
) -> None:
    world = World(tmp_path)
    world.make_fails = error
    async with daemon(tmp_path, world, FakeRunner(backs_up(world))) as d:
        d.attempts.use(orders(order()))
        assert [end.state for end in await wait_for_async(d.ends)] == [state]


async def test_a_full_state_folder_ends_neither_the_daemon_nor_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fact that could not be written cancelled the task group of the whole daemon before."""
    world = World(tmp_path)
    full = {"now": False}

    class Full:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def write(self, fn: Any) -> Any:
            if full["now"]:
                raise StateFull(state="state")
            return await self._inner.write(fn)

    async def fills(worker: ScriptedWorker) -> AsyncIterator[say.FromWorker]:
        async for message in backs_up(world)(worker):
            if isinstance(message, say.Published) and worker.attempt == "j@1#1":
                full["now"] = True
            yield message

    monkeypatch.setattr("caso_mesh.server.attempts._TROUBLE_PAUSE_S", 0.05)
    monkeypatch.setattr("caso_mesh.server.endings._FIRST_PAUSE_S", 0.05)
    async with daemon(tmp_path, world, FakeRunner(fills), wrap=Full) as d:  # type: ignore[arg-type]
        d.attempts.use(orders(order()))
        await wait_for_async(lambda: full["now"] and not d.attempts.running())
        d.attempts.use(orders(order(), order("j@2#1"), index=2))
        await asyncio.sleep(0.2)
        assert "j@2#1" not in d.attempts.running()
        full["now"] = False
        assert [end.state for end in await wait_for_async(d.ends)] == [GOOD]
        await wait_for_async(lambda: d.ends("j@2#1"))


async def test_nothing_is_begun_before_it_may_be(tmp_path: Path) -> None:
    world, may = World(tmp_path), {"begin": False}
    runner = FakeRunner(backs_up(world))
    async with daemon(tmp_path, world, runner, may_begin=lambda order: may["begin"]) as d:
        d.attempts.use(orders(order()))
        await wait_for_async(lambda: d.attempts.holding() == ("j@1#1",))
        assert runner.started == []
        may["begin"] = True
        d.attempts.look_again()
        await wait_for_async(d.ends)


async def test_an_attempt_that_waited_starts_with_the_newest_order(tmp_path: Path) -> None:
    world, may = World(tmp_path), {"begin": False}
    runner = FakeRunner(backs_up(world))
    async with daemon(tmp_path, world, runner, may_begin=lambda order: may["begin"]) as d:
        d.attempts.use(orders(order()))
        await wait_for_async(d.attempts.holding)
        may["begin"] = True
        d.attempts.use(orders(changed(order(), ticket=b"new"), index=2))
        await wait_for_async(d.ends)
        assert runner.workers["j@1#1"].task.order.ticket == b"new"


async def test_bulk_connections_find_the_worker_of_their_attempt_and_no_other(tmp_path: Path) -> None:
    world, started = World(tmp_path), asyncio.Event()
    async with daemon(tmp_path, world, FakeRunner(_works_until_canceled(started))) as d:
        d.attempts.use(orders(order()))
        await started.wait()
        d.attempts._running["j@1#1"].worker.bulk_channel = channel = object()  # type: ignore[union-attr,misc]
        assert d.attempts.bulk_channel(bulk_token(b"j@1#1"), "h:1") is channel
        assert d.attempts.bulk_channel(bulk_token(b"other"), "h:1") is None
        assert d.attempts.bulk_channel(bulk_token(b""), "h:1") is None


async def test_new_media_of_two_jobs_at_once_never_share_a_label(tmp_path: Path) -> None:
    """Both read the same labels, then both made BETA-000001 before."""
    async with daemon(tmp_path, World(tmp_path), FakeRunner(backs_up(World(tmp_path)))) as d:

        def one_more(known: list[Medium]) -> Medium:
            return Medium(f"ALPHA-{len(known) + 1:06d}", f"dev{len(known)}", "keep", "n", 0, 0, None)

        made = await asyncio.gather(*(d.queue.take_medium(one_more) for _ in range(5)))
        assert len({medium.label for medium in made}) == 5


async def test_two_sets_that_end_together_both_count_on_their_medium(tmp_path: Path) -> None:
    async with daemon(tmp_path, World(tmp_path), FakeRunner(backs_up(World(tmp_path)))) as d:
        medium = Medium("ALPHA-000001", "dev", "keep", "n", 0, 0, None)
        await d.queue.take_medium(lambda known: medium)
        await asyncio.gather(*(d.queue.count_set(medium.label, f"set{n}", 10, 5) for n in (1, 2, 2)))
        assert [(m.sets, m.bytes) for m in await d.queue.all_media()] == [(2, 20)]


@pytest.mark.parametrize("changes", [{}, {"made_of": "older"}, {"copy_of": "older"}])
async def test_a_medium_is_protected_from_when_a_set_with_older_times_was_written_to_it(
    tmp_path: Path, changes
) -> None:
    """A copy has the times of the first set: a medium was written to now, and said a month ago."""
    world = World(tmp_path)
    async with daemon(tmp_path, world, FakeRunner(backs_up(world, ended_at_ns=5, **changes))) as d:
        d.attempts.use(orders(order()))
        await wait_for_async(lambda: not d.attempts.holding() and d.attempts._held)
        (medium,) = await d.queue.all_media()
        assert (medium.last_write_at_ns > 5) == bool(changes)


async def test_after_a_rolled_back_disk_writers_and_labels_are_new(tmp_path: Path) -> None:
    async with daemon(tmp_path, World(tmp_path), FakeRunner(backs_up(World(tmp_path)))) as d:
        await d.queue.take_medium(lambda known: Medium("ALPHA-000017", "dev", "keep", "n", 0, 0, None))
        assert await d.queue.writer("vault", "w1") == "w1"
        await d.queue.note_rolled_back("incarnation")
        assert await d.queue.writer("vault", "w2") == "w2"
        (place_holder,) = await d.queue.all_media()
        assert (place_holder.label, place_holder.device) == ("ALPHA-001017", "")
        assert await d.queue.rolled_back_note() == "incarnation"
        await d.queue.forget_note()
        assert await d.queue.rolled_back_note() is None
