"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from caso_mesh.model.errors import StateDamaged, StateFull

#: No file of an identity is longer; a longer one is damaged. Bytes.
LONGEST = 1 << 20


def make_private_folder(folder: Path) -> None:
    """``folder`` with mode 0700, its missing parents included; an existing one gets that mode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def write_private(path: Path, data: bytes) -> None:
    """Replaces ``path`` by ``data``, mode 0600, durable when it returns: a crash leaves the old file or the new one.

    Blocks for two fsyncs. Raises ``StateFull``, or ``OSError`` for other failures of the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StateFull(state=path.parent) from error
        raise


def read_private(path: Path) -> bytes | None:
    """The content, ``None`` if there is no such file. Raises ``StateDamaged`` if it cannot be read or is too long."""
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateDamaged(path=path, detail=error.strerror or str(error)) from error
    if len(data) > LONGEST:
        raise StateDamaged(path=path, detail="it is far too long")
    return data


def remove_private(path: Path) -> bool:
    """Removes the file durably; ``False`` if there was none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
