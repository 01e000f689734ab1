"""The history of jobs, one entry for each attempt; and the job log as it grows."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from caso_mesh.model.outcomes import LogLineView

#: Entries of one page.
MOST_ENTRIES = 2000


class HistoryRequest(Struct, frozen=True):
    """Newest first. ``server`` and ``pool``: attempts that read or write there. ``selection``: of the jobs that back up that list.
    ``job``: its name or id. ``state``: of attempts, or ``active``, or ``ended``. ``type``: of a backup, ``kind``: of the job. In
    time by when it was handed to its server: ``since_ns`` is included, ``until_ns`` not. ``after``: behind that attempt."""

    server: str | None = None
    pool: str | None = None
    selection: str | None = None
    job: str | None = None
    state: str | None = None
    type: str | None = None
    kind: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    limit: int = 200
    after: str | None = None


class HistoryEntry(Struct, frozen=True):
    """One attempt. ``rate``: bytes read in a second. ``error``: code, message, hint; ``error_category`` as in ``errors.md``.
    ``local``: its server ran it by itself."""

    attempt: str
    run: str
    job: str
    name: str
    kind: str
    type: str | None
    state: str
    source: str
    server: str
    device: str
    due: str
    delegated: str
    started: str | None
    ended: str | None
    seconds: float | None
    files: int
    bytes: int
    bytes_read: int
    bytes_stored: int
    exceptions: int
    rate: float | None
    set: str | None
    error: dict[str, Any] | None
    error_category: str | None
    policy: str | None
    selection: str | None
    local: bool = False


class History(Struct, frozen=True):
    """``more``: there are more entries behind the last one."""

    entries: tuple[HistoryEntry, ...]
    more: bool = False


class LogFollow(Struct, frozen=True):
    """The lines that came since ``seen``, which is that of the answer before; if there are none, they are waited for, up to
    ``wait_s``. ``attempt``: only of the attempt with that number."""

    name: str
    attempt: int | None = None
    seen: dict[str, int] = {}
    wait_s: float = 0.0


class TailLine(Struct, frozen=True):
    attempt: str
    server: str
    line: LogLineView


class LogTail(Struct, frozen=True):
    """``ended``: no more lines come. ``away``: servers that keep more of it, and cannot be asked now."""

    run: str
    lines: tuple[TailLine, ...]
    seen: dict[str, int]
    ended: bool
    away: tuple[str, ...] = ()
