"""Sets that this server has read before, so that a backup need not read and check each set of the vault again to find the
one that it builds on: an object never changes once it is there, and who signed it was checked when it was remembered.

A file in this server's own cache folder: 16 bytes for the shape of the records, then for each set a length (32 bits), 16
bytes of a digest, and the name of its object with the set (msgpack). Workers add to it at the same time. It only saves
time: what is not in it, or does not fit, is read from the vault.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterable, Iterator

import msgspec
from blake3 import blake3

from caso_mesh.model.storage import BackupSet

_DIGEST = 16
_LENGTH = 4
_SHAPE = blake3("\0".join(BackupSet.__struct_fields__).encode()).digest(_DIGEST)
#: The file is written anew when so much of it is of sets that are gone.
_MOST_GONE = 0.5
_FEW = 100

_Entry = tuple[str, BackupSet]
_decoder = msgspec.msgpack.Decoder(_Entry)


class RememberedSets:
    """The sets of one vault by the names of their objects. Not for two threads at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries: dict[str, tuple[BackupSet, bytes]] | None = None
        #: Whether there was something behind the last good entry: perhaps one that was being written just then.
        self._spoilt = False

    def get(self, name: str) -> BackupSet | None:
        """What was read before under this name."""
        if self._entries is None:
            data = self._read()
            entries = list(_entries(data))
            self._entries = {name: (found, body) for _, name, found, body in entries}
            self._spoilt = bool(data) and (entries[-1][0] if entries else _DIGEST) < len(data)
        found = self._entries.get(name)
        return None if found is None else found[0]

    def add(self, found: Iterable[_Entry]) -> None:
        """Remembers sets that were read from the vault and are sound. A cache that cannot be written is none."""
        entries = [msgspec.msgpack.encode(each) for each in found]
        if not entries:
            return
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.pread(fd, _DIGEST, 0) != _SHAPE:
                    os.ftruncate(fd, 0)
                    os.write(fd, _SHAPE)
                elif self._spoilt:
                    os.ftruncate(fd, _sound(self._read()))
                os.write(fd, b"".join(map(_framed, entries)))
            finally:
                os.close(fd)

    def keep(self, names: Collection[str]) -> None:
        """Forgets all sets but these, if they are many."""
        known = self._entries or {}
        kept = [body for name, (_, body) in known.items() if name in names]
        if len(known) - len(kept) <= _FEW + _MOST_GONE * len(known):
            return
        temporary = f"{self._path}.{os.getpid()}.tmp"
        with contextlib.suppress(OSError):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, _SHAPE + b"".join(map(_framed, kept)))
            finally:
                os.close(fd)
            os.replace(temporary, self._path)

    def _read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                return file.read()
        except OSError:
            return b""


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH, "big") + blake3(body).digest(_DIGEST) + body


def _sound(data: bytes) -> int:
    """How many bytes at the beginning are as they were written."""
    return max((end for end, *_ in _entries(data)), default=min(len(data), _DIGEST))


def _entries(data: bytes) -> Iterator[tuple[int, str, BackupSet, bytes]]:
    """Each entry with where it ends, up to the first that is not as it was written (or is being written now)."""
    if data[:_DIGEST] != _SHAPE:
        return
    place = _DIGEST
    while place < len(data):
        start = place + _LENGTH + _DIGEST
        end = start + int.from_bytes(data[place : place + _LENGTH], "big")
        body = data[start:end]
        if end > len(data) or blake3(body).digest(_DIGEST) != data[place + _LENGTH : start]:
            return
        try:
            name, backup_set = _decoder.decode(body)
        except msgspec.MsgspecError:
            return
        yield end, name, backup_set, body
        place = end
