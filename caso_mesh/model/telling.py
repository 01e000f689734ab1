"""What servers and voters tell each other of what happened: journals, replicas, the replicated log."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.orders import Authority


class JournalHead(Struct, frozen=True):
    incarnation: str
    seq: int
    hash: bytes


class JournalPlace(Struct, frozen=True):
    incarnation: str
    seq: int


class JournalCursors(Struct, frozen=True):
    """How far the administrator holds each incarnation of the asking server's journal; up to ``held`` enough voters hold it
    durably, so that it need not be kept there."""

    cursors: tuple[JournalHead, ...]
    held: tuple[JournalPlace, ...] = ()


class JournalRecord(Struct, frozen=True):
    incarnation: str
    seq: int
    at_ns: int
    kind: str
    data: bytes
    hash: bytes


class JournalPush(Struct, frozen=True):
    """``pruned``: what the administrator lacks up to there is not at the sending server any more."""

    records: tuple[JournalRecord, ...]
    pruned: tuple[JournalHead, ...] = ()


class ReplicaHead(Struct, frozen=True):
    """How far a voter holds the journal of a server."""

    server: str
    incarnation: str
    seq: int


class ReplicaBegin(Struct, frozen=True):
    """A voter wants to follow the tables of another one, and holds this much already. ``schema``: the version of its tables;
    those of a later one cannot be taken over (0: it does not tell)."""

    heads: tuple[ReplicaHead, ...]
    schema: int = 0


class ReplicaPlace(Struct, frozen=True):
    """A place in the tables of one voter: ``life`` names them, ``arrival`` counts the records in the order in which they
    came. ``pruned``: what came before is not all there as records: the tables are to be taken over first."""

    life: str
    arrival: int
    pruned: bool = False


class ReplicaPull(Struct, frozen=True):
    """What came behind ``place``. Waits up to ``wait_s`` seconds for something to come. ``settled``: up to this arrival
    the asking voter holds everything durably."""

    place: ReplicaPlace
    wait_s: float = 0.0
    settled: int = 0


class ReplicaRecord(Struct, frozen=True):
    """A record of the journal of ``server``; ``refused``: why it means nothing."""

    server: str
    record: JournalRecord
    refused: str | None = None


class ReplicaPiece(Struct, frozen=True):
    """Records in the order in which they came, and the place behind the last of them. ``applied``: how far the log is
    applied at the voter that answers, if it is in office (else 0): up to there all runs are made of which they tell."""

    place: ReplicaPlace
    records: tuple[ReplicaRecord, ...]
    applied: int = 0


class ReplicaFloors(Struct, frozen=True):
    """Up to where a voter has pruned records, as all others hold them."""

    floors: tuple[ReplicaHead, ...]


class ReplicaCopy(Struct, frozen=True):
    """A piece of a copy of a voter's tables, from ``offset``; at 0 the copy is made."""

    offset: int


class ReplicaCopyPiece(Struct, frozen=True):
    """``size`` and ``digest`` (SHA-256) are those of the whole copy."""

    size: int
    digest: bytes
    data: bytes


class VoterPrepare(Struct, frozen=True):
    """A server is to become a voter: it makes the key of its issuing certificate, the same when it is asked again."""


class VoterPrepared(Struct, frozen=True):
    """The public key (DER) of the issuing certificate that it needs."""

    public_key: bytes


class VoterBecome(Struct, frozen=True):
    """The issuing certificate (DER) of a server that becomes a voter; the root above it. It begins an empty log of
    ``lineage`` and waits to be sent all of it. ``preset``: the pace of the voters; ``founders``: those at
    the beginning of the log. ``authority``: the server is listed as
    a voter from there on."""

    root: bytes
    issuing: bytes
    lineage: int
    preset: str
    founders: tuple[str, ...]
    authority: Authority


class ConsensusMessage(Struct, frozen=True):
    """A message of the replicated log to another member of it, in the log's own encoding."""

    lineage: int
    data: bytes


class VoterRelay(Struct, frozen=True):
    """A voter that is not in office asks a server something by way of the administrator, who has links with all.
    ``params`` is packed."""

    server: str
    call: str
    params: bytes


class VoterRelayed(Struct, frozen=True):
    """What the server answered, packed."""

    answer: bytes


class JournalHashAt(Struct, frozen=True):
    """One place in the administrator's copy of the asking server's journal."""

    incarnation: str
    seq: int


class JournalHashReply(Struct, frozen=True):
    hash: bytes | None = None
