"""What a server has that could be backed up: its local file systems."""

from __future__ import annotations

from msgspec import Struct

#: A server tells of so many at most.
MOST_FILE_SYSTEMS = 256


class FileSystem(Struct, frozen=True):
    """A mounted file system of a server's own disks; ``path`` is where, absolute, without the leading slash."""

    path: bytes
    kind: str
    total_bytes: int = 0
    used_bytes: int = 0
