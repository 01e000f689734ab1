"""What all reports are put together with: definitions, columns, tallies of outcomes, days of a zone."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from caso_mesh.model.reports import Cell, Chart, ChartKind, Column, Figure, Kind, Need, Series, Table, Tone
from caso_mesh.model.states import RunState
from caso_mesh.model.units import format_instant
from caso_mesh.reports.rows import Gathered, Part, RunRow

SECOND = 1_000_000_000
DAY_NS = 86400 * SECOND
#: Columns and bars of a chart, at most: more cannot be told apart.
MOST_COLUMNS, MOST_BARS = 62, 20
GOOD = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})
ENDED_BADLY = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.MISSED})
#: Neither good nor bad: it had nothing to do, or a person ended it.
NEITHER = frozenset({RunState.SUPERSEDED, RunState.CANCELED})
#: Kinds of jobs that make backups of sources.
BACKUPS = frozenset({"backup", "synthetic"})


class Answer(Struct, frozen=True, kw_only=True):
    """What one report comes to; see ``model.reports.Report``."""

    verdict: str
    good: bool | None = None
    needs: tuple[Need, ...] = ()
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


class Definition(Struct, frozen=True, kw_only=True):
    """A report that there is. ``days``, ``ahead`` and ``whole_mesh`` as in ``model.reports.ReportInfo``."""

    name: str
    title: str
    answers: str
    parts: frozenset[Part]
    make: Callable[[Gathered], Answer]
    days: float | None = 1.0
    ahead: bool = False
    whole_mesh: bool = False


# --- columns and tables ---


def text(name: str, title: str) -> Column:
    return Column(name, title)


def state(name: str, title: str) -> Column:
    return Column(name, title, Kind.STATE)


def count(name: str, title: str) -> Column:
    return Column(name, title, Kind.COUNT)


def octets(name: str, title: str) -> Column:
    return Column(name, title, Kind.BYTES)


def seconds(name: str, title: str) -> Column:
    return Column(name, title, Kind.SECONDS)


def instant(name: str, title: str) -> Column:
    return Column(name, title, Kind.INSTANT)


def percent(name: str, title: str) -> Column:
    return Column(name, title, Kind.PERCENT)


def ratio(name: str, title: str) -> Column:
    return Column(name, title, Kind.RATIO)


def table(
    told: Gathered,
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    empty: str = "None.",
    older: int = 0,
) -> Table:
    """A table with as many rows as were asked for. ``older``: so many more were not even gathered."""
    every = [tuple(row) for row in rows]
    kept = every[: max(0, told.limit)]
    return Table(name, title, tuple(columns), tuple(kept), len(every) - len(kept) + older, empty)


def at(ns: int | None) -> str | None:
    """An instant in a cell."""
    return format_instant(ns)


def older(told: Gathered, part: Part) -> int:
    """How many rows of a part were left out while it was gathered."""
    return dict(told.left_out).get(part.value, 0)


# --- words ---


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}".replace(",", " ")


def listed(names: Iterable[str], most: int = 4) -> str:
    """``a, b and 3 more``."""
    every = list(dict.fromkeys(names))
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more} more" if more > 0 else "")


def share(part: float, whole: float) -> float | None:
    """Per cent; ``None`` of nothing."""
    return None if not whole else round(100.0 * part / whole, 1)


def times(part: float, whole: float) -> float | None:
    """How many times ``whole`` goes into ``part``; ``None`` if it is nothing."""
    return None if not whole else round(part / whole, 2)


def summed(values: Iterable[float | None]) -> float:
    return sum(value for value in values if value is not None)


# --- outcomes ---


class Tally:
    """Ends of runs, counted."""

    def __init__(self, rows: Iterable[RunRow] = ()) -> None:
        self.rows: list[RunRow] = []
        for row in rows:
            self.add(row)

    def add(self, row: RunRow) -> None:
        self.rows.append(row)

    def of(self, *states: str) -> int:
        return sum(row.state in states for row in self.rows)

    @property
    def total(self) -> int:
        """Without what was superseded: that did not have to run."""
        return len(self.rows) - self.of(RunState.SUPERSEDED)

    @property
    def good(self) -> int:
        return self.of(*GOOD)

    @property
    def bad(self) -> int:
        return self.of(*ENDED_BADLY)

    @property
    def rate(self) -> float | None:
        """Per cent of those that had to end well, which what a person canceled did not."""
        return share(self.good, self.good + self.bad)

    @property
    def tone(self) -> Tone:
        if self.bad:
            return Tone.BAD
        return Tone.WARNING if self.of(RunState.SUCCEEDED_WITH_EXCEPTIONS) else Tone.GOOD


OUTCOMES: tuple[tuple[str, str, tuple[str, ...], Tone], ...] = (
    ("succeeded", "Succeeded", (RunState.SUCCEEDED,), Tone.GOOD),
    ("with_exceptions", "With exceptions", (RunState.SUCCEEDED_WITH_EXCEPTIONS,), Tone.WARNING),
    ("failed", "Failed", (RunState.FAILED, RunState.TIMED_OUT), Tone.BAD),
    ("missed", "Missed", (RunState.MISSED,), Tone.BAD),
    ("canceled", "Canceled", (RunState.CANCELED,), Tone.PLAIN),
)
OUTCOME_COLUMNS: tuple[Column, ...] = tuple(count(name, title) for name, title, _, _ in OUTCOMES)


def outcome_cells(tally: Tally) -> tuple[int, ...]:
    """The cells of ``OUTCOME_COLUMNS``."""
    return tuple(tally.of(*states) for _, _, states, _ in OUTCOMES)


def outcome_series(tallies: Sequence[Tally]) -> tuple[Series, ...]:
    """A series for each outcome that there is; the last one's failures stay when there are none."""
    made = [
        Series(title, tuple(float(tally.of(*states)) for tally in tallies), tone) for _, title, states, tone in OUTCOMES
    ]
    return tuple(series for series in made if any(series.values))


