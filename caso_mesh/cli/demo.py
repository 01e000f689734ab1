"""``caso-mesh demo``: a throw-away mesh."""

from __future__ import annotations

import gc
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import Common
from caso_mesh.cli.waiting import choose_watcher, follow
from caso_mesh.model import views as v


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

    def connect(self, state: Path, timeout: str) -> AbstractAsyncContextManager[Client]:
        return connect(Common(state=state, timeout=timeout))

    async def follow(self, client: Any, run: str) -> v.RunResult:
        return await follow(client, run, choose_watcher(json_lines=False))

    def say(self, text: str) -> None:
        output.line(text)
        sys.stdout.flush()
