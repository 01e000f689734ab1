"""What is mounted where (``/proc/self/mountinfo``, proc(5)), and what should be (``/etc/fstab``, fstab(5))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from msgspec import Struct

#: Where this machine says what is to be mounted.
FSTAB = "/etc/fstab"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """One mounted file system. ``root`` is what of it is mounted at ``point``; ``device`` is MAJOR:MINOR."""

    id: int
    device: str
    root: bytes
    point: bytes
    kind: str
    source: str


def parse(table: bytes) -> list[Mount]:
    """The lines of a ``mountinfo`` file, in its order."""
    found: list[Mount] = []
    for line in table.splitlines():
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")
        found.append(
            Mount(
                id=int(fields[0]),
                device=fields[2].decode("ascii"),
                root=_plain(fields[3]),
                point=_plain(fields[4]),
                kind=kind[0].decode("ascii", "replace"),
                source=os.fsdecode(_plain(kind[1])),
            )
        )
    return found


def mounted() -> list[Mount]:
    """What this process sees mounted. Raises ``OSError``."""
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(file.read())


def mount_of(path: bytes, table: Iterable[Mount]) -> Mount | None:
    """The mount that ``path`` (absolute; a link itself) lies on, as the kernel says. Raises ``OSError``."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            found = re.search(rb"^mnt_id:\s*(\d+)$", file.read(), re.MULTILINE)
    finally:
        os.close(fd)
    wanted = int(found[1]) if found else -1
    return next((mount for mount in table if mount.id == wanted), None)


def points(table: bytes) -> frozenset[bytes]:
    """Where a file system table has something mounted."""
    fields = [line.split() for line in table.splitlines() if not line.lstrip().startswith(b"#")]
    found = {_plain(each[1]).rstrip(b"/") or b"/" for each in fields if len(each) >= 3 and each[2] != b"swap"}
    return frozenset(each for each in found if each.startswith(b"/"))


def why_empty(root: bytes) -> str | None:
    """Why what shall be at ``root`` (absolute) is not: it lies in a file system of the table that is not mounted, or what is
    mounted there has nothing in it. ``None`` if that cannot be said."""
    try:
        with open(FSTAB, "rb") as file:
            wanted = points(file.read())
    except OSError:
        wanted = frozenset()
    place = root
    while place not in {b"", b"/"}:
        if place in wanted and os.path.isdir(place) and not os.path.ismount(place):
            return f"{os.fsdecode(place)} is to be mounted as {FSTAB} says, and is not"
        place = os.path.dirname(place)
    return f"nothing is in the file system at {os.fsdecode(root)}" if _is_empty_mount(root) else None


def _is_empty_mount(root: bytes) -> bool:
    try:
        with os.scandir(root) as names:
            return (
                os.path.ismount(root)
                and not os.path.islink(root)
                and not any(name.name != b"lost+found" for name in names)
            )
    except OSError:
        return False  # no folder, or one that the walk will say more of


def _plain(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text)
