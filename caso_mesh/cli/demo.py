"""``caso-mesh demo``: a throw-away mesh."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


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

    return await show(source=source, keep=keep)
