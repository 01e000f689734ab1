"""What servers and devices will have to do: a forecast of the time to come, by server, device and hour."""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.model.reports import Cell, Chart, ChartKind, Figure, Kind, Need, Series, Tone
from caso_mesh.model.states import RunState
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import Gathered, Part, WorkRow

PARTS = frozenset({Part.WORKLOAD})
_NAMED = 10


def scheduled_workload(told: Gathered) -> m.Answer:
    rows = [row for row in told.workload if row.state != RunState.SUPERSEDED]
    placed = [row for row in rows if row.begins_ns is not None]
    wrong = [row for row in rows if row.state in m.ENDED_BADLY or row.begins_ns is None]
    last = max((row.ends_ns for row in rows if row.ends_ns is not None), default=None)
    buckets = m.Buckets(told)
    servers = sorted({row.server for row in placed if row.server})
    busiest = max(servers, key=lambda name: _busy(told, placed, name), default=None)
    return m.Answer(
        verdict="Nothing is due in this time."
        if not rows
        else f"{m.plural(len(rows), 'run is', 'runs are')} due; {len(wrong)} of them would not be done."
        if wrong
        else f"{m.plural(len(rows), 'run is', 'runs are')} due, and all would be done.",
        good=None if not rows else not wrong,
        needs=tuple(
            Need(f"{row.job} of {row.source} would not be done: {row.waits or row.state}", "caso-mesh what-if --runs",
                 Tone.WARNING)
            for row in wrong[:_NAMED]
        ),
        figures=(
            Figure("runs", "Runs", len(rows)),
            Figure("wrong", "Would not be done", len(wrong), tone=Tone.BAD if wrong else Tone.GOOD),
            Figure("last", "The last one ends", m.at(last), Kind.INSTANT),
            Figure("stored", "Would be stored", sum(row.stored_bytes for row in rows), Kind.BYTES),
            Figure("busiest", "Busiest server", busiest, Kind.TEXT),
            Figure("guessed", "Like none before", sum(row.guessed for row in rows)),
        ),
        charts=(
            Chart(
                "begin", f"Runs that begin, by {buckets.word}", ChartKind.COLUMNS, Kind.COUNT, buckets.labels,
                (Series("Runs", buckets.sums((row.begins_ns, 1.0) for row in placed if row.begins_ns is not None)),),
            ),
            *m.bars(
                "busy", "Time of all runs by server", Kind.SECONDS,
                [(name, [_busy(told, placed, name)]) for name in servers], [("Time", Tone.PLAIN)],
            ),
        )
        if placed
        else (),
        tables=(
            _by(told, rows, "server", "Server", "By media server"),
            _by(told, rows, "device", "Device", "By device"),
            m.table(
                told,
                "runs",
                "Runs",
                (
                    m.instant("due", "Due"), m.text("job", "Job"), m.text("source", "Source"), m.state("state", "State"),
                    m.instant("begins", "Begins"), m.instant("ends", "Ends"), m.text("server", "Server"),
                    m.text("device", "Device"), m.octets("stored", "Stores"), m.text("waits", "Waits because"),
                ),
                [
                    (m.at(row.due_ns), row.job, row.source, row.state, m.at(row.begins_ns), m.at(row.ends_ns),
                     row.server or None, row.device or None, row.stored_bytes, row.waits or None)
                    for row in sorted(rows, key=lambda row: (row.due_ns, row.job))
                ],
                "Nothing is due in this time.",
            ),
        ),
        notes=(
            ("A run is taken to last, and to store, as much as the last ones of its kind; see caso-mesh what-if, by which this "
            "is worked out."),
        ),
    )  # fmt: skip


def _seconds(told: Gathered, row: WorkRow) -> float:
    """How long it keeps its server busy within the time that is told of."""
    if row.begins_ns is None:
        return 0.0
    ends_ns = told.until_ns if row.ends_ns is None else min(row.ends_ns, told.until_ns)
    return max(0, ends_ns - max(row.begins_ns, told.begins_ns)) / m.SECOND


def _busy(told: Gathered, rows: Sequence[WorkRow], server: str) -> float:
    return sum(_seconds(told, row) for row in rows if row.server == server)


def _by(told: Gathered, rows: Sequence[WorkRow], key: str, heading: str, title: str) -> m.Table:
    groups: dict[str, list[WorkRow]] = {}
    for row in rows:
        if name := getattr(row, key):
            groups.setdefault(name, []).append(row)
    span_s = (told.until_ns - told.begins_ns) / m.SECOND

    def cells(name: str, each: list[WorkRow]) -> tuple[Cell, ...]:
        busy = sum(_seconds(told, row) for row in each)
        return (
            name, len(each), busy, m.share(busy, span_s), sum(row.stored_bytes for row in each),
            m.at(min((row.begins_ns for row in each if row.begins_ns is not None), default=None)),
            m.at(max((row.ends_ns for row in each if row.ends_ns is not None), default=None)),
        )  # fmt: skip

    return m.table(
        told,
        f"{key}s",
        title,
        (
            m.text(key, heading), m.count("runs", "Runs"), m.seconds("busy_s", "Time of all"),
            m.percent("busy", "Of this time"), m.octets("stored", "Stores"), m.instant("first", "First begins"),
            m.instant("last", "Last ends"),
        ),
        [cells(name, each) for name, each in sorted(groups.items())],
        "Nothing is due in this time.",
    )  # fmt: skip
