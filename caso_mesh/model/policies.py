"""Selection lists, policies and what makes jobs of them.

A *selection list* says what to back up, a *policy* how and when: its *templates*, and *rules* between them. Each
*association* of a policy with a list makes one job per template.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.jobs import CronSchedule, Target
from caso_mesh.model.states import BackupType, Priority, SnapshotMode
from caso_mesh.model.storage import DEFAULT_MEDIA_SET

#: ``SelectionList.oldest_good_s`` of a list that no alert is to be raised for, however old its backups are.
NEVER_TOO_OLD_S = 100 * 366 * 86400.0


class ListEntry(Struct, frozen=True, gc=False):
    """One place: a server (node id) and an absolute path on it without its leading slash. Patterns hold below it alone:
    of files only those that match one of ``includes`` (all, without any) and none of ``excludes`` are read. ``logon``: what
    its command is given, if it is a dump."""

    server: str
    root: bytes
    excludes: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    logon: str | None = None


class SelectionList(Struct, frozen=True, gc=False):
    """What to back up. Patterns and limits hold for all entries. ``window``: when its runs may start, as in
    ``mon-fri 20:00-06:00`` (``model.hours``), empty = always. ``within``: a server or pool that alone may write it.
    ``oldest_good_s``: how old the newest good backup of each of its servers may be; ``None``: as its schedules promise
    (``control.ageing``), ``NEVER_TOO_OLD_S``: as old as it will."""

    id: str
    name: str
    entries: tuple[ListEntry, ...]
    created_by: str
    created_at_ns: int
    excludes: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    one_file_system: bool = False
    exclude_caches: bool = False
    larger_than: int | None = None
    default_excludes: bool = True
    priority: Priority = Priority.MEDIUM
    window: str = ""
    within: Target | None = None
    oldest_good_s: float | None = None

    def servers(self) -> tuple[str, ...]:
        """Node ids, each once."""
        return tuple(sorted({entry.server for entry in self.entries}))


class TemplateType(StrEnum):
    FULL = "full"
    INCREMENTAL = "incremental"
    DIFFERENTIAL = "differential"
    COPY = "copy"
    VERIFY = "verify"
    DUPLICATE = "duplicate"
    SYNTHETIC = "synthetic"


#: What beats what when two are due at once and no rule says otherwise: the smaller number. Others beat nothing.
PRECEDENCE = {TemplateType.FULL: 0, TemplateType.DIFFERENTIAL: 1, TemplateType.INCREMENTAL: 2}
#: What a synthetic full waits for when both are due at once and no rule says otherwise: it is made of what they store. A
#: full takes its place.
BEFORE_SYNTHETIC = frozenset({TemplateType.DIFFERENTIAL, TemplateType.INCREMENTAL})
#: Types that make a set by reading a source.
READING = frozenset({TemplateType.FULL, TemplateType.INCREMENTAL, TemplateType.DIFFERENTIAL, TemplateType.COPY})
#: Types that work where sets lie: they have no target.
TARGETLESS = frozenset({TemplateType.VERIFY, TemplateType.SYNTHETIC})


class Template(Struct, frozen=True):
    """One kind of work of a policy. A verify reads back the newest set of each server of the list, or those of the run
    that started it; it has no target, since the sets lie where they lie. A duplicate copies to its target the newest set
    of each server that a backup of the policy made, or those of the run that started it. A synthetic makes full sets of the
    same ones, where they lie. ``calendars`` name days without a run, which are added to the schedule's own. ``priority``
    overrides the list's. ``logon``: what ``pre`` and ``post`` are given. ``second``: where another device is for the sets of a
    backup, whose source is read once."""

    name: str
    type: TemplateType
    target: Target | None = None
    schedule: CronSchedule | None = None
    calendars: tuple[str, ...] = ()
    media_set: str = DEFAULT_MEDIA_SET
    priority: Priority | None = None
    verify: bool = True
    pre: str | None = None
    post: str | None = None
    post_always: bool = False
    ignore_exit_codes: bool = False
    snapshot: SnapshotMode = SnapshotMode.NEVER
    allow_shrink: bool = False
    logon: str | None = None
    second: Target | None = None

    @property
    def backup_type(self) -> BackupType | None:
        """``None`` for what is no backup."""
        return BackupType(self.type.value) if self.type in READING else None


class RuleKind(StrEnum):
    """What a rule between two templates says; the first and the second of them are A and B."""

    SUPERSEDES = "supersedes"
    THEN = "then"
    STARTS = "starts"
    COMPLETES = "completes"
    SUCCEEDS = "succeeds"
    FAILS = "fails"
    FIRST = "first"


#: Rules by which a run of A starts one of B.
STARTING = frozenset({RuleKind.STARTS, RuleKind.COMPLETES, RuleKind.SUCCEEDS, RuleKind.FAILS})
#: Rules about runs of A and B that are due at once.
ON_CONFLICT = frozenset({RuleKind.SUPERSEDES, RuleKind.THEN})
#: How people write them.
RULE_TEXT = {
    RuleKind.SUPERSEDES: "on conflict {a} supersedes {b}",
    RuleKind.THEN: "on conflict {a} then {b}",
    RuleKind.STARTS: "when {a} starts start {b}",
    RuleKind.COMPLETES: "when {a} completes start {b}",
    RuleKind.SUCCEEDS: "when {a} succeeds start {b}",
    RuleKind.FAILS: "when {a} fails start {b}",
    RuleKind.FIRST: "{a} must complete first",
}


class TemplateRule(Struct, frozen=True):
    """A rule between the templates ``a`` and ``b`` (names; ``None`` for ``first``, which is about all others)."""

    kind: RuleKind
    a: str
    b: str | None = None

    def __str__(self) -> str:
        return RULE_TEXT[self.kind].format(a=self.a, b=self.b)


#: Runs of one association conflict if they are due less than this apart, unless its policy says otherwise.
CONFLICT_S = 3600.0


class Policy(Struct, frozen=True):
    """How and when lists are backed up. ``conflict_s``: runs that are due less than this apart conflict. ``zone`` is that
    of templates to come which do not say their own."""

    id: str
    name: str
    templates: tuple[Template, ...]
    rules: tuple[TemplateRule, ...]
    created_by: str
    created_at_ns: int
    conflict_s: float = CONFLICT_S
    zone: str = "UTC"

    def template(self, name: str) -> Template | None:
        return next((each for each in self.templates if each.name == name), None)


class Association(Struct, frozen=True, gc=False):
    """A policy and a list (ids) that belong together."""

    policy: str
    list: str
    created_by: str
    created_at_ns: int

    @property
    def key(self) -> str:
        return f"{self.policy}/{self.list}"


class DayCalendar(Struct, frozen=True):
    """Named days on which templates that name it have no run: dates as in ``2025-12-24``, or ``2025-12-24..2026-01-01``."""

    name: str
    days: tuple[str, ...]


class DevicePoolMember(Struct, frozen=True):
    """A device (id) in a pool. A smaller ``priority`` is taken first."""

    device: str
    priority: int = 100


class DevicePool(Struct, frozen=True):
    """A named group of devices, which may be on several servers."""

    name: str
    members: tuple[DevicePoolMember, ...]
