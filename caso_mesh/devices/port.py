"""The port of storage devices: named objects, each added once and never overwritten.

Synchronous and thread-safe: worker processes call it from their own threads, the daemon only by ``asyncio.to_thread``.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from caso_mesh.model.errors import CasoError, DeviceError, DeviceFull, DeviceReadOnly, DeviceVanished, Misuse

_OBJECT_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}/)*[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}\Z")
#: Longest object name in characters, slashes included.
MAX_NAME = 1024
#: Names below these may use the reserve, so that deleting and reclaiming still work on a full device.
RESERVED_FOR = ("holds/", "marks/", "sweeps/", "sessions/", "damage/", "erasing")
#: The part of a device that all other names leave free.
RESERVE = 0.02

#: The device is not there any more, as the kernel says it for disks, NFS and FUSE.
_VANISHED = {errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class Backend(Protocol):
    """Named objects on one device. Every method may raise ``DeviceVanished`` or ``DeviceError``.

    Names are ``/``-separated parts of ``[A-Za-z0-9._-]`` that do not begin with a dot; any other is ``Misuse``.
    """

    def put(self, name: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        """Adds an object, once: durable and whole on return, absent or whole after a crash.

        After an error other than ``ObjectExists`` the object may be there or not. Raises ``ObjectExists`` (what is
        there is durable then), ``DeviceFull``, ``DeviceReadOnly``.
        """
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``offset`` on, fewer if the object is shorter. Raises ``ObjectMissing``."""
        ...

    def size(self, name: str) -> int:
        """Bytes of an object. Raises ``ObjectMissing``."""
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(name, bytes) of all objects whose name begins with ``prefix``, by name. An error may come at the end:
        only a listing that was read to its end is complete.
        """
        ...

    def delete(self, name: str) -> None:
        """Removes an object. Raises ``ObjectMissing``, ``DeviceReadOnly``."""
        ...

    def space(self) -> tuple[int, int]:
        """Bytes free for this process, and bytes in total (0: the device does not tell)."""
        ...

    def close(self) -> None:
        """Gives handles back; may be repeated. Any other call after it is ``Misuse``."""
        ...


def is_object_name(name: str) -> bool:
    return len(name) <= MAX_NAME and _OBJECT_NAME.match(name) is not None


def check_object_name(name: str) -> str:
    """``name`` itself. Raises ``Misuse``: names are made by this program, never by people."""
    if not is_object_name(name):
        raise Misuse(f"{name!r} is not an object name")
    return name


def may_use_reserve(name: str) -> bool:
    return name.startswith(RESERVED_FOR)


def device_error(device: str, error: OSError, *, writing: bool) -> CasoError:
    """The error of the tree for what the operating system said."""
    number = error.errno or 0
    detail = os.strerror(number) if number else str(error)
    if number in _FULL:
        return DeviceFull(device=device)
    if number in _VANISHED:
        return DeviceVanished(device=device, detail=detail)
    if number == errno.EROFS or (writing and number in _READ_ONLY):
        return DeviceReadOnly(device=device, detail=detail)
    return DeviceError(device=device, detail=detail)
