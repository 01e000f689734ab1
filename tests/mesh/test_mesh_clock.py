"""Virtual time keeps its promises; a test that relied on a lying clock would prove nothing."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from mesh.clock import EPOCH_NS, JumpingLoop, Stuck, VirtualClock


def run(main, *, patience_s: float | None = None):
    """Runs ``main(loop)`` in a loop of its own; its result and the real seconds it took."""
    began = time.monotonic()
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        if patience_s is not None:
            loop.patience(patience_s)
        return runner.run(main(loop)), time.monotonic() - began


@pytest.mark.jumping
async def test_a_test_marked_jumping_sleeps_a_week_at_once():
    began, loop = time.monotonic(), asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    await asyncio.sleep(7 * 86400)
    assert loop.time() == 7 * 86400
    assert time.monotonic() - began < 60


async def test_a_test_without_the_mark_has_real_time():
    assert not isinstance(asyncio.get_running_loop(), JumpingLoop)


def test_timers_fire_in_their_order_each_at_its_own_time():
    async def main(loop):
        seen = []

        async def each(delay):
            await asyncio.sleep(delay)
            seen.append((delay, loop.time()))

        async with asyncio.TaskGroup() as group:
            for delay in (3600, 0.25, 30, 29.999, 0):
                group.create_task(each(delay))
        return seen

    seen, took = run(main)
    assert [delay for delay, _ in seen] == [0, 0.25, 29.999, 30, 3600]
    assert all(at == pytest.approx(delay, abs=1e-9) for delay, at in seen)
    assert took < 60


def test_work_that_is_ready_takes_no_time_and_goes_before_every_timer():
    async def main(loop):
        turns = 0
        timer = asyncio.create_task(asyncio.sleep(0.001))
        for _ in range(1000):
            await asyncio.sleep(0)
            turns += not timer.done()
        at = loop.time()
        await timer
        return turns, at

    (turns, at), _ = run(main)
    assert turns == 1000
    assert at == 0


def test_a_timeout_does_not_run_out_while_a_thread_works():
    async def main(loop):
        release = threading.Event()
        work = asyncio.create_task(asyncio.to_thread(release.wait, 100))
        timer = threading.Timer(0.2, release.set)
        timer.start()
        try:
            async with asyncio.timeout(0.001):
                done = await work
        finally:
            timer.join()
        return done, loop.time()

    (done, at), _ = run(main)
    assert done
    assert at == 0


def test_work_whose_waiter_gave_up_still_holds_the_clock_until_it_ends():
    async def main(loop):
        release, ended = threading.Event(), threading.Event()

        def work():
            release.wait(100)
            ended.set()

        future = loop.run_in_executor(None, work)
        await asyncio.sleep(0)
        future.cancel()
        threading.Timer(0.2, release.set).start()
        await asyncio.sleep(60)
        return ended.is_set()

    assert run(main)[0]


def test_a_timeout_runs_out_once_the_real_work_is_over():
    async def main(loop):
        never = loop.create_future()
        with loop.real_work():
            reader, writer = await asyncio.to_thread(_socketpair)
            reader.close()
            writer.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await never
        return loop.time()

    assert run(main)[0] == pytest.approx(60)


def _socketpair():
    import socket

    return socket.socketpair()


def test_a_loop_that_would_wait_for_ever_says_so():
    async def main(loop):
        await loop.create_future()

    with pytest.raises(Stuck):
        run(main, patience_s=0.1)


def test_a_thread_that_was_not_announced_still_wakes_a_loop_without_timers():
    async def main(loop):
        future = loop.create_future()
        timer = threading.Timer(0.1, lambda: loop.call_soon_threadsafe(future.set_result, 7))
        timer.start()
        try:
            return await future
        finally:
            timer.join()

    assert run(main)[0] == 7


def test_more_ends_than_beginnings_are_a_mistake():
    async def main(loop):
        with pytest.raises(RuntimeError, match="more real work"):
            loop.busy(-1)
        loop.busy(+1)

    run(main)


@pytest.mark.jumping
async def test_the_virtual_clock_shows_the_loops_time_and_its_wall_can_be_set():
    loop = asyncio.get_running_loop()
    clock, wrong = VirtualClock(loop), VirtualClock(loop, wall_offset_s=45.5)
    await asyncio.sleep(0.1)
    assert clock.now_ns() == EPOCH_NS + 100_000_000
    assert wrong.now_ns() - clock.now_ns() == 45_500_000_000
    before = clock.monotonic_s()
    clock.wall_offset_s = -3600
    assert clock.now_ns() == EPOCH_NS + 100_000_000 - 3600 * 1_000_000_000
    assert clock.monotonic_s() == before == loop.time()
