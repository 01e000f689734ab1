"""Requests of the lists that people look at: what is shown of each, and how it goes on behind a page.

``server`` and ``pool`` name servers, ``state`` is what the list shows as such, ``since_ns`` (included) and ``until_ns`` (not
included) are instants. ``limit``: so many rows at most. ``after``: the rows behind that one, by what stands in its first
column; its answer says ``more`` when rows are left.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import InvalidValue

#: Rows of one answer, whatever was asked for.
MOST_ROWS = 100_000
#: The same of a search in catalogs.
MOST_MATCHES = 50_000


class SetStanding(StrEnum):
    """How a set stands, for those who ask for some only; a set may stand in several ways."""

    KEPT = "kept"
    EXPIRED = "expired"
    LOCKED = "locked"
    REDUNDANT = "redundant"


class ServerListRequest(Struct, frozen=True):
    """``discovered``: servers that belong to no mesh, instead; nothing else counts then."""

    discovered: bool = False
    pool: str | None = None
    server: str | None = None
    state: str | None = None
    limit: int = MOST_ROWS
    after: str | None = None


class DeviceListRequest(Struct, frozen=True):
    """Devices that one of the servers reaches."""

    server: str | None = None
    pool: str | None = None
    state: str | None = None
    limit: int = MOST_ROWS
    after: str | None = None


class MediumListRequest(Struct, frozen=True):
    """Media that one of the servers writes, last written to in that time."""

    server: str | None = None
    pool: str | None = None
    state: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    limit: int = MOST_ROWS
    after: str | None = None


class SelectionListRequest(Struct, frozen=True):
    """Selection lists that name one of the servers."""

    server: str | None = None
    pool: str | None = None
    limit: int = MOST_ROWS
    after: str | None = None


class JobListRequest(Struct, frozen=True):
    """Without ``state``: all that is not ended. ``state`` may be ``all``, ``ended``, or a state of runs. In time by when it is
    due. A run of several servers is not cut in two."""

    state: str | None = None
    server: str | None = None
    pool: str | None = None
    limit: int = 500
    since_ns: int | None = None
    until_ns: int | None = None
    after: str | None = None


class SetListRequest(Struct, frozen=True):
    """Sets that one of the servers holds, or is the source of, and that ended in that time. ``from_device``: what lies on that
    device now, whatever the administrator knows of it. ``expired``: only sets that nothing keeps any more."""

    server: str | None = None
    pool: str | None = None
    source: str | None = None
    limit: int = 1000
    from_device: str | None = None
    expired: bool = False
    state: SetStanding | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    after: str | None = None


class JobLogRequest(Struct, frozen=True):
    """The logs of a job's newest run, of a run or of an attempt: lines of that time that were written on one of the servers, of
    at least that level (``debug``, ``info``, ``warning``, ``error``)."""

    name: str
    server: str | None = None
    pool: str | None = None
    level: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None


def in_time(at_ns: int | None, since_ns: int | None, until_ns: int | None) -> bool:
    """Whether an instant lies in what was asked for. What has none lies in all of time only."""
    if at_ns is None:
        return since_ns is None and until_ns is None
    return (since_ns is None or at_ns >= since_ns) and (until_ns is None or at_ns < until_ns)


def check_state(state: str | None, known: type[StrEnum]) -> None:
    """Raises ``InvalidValue`` for a state that there is not."""
    names = [each.value for each in known]
    if state is not None and state not in names:
        raise InvalidValue(value=state, what="state", expected=f"Use {', '.join(names[:-1])} or {names[-1]}")


def limited(limit: int) -> int:
    """How many rows an answer has at most."""
    return max(1, min(limit, MOST_ROWS))


class CatalogFind(Struct, frozen=True):
    """Paths that match ``glob``, each as it is in the newest set that has it as asked for. ``since_ns``, ``until_ns``: when
    the set ended; ``size_min``, ``size_max``: bytes; ``modified_since_ns``, ``modified_until_ns``: the time of the
    file; all bounds are included. ``after``: go on behind a page, by its ``next``."""

    glob: bytes
    server: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    limit: int = 1000
    size_min: int | None = None
    size_max: int | None = None
    modified_since_ns: int | None = None
    modified_until_ns: int | None = None
    type: EntryType | None = None
    ignore_case: bool = False
    after: str | None = None
