"""``caso-mesh cat``: one file out of a set, to standard output."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from typing import Annotated

from cyclopts import Parameter

from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import DEFAULTS, Common, EscapedOption, rooted_path, rooted_place
from caso_mesh.cli.restore import chosen_set
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import DataDamaged, UsageError

#: Bytes of one piece, and pieces on their way: what bounds the memory.
_PIECE, _AHEAD = 1 << 20, 4


async def cat(
    set: Annotated[
        str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it; or SERVER:PATH alone.")
    ],
    path: Annotated[str | None, Parameter(name="PATH", help="The file.")] = None,
    /,
    *,
    as_of: Annotated[
        str | None, Parameter(help="With SERVER:PATH: as it was then, as in 2025-01-31T02:00; without it: last.")
    ] = None,
    escaped: EscapedOption = False,
    common: Common = DEFAULTS,
) -> None:
    """Print one file as it was in a backup set, byte for byte. Nothing is written to any server."""
    if common.json:
        raise UsageError(detail="cat prints the file itself, not JSON")
    if ":" in set and path is None:
        server, wanted = rooted_place(set, escaped=escaped)
        set = await chosen_set(common, server, (wanted,), as_of)
    elif path is None or as_of is not None:
        raise UsageError(detail="Give SET PATH, or SERVER:PATH with or without --as-of")
    else:
        wanted = rooted_path(path, escaped=escaped)
    async with connect(common) as client:
        opened = await client.call("file.open", q.FileOpen(set, wanted), v.FileOpened)
        await _copy(client, opened)


async def _copy(client: Client, opened: v.FileOpened) -> None:
    """Asks for the next pieces while one is written."""
    sys.stdout.flush()
    out = sys.stdout.fileno()
    ahead: deque[tuple[int, asyncio.Task[q.FilePiece]]] = deque()
    at = 0
    try:
        while at < opened.size or ahead:
            while at < opened.size and len(ahead) < _AHEAD:
                length = min(_PIECE, opened.size - at)
                request = q.FileRead(opened.handle, at, length)
                ahead.append((length, asyncio.create_task(client.call("file.read", request, q.FilePiece))))
                at += length
            length, task = ahead.popleft()
            piece = await task
            if len(piece.data) != length:
                detail = f"{len(piece.data)} bytes came instead of {length}"
                raise DataDamaged(object=f"{opened.path} of the set {opened.set}", detail=detail)
            await asyncio.to_thread(_write, out, piece.data)
    finally:
        for _, task in ahead:
            task.cancel()
        await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
