"""Folders of this machine as the target of a restore: where each root goes, and what is never written."""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.hands import Base, Place
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.errors import Misuse
from caso_mesh.model.jobs import RestoreSpec
from caso_mesh.sources.handles import resolved
from caso_mesh.sources.writer import RestoreOptions, TreeTarget


class FolderTarget:
    """Writes below the base that the order names. ``close`` at last: folders get their metadata there.

    Nothing is written below ``own_paths``, nor where the task's ``may_write`` does not allow it.
    """

    def __init__(self, task: Task, desk: Desk) -> None:
        spec = task.order.spec
        if not isinstance(spec, RestoreSpec):
            raise Misuse("a restore needs a restore's spec")
        self._desk = desk
        self._spec = spec
        self._base = b"/" if spec.base is None else resolved(b"/" + spec.base.lstrip(b"/"))
        self._below_base = self._base.rstrip(b"/") + b"/"
        self._strips = spec.strip and spec.base is not None
        self._own = tuple(_below(path) for path in task.own_paths)
        self._allowed = None if task.may_write is None else tuple(_below(path) for path in task.may_write)
        self._options = RestoreOptions(overwrite=spec.overwrite, ownership=spec.ownership)
        self._targets: dict[bytes, TreeTarget] = {}
        self._of: dict[bytes, TreeTarget] = {}
        self._bases: dict[int, Base] = {}

    def begin(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bool]:
        return [self._begin(root, entry) for root, entry in entries]

    def _begin(self, root: bytes, entry: Entry) -> bool:
        strip = self._strip(root, entry)
        if not self._is_allowed(entry.path, strip):
            self._desk.exception(
                SourceException(entry.path, "not-allowed-here", "this server does not allow to write there")
            )
            return False
        if entry.hardlink is not None and not self._is_allowed(entry.hardlink, strip):
            self._desk.exception(
                SourceException(entry.path, "hard-link-not-restored", "its first name may not be written here")
            )
            return False
        target = self._targets.get(strip)
        if target is None:
            target = self._targets[strip] = TreeTarget(
                self._base, self._options, strip=strip, on_exception=self._desk.exception
            )
        if not target.begin(entry):
            return False
        if entry.type is not EntryType.DIRECTORY and entry.hardlink is None:
            self._of[entry.path] = target
        return True

    def put(self, entry: Entry, data: bytes | memoryview) -> None:
        self._of.pop(entry.path).put(entry, data)

    def lend(self, entry: Entry) -> Place | None:
        """See ``restore.FilesTarget``."""
        target = self._of[entry.path]
        lent = target.lend(entry)
        if lent is None:
            return None
        base = self._bases.get(target.base)
        if base is None:
            base = self._bases.setdefault(target.base, Base(target.base, self._options.ownership))
        return base, *lent

    def made(self, entries: Sequence[Entry]) -> None:
        """See ``restore.FilesTarget``."""
        for entry in entries:
            self._of.pop(entry.path).made(entry)

    def write(self, path: bytes, offset: int, data: bytes | memoryview) -> None:
        self._of[path].write(path, offset, data)

    def finish(self, entry: Entry) -> None:
        target = self._of.pop(entry.path, None)
        if target is not None:
            target.finish(entry)

    def abort(self, path: bytes) -> None:
        target = self._of.pop(path, None)
        if target is not None:
            target.abort(path)

    def close(self) -> None:
        """Hard links, metadata of folders, all to disk. May be repeated."""
        for target in self._targets.values():
            target.close()

    def _strip(self, root: bytes, entry: Entry) -> bytes:
        if not self._strips:
            return b""
        # a root that is no folder keeps its own name
        if entry.path == root and entry.type is not EntryType.DIRECTORY:
            return root.rpartition(b"/")[0]
        return root

    def _is_allowed(self, path: bytes, strip: bytes) -> bool:
        inside = path[len(strip) :].lstrip(b"/")
        place = self._below_base + inside + b"/" if inside else self._below_base
        return not place.startswith(self._own) and (self._allowed is None or place.startswith(self._allowed))


def _below(path: bytes) -> bytes:
    """What every path in a folder begins with, if a slash is put behind it: the folder's own path, too."""
    return b"/" + path.strip(b"/") + b"/" if path.strip(b"/") else b"/"
