"""The tool that makes late what is only told of later still finds what it delays."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from mesh import delays


def test_everything_that_is_to_be_late_is_there_and_can_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(delays.VARIABLE, raising=False)
    for places in delays.KINDS.values():
        for place in places:
            owner, name = delays.find(place)
            call = getattr(owner, name)
            assert inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call), place


@pytest.mark.jumping
async def test_what_is_late_does_all_the_same_after_its_pause() -> None:
    loop, draw = asyncio.get_running_loop(), delays.drawing("alarms", "1")

    async def call(number: int) -> int:
        return number + 1

    async def items(count: int):
        for number in range(count):
            yield number

    assert await delays.late(call, draw)(1) == 2
    assert delays.SHORTEST_S <= loop.time() <= delays.LONGEST_S
    assert [each async for each in delays.late(items, draw)(3)] == [0, 1, 2]
    assert 4 * delays.SHORTEST_S <= loop.time() <= 4 * delays.LONGEST_S


def test_a_kind_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(delays.VARIABLE, "nothing:1")
    with pytest.raises(ValueError, match="nothing"):
        delays.inject()
