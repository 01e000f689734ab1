"""A file of a set as the input of a command of the server's own file: read and given in its order, from end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from msgspec import structs

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.host_commands import Running, command_of
from caso_mesh.jobs.restore import Target, outermost, placed, size_problem
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import CasoError, DataDamaged, Misuse, PathNotInSet, TargetInvalid
from caso_mesh.model.host_commands import CommandKind
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import escape_path
from caso_mesh.vault.vault import Vault

#: Content that is read at a time.
_BATCH_BYTES = 32 * 1024 * 1024
_ZEROS = bytes(1 << 20)


def run_feed(desk: Desk, vault: Vault, backup: BackupSet, target: Target, paths: Sequence[bytes]) -> None:
    """Gives the one file that ``paths`` names to ``target``, in its order. Raises ``PathNotInSet``, ``TargetInvalid``,
    and at the first damaged piece what is wrong with it: a command cannot do with a part."""
    chosen = outermost(path.strip(b"/") for path in paths)
    if len(chosen) != 1:
        raise TargetInvalid(path=f"set {backup.id}", detail="a command takes one file")
    entry = _file(vault, backup, chosen[0])
    desk.total_bytes, desk.total_files = entry.size, 1
    desk.path = entry.path
    target.begin([(b"", entry)])
    batch: list[tuple[int, bytes, int]] = []
    size = 0
    for offset, (chunk, length) in placed(entry):
        batch.append((offset, chunk, length))
        size += length
        if size >= _BATCH_BYTES:
            _give(desk, vault, entry, batch, target)
            batch, size = [], 0
    _give(desk, vault, entry, batch, target)
    target.finish(entry)
    desk.tally.files = desk.tally.entries = 1
    desk.tally.bytes = entry.size


def _file(vault: Vault, backup: BackupSet, path: bytes) -> Entry:
    tree = vault.tree(backup.root)
    entry = tree.lookup(path)
    if entry is not None and entry.hardlink is not None:
        first = tree.lookup(entry.hardlink)
        entry = None if first is None else structs.replace(first, path=path)
    if entry is None:
        raise PathNotInSet(set=backup.id, path=escape_path(b"/" + path))
    if entry.type is not EntryType.FILE:
        raise TargetInvalid(path=escape_path(b"/" + path), detail="a command takes a file")
    problem = size_problem(entry)
    if problem:
        raise DataDamaged(object=escape_path(b"/" + path), detail=problem)
    return entry


def _give(desk: Desk, vault: Vault, entry: Entry, batch: list[tuple[int, bytes, int]], target: Target) -> None:
    found: dict[bytes, bytes] = {}
    for chunk, content in vault.read_many(list(dict.fromkeys(chunk for _, chunk, _ in batch))):
        desk.check()
        if isinstance(content, CasoError):
            raise content
        found[chunk] = bytes(content)
    for offset, chunk, length in batch:
        if len(found[chunk]) != length:
            raise DataDamaged(object=escape_path(b"/" + entry.path), detail="a chunk has another length than it says")
        target.write(entry.path, offset, found[chunk])
        desk.tally.read(length)
        desk.tally.bytes += length


class CommandTarget:
    """The command that the order names, as the target of a restore. See ``restore.Target``; a context manager.

    ``check`` is asked while it waits for the command, and raises to end it.
    """

    def __init__(self, task: Task, desk: Desk, check: Callable[[], None]) -> None:
        spec = task.order.spec
        if not isinstance(spec, RestoreSpec) or spec.into_command is None:
            raise Misuse("this order names no command")
        command = command_of(task.commands, task.server_name, spec.into_command, CommandKind.RESTORE)
        self._running = Running(desk, task.server_name, spec.into_command, command, stream="in", check=check)
        self._entry: Entry | None = None
        self._entered = False
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bool]:
        if self._entry is not None or len(entries) != 1 or entries[0][1].type is not EntryType.FILE:
            raise TargetInvalid(path=f"the command {self._running.name}", detail="it takes one file")
        self._entry = entries[0][1]
        self._running.__enter__()
        self._entered = True
        return [True]

    def write(self, path: bytes, offset: int, data: bytes | memoryview) -> None:
        if offset < self._at:
            raise TargetInvalid(path=f"the command {self._running.name}", detail="its input came out of order")
        self._zeros(offset)
        self._running.write(data)
        self._at += len(data)

    def finish(self, entry: Entry) -> None:
        self._zeros(entry.size)
        self._running.finish()

    def abort(self, path: bytes) -> None:
        raise TargetInvalid(path=f"the command {self._running.name}", detail="its input cannot be read")

    def close(self) -> None:
        """Ends the command if it still runs. May be repeated."""
        if self._entered:
            self._entered = False
            self._running.__exit__(None, None, None)

    def _zeros(self, end: int) -> None:
        """What a hole of the file reads as."""
        while self._at < end:
            step = min(len(_ZEROS), end - self._at)
            self._running.write(_ZEROS[:step])
            self._at += step
