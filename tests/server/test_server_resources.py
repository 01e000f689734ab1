"""A server tells of its file systems once, and again when they have become others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from waiting import wait_for_async

from caso_mesh.model import facts
from caso_mesh.model.errors import StateFull
from caso_mesh.model.resources import FileSystem
from caso_mesh.server.resources import Resources

ROOT = FileSystem(b"", "ext4", 1000, 500)


class Written:
    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.fails = 0

    async def append(self, *new: Any) -> None:
        if self.fails:
            self.fails -= 1
            raise StateFull(state="/state")
        self.facts += new


async def test_what_is_the_same_is_not_told_again() -> None:
    written, now = Written(), [(ROOT,)]
    resources = Resources(written, lambda: now[0])  # type: ignore[arg-type]
    await resources.tell()
    await resources.tell()
    now[0] = (FileSystem(b"", "ext4", 1000, 540),)
    await resources.tell()
    assert written.facts == [facts.FileSystems((ROOT,))], "a little more is no news"
    for systems in ((FileSystem(b"", "ext4", 1000, 551),), (ROOT, FileSystem(b"srv", "xfs", 9, 1)), ()):
        now[0] = systems
        await resources.tell()
        assert written.facts[-1] == facts.FileSystems(systems)


async def test_what_could_not_be_written_is_told_later() -> None:
    written = Written()
    written.fails = 1
    resources = Resources(written, lambda: (ROOT,))  # type: ignore[arg-type]
    with pytest.raises(StateFull):
        await resources.tell()
    await resources.tell()
    assert written.facts == [facts.FileSystems((ROOT,))]


async def test_a_machine_that_cannot_say_ends_nothing() -> None:
    def broken() -> tuple[FileSystem, ...]:
        looked.append(1)
        raise OSError("no /proc")

    looked: list[int] = []
    running = asyncio.get_running_loop().create_task(Resources(Written(), broken).run())  # type: ignore[arg-type]
    await wait_for_async(lambda: bool(looked))
    await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
