"""``caso-mesh demo``: a throw-away mesh."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import Common
from caso_mesh.cli.waiting import choose_watcher, follow
from caso_mesh.model import outcomes as o

R = TypeVar("R")
T = TypeVar("T", bound=Struct)


async def demo(
    *,
    source: Annotated[
        Path | None, Parameter(help="The folder to back up; without it, the files of this Python itself.")
    ] = None,
    keep: Annotated[bool, Parameter(negative=(), help="Keep the folder of the mesh, to look at it.")] = False,
) -> int:
    """Make a throw-away mesh of three servers, back up real files through it, restore and compare them.

    Everything happens on this machine, on the loopback interface, in a temporary folder (see TMPDIR) that is removed
    at the end.
    """
    gc.enable()  # the command line had turned it off
    from caso_mesh.demo import show

    return await show(_Face(), source=source, keep=keep)


class _Face:
    """The command line, as the demo uses it."""

    @asynccontextmanager
    async def connect(self, state: Path, timeout: str) -> AsyncIterator[_Caller]:
        with connect(Common(state=state, timeout=timeout)) as client:
            yield _Caller(client)

    async def follow(self, client: Any, run: str) -> o.RunResult:
        return await client.alone(lambda: follow(client.client, run, choose_watcher(json_lines=False)))

    def say(self, text: str) -> None:
        output.line(text)
        sys.stdout.flush()


class _Caller:
    """A client in a thread of its own: the demo looks after its daemons meanwhile."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, name: str, request: Struct, reply: type[T]) -> T:
        return await self.alone(lambda: self.client.call(name, request, reply))

    async def alone(self, work: Callable[[], R]) -> R:
        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            self.client.abandon()
            raise
