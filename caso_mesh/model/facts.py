"""Facts: what happened. A fact is written first where it happened, into that server's journal, and copied up.

``kind`` of a journal record is the tag of the fact; its data is the fact in msgpack (``encode``/``decode``). A kind
that this version does not know decodes to ``UnknownFact`` and is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from caso_mesh.model.audit import Change
from caso_mesh.model.copies import Outcome
from caso_mesh.model.device_jobs import Catalogued, Inventoried
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import PeerMalformed
from caso_mesh.model.jobs import Attempt, Counts, Failure, Predicted, Run
from caso_mesh.model.resources import FileSystem
from caso_mesh.model.states import AlertKind, AttemptState, BackupType, JobKind, WaitReason
from caso_mesh.model.storage import BackupSet, Medium

#: Characters of one field of a request in the audit log.
_LONGEST = 500
#: Fields of requests that never are in the audit log: secrets, sealed or not, and what only programs read.
SECRET = frozenset({"secret", "code", "link", "passphrase", "signature", "nonce", "copies", "signers"})

#: A URL: its scheme, a user in it, its host and port, and the rest, which often is what opens it.
_URL = re.compile(r"(https?://)(?:[^\s/?#\"'@]*@)?([^\s/?#\"'@]*)[^\s\"']*", re.IGNORECASE)


class ServerStarted(Struct, frozen=True, tag="server-started", tag_field="fact"):
    """The daemon of this server started."""

    version: str


class JournalBegun(Struct, frozen=True, tag="journal-begun", tag_field="fact"):
    """The journal began a new incarnation, because the state folder had been rolled back to an older copy."""

    previous: str


class AttemptStarted(Struct, frozen=True, tag="attempt-started", tag_field="fact"):
    attempt: str
    server: str
    device: str
    type: BackupType | None = None


class AttemptVerifying(Struct, frozen=True, tag="attempt-verifying", tag_field="fact"):
    attempt: str


class AttemptEnded(Struct, frozen=True, tag="attempt-ended", tag_field="fact"):
    """The end of an attempt. ``type`` is what really ran: an incremental without a parent is a full. ``predicted``: what
    a test run found, ``found``: what an inventory did, ``catalogued``:
    what making a catalog anew came to. ``kind``: of the job, for what is counted over all of them."""

    attempt: str
    state: AttemptState
    counts: Counts
    seconds: float
    set: str | None = None
    type: BackupType | None = None
    failure: Failure | None = None
    predicted: Predicted | None = None
    kind: JobKind | None = None
    found: Inventoried | None = None
    catalogued: Catalogued | None = None


class AttemptExceptions(Struct, frozen=True, tag="attempt-exceptions", tag_field="fact"):
    """Paths that could not be kept or restored as they are; several facts may follow each other."""

    attempt: str
    exceptions: tuple[SourceException, ...]


class Publishing(Struct, frozen=True, tag="publishing", tag_field="fact"):
    """A set is about to be published: at a restart the daemon looks into the vault whether it was."""

    attempt: str
    set: str
    device: str


class SetPublished(Struct, frozen=True, tag="set-published", tag_field="fact"):
    set: BackupSet


class SetFound(Struct, frozen=True, tag="set-found", tag_field="fact"):
    """A set was found on its device by ``server`` (node id), where no journal may tell of it any more. Told by the server
    in office, who asked. ``unless_gone``: nobody knew of it. If somebody deletes it just then it is gone, in whichever order
    that is told; one of which it was known that it is gone lies there again."""

    set: BackupSet
    server: str
    unless_gone: bool = False


class SetDeleted(Struct, frozen=True, tag="set-deleted", tag_field="fact"):
    """A set on ``device`` (id) has a tombstone. ``request`` is the request that asked for it."""

    set: str
    device: str
    who: str
    request: str = ""


class SetLocked(Struct, frozen=True, tag="set-locked", tag_field="fact"):
    """A set on ``device`` (id) is locked until ``until_ns``, without end for ``None``."""

    set: str
    device: str
    who: str
    until_ns: int | None = None


class SetsMissing(Struct, frozen=True, tag="sets-missing", tag_field="fact"):
    """Of the sets that are believed to be on ``device`` (id) just these are not there, as an attempt found. Told by the server
    in office, which it asked."""

    device: str
    sets: tuple[str, ...]
    attempt: str


class VaultErased(Struct, frozen=True, tag="vault-erased", tag_field="fact"):
    """The vault of ``device`` (id) is being erased by an attempt: all sets in it are gone, also those that are told of later. Told
    by the server in office, which let it begin."""

    device: str
    vault: str
    attempt: str
    who: str


class CatalogDetail(Struct, frozen=True, tag="catalog-detail", tag_field="fact"):
    """The catalog detail of a set lies ready as a segment of ``size`` bytes with this SHA-256; with 0 bytes it was lost,
    and is made out of the tree."""

    set: str
    digest: bytes
    size: int


class CatalogAtServer(Struct, frozen=True, tag="catalog-at-server", tag_field="fact"):
    """This server keeps, durably, the catalogs of ``sets`` that it made, and those of ``gone`` not any more. ``began``: it
    keeps catalogs from now on, and none yet, whatever it said before; ``ended``: none any more."""

    sets: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    began: bool = False
    ended: bool = False


class MediumChanged(Struct, frozen=True, tag="medium-changed", tag_field="fact"):
    medium: Medium


class LogLine(Struct, frozen=True):
    at_ns: int
    level: Literal["debug", "info", "warning", "error"]
    text: str


class JobLog(Struct, frozen=True, tag="job-log", tag_field="fact"):
    """Lines of the job log of one attempt, in order."""

    attempt: str
    lines: tuple[LogLine, ...]


class RunWaits(Struct, frozen=True, tag="run-waits", tag_field="fact"):
    """Why a part of a run waits since ``since_ns``, until the next such fact of it, its next attempt, or the end of the run.
    Told by the server in office. ``fields`` are those of the reason's text, long lists of names cut short."""

    run: str
    source: str
    reason: WaitReason
    since_ns: int
    fields: dict[str, Any] = {}


