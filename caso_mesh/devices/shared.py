"""Proof that what several servers call one shared folder is one: each writes a nonce, each reads all of them.

The dialogue between the servers is the administrator's; here are its three steps on one server.
"""

from __future__ import annotations

import contextlib
import os
import stat

from caso_mesh.devices.durable import write_all
from caso_mesh.devices.port import device_error, is_object_name
from caso_mesh.model.errors import DeviceError, Misuse

#: Where the nonces lie; begins with a dot, so it is never an object name.
PROOF = ".caso-mesh-proof"
#: Bytes of a nonce, and number of nonces, that are read at most.
NONCE_LIMIT, NONCES_LIMIT = 256, 10_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_nonce(path: str, server: str, nonce: bytes) -> None:
    """Leaves ``nonce`` of the node ``server`` below ``path``, durably, in the place of an earlier one.

    Then lists the folder anew and reads it back. Raises ``DeviceError`` if it is not seen: nothing that rests on
    listing would be safe there.
    """
    if not is_object_name(server) or "/" in server or not 0 < len(nonce) <= NONCE_LIMIT:
        raise Misuse("a nonce has a node's id and 1 to 256 bytes")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(path, PROOF), 0o770)
        folder = os.open(os.path.join(path, PROOF), _FOLDER)
        try:
            temporary = f".{server}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o660, dir_fd=folder)
            try:
                write_all(fd, [nonce])
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, server, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise device_error(path, error, writing=True) from error
    if read_nonces(path).get(server) != nonce:
        raise DeviceError(device=path, detail="what was just written there is not listed")


def read_nonces(path: str) -> dict[str, bytes]:
    """The nonces below ``path`` by node id; empty if there are none. Raises ``DeviceError``."""
    found: dict[str, bytes] = {}
    try:
        folder = os.open(os.path.join(path, PROOF), _FOLDER)
    except FileNotFoundError:
        return found
    except OSError as error:
        raise device_error(path, error, writing=False) from error
    try:
        for name in sorted(os.listdir(folder))[:NONCES_LIMIT]:
            if not is_object_name(name):
                continue
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    if stat.S_ISREG(os.fstat(fd).st_mode):
                        found[name] = os.read(fd, NONCE_LIMIT + 1)
                finally:
                    os.close(fd)
    except OSError as error:
        raise device_error(path, error, writing=False) from error
    finally:
        os.close(folder)
    return found


def remove_nonces(path: str) -> None:
    """Removes all nonces below ``path``; several servers may do it at once. Raises ``DeviceError``."""
    try:
        folder = os.open(os.path.join(path, PROOF), _FOLDER)
    except FileNotFoundError:
        return
    except OSError as error:
        raise device_error(path, error, writing=True) from error
    try:
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(os.path.join(path, PROOF))
    except OSError as error:
        raise device_error(path, error, writing=True) from error
    finally:
        os.close(folder)
