"""Where the details of catalogs are kept, and what servers, voters and people ask each other about it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.entries import EntryType
from caso_mesh.model.listing import CatalogFind
from caso_mesh.model.storage import BackupSet


class CatalogMode(StrEnum):
    """Who keeps what is known of the single files of sets that a media server made. Records of sets are kept by every
    voter in any case."""

    CENTRALIZED = "centralized"
    DISTRIBUTED = "distributed"
    REPLICATED = "replicated"

    @property
    def at_voters(self) -> bool:
        return self is not CatalogMode.DISTRIBUTED

    @property
    def at_server(self) -> bool:
        return self is not CatalogMode.CENTRALIZED


# --- what a server that keeps catalogs asks of the administrator ---


class CatalogAssigned(Struct, frozen=True):
    """Which sets' catalogs the asking server is to keep, by id, after ``after``. ``digest``: of what it has
    (``digest_of``); when that is all of it, nothing is listed."""

    digest: bytes = b""
    after: str = ""


class CatalogAssignment(Struct, frozen=True):
    """``sets`` are (id, whether the server is known to have its catalog). ``begun``: it is known to keep catalogs at all."""

    sets: tuple[tuple[str, bool], ...] = ()
    more: bool = False
    same: bool = False
    begun: bool = False


class CatalogSets(Struct, frozen=True):
    """Ids of sets."""

    sets: tuple[str, ...]


class CatalogKept(Struct, frozen=True):
    """Sets whose catalogs the asking server wants to give up. ``firm``: it has said so in its journal, and a voter counts
    only if it knows that, so that it does not drop them any more."""

    sets: tuple[str, ...]
    firm: bool


class CatalogKeeps(Struct, frozen=True):
    """As ``CatalogKept``, of ``server`` (node id)."""

    server: str
    sets: tuple[str, ...]
    firm: bool


class CatalogRecords(Struct, frozen=True):
    """The records of sets, and those of the asked ones that are deleted. What is neither is not known."""

    sets: tuple[BackupSet, ...]
    deleted: tuple[str, ...] = ()


class CatalogExport(Struct, frozen=True):
    """The catalog of a set that the asking server made is to be laid ready, as changes against the set ``base``, or
    whole without one."""

    set: str
    base: str | None = None


# --- what the administrator asks of a server that keeps catalogs ---


class CatalogFolder(Struct, frozen=True):
    """A page of a folder of a set, in path order, after the path ``after``."""

    set: str
    path: bytes = b""
    after: bytes | None = None
    limit: int = 10000


class CatalogLookup(Struct, frozen=True):
    """Whether sets have paths: the first that is missing is named."""

    set: str
    paths: tuple[bytes, ...]


class CatalogLookedUp(Struct, frozen=True):
    missing: bytes | None = None


class CatalogSearch(Struct, frozen=True):
    """Files of ``sources`` (node ids; ``None`` = of all) as ``find`` asks for them, whose ``server`` and ``after`` mean nothing
    here: the first of those that come ``after`` a source and a path, in order of both. ``in_order``: sources come in the order in
    which they are given, all of them behind that of ``after``, or the first of them; else by id."""

    find: CatalogFind
    sources: tuple[str, ...] | None = None
    after: tuple[str, bytes] | None = None
    in_order: bool = False


class CatalogHit(Struct, frozen=True):
    """A path of ``source`` (node id) as it is in ``set``, the newest that has it. ``modified`` is (seconds,
    nanoseconds)."""

    set: str
    source: str
    path: bytes
    type: EntryType
    size: int
    modified: tuple[int, int]
    mode: int


class CatalogHits(Struct, frozen=True):
    """``cut_off``: the search took too long and was ended; there may be others. ``reached``: the source and the path up to
    which these are all there are, of those with ``more`` and of those cut off, if it is known. ``in_order``: as it was asked."""

    hits: tuple[CatalogHit, ...]
    more: bool = False
    cut_off: bool = False
    reached: tuple[str, bytes] | None = None
    in_order: bool = False


class CatalogHistory(Struct, frozen=True):
    """The versions of a path of ``source`` (node id)."""

    source: str
    path: bytes


class CatalogVersion(Struct, frozen=True):
    """One state of a path; ``fingerprint`` stands for content and metadata that is not here."""

    first_set: str
    last_set: str
    sets: int
    type: EntryType
    size: int
    modified: tuple[int, int]
    mode: int
    uid: int
    gid: int
    fingerprint: bytes


class CatalogHistoryReply(Struct, frozen=True):
    versions: tuple[CatalogVersion, ...]


class CatalogSizes(Struct, frozen=True):
    """How large a folder of a set is, and those below it down to ``depth``; at most ``limit`` of them."""

    set: str
    path: bytes = b""
    depth: int = 0
    limit: int = 10000


class FolderSize(Struct, frozen=True):
    """The files below ``path``, and their sizes together, in bytes."""

    path: bytes
    files: int
    size: int


class CatalogSizesReply(Struct, frozen=True):
    """In path order, the asked folder first."""

    folders: tuple[FolderSize, ...]
    more: bool = False


# --- what people ask and see ---


class CatalogUsage(Struct, frozen=True):
    """As ``CatalogSizes``."""

    set: str
    path: bytes = b""
    depth: int = 0
    limit: int = 10000


class UsageView(Struct, frozen=True):
    path: str
    path_b64: str
    files: int
    bytes: int


class UsageList(Struct, frozen=True):
    set: str
    folders: tuple[UsageView, ...]
    more: bool = False


class CatalogAsOf(Struct, frozen=True):
    """Which set shows ``path`` (absolute) of a server as it was at ``at_ns``; ``None`` = now."""

    server: str
    path: bytes
    at_ns: int | None = None


class CatalogChoice(Struct, frozen=True):
    """``detail``: its catalog is at the administrator. ``warnings``: what else there is, and why it is passed over."""

    set: str
    source: str
    started: str
    ended: str
    detail: bool
    warnings: tuple[str, ...] = ()


class CatalogAway(Struct, frozen=True):
    """A server that keeps catalogs and could not be asked. ``text``: what is said of it."""

    server: str
    since: str
    text: str


class CatalogModeView(Struct, frozen=True):
    """Where the catalogs of the sets that a server made are. ``sets``: how many it made; ``at_admin`` and ``at_server``: of how
    many the catalog is there; ``to_admin`` and ``to_server``: how many are still on their way there; ``to_drop``: how
    many go from where the mode does not have them. ``state``: ``settled``, ``moving``, or ``waiting`` for a server that
    is not connected. ``percent`` of the way, ``origin`` of the setting."""

    server: str
    mode: CatalogMode
    origin: str
    state: str
    sets: int
    at_admin: int
    at_server: int
    to_admin: int
    to_server: int
    to_drop: int
    percent: float
    connected: bool
    unreachable_since: str | None = None
    note: str | None = None


class CatalogModes(Struct, frozen=True):
    servers: tuple[CatalogModeView, ...]


class CatalogModesRequest(Struct, frozen=True):
    server: str | None = None
    pool: str | None = None
