"""Single files out of the sets on this server's devices, piece by piece, for the administrator.

A file stays open between two pieces, so that its tree is looked up once and a chunk that two pieces share is unpacked
once. One that nobody asks for is closed after a while.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.jobs.restore import placed, size_problem
from caso_mesh.model import nodes as n
from caso_mesh.model.clock import Clock
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import DataDamaged, InvalidValue, PathNotInSet
from caso_mesh.model.units import escape_path
from caso_mesh.server.patience import begin, bounded
from caso_mesh.server.vaults import Vaults
from caso_mesh.vault.vault import Vault

#: How long a device may take over one piece; files that nobody reads stay open so long; how many may be open.
_PIECE_S, _IDLE_S, _MOST_OPEN = 60.0, 60.0, 16
#: Bytes of one answer, at most.
_LONGEST_PIECE = 4 << 20
_SWEEP_S = 15.0

Key = tuple[str, str, bytes]


class _File:
    """One open file of one set. One thread at a time."""

    def __init__(self, backend: FolderBackend, vault: Vault, entry: Entry) -> None:
        self.lock = threading.Lock()
        self.used_s = 0.0
        self.size = entry.size
        self._backend = backend
        self._vault = vault
        self._name = escape_path(b"/" + entry.path)
        self._chunks = list(placed(entry))
        self._starts = [offset for offset, _ in self._chunks]
        self._last: tuple[int, bytes] | None = None

    def piece(self, offset: int, length: int) -> bytes:
        """Raises ``DataDamaged``, ``ObjectMissing``, ``DeviceError``."""
        end = min(self.size, offset + min(length, _LONGEST_PIECE))
        if end <= offset:
            return b""
        out = bytearray(end - offset)  # what no chunk covers is a hole
        at = max(0, bisect_right(self._starts, offset) - 1)
        while at < len(self._chunks) and self._starts[at] < end:
            start, (chunk, size) = self._chunks[at]
            if start + size > offset:
                content = self._content(at, chunk, size)
                low, high = max(start, offset), min(start + size, end)
                out[low - offset : high - offset] = memoryview(content)[low - start : high - start]
            at += 1
        return bytes(out)

    def _content(self, at: int, chunk: bytes, size: int) -> bytes:
        if self._last is not None and self._last[0] == at:
            return self._last[1]
        content = self._vault.read(chunk)
        if len(content) != size:
            raise DataDamaged(object=self._name, detail=f"a chunk has {len(content)} bytes instead of {size}")
        self._last = (at, content)
        return content

    def close(self) -> None:
        with self.lock:
            self._backend.close()


class SetFiles:
    """Answers ``set.piece``; ``run`` closes what is not used any more."""

    def __init__(self, *, vaults: Vaults, clock: Clock) -> None:
        self._vaults = vaults
        self._clock = clock
        self._open: dict[Key, _File] = {}

    async def piece(self, request: n.SetPiece) -> n.SetPieceReply:
        """A piece of a regular file as it was in a set. Raises ``NotFound``, ``PathNotInSet``, ``InvalidValue`` (not a
        regular file), ``DataDamaged``, ``DeviceVanished``, ``NoKey``, ``TimedOut``."""
        if request.offset < 0 or request.length < 0:
            raise InvalidValue(value=request.offset, what="place in a file", expected="Use numbers from 0 on")
        key = (request.device, request.set, request.path)
        file = self._open.pop(key, None)
        what = f"the device {self._vaults.device(request.device).name}"
        if file is None:
            access = await self._vaults.access(request.device)

            def open_it() -> _File:
                backend, vault = self._vaults.open(access)
                try:
                    return _File(backend, vault, _entry(vault, request.set, request.path))
                except BaseException:
                    backend.close()
                    raise

            file = await bounded(open_it, what=what, seconds=_PIECE_S)

        def read(file: _File = file) -> bytes:
            with file.lock:
                return file.piece(request.offset, request.length)

        try:
            data = await bounded(read, what=what, seconds=_PIECE_S)
        except BaseException:
            _ = begin(file.close)  # a device that hangs still holds it
            raise
        file.used_s = self._clock.monotonic_s()
        other = self._open.get(key)
        self._open[key] = file
        stale = [] if other is None else [other]
        while len(self._open) > _MOST_OPEN:
            stale.append(self._open.pop(next(iter(self._open))))
        for each in stale:
            await asyncio.to_thread(each.close)
        return n.SetPieceReply(data, file.size)

    async def run(self) -> None:
        """Never returns; closes all files with its end."""
        try:
            while True:
                await asyncio.sleep(_SWEEP_S)
                before_s = self._clock.monotonic_s() - _IDLE_S
                for key in [key for key, file in self._open.items() if file.used_s < before_s]:
                    await asyncio.to_thread(self._open.pop(key).close)
        finally:
            for file in self._open.values():
                file.close()
            self._open.clear()


def _entry(vault: Vault, set_id: str, path: bytes) -> Entry:
    """The regular file at ``path`` with its content. Raises ``NotFound``, ``PathNotInSet``, ``InvalidValue``."""
    tree = vault.tree(vault.load_set(set_id).root)
    entry = tree.lookup(path)
    shown = escape_path(b"/" + path)
    if entry is None:
        raise PathNotInSet(set=set_id, path=shown)
    if entry.hardlink is not None:
        entry = tree.lookup(entry.hardlink)
        if entry is None or entry.hardlink is not None:
            raise DataDamaged(object=f"the entry of {shown}", detail="its first name is not in the set")
    if entry.type is not EntryType.FILE:
        raise InvalidValue(value=shown, what="regular file", expected=f"It is a {entry.type.value}; restore it instead")
    problem = size_problem(entry)
    if problem:
        raise DataDamaged(object=shown, detail=problem)
    return entry
