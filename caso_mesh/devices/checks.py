"""What a server answers when a folder of it is to become a device."""

from __future__ import annotations

import contextlib
import os
import re
import stat

from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import DevicePathInvalid

#: Bytes of a vault header that are read at most.
HEADER_LIMIT = 64 * 1024
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """Where a path lies: the mount point, the file system's type, what is mounted, its device number (st_dev)."""

    point: str
    fs_type: str
    source: str
    device_number: int


def check_folder(path: str, *, server: str = "this server", randomness: Randomness = os.urandom) -> None:
    """Returns if ``path`` can be a device: an absolute, existing folder that this process can write.

    It is tried by really writing one byte durably. ``server`` is the name the error carries. Raises
    ``DevicePathInvalid``.
    """

    def refuse(detail: str) -> DevicePathInvalid:
        return DevicePathInvalid(path=path, server=server, detail=detail)

    if "\0" in path or not os.path.isabs(path):
        raise refuse("it is not an absolute path")
    try:
        if os.path.realpath(path, strict=True) == "/":
            raise refuse("it is the root of the whole machine")
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise refuse("it does not exist") from error
    except NotADirectoryError as error:
        raise refuse("it is not a folder") from error
    except OSError as error:
        raise refuse(os.strerror(error.errno or 0)) from error
    probe = f".caso-mesh-probe-{randomness(8).hex()}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            if os.write(fd, b"\0") != 1:
                raise refuse("it takes no data")
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(probe, dir_fd=folder)
    except OSError as error:
        raise refuse(f"the daemon cannot write there ({os.strerror(error.errno or 0)})") from error
    finally:
        os.close(folder)


def existing_vault_header(path: str, *, server: str = "this server") -> bytes | None:
    """The raw content, bounded by ``HEADER_LIMIT``, of the object ``format``; None if there is no vault.

    Raises ``DevicePathInvalid`` if it is there and cannot be read.
    """
    try:
        fd = os.open(os.path.join(path, "format"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DevicePathInvalid(path=path, server=server, detail='its "format" is not a file')
            return os.read(fd, HEADER_LIMIT)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        detail = f'its "format" cannot be read ({os.strerror(error.errno or 0)})'
        raise DevicePathInvalid(path=path, server=server, detail=detail) from error


def is_unfinished(path: str) -> bool:
    """Whether what lies in a folder is being erased, or was until that was cut off: the object ``erasing`` says so."""
    return os.path.lexists(os.path.join(path, "erasing"))


def mount_of(path: str) -> Mount:
    """The mount that ``path`` lies on (Linux: proc_pid_mountinfo(5); elsewhere the type is unknown).

    Raises ``OSError`` if there is no such path.
    """
    real = os.path.realpath(path, strict=True)
    number = os.stat(real).st_dev
    best: Mount | None = None
    with (
        contextlib.suppress(FileNotFoundError),
        open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines,
    ):
        for line in lines:
            fields = line.split()
            dash = fields.index("-")
            point = _unescape(fields[4])
            # The last one of equal length is the one on top.
            # compared as text, which both are real paths in: who asks after some other mount waits while that hangs
            if _below(real, point) and (best is None or len(point) >= len(best.point)):
                best = Mount(point, fields[dash + 1], _unescape(fields[dash + 2]), number)
    return best or Mount(_point_by_device(real, number), "unknown", "unknown", number)


def inside(path: str, other: str) -> bool:
    """Whether ``path`` is ``other`` or lies below it, by their real paths; neither need exist."""
    return _below(os.path.realpath(path), os.path.realpath(other))


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _point_by_device(real: str, number: int) -> str:
    while real != "/" and os.stat(os.path.dirname(real)).st_dev == number:
        real = os.path.dirname(real)
    return real


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
