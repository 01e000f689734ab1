"""``caso-mesh cat``: one file out of a set, to standard output."""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import Annotated

from caso_mesh.cli.client import Asked, Client, connect
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, Common, EscapedOption, rooted_path, rooted_place
from caso_mesh.cli.restore import chosen_set
from caso_mesh.model import browsing as b
from caso_mesh.model.errors import DataDamaged, UsageError

#: Bytes of one piece, and pieces on their way: what bounds the memory.
_PIECE, _AHEAD = 1 << 20, 4


def cat(
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
        set = chosen_set(common, server, (wanted,), as_of)
    elif path is None or as_of is not None:
        raise UsageError(detail="Give SET PATH, or SERVER:PATH with or without --as-of")
    else:
        wanted = rooted_path(path, escaped=escaped)
    with connect(common) as client:
        opened = client.call("file.open", b.FileOpen(set, wanted), b.FileOpened)
        _copy(client, opened)


def _copy(client: Client, opened: b.FileOpened) -> None:
    """Asks for the next pieces while one is written."""
    sys.stdout.flush()
    out = sys.stdout.fileno()
    ahead: deque[tuple[int, Asked]] = deque()
    at = 0
    while at < opened.size or ahead:
        while at < opened.size and len(ahead) < _AHEAD:
            length = min(_PIECE, opened.size - at)
            ahead.append((length, client.ask("file.read", b.FileRead(opened.handle, at, length))))
            at += length
        length, asked = ahead.popleft()
        piece = client.reply(asked, b.FilePiece)
        if len(piece.data) != length:
            detail = f"{len(piece.data)} bytes came instead of {length}"
            raise DataDamaged(object=f"{opened.path} of the set {opened.set}", detail=detail)
        _write(out, piece.data)


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
