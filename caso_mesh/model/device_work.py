"""What a worker whose work is about a device as a whole asks the administrator in office, and what it is answered."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.storage import BackupSet

#: Sets in one question to the administrator.
PAGE = 200


class OpenSession(Struct, frozen=True):
    """A session of a writer that has no end in the vault. ``server``: the node id of whoever signed it."""

    writer: str
    session: str
    server: str
    attempt: str


class DeviceFound(Struct, frozen=True):
    """What an attempt found in its device: a page of the sets whose ids follow ``after``, up to the last of them, or with
    ``last`` up to the end. ``deleted`` are those with a tombstone, ``locks`` the ends of locks. ``sessions`` come with the last page."""

    attempt: str
    after: str
    sets: tuple[BackupSet, ...]
    deleted: tuple[str, ...]
    locks: dict[str, int | None]
    last: bool
    sessions: tuple[OpenSession, ...] = ()


class DeviceCompared(Struct, frozen=True):
    """What the administrator says to it. ``missing``: sets that it believed to be there, and that must be looked for once
    more. ``added``: sets that nobody knew and that are known from now on; ``differ``: those that are known with another
    content. ``abandoned``: attempts of open sessions that nobody is at work for. ``lacking``: sets there that have no
    catalog where it is to be, and get one now, if the attempt is about catalogs."""

    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


class DeviceLacks(Struct, frozen=True):
    """Sets that are not in the device although they are believed to be: it was looked for them after the administrator had named
    them."""

    attempt: str
    sets: tuple[str, ...]


class CatalogsAsked(Struct, frozen=True):
    """How far the catalogs of some sets are that an attempt had made anew."""

    attempt: str
    sets: tuple[str, ...]


class CatalogsStand(Struct, frozen=True):
    """Of those sets the ones that are waited for: ``pending`` are being made, of ``away`` the server that is to keep them is
    not connected (set -> its name), ``damaged`` cannot be made. All others have theirs, or are deleted."""

    pending: tuple[str, ...] = ()
    away: dict[str, str] = {}
    damaged: tuple[str, ...] = ()


class MayErase(Struct, frozen=True):
    """An attempt has looked at its device itself, and nothing there speaks against erasing it: ``sets`` would be gone with
    ``vault`` (id). ``sessions`` have no end."""

    attempt: str
    vault: str
    sets: int
    sessions: tuple[OpenSession, ...] = ()


class EraseGranted(Struct, frozen=True):
    """It may, and is committed. The key of the new vault is wrapped to ``recipients``: encryption keys by server and recovery
    kit. ``now_ns`` is the administrator's clock."""

    recipients: dict[str, bytes]
    now_ns: int
