"""Commands that a server's own file allows: their names travel, what they do never does.

A dump is named like a path below ``/@dumps``: that name is reserved at the top of every machine, so that it never means
a file. ``SERVER:@NAME`` is how people write it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.logons import Credentials, LogonVariables

#: Folder of a set that holds what dumps wrote, without its leading slash. A real folder of that name is left out.
DUMPS = b"@dumps"


class CommandKind(StrEnum):
    """What a command may be used for."""

    DUMP = "dump"
    RESTORE = "restore"
    PRE = "pre"
    POST = "post"


#: How long a command may take if its entry does not say, in seconds.
DEFAULT_LIMIT_S = {
    CommandKind.DUMP: 86400.0,
    CommandKind.RESTORE: 86400.0,
    CommandKind.PRE: 3600.0,
    CommandKind.POST: 3600.0,
}


class HostCommand(Struct, frozen=True):
    """An entry of ``[commands]``. ``argv[0]`` is an absolute path; ``user`` is a name, empty for the daemon's own.
    ``logon`` is what a job gives it, in the ``variables``."""

    kind: CommandKind
    argv: tuple[str, ...]
    user: str
    time_limit_s: float
    environment: dict[str, str] = {}
    variables: LogonVariables = LogonVariables()
    logon: Credentials | None = None


def dump_path(name: str) -> bytes:
    """The path in a set of what the dump ``name`` wrote."""
    return DUMPS + b"/" + name.encode()


def is_reserved(path: bytes) -> bool:
    """Whether a path (with or without its leading slash) is ``@dumps`` or lies in it."""
    path = path.lstrip(b"/")
    return path == DUMPS or path.startswith(DUMPS + b"/")


def dump_name(path: bytes) -> str | None:
    """The dump that a path means; ``None`` if it means none."""
    folder, _, name = path.strip(b"/").partition(b"/")
    if folder != DUMPS or not name or b"/" in name:
        return None
    return name.decode("ascii", "replace")
