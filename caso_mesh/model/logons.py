"""Logon information: a user and a secret by which commands of a server log on somewhere, as to a database.

The secret lies nowhere but sealed: one copy for each server that may use it, to that server's own key. Where it is given
to a command is the business of that server's own file.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

#: Variables in which a command finds user and secret, unless its entry names others.
USER_VARIABLE, SECRET_VARIABLE = "CASO_MESH_LOGON_USER", "CASO_MESH_LOGON_SECRET"
#: The longest user name, in characters.
LONGEST_USER = 256
#: The longest secret, in bytes of UTF-8.
LONGEST_SECRET = 4096


class Logon(Struct, frozen=True):
    """``servers`` (ids) and the members of ``pools`` (names) may use it, and with ``voters`` all voters. ``version`` is another
    one with each secret; ``copies``: that secret sealed to servers (by id), and to no others. ``revision`` grows with each
    change by a person."""

    name: str
    user: str
    servers: tuple[str, ...]
    pools: tuple[str, ...]
    version: str
    revision: int
    copies: dict[str, bytes]
    changed_by: str
    changed_at_ns: int
    voters: bool = False


class PutLogon(Struct, frozen=True, tag="put-logon", tag_field="do"):
    """Logon information as a person wants it from now on; ``revision`` is that of before, 0 for a new one. With another
    version all copies of before are of no use; with the same one they stay."""

    logon: Logon
    revision: int


class GrantLogon(Struct, frozen=True, tag="grant-logon", tag_field="do"):
    """More copies of a secret, by server (id). Of another version, or for who may not use it, they are not kept."""

    name: str
    version: str
    copies: dict[str, bytes]


class DeleteLogon(Struct, frozen=True, tag="delete-logon", tag_field="do"):
    name: str


class LogonOrder(Struct, frozen=True):
    """A logon as a server that may use it is told of it. ``sealed`` is its copy of the secret, empty until it has one."""

    name: str
    user: str
    version: str
    sealed: bytes = b""


class LogonVariables(Struct, frozen=True, forbid_unknown_fields=True):
    """The environment variables in which a command finds the user and the secret of its logon."""

    user: str = USER_VARIABLE
    secret: str = SECRET_VARIABLE


class Credentials(Struct, frozen=True):
    """A user and its secret, opened. Shows nothing of it."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return "<Credentials>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []
