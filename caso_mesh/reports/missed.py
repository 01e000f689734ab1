"""Backups that did not happen, and what nothing backs up."""

from __future__ import annotations

from caso_mesh.model.reports import Figure, Kind, Need, Tone
from caso_mesh.model.states import RunState
from caso_mesh.reports import making as m
from caso_mesh.reports import shown
from caso_mesh.reports.rows import AgeRow, Cover, Gathered, Part, ResourceRow

MISSED_PARTS = frozenset({Part.RUNS, Part.AGES})
PROTECTION_PARTS = frozenset({Part.RESOURCES, Part.SERVERS})
#: So many are named one by one.
_NAMED = 10


# --- missed backups ---


def missed_backups(told: Gathered) -> m.Answer:
    never = sorted(
        (row for row in told.ages if row.unprotected(told.now_ns)), key=lambda row: (row.selection, row.source)
    )
    overdue = sorted(
        (row for row in told.ages if row.overdue and row.newest_ns is not None),
        key=lambda row: (row.newest_ns or 0, row.selection),
    )
    missed = [row for row in told.runs if row.state == RunState.MISSED]
    watched = [row for row in told.ages if row.allowed_s is not None]
    said = [f"{m.plural(len(overdue), 'backup is', 'backups are')} overdue"] if overdue else []
    if never:
        said.append(f"{m.plural(len(never), 'server of a list has', 'servers of lists have')} no good backup at all")
    verdict = " and ".join(said) or "No backup is overdue"
    verdict += f"; {m.plural(len(missed), 'run was', 'runs were')} missed in this time." if missed else "."
    return m.Answer(
        verdict=verdict,
        good=not overdue and not never,
        needs=tuple(
            Need(f"{row.source} of the list {row.selection}: {_age(row, told.now_ns)}", f"caso-mesh why list:{row.selection}")
            for row in (*never, *overdue)[:_NAMED]
        ),
        figures=(
            Figure("overdue", "Overdue", len(overdue), tone=Tone.BAD if overdue else Tone.GOOD),
            Figure("never", "Without any good backup", len(never), tone=Tone.BAD if never else Tone.GOOD),
            Figure("missed", "Runs missed", len(missed), tone=Tone.WARNING if missed else Tone.GOOD),
            Figure("watched", "Watched", len(watched)),
            Figure("unwatched", "Of any age", len(told.ages) - len(watched)),
        ),
        tables=(
            m.table(
                told,
                "ages",
                "The newest good backup of each server of each list",
                (
                    m.text("selection", "List"), m.text("source", "Server"), m.state("state", "State"),
                    m.instant("newest", "Newest good backup"), m.seconds("age_s", "Age"), m.instant("first_due", "First due"),
                    m.seconds("allowed_s", "Allowed"), m.text("origin", "Where that comes from"),
                    m.text("set", "Set"),
                ),
                [
                    (row.selection, row.source, age_state(row, told.now_ns), m.at(row.newest_ns),
                     None if row.newest_ns is None else max(0.0, (told.now_ns - row.newest_ns) / m.SECOND),
                     m.at(row.first_due_ns), row.allowed_s, row.origin, row.set or None)
                    for row in sorted(told.ages, key=lambda row: (
                        not (row.overdue or row.unprotected(told.now_ns)), row.newest_ns or 0, row.selection, row.source
                    ))
                ],
                "There are no selection lists.",
            ),
            m.table(
                told,
                "missed",
                "Runs that did not start in their window",
                (
                    m.text("job", "Job"), m.text("source", "Source"), m.instant("due", "Due"),
                    m.text("text", "Why"), m.instant("made_up", "Made up for"), m.text("run", "Run"),
                ),
                [
                    (row.job, row.source, m.at(row.due_ns), row.error_text or row.waits or None,
                     m.at(row.sound_since_ns), row.run)
                    for row in sorted(missed, key=lambda row: -row.due_ns)
                ],
                "No run was missed.",
            ),
        ),
        notes=(
            "Good is what was published and is still there. A redundant set does not count, a copy is as old as its set.",
            ("Without --oldest-good a list may be as old as its schedules promise: twice the longest time between two due "
            "times, and the time within which a run may begin."),
        ),
    )  # fmt: skip


def age_state(row: AgeRow, now_ns: int) -> str:
    """What the newest good backup of a server of a list is, in a few words."""
    if row.newest_ns is not None:
        return "overdue" if row.overdue else "in time" if row.allowed_s is not None else "any age"
    if row.unprotected(now_ns):
        return "none any more" if row.had else "never backed up"
    if row.under_way:
        return "first under way"
    return "not due yet" if row.first_due_ns is not None and row.first_due_ns > now_ns else "none yet"


