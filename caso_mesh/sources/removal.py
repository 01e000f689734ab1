"""Removes a folder and all that is in it: at any depth, by handles, never through links."""

from __future__ import annotations

import contextlib
import os
import stat

from caso_mesh.sources import linux

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Nothing is left of the folder ``path``; nothing happens if it is not there. Raises ``OSError``."""
    try:
        at = os.open(path, _FOLDER)
    except FileNotFoundError:
        return
    names: list[str] = []
    try:
        while True:
            below = _emptied(at)
            if below is not None:
                folder = os.open(below, _FOLDER, dir_fd=at)
                os.close(at)
                at = folder
                names.append(below)
            elif names:
                above = os.open("..", _FOLDER, dir_fd=at)
                os.close(at)
                at = above
                os.rmdir(names.pop(), dir_fd=at)
            else:
                break
    finally:
        os.close(at)
    os.rmdir(path)


def _emptied(folder: int) -> str | None:
    """Removes all in an open folder but folders: the name of one that is there."""
    _changeable(folder)
    found = None
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            found = name
            continue
        try:
            os.unlink(name, dir_fd=folder)
        except PermissionError:
            fd = os.open(name, _FILE, dir_fd=folder)
            try:
                _changeable(fd)
            finally:
                os.close(fd)
            os.unlink(name, dir_fd=folder)
    return found


def _changeable(fd: int) -> None:
    """Takes flags away under which nothing can be removed (immutable, append only); many file systems have none."""
    with contextlib.suppress(OSError):
        if linux.get_flags(fd) & linux.FLAGS_LAST:
            linux.set_flags(fd, 0, linux.FLAGS_LAST)