class CopyTaken(Struct, frozen=True, tag="copy-taken", tag_field="fact"):
    """What came of a copy (id) that was sent to this server."""

    copy: str
    outcomes: tuple[Outcome, ...]


class LocalRun(Struct, frozen=True, tag="local-run", tag_field="fact"):
    """A run of a job that this server runs by itself, as it is now, with its attempts (without their secrets). ``list``: the id of
    the selection list that its job backs up."""

    run: Run
    attempts: tuple[Attempt, ...]
    list: str = ""


class AlertRaised(Struct, frozen=True, tag="alert-raised", tag_field="fact"):
    """An alert. ``category`` is kebab-case (``job-failed``, ``device-full``); ``object`` what it is about. ``happened_at_ns``: when
    what it tells of happened, if that may have been before this was written; 0 = then."""

    id: str
    alert: AlertKind
    category: str
    text: str
    object: str = ""
    fields: dict[str, Any] = {}
    happened_at_ns: int = 0


class AlertCleared(Struct, frozen=True, tag="alert-cleared", tag_field="fact"):
    """What an alert told of is over by itself. ``of``: the server that told of it, when that was an administrator whom this
    one has followed in office."""

    id: str
    of: str = ""


class AlertAnswered(Struct, frozen=True, tag="alert-answered", tag_field="fact"):
    """An alert of this server was answered at it, by the operator ``who``. It is an answer once the administrator has made a
    command of it; the first in the order of those wins."""

    id: str
    who: str
    response: str