def grouped(rows: Iterable[RunRow], key: Callable[[RunRow], str]) -> dict[str, Tally]:
    """By a key, in its order."""
    found: dict[str, Tally] = {}
    for row in rows:
        found.setdefault(key(row), Tally()).add(row)
    return dict(sorted(found.items()))


# --- time ---


def zone_of(told: Gathered) -> datetime.tzinfo:
    return zoneinfo.ZoneInfo(told.zone)


def day_of(ns: int, zone: datetime.tzinfo) -> str:
    """The day on which an instant lies, as in ``2025-01-31``."""
    return datetime.datetime.fromtimestamp(ns // SECOND, zone).date().isoformat()


def hour_of(ns: int, zone: datetime.tzinfo) -> str:
    return f"{datetime.datetime.fromtimestamp(ns // SECOND, zone):%m-%d %H:00}"


class Buckets:
    """Days of a period, or its hours if it has only two days, by the calendar of its zone."""

    def __init__(self, told: Gathered) -> None:
        self._zone = zone_of(told)
        span = told.until_ns - told.begins_ns
        self.by_hour = span <= 2 * DAY_NS
        self.word = "hour" if self.by_hour else "day"
        self.labels = tuple(dict.fromkeys(self._walk(told)))[-MOST_COLUMNS:]
        self._place = {label: number for number, label in enumerate(self.labels)}

    def _walk(self, told: Gathered) -> Iterator[str]:
        step = 1800 * SECOND if self.by_hour else 12 * 3600 * SECOND
        yield from (self.label(ns) for ns in range(told.begins_ns, max(told.until_ns, told.begins_ns + 1), step))
        yield self.label(max(told.begins_ns, told.until_ns - 1))

    def label(self, ns: int) -> str:
        return hour_of(ns, self._zone) if self.by_hour else day_of(ns, self._zone)

    def place(self, ns: int) -> int | None:
        """The place of an instant among the labels; ``None`` before the first of them."""
        return self._place.get(self.label(ns))

    def sums(self, values: Iterable[tuple[int, float]]) -> tuple[float, ...]:
        """Sums of (instant, value) by label."""
        found = [0.0] * len(self.labels)
        for ns, value in values:
            place = self.place(ns)
            if place is not None:
                found[place] += value
        return tuple(found)


def outcomes_over_time(told: Gathered, rows: Sequence[RunRow], name: str, title: str) -> tuple[Chart, ...]:
    """A chart of outcomes by the time at which they ended; none if nothing ended."""
    buckets = Buckets(told)
    tallies = [Tally() for _ in buckets.labels]
    for row in rows:
        place = None if row.ended_ns is None else buckets.place(row.ended_ns)
        if place is not None:
            tallies[place].add(row)
    series = outcome_series(tallies)
    if not series:
        return ()
    return (Chart(name, f"{title} by {buckets.word}", ChartKind.COLUMNS, Kind.COUNT, buckets.labels, series),)


def bars(
    name: str, title: str, unit: Kind, rows: Sequence[tuple[str, Sequence[float]]], series: Sequence[tuple[str, Tone]]
) -> tuple[Chart, ...]:
    """A chart of the largest of some rows (label, a value for each series); none if all are nothing."""
    largest = sorted(rows, key=lambda row: (-sum(row[1]), row[0]))[:MOST_BARS]
    largest = [row for row in largest if sum(row[1]) > 0]
    if not largest:
        return ()
    left_out = len([row for row in rows if sum(row[1]) > 0]) - len(largest)
    shown = f"{title}, the largest {len(largest)}" if left_out else title
    made = tuple(
        Series(word, tuple(float(values[place]) for _, values in largest), tone)
        for place, (word, tone) in enumerate(series)
    )
    labels = tuple(label for label, _ in largest)
    return (Chart(name, shown, ChartKind.BARS, unit, labels, made),)
