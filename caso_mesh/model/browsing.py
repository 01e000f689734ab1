"""What is asked and shown of backup sets, of the files in them, and of catalogs."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.catalogs import CatalogAway


class SetName(Struct, frozen=True):
    """A set by its id or a unique beginning of it."""

    set: str


class SetLock(Struct, frozen=True):
    """``until_ns``: the end of the lock, ``None`` = without end."""

    set: str
    until_ns: int | None = None


class SetAsOf(Struct, frozen=True):
    """Which set has ``paths`` (absolute) of a server as they were at ``at_ns``; ``None`` = now. Of copies that can be read one
    on a device that the server ``near`` reaches is taken (itself, without)."""

    server: str
    paths: tuple[bytes, ...]
    at_ns: int | None = None
    near: str | None = None


class FileOpen(Struct, frozen=True):
    """A regular file as it was in a set; ``path`` is absolute."""

    set: str
    path: bytes


class FileRead(Struct, frozen=True):
    """A piece of a file that the caller opened, at most 4 MiB."""

    handle: str
    offset: int
    length: int = 1 << 20


class FilePiece(Struct, frozen=True):
    """Empty at the end of the file."""

    data: bytes


class CatalogList(Struct, frozen=True):
    """``from_device``: read out of the set as it lies on that device; the catalog is passed by. ``roots``: what was selected
    itself is listed, wherever it lies, in place of a folder; of a set of all of ``/`` that is what lies in it."""

    set: str
    path: bytes = b""
    after: bytes | None = None
    limit: int = 10000
    from_device: str | None = None
    roots: bool = False


class CatalogVersions(Struct, frozen=True):
    server: str
    path: bytes


class SetView(Struct, frozen=True):
    """``kept_by``: what keeps it until newer sets come: ``last-good``, or numbers of its media set (``last``, ``daily`` ...);
    ``expires`` does not count then. ``expired``: nothing keeps it any more. ``copy_of``: the set of which it is a copy.
    ``made_of``: the set of which this full one was made without reading the source. ``missing``: an inventory did not find it
    on its device. ``damaged``: it was when it was last read back."""

    id: str
    source: str
    server: str
    device: str
    medium: str
    media_set: str
    type: str
    job: str
    run: str
    attempt: str
    started: str
    ended: str
    files: int
    bytes: int
    bytes_stored: int
    exceptions: int
    paths: tuple[str, ...]
    expires: str | None
    protected_until: str | None
    locked: bool
    redundant: bool = False
    catalog: bool = True
    kept_by: tuple[str, ...] = ()
    expired: bool = False
    copy_of: str | None = None
    made_of: str | None = None
    missing: bool = False
    damaged: bool = False


class SetList(Struct, frozen=True):
    sets: tuple[SetView, ...]
    more: bool = False


class ExpiryRow(Struct, frozen=True):
    """``goes``: with the next pass. ``why``: what keeps it (``retention``, ``protection``, ``locked``, ``no-media-set``,
    ``last-good``, ``last``, ``daily`` ...), ``device-away``, ``device-read-only``, or what the last pass was told."""

    set: str
    source: str
    device: str
    media_set: str
    ended: str
    goes: bool
    expires: str | None
    why: tuple[str, ...]


class ExpiryView(Struct, frozen=True):
    """``paused``: why nothing expires now."""

    paused: str | None
    sets: tuple[ExpiryRow, ...]


class Expired(Struct, frozen=True):
    """How many sets went. ``paused``: why nothing expires now."""

    gone: int
    paused: str | None


class SetChoice(Struct, frozen=True):
    """The newest set that ended in time and covers what was asked for. ``servers`` reach its device now."""

    id: str
    source: str
    type: str
    started: str
    ended: str
    device: str
    servers: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class CatalogRebuilt(Struct, frozen=True):
    """What lies on a device. ``added`` sets were not known here, ``deleted`` ones were and are deleted there; the
    catalog of ``pending`` sets is made now, one after the other. ``server`` read the device."""

    device: str
    server: str
    sets: int
    added: int
    deleted: int
    pending: int
    warnings: tuple[str, ...] = ()


class FileOpened(Struct, frozen=True):
    """An open file. ``server`` is the one that reads it out of ``device``."""

    handle: str
    set: str
    path: str
    size: int
    device: str
    server: str


class EntryView(Struct, frozen=True):
    """``mtime`` and ``mode`` are ``None`` of a folder above what was selected: it was not backed up itself."""

    path: str
    path_b64: str
    type: str
    size: int
    mtime: str | None
    mtime_ns: str | None
    mode: str | None


class EntryList(Struct, frozen=True):
    entries: tuple[EntryView, ...]
    more: bool = False


class MatchView(Struct, frozen=True):
    server: str
    path: str
    path_b64: str
    set: str
    size: int
    mtime: str
    mtime_ns: str
    type: str


class MatchList(Struct, frozen=True):
    """``away``: servers that keep catalogs which could not be asked. ``cut_off``: the search took too long and was ended.
    ``only``: the servers that the caller's role is limited to, if no others were searched because of that. ``more``: there
    are others behind these; ``next``: what goes on there, and where a search goes on that was ended."""

    matches: tuple[MatchView, ...]
    more: bool = False
    away: tuple[CatalogAway, ...] = ()
    cut_off: bool = False
    only: tuple[str, ...] = ()
    next: str | None = None


class VersionView(Struct, frozen=True):
    """One version of a path: the sets from ``first_set`` to ``last_set`` hold it unchanged."""

    path: str
    type: str
    size: int
    mtime: str
    mtime_ns: str
    mode: str
    first_set: str
    last_set: str
    sets: int
    first_seen: str
    last_seen: str


class VersionList(Struct, frozen=True):
    """``away``: as in ``MatchList``."""

    versions: tuple[VersionView, ...]
    away: tuple[CatalogAway, ...] = ()
