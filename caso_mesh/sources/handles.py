"""Folders of a restore, open by handles that never follow a symbolic link; each thread has its own."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable

from caso_mesh.model.errors import TargetInvalid
from caso_mesh.sources import linux, reasons

#: Folders that a thread keeps open.
_KEPT = 64
#: As the kernel's own bound.
_MOST_LINKS = 40


class Folder:
    """An open folder. ``clean``: what is made in it gets no flags and no attributes from it, None until that was looked
    at."""

    __slots__ = ("clean", "device", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.device = os.fstat(fd).st_dev
        self.clean: bool | None = None


def resolved(path: bytes) -> bytes:
    """Where an absolute path leads, as ``os.path.realpath``; it need not be there. A link is followed if it is root's or this
    process's own, or if the folder that it leads to belongs to whoever made it: others could lead a restore anywhere.

    Raises ``TargetInvalid``.
    """
    left, found, links = [part for part in path.split(b"/") if part not in {b"", b"."}][::-1], b"/", 0
    while left:
        part = left.pop()
        if part == b"..":
            found = os.path.dirname(found)
            continue
        there = os.path.join(found, part)
        try:
            status = os.lstat(there)
        except OSError:
            found = there
            continue
        if not stat.S_ISLNK(status.st_mode):
            found = there
            continue
        links += 1
        if links > _MOST_LINKS:
            raise TargetInvalid(path=path, detail="it leads in a circle")
        try:
            target = os.readlink(there)
            if status.st_uid not in {0, os.geteuid()} and os.stat(there).st_uid != status.st_uid:
                raise TargetInvalid(
                    path=path,
                    detail=f"{os.fsdecode(there)} is a link that another user has made: name the folder that it leads to",
                )
        except OSError as error:
            raise TargetInvalid(path=path, detail=reasons.text(error)) from error
        found = b"/" if target.startswith(b"/") else found
        left += [each for each in target.split(b"/") if each not in {b"", b"."}][::-1]
    return found


def open_base(path: bytes) -> int:
    """An ``O_PATH`` handle of the absolute ``path``, which has no link in it any more: what has become one since it was looked at
    is not followed. Missing folders are made. Raises ``OSError``."""
    root, beneath = os.open(b"/", linux.FOLDER), path.strip(b"/")
    try:
        try:
            return linux.open_folder_beneath(root, beneath)
        except FileNotFoundError:
            return make_beneath(root, beneath)
    finally:
        os.close(root)


def make_beneath(base: int, path: bytes) -> int:
    """As ``linux.open_folder_beneath``; the folders on the way are made where they are missing."""
    fd = os.dup(base)
    for part in path.split(b"/"):
        try:
            try:
                os.mkdir(part, 0o755, dir_fd=fd)
            except FileExistsError:
                pass  # opening it tells whether it is a folder
            below = os.open(part, linux.FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


class _Kept(threading.local):
    """The folders of one thread, the one used last at the end."""

    def __init__(self) -> None:
        self.folders: OrderedDict[bytes, Folder] | None = None
        self.last: Folder | None = None
        self.last_path = b""


class Handles:
    """Folders below ``base``, an open folder. Thread-safe; a handle is its thread's until that asks for the next one.

    ``on_open(path, folder)`` is called for each that was opened or made.
    """

    def __init__(self, base: int, on_open: Callable[[bytes, Folder], None]) -> None:
        self._base = base
        self._on_open = on_open
        self._kept = _Kept()
        self._lock = threading.Lock()
        self._all: list[OrderedDict[bytes, Folder]] = []

    def get(self, path: bytes) -> Folder:
        """The folder ``path`` below the base; it and those above it are made when missing. Raises ``OSError``."""
        kept = self._kept
        if kept.last is not None and kept.last_path == path:
            return kept.last
        if kept.folders is None:
            kept.folders = OrderedDict()
            with self._lock:
                self._all.append(kept.folders)
        folder = kept.folders.get(path)
        if folder is None:
            folder = self._open(path)
            kept.folders[path] = folder
            kept.last = None
            if len(kept.folders) > _KEPT:
                os.close(kept.folders.popitem(last=False)[1].fd)
            self._on_open(path, folder)
        else:
            kept.folders.move_to_end(path)
        kept.last, kept.last_path = folder, path
        return folder

    def forget(self, path: bytes) -> None:
        """The folder was removed; handles of other threads lead nowhere then."""
        kept = self._kept
        kept.last = None
        folder = None if kept.folders is None else kept.folders.pop(path, None)
        if folder is not None:
            os.close(folder.fd)

    def close(self) -> None:
        """When no thread uses any of them."""
        with self._lock:
            for folders in self._all:
                for folder in folders.values():
                    os.close(folder.fd)
                folders.clear()
            self._all.clear()
        self._kept = _Kept()

    def _open(self, path: bytes) -> Folder:
        try:
            fd = linux.open_folder_beneath(self._base, path)
        except FileNotFoundError:
            # folders on the way that the restore does not bring itself, as when single paths are asked for
            fd = make_beneath(self._base, path)
        return Folder(fd)
