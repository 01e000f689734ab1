"""The audit log: its categories, what was changed from what to what, and how it is asked for.

Every call that changes something is in it, done or refused, with who asked, from where, and with what; every refusal; and what
servers do by themselves to sets. It is kept for ``audit-keep-s``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

#: What an entry is about: the first word of the call, without ``local.``.
CATEGORIES: Mapping[str, str] = {
    "security": "who was refused, and what was broken: strangers, roles that do not reach, revoked operators, hostile peers",
    "mesh": "the mesh itself: taken over, rebuilt, facts that are lost",
    "enrol": "servers and operators that joined",
    "adopt": "a server that was taken into a mesh",
    "operator": "people and what they may do",
    "server": "servers: approved, paused, removed, set",
    "queue": "queues on hold and released",
    "voter": "who may administer the mesh",
    "admin": "the office handed over or taken over",
    "recover": "the administrator rebuilt out of a device",
    "ca": "the certification authority",
    "token": "join links",
    "peer": "static addresses",
    "pool": "media server pools",
    "device": "storage devices",
    "device-pool": "pools of devices",
    "mediaset": "media sets: how long sets are kept",
    "medium": "media",
    "kit": "recovery kits",
    "logon": "logon information",
    "settings": "settings",
    "config": "files of the mesh that were applied",
    "selection": "selection lists",
    "policy": "policies",
    "associate": "policies that were given to selection lists",
    "dissociate": "policies that were taken from selection lists",
    "calendar": "calendars",
    "copy": "what was copied to servers",
    "error-rule": "error-handling rules",
    "job": "jobs and runs: run, changed, copied, held, canceled, deleted",
    "backup": "backups that people asked for",
    "restore": "restores",
    "file": "single files that people read out of sets",
    "verify": "verifications",
    "duplicate": "copies of sets",
    "synthetic": "full sets made of others",
    "drill": "restore drills",
    "set": "sets that were deleted, expired or locked",
    "catalog": "catalogs made anew",
    "alert": "answers to alerts",
    "mail-server": "the server that takes the mail of the mesh",
    "recipient": "whom the administrator tells",
    "recipient-group": "groups of recipients",
    "notify-rule": "who is told of what",
    "notify": "recipients that were tried",
    "report": "reports that are sent by a schedule",
    "audit": "the audit log: trimmed",
    "journal": "journals",
}
#: Entries of one page, and about how many bytes of them.
MOST_ENTRIES, MOST_BYTES = 1000, 1 << 20


def category_of(call: str) -> str:
    """The category of a call, by its name."""
    return call.removeprefix("local.").partition(".")[0]


class Change(Struct, frozen=True):
    """One field of something that is kept changed. ``what``: kind and name, as in ``pool west``. Of something new ``old`` is
    ``None`` and ``field`` empty, of something deleted ``new``: the other one holds all fields."""

    what: str
    field: str
    old: Any = None
    new: Any = None


class AuditListRequest(Struct, frozen=True):
    """Newest first, or with ``oldest_first`` the other way round. ``server``, ``pool``: where it was written down. ``what``: a call,
    or a beginning of it with a dot, as in ``set.``. ``outcome``: ``done``, an error's code, or ``not-done`` for all of these.
    ``text``: what stands somewhere in the names, the fields or the changes, in these very letters. ``since_ns`` is
    included, ``until_ns`` not. ``after``: go on behind a page, by its ``next``."""

    limit: int = 500
    category: str | None = None
    who: str | None = None
    what: str | None = None
    server: str | None = None
    pool: str | None = None
    outcome: str | None = None
    text: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    after: str | None = None
    oldest_first: bool = False


class AuditView(Struct, frozen=True):
    """Who did what. ``source``: from which address; ``server``: where it was written down; ``fields``: what was asked for,
    without secrets; ``changed``: what of the state of the mesh became what, cut short where it is long."""

    at: str
    who: str
    what: str
    category: str
    outcome: str
    server: str
    source: str
    fields: dict[str, Any]
    changed: tuple[Change, ...] = ()


class AuditList(Struct, frozen=True):
    """``next``: there are more entries, behind this place."""

    entries: tuple[AuditView, ...]
    next: str | None = None


class AuditTrim(Struct, frozen=True):
    """Forget entries of before ``before_ns``, which is in the past. Those of trims stay."""

    before_ns: int


class AuditTrimmed(Struct, frozen=True):
    """How many entries are gone, and the time of the oldest one that is left."""

    removed: int
    oldest: str | None
