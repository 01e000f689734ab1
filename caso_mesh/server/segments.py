"""Catalog segments of sets made here: files that lie ready until the administrator has them."""

from __future__ import annotations

import re
from pathlib import Path

from caso_mesh.model import requests as q
from caso_mesh.model.errors import InvalidValue, NotFound

#: After the administrator read one to its end, it may still ask again for this long.
KEPT_AFTER_READ_S = 86400.0
#: One that nobody ever fetched goes after this time: the catalog can be rebuilt from the device.
KEPT_UNREAD_S = 60 * 86400.0
_LONGEST_PIECE = 4 << 20
_SET = re.compile(r"[a-z0-9]{1,64}\Z")


class Segments:
    """All files of one folder. Its methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_at_ns: dict[str, int] = {}

    def path(self, set_id: str) -> Path:
        """Where the segment of a set lies. Raises ``NotFound`` for what is no id of a set."""
        if not _SET.match(set_id):
            raise NotFound(kind="set", name=set_id)
        return self._folder / f"{set_id}.segment"

    def piece(self, request: q.CatalogRead, now_ns: int) -> q.CatalogPiece:
        """Raises ``NotFound``, ``InvalidValue``."""
        if request.offset < 0 or request.length <= 0:
            raise InvalidValue(value=request.offset, what="place in a segment", expected="Use numbers from 0 on")
        try:
            with self.path(request.set).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(min(request.offset, size))
                data = file.read(min(request.length, _LONGEST_PIECE))
        except FileNotFoundError:
            raise NotFound(kind="set", name=request.set) from None
        if request.offset + len(data) >= size:
            self._read_at_ns[request.set] = now_ns
        return q.CatalogPiece(data, size)

    def sweep(self, now_ns: int, keep: set[str]) -> int:
        """Removes what the administrator has, and what is very old; not the segments of the sets ``keep``. How many."""
        removed = 0
        for path in self._folder.glob("*.segment"):
            name = path.name.removesuffix(".segment")
            if name in keep:
                continue
            read_at_ns = self._read_at_ns.get(name)
            try:
                if read_at_ns is not None:
                    over = now_ns - read_at_ns > KEPT_AFTER_READ_S * 1e9
                else:
                    over = now_ns - path.stat().st_mtime_ns > KEPT_UNREAD_S * 1e9
                if over:
                    path.unlink(missing_ok=True)
                    self._read_at_ns.pop(name, None)
                    removed += 1
            except FileNotFoundError:
                continue
        return removed
