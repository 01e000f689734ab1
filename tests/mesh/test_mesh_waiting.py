"""``wait_for`` waits for what is asked, no longer than it may, and says what it waited for."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from waiting import in_one_of_three, wait_for, wait_for_async


def test_it_returns_the_first_true_value():
    values = iter([0, None, "", "there"])
    assert wait_for(lambda: next(values)) == "there"


def test_it_tells_what_did_not_come_true_and_what_was_there_instead():
    with pytest.raises(AssertionError, match=r"(?s)within 0\.05 s: a door opens.*'shut'") as error:
        wait_for(lambda: "shut" if False else "", 0.05, what="a door opens, not 'shut'")
    assert "''" in str(error.value)


def test_a_failing_assertion_means_not_yet():
    count = itertools.count()

    def third():
        assert next(count) >= 2
        return True

    wait_for(third)
    with pytest.raises(AssertionError, match="it raised AssertionError"):
        wait_for(_never, 0.05)


def _never():
    raise AssertionError("never")


def test_another_error_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 / 0)


@pytest.mark.jumping
async def test_inside_a_loop_it_waits_by_the_loops_time_and_takes_coroutines():
    loop = asyncio.get_running_loop()

    async def late():
        return loop.time() >= 3600 and "late"

    assert await wait_for_async(late, 7200, every_s=1) == "late"
    with pytest.raises(AssertionError, match="within 5 s"):
        await wait_for_async(lambda: None, 5)
    assert loop.time() == pytest.approx(3605, abs=0.1)


async def test_what_a_slow_moment_spoils_is_tried_three_times_and_what_is_wrong_stays_wrong():
    tries: list[int] = []

    async def third():
        tries.append(1)
        assert len(tries) == 3

    await in_one_of_three(third)
    with pytest.raises(AssertionError):
        await in_one_of_three(third)
    assert len(tries) == 6
