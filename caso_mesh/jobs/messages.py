"""What a worker and its daemon say to each other, in msgpack over the worker's socket pair."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.device_jobs import Catalogued, Inventoried
from caso_mesh.model.device_work import (
    CatalogsAsked,
    CatalogsStand,
    DeviceCompared,
    DeviceFound,
    DeviceLacks,
    EraseGranted,
    MayErase,
)
from caso_mesh.model.entries import SourceException
from caso_mesh.model.facts import LogLine
from caso_mesh.model.jobs import Counts, Failure, Predicted, Progress
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet


class Began(Struct, frozen=True, tag="began", tag_field="say"):
    """Work begins. ``type`` is what really runs: an incremental without a parent is a full."""

    type: BackupType | None = None
    lines: tuple[LogLine, ...] = ()


class Progressed(Struct, frozen=True, tag="progressed", tag_field="say"):
    progress: Progress


class Logged(Struct, frozen=True, tag="logged", tag_field="say"):
    lines: tuple[LogLine, ...]


class Excepted(Struct, frozen=True, tag="excepted", tag_field="say"):
    exceptions: tuple[SourceException, ...]


class Verifying(Struct, frozen=True, tag="verifying", tag_field="say"):
    """The set is published; what it promises is read back now."""

    lines: tuple[LogLine, ...] = ()


class MayPublish(Struct, frozen=True, tag="may-publish", tag_field="say"):
    """Everything is durable but the set itself. The daemon journals it and answers ``Publish``."""

    set: str
    lines: tuple[LogLine, ...] = ()


class Published(Struct, frozen=True, tag="published", tag_field="say"):
    """The set is in the vault; its catalog detail lies in the task's ``segment_path``."""

    set: BackupSet
    segment_digest: bytes
    segment_size: int
    lines: tuple[LogLine, ...] = ()


class CleansUp(Struct, frozen=True, tag="cleans-up", tag_field="say"):
    """The command that leaves the source as it was has begun, and takes ``limit_s`` at most: the worker is not killed before
    that is over, unless by force."""

    limit_s: float


class TurnedAway(Struct, frozen=True, tag="turned-away", tag_field="say"):
    """Somebody who wanted to take part was refused: an error's code, where from (HOST:PORT), and why."""

    code: str
    source: str
    detail: str


class Consults(Struct, frozen=True, tag="consults", tag_field="say"):
    """What a worker asks the administrator, by way of its daemon; it goes on when it has been ``Answered``. One of the first
    fields is set."""

    found: DeviceFound | None = None
    lacks: DeviceLacks | None = None
    erase: MayErase | None = None
    catalogs: CatalogsAsked | None = None
    lines: tuple[LogLine, ...] = ()


class Ended(Struct, frozen=True, tag="ended", tag_field="say"):
    """The last message of a worker, always."""

    state: AttemptState
    counts: Counts
    seconds: float
    set: str | None = None
    type: BackupType | None = None
    failure: Failure | None = None
    lines: tuple[LogLine, ...] = ()
    predicted: Predicted | None = None
    found: Inventoried | None = None
    catalogued: Catalogued | None = None


#: Messages that take along what was logged before them: a small job is told in few.
WithLines = Began | Verifying | MayPublish | Published | Consults | Ended
FromWorker = (
    Began
    | Progressed
    | Logged
    | Excepted
    | Verifying
    | MayPublish
    | Published
    | CleansUp
    | TurnedAway
    | Consults
    | Ended
)


class Publish(Struct, frozen=True, tag="publish", tag_field="say"):
    """``publishing`` is in the journal: go."""


class Answered(Struct, frozen=True, tag="answered", tag_field="say"):
    """What the administrator said, or why it could not be asked."""

    compared: DeviceCompared | None = None
    grant: EraseGranted | None = None
    catalogs: CatalogsStand | None = None
    failure: Failure | None = None


class Cancel(Struct, frozen=True, tag="cancel", tag_field="say"):
    """End soon, without a set. ``why``: for the job log, if nobody asked for it."""

    why: str = ""


class Alone(Struct, frozen=True, tag="alone", tag_field="say"):
    """What is read goes to no second device any more: its attempt is over."""


class Watch(Struct, frozen=True, tag="watch", tag_field="say"):
    """Report progress each ``interval_s`` for the next ``for_s`` seconds."""

    interval_s: float
    for_s: float


class Pace(Struct, frozen=True, tag="pace", tag_field="say"):
    """The setting ``bandwidth-limit`` is another now."""

    bandwidth: str


class Term(Struct, frozen=True, tag="term", tag_field="say"):
    """Another administrator is in office, or the same one again: by ``tickets`` it admits the two ends of the attempt to each
    other, and those of the one beside it. ``issuer_key`` checks that of the other end, and ``term`` is its (lineage, term):
    earlier ones count no more."""

    tickets: dict[str, bytes]
    issuer_key: bytes
    term: tuple[int, int]


ToWorker = Publish | Cancel | Watch | Pace | Term | Alone | Answered
