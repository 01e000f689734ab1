"""What recipients are to be told of: alerts and ends of runs, by the rules, without what they were told already.

A pure function of what is committed and recorded: whoever comes to office works out the same, with the same keys. What
comes too often is told together: beyond so many messages an hour, and where one thing comes and goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.model.ids import base32
from caso_mesh.model.notices import MailServer, NoticeRule, Recipient, RecipientGroup
from caso_mesh.model.states import AlertKind, RunState

_SECOND = 1_000_000_000
HOUR_NS = 3600 * _SECOND
#: What happened longer ago is not told any more.
HORIZON_NS = 3 * 86400 * _SECOND
#: A thing of which so many messages went out within an hour is told of once it was quiet, or after ``FLAP_PAUSE_NS``.
FLAPS, FLAP_PAUSE_NS = 3, 1800 * _SECOND
#: The rule that holds while there is none.
STANDARD = "standard"
_URGENT = (AlertKind.ATTENTION, AlertKind.ERROR)


class Sort(StrEnum):
    """What an occurrence is: an alert, that what it told of is over, the end of a run."""

    ALERT = "alert"
    OVER = "over"
    END = "end"


class Occurrence(Struct, frozen=True):
    """Something that recipients may be told of. An alert about the end of a run has the ``key`` of that end: it is one thing.
    ``servers`` (ids): whom it is about; ``job``, ``policy``, ``list`` are ids, empty without. ``type`` and ``category`` are
    those of the ``alert`` (its id), ``end`` is the state that a run came to. ``where``: the name of the server.
    ``do``: what can be done about it."""

    key: str
    at_ns: int
    sort: Sort
    text: str
    type: str = ""
    category: str = ""
    object: str = ""
    where: str = ""
    servers: frozenset[str] = frozenset()
    end: str = ""
    job: str = ""
    policy: str = ""
    list: str = ""
    over_at_ns: int | None = None
    alert: str = ""
    do: str = ""

    @property
    def thing(self) -> tuple[str, str, str]:
        """What comes and goes."""
        return (self.category, self.object, self.where)


class Told(Struct, frozen=True):
    """A recipient was told of ``key`` in ``message``."""

    recipient: str
    key: str
    message: str
    at_ns: int


class Book(Struct, frozen=True):
    """Who is to be told. ``pools``: the servers (ids) of each."""

    recipients: Mapping[str, Recipient]
    groups: Mapping[str, RecipientGroup] = {}
    rules: Mapping[str, NoticeRule] = {}
    pools: Mapping[str, frozenset[str]] = {}

    def standing(self) -> list[NoticeRule]:
        """The rules that hold, by name."""
        if self.rules or not self.recipients:
            return [self.rules[name] for name in sorted(self.rules)]
        return [NoticeRule(STANDARD, tuple(sorted(self.recipients)), 0, types=_URGENT)]

    def resolved(self, names: Iterable[str]) -> list[str]:
        """The recipients that some names of recipients and groups mean."""
        found: dict[str, None] = {}
        for name in names:
            group = self.groups.get(name)
            found.update(dict.fromkeys((name,) if group is None else group.members))
        return [name for name in found if name in self.recipients]


class Form(StrEnum):
    """How occurrences are told: by themselves, several together, one thing that came and went."""

    ONE = "one"
    DIGEST = "digest"
    FLAPPING = "flapping"


class Notice(Struct, frozen=True):
    """One message to one recipient. ``key`` is the same whoever sends it, as long as what it tells of first is."""

    recipient: str
    key: str
    form: Form
    about: tuple[Occurrence, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(each.key for each in self.about)


class Due(Struct, frozen=True):
    """What is to be sent now, and when it is to be looked again because of what waits."""

    notices: tuple[Notice, ...] = ()
    again_ns: int | None = None


def matches(rule: NoticeRule, each: Occurrence, pools: Mapping[str, frozenset[str]]) -> bool:
    """Whether a rule is about something that happened."""
    if each.at_ns < rule.since_ns or (each.sort is Sort.OVER and not rule.over):
        return False
    if each.type not in rule.types and each.category not in rule.categories and each.end not in rule.ends:
        return False
    if rule.servers or rule.pools:
        wanted = frozenset(rule.servers).union(*(pools.get(pool, ()) for pool in rule.pools))
        if not wanted & each.servers:
            return False
    narrowed = rule.jobs or rule.policies or rule.lists
    return not narrowed or each.job in rule.jobs or each.policy in rule.policies or each.list in rule.lists


def due(book: Book, occurrences: Sequence[Occurrence], told: Iterable[Told], now_ns: int) -> Due:
    """What each recipient is to be told now. ``occurrences`` are those of the last ``HORIZON_NS``, told of or not."""
    wanted = _wanted(book, occurrences)
    by_recipient: dict[str, list[Told]] = {name: [] for name in wanted}
    for row in told:
        by_recipient.get(row.recipient, []).append(row)
    notices: list[Notice] = []
    again: list[int] = []
    for name, about in wanted.items():
        made, later = _due(book.recipients[name], about, by_recipient[name], now_ns)
        notices += made
        again += later
    return Due(tuple(notices), min(again, default=None))


def _wanted(book: Book, occurrences: Sequence[Occurrence]) -> dict[str, dict[str, Occurrence]]:
    """Recipient -> what the rules say that it is told of, by key, oldest first."""
    wanted: dict[str, dict[str, Occurrence]] = {name: {} for name in sorted(book.recipients)}
    rules = [(rule, book.resolved(rule.to)) for rule in book.standing()]
    for each in _merged(occurrences):
        for rule, names in rules:
            if matches(rule, each, book.pools):
                for name in names:
                    if each.at_ns >= book.recipients[name].since_ns and not _is_own_failure(each, name):
                        wanted[name].setdefault(each.key, each)
    return wanted


def _merged(occurrences: Sequence[Occurrence]) -> list[Occurrence]:
    """Oldest first; the end of a run and the alert about it are one, of which the alert says more."""
    found: dict[str, Occurrence] = {}
    for each in sorted(occurrences, key=lambda each: (each.sort is Sort.END, each.at_ns, each.key)):
        alert = found.get(each.key)
        found[each.key] = each if alert is None else replace(alert, end=each.end)
    return sorted(found.values(), key=lambda each: (each.at_ns, each.key))


def _is_own_failure(each: Occurrence, recipient: str) -> bool:
    """A recipient that cannot be reached is not told so."""
    return each.category == "notification-failed" and each.object == recipient


def _due(
    recipient: Recipient, about: Mapping[str, Occurrence], told: Sequence[Told], now_ns: int
) -> tuple[list[Notice], list[int]]:
    known = {row.key: row.at_ns for row in told}
    lately = {row.message: row.at_ns for row in told if row.at_ns > now_ns - HOUR_NS}
    ready: list[Notice] = []
    again: list[int] = []
    for form, pieces in _pieces(about, known, now_ns):
        if form is Form.FLAPPING and now_ns < pieces[0].at_ns + FLAP_PAUSE_NS:
            again.append(pieces[0].at_ns + FLAP_PAUSE_NS)
            continue
        ready.append(Notice(recipient.name, notice_key(recipient.name, form, pieces[0].key), form, tuple(pieces)))
    left = recipient.hourly - len(lately)
    if len(ready) <= left or not ready:
        return ready, again
    if left <= 0:
        return [], [*again, min(lately.values()) + HOUR_NS]
    alone, rest = ready[: left - 1], [each for notice in ready[left - 1 :] for each in notice.about]
    rest.sort(key=lambda each: (each.at_ns, each.key))
    key = notice_key(recipient.name, Form.DIGEST, rest[0].key)
    return [*alone, Notice(recipient.name, key, Form.DIGEST, tuple(rest))], again


def _pieces(
    about: Mapping[str, Occurrence], known: Mapping[str, int], now_ns: int
) -> Iterator[tuple[Form, list[Occurrence]]]:
    """What was not told yet, oldest first; that of a thing of which much was told lately is one piece."""
    lately: dict[tuple[str, str, str], int] = {}
    for key, each in about.items():
        if known.get(key, 0) > now_ns - HOUR_NS:
            lately[each.thing] = lately.get(each.thing, 0) + 1
    open_ = [each for key, each in about.items() if key not in known and each.at_ns > now_ns - HORIZON_NS]
    bundles: dict[tuple[str, str, str], list[Occurrence]] = {}
    for each in open_:
        if each.object and lately.get(each.thing, 0) >= FLAPS:
            bundles.setdefault(each.thing, []).append(each)
    for each in open_:
        bundle = bundles.get(each.thing)
        if bundle is None:
            yield Form.ONE, [each]
        elif bundle[0] is each:
            yield Form.FLAPPING, bundle


def notice_key(recipient: str, form: str, first: str) -> str:
    """The key of a message to a recipient, of what it tells of first."""
    return base32(hashlib.sha256(f"{recipient}\0{form}\0{first}".encode()).digest())[:26]


def end_key(run: str) -> str:
    """The key of the end of a run, and of the alert about it."""
    return f"run/{run}"


def run_ends_that_are_told() -> tuple[RunState, ...]:
    """The ends that a rule may name."""
    return (
        RunState.SUCCEEDED,
        RunState.SUCCEEDED_WITH_EXCEPTIONS,
        RunState.FAILED,
        RunState.TIMED_OUT,
        RunState.MISSED,
        RunState.CANCELED,
    )


def nobody(book: Book, mail: MailServer | None, failing: frozenset[str]) -> str | None:
    """Why nobody would be told of an alert that needs attention, or of an error; ``None`` if somebody would be."""
    for kind in _URGENT:
        names = book.resolved(name for rule in book.standing() if kind in rule.types for name in rule.to)
        if not names:
            why = "there is no recipient" if not book.recipients else f"no rule tells anybody of alerts of type {kind}"
            return f"{why}: caso-mesh notify recipient create, caso-mesh notify rule create"
        usable = [name for name in names if book.recipients[name].url or mail is not None]
        if not usable:
            return "there is no mail server: caso-mesh notify smtp set"
        if failing.issuperset(usable):
            return f"what is sent to {', '.join(usable)} does not arrive"
    return None