def _age(row: AgeRow, now_ns: int) -> str:
    allowed = shown.period(row.allowed_s or 0.0)
    if row.newest_ns is None:
        return without_any(row, now_ns)
    return f"the newest good backup is {shown.period((now_ns - row.newest_ns) / m.SECOND)} old; {allowed} are allowed"


def without_any(row: AgeRow, now_ns: int) -> str:
    """Of a server of a list that has no good backup: since when that is wrong."""
    what = "no good backup is left" if row.had else "it was never backed up"
    if row.first_due_ns is not None and row.first_due_ns <= now_ns:
        return f"{what}; the first was due {shown.period((now_ns - row.first_due_ns) / m.SECOND)} ago"
    return f"{what}; {shown.period(row.allowed_s or 0.0)} are allowed"


# --- resource protection ---


def resource_protection(told: Gathered) -> m.Answer:
    places = [row for row in told.resources if row.path]
    bare = sorted((row for row in places if row.cover is Cover.UNPROTECTED), key=lambda row: -(row.used_bytes or 0))
    partly = [row for row in places if row.cover is Cover.PARTLY]
    unknown = [row for row in told.resources if row.cover is Cover.UNKNOWN]
    uncovered = [row for row in told.servers if not row.selections]
    size = round(m.summed(row.used_bytes for row in bare))
    return m.Answer(
        verdict=f"{m.plural(len(bare), 'file system is', 'file systems are')} in no selection list."
        if bare
        else f"Every file system that is known is in some selection list, {len(partly)} of them only in part."
        if partly
        else "Every file system that is known is in some selection list.",
        good=not bare and not uncovered,
        needs=tuple(
            [Need(f"No selection list names {row.name}", "caso-mesh selection create NAME " + f"{row.name}:/", Tone.WARNING)
             for row in uncovered[:_NAMED]]
            + [Need(f"{row.source_text}: no selection list names it", f"caso-mesh selection edit NAME --add {row.source_text}",
                    Tone.WARNING)
               for row in map(_Place, bare[:_NAMED]) if row.server not in {each.name for each in uncovered}]
        ),
        figures=(
            Figure("bare", "Unprotected", len(bare), tone=Tone.BAD if bare else Tone.GOOD),
            Figure("bare_bytes", "Used there", size, Kind.BYTES),
            Figure("partly", "Partly covered", len(partly), tone=Tone.WARNING if partly else Tone.GOOD),
            Figure("servers", "Servers in no list", len(uncovered), tone=Tone.BAD if uncovered else Tone.GOOD),
            Figure("unknown", "Servers that have not told", len(unknown)),
        ),
        charts=m.bars(
            "bare", "Used and unprotected", Kind.BYTES,
            [(f"{row.server}:{row.path}", [float(row.used_bytes or 0)]) for row in bare], [("Used", Tone.BAD)],
        ),
        tables=(
            m.table(
                told,
                "resources",
                "File systems",
                (
                    m.text("server", "Server"), m.text("path", "Path"), m.state("cover", "State"),
                    m.text("selections", "Lists"), m.text("file_system", "Kind"), m.octets("used", "Used"),
                    m.octets("total", "Size"), m.instant("told", "Told"),
                ),
                [
                    (row.server, row.path or None, row.cover.value, ", ".join(row.selections) or None,
                     row.file_system or None, row.used_bytes, row.total_bytes, m.at(row.told_ns))
                    for row in sorted(told.resources, key=_worst_first)
                ],
                "No server has told of its file systems.",
            ),
            m.table(
                told,
                "servers",
                "Servers in no selection list",
                (m.text("server", "Server"), m.state("state", "State"), m.instant("joined", "Joined")),
                [(row.name, row.state, m.at(row.joined_ns)) for row in uncovered],
                "Every server is in some list.",
            ),
        ),
        notes=(
            ("A file system is covered if some list names it or a folder above it without crossing into another file system "
            "that it leaves out; it is partly covered if lists only name folders below."),
            "Patterns that leave files out are not looked at, and neither is a disk that holds a device.",
        ),
    )  # fmt: skip


class _Place:
    def __init__(self, row: ResourceRow) -> None:
        self.server = row.server
        self.source_text = f"{row.server}:{row.path}"


_ORDER = (Cover.UNPROTECTED, Cover.PARTLY, Cover.UNKNOWN, Cover.COVERED)


def _worst_first(row: ResourceRow) -> tuple[int, str, str]:
    return _ORDER.index(row.cover), row.server, row.path
