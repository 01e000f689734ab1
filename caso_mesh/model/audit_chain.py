"""Whether the audit log is what was written: what people ask and see, and what voters ask each other."""

from __future__ import annotations

from msgspec import Struct


class AuditMark(Struct, frozen=True):
    """A place in what a server (node id) wrote down in an incarnation of its journal: the number of an entry's record, and the
    link there, in hexadecimal digits, which stands for the entry and all before it."""

    server: str
    incarnation: str
    seq: int
    link: str


class AuditVerify(Struct, frozen=True):
    """``against``: the marks of an earlier answer, which are compared with what is there now."""

    against: tuple[AuditMark, ...] = ()


class AuditProblem(Struct, frozen=True):
    """Something that is not as it was written. ``at``: of which time the entry is."""

    server: str
    at: str | None
    text: str


class AuditVoter(Struct, frozen=True):
    """Whether another voter holds the same. ``state``: ``same``, ``differs``, or ``away``."""

    server: str
    state: str
    text: str


class AuditVerified(Struct, frozen=True):
    """``whole``: nothing is wrong with what is there, at any voter that was asked. ``entries`` are as they were written,
    ``trimmed`` are gone by a trim, that of ``trimmed_before``, ``aged`` since their time is over (``audit-keep-s``); all of them lie
    between ``since`` and ``until``. ``unchained``: entries of before there were chains, of which nothing is proven.
    ``compared``: marks of ``against`` that are still right; ``marks``: to be kept elsewhere for the next time."""

    whole: bool
    entries: int
    trimmed: int
    aged: int
    unchained: int
    since: str | None
    until: str | None
    trimmed_before: str | None
    problems: tuple[AuditProblem, ...]
    voters: tuple[AuditVoter, ...]
    compared: int
    marks: tuple[AuditMark, ...]


class AuditSpan(Struct, frozen=True):
    """What a voter holds of an incarnation of a server's (node id) journal: links from number ``first`` to ``last``."""

    server: str
    incarnation: str
    first: int
    last: int


class AuditSpans(Struct, frozen=True):
    spans: tuple[AuditSpan, ...]


class AuditDigest(Struct, frozen=True):
    """Of what both hold: from number ``first`` to ``last``; ``last`` 0 if that is nothing."""

    first: int
    last: int
    digest: bytes


class AuditDigests(Struct, frozen=True):
    """In the order of what was asked for; of so many ``journals`` something is held."""

    digests: tuple[AuditDigest, ...]
    journals: int