class NoticesSent(Struct, frozen=True, tag="notices-sent", tag_field="fact"):
    """A recipient's own server took the message ``message``, which told of ``keys``. ``given_up``: why it was not sent and will
    not be. Told by the server in office: whoever is in office next does not send it again."""

    recipient: str
    message: str
    keys: tuple[str, ...]
    given_up: str = ""


class FileSystems(Struct, frozen=True, tag="file-systems", tag_field="fact"):
    """The file systems of this server's own disks, all of them, as they are now."""

    systems: tuple[FileSystem, ...]


class Audit(Struct, frozen=True, tag="audit", tag_field="fact"):
    """Who did what. ``outcome`` is ``done`` or an error code. ``changed``: what it changed in the state of the mesh."""

    who: str
    what: str
    category: str
    outcome: str = "done"
    source: str = ""
    fields: dict[str, Any] = {}
    changed: tuple[Change, ...] = ()


class AuditTrimmed(Struct, frozen=True, tag="audit-trimmed", tag_field="fact"):
    """Entries of the audit log of before ``before_ns`` are forgotten, but for those that tell of this. Told by the server in
    office."""

    before_ns: int
    who: str


class UnknownFact(Struct, frozen=True, tag="unknown", tag_field="fact"):
    """A fact of a newer version."""

    kind: str


Fact = (
    ServerStarted
    | JournalBegun
    | AttemptStarted
    | AttemptVerifying
    | AttemptEnded
    | AttemptExceptions
    | Publishing
    | SetPublished
    | SetFound
    | SetDeleted
    | SetLocked
    | SetsMissing
    | VaultErased
    | CatalogDetail
    | CatalogAtServer
    | MediumChanged
    | JobLog
    | RunWaits
    | CopyTaken
    | LocalRun
    | AlertRaised
    | AlertCleared
    | AlertAnswered
    | NoticesSent
    | Audit
    | AuditTrimmed
    | FileSystems
)
_TYPES: dict[str, type] = {kind.__struct_config__.tag: kind for kind in Fact.__args__}


def fact_kind(fact: Fact) -> str:
    return str(type(fact).__struct_config__.tag)


def encode(fact: Fact) -> tuple[str, bytes]:
    """``(kind, data)`` as the journal takes it."""
    return fact_kind(fact), msgspec.msgpack.encode(fact)


#: What msgspec says of a value that an enumeration, or a union by tags, does not have.
_LATER_VALUE = ("Invalid enum value", "Invalid value ")


def decode(kind: str, data: bytes) -> Fact | UnknownFact:
    """The fact of a journal record. Raises ``PeerMalformed`` if a known kind does not hold what it must. A value of an
    enumeration that this version does not know is of a later one: the fact is as unknown as another kind would be."""
    type_ = _TYPES.get(kind)
    if type_ is None:
        return UnknownFact(kind=kind)
    try:
        fact: Fact = msgspec.msgpack.decode(data, type=type_)
    except msgspec.MsgspecError as error:
        if str(error).startswith(_LATER_VALUE) and "`$.fact`" not in str(error):
            return UnknownFact(kind=kind)
        raise PeerMalformed(peer="a journal", detail=f"fact {kind}: {error}") from None
    return fact


def audited(value: Any) -> Any:
    """A request as the audit log keeps it: what is long or binary is cut, a text with its digest at the end; secrets are
    left out, and of URLs only scheme, host and port are kept."""
    if isinstance(value, Mapping):
        return {str(key): audited(item) for key, item in value.items() if key not in SECRET}
    if isinstance(value, (list, tuple)):
        return [audited(item) for item in value[:20]]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")[:_LONGEST]
    if isinstance(value, str):
        if len(value) <= _LONGEST:
            return without_paths(value)
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{without_paths(value)[:_LONGEST]}... sha256:{digest}"
    return value


def without_paths(text: str) -> str:
    """A text in which each URL has its scheme, host and port only: the rest of that of a webhook often is a secret."""
    return _URL.sub(r"\1\2", text)
