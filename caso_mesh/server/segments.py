"""Catalog segments of sets made here: files that lie ready until the administrator has them.

Beside the one that was written with a set lie those that were made of it later, each under its digest: a voter that was
told of one goes on reading that, whatever another has made meanwhile.
"""

from __future__ import annotations

import re
from pathlib import Path

from caso_mesh.model import nodes as n
from caso_mesh.model.errors import InvalidValue, NotFound

#: After the administrator read one to its end, it may still ask again for this long.
KEPT_AFTER_READ_S = 86400.0
#: One that nobody ever fetched goes after this time: the catalog can be rebuilt from the device.
KEPT_UNREAD_S = 60 * 86400.0
_LONGEST_PIECE = 4 << 20
_SET = re.compile(r"[a-z0-9]{1,64}\Z")
#: What is being made, or was when the daemon ended.
_DRAFT = ".made"
#: So many bytes of a digest tell the segments of one set apart.
_DIGEST = 16


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

    def draft(self, set_id: str) -> Path:
        """Where one is written that is made anew. Raises ``NotFound`` as ``path`` does."""
        return self.path(set_id).with_suffix(_DRAFT)

    def made(self, set_id: str, digest: bytes) -> Path:
        """Where one lies that was made anew, or would. Raises ``NotFound`` as ``path`` does."""
        return self.path(set_id).with_suffix(f".{digest[:_DIGEST].hex()}.segment")

    def ids(self) -> set[str]:
        """The sets whose own segments lie here."""
        return {path.name.partition(".")[0] for path in self._folder.glob("*.segment") if path.name.count(".") == 1}

    def remove(self, set_id: str) -> None:
        """The segment that was written with a set, for which nobody will ask."""
        self.path(set_id).unlink(missing_ok=True)

    def piece(self, request: n.CatalogRead, now_ns: int) -> n.CatalogPiece:
        """Raises ``NotFound``, ``InvalidValue``."""
        if request.offset < 0 or request.length <= 0:
            raise InvalidValue(value=request.offset, what="place in a segment", expected="Use numbers from 0 on")
        try:
            path = self._wanted(request)
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(min(request.offset, size))
                data = file.read(min(request.length, _LONGEST_PIECE))
        except FileNotFoundError:
            raise NotFound(kind="set", name=request.set) from None
        if request.offset + len(data) >= size:
            self._read_at_ns[path.name] = now_ns
        return n.CatalogPiece(data, size)

    def _wanted(self, request: n.CatalogRead) -> Path:
        written = self.path(request.set)
        if not request.digest:  # a voter of before: it was told of the last one that was made
            made = self._folder.glob(f"{request.set}.*.segment")
            return max(made, key=lambda path: path.stat().st_mtime_ns, default=written)
        made_anew = self.made(request.set, request.digest)
        return made_anew if made_anew.exists() else written

    def sweep(self, now_ns: int, keep: set[str]) -> int:
        """Removes what the administrator has, and what is very old; not the segments of the sets ``keep``. How many."""
        removed = 0
        for path in [*self._folder.glob("*.segment"), *self._folder.glob(f"*{_DRAFT}")]:
            if path.name.partition(".")[0] in keep:
                continue
            read_at_ns = self._read_at_ns.get(path.name)
            try:
                if read_at_ns is not None:
                    over = now_ns - read_at_ns > KEPT_AFTER_READ_S * 1e9
                else:
                    over = now_ns - path.stat().st_mtime_ns > KEPT_UNREAD_S * 1e9
                if over:
                    path.unlink(missing_ok=True)
                    self._read_at_ns.pop(path.name, None)
                    removed += 1
            except FileNotFoundError:
                continue
        return removed
