"""Reports: one question about the mesh, answered with figures, charts and tables; and the requests for them.

A ``Report`` is the same wherever it is shown: text, CSV, JSON and HTML are made of it. As JSON it is a contract of version
``format``: within a version keys are only added.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

#: The version of the record ``Report`` as JSON.
FORMAT = 1
#: What stands in a cell of a table. An instant is RFC 3339 in UTC, a duration seconds, a percentage 0 to 100.
Cell = str | int | float | bool | None


class Kind(StrEnum):
    """What the values of a column, a figure or a chart are. ``ratio`` is a number of times, ``command`` what somebody may
    type."""

    TEXT = "text"
    STATE = "state"
    COMMAND = "command"
    COUNT = "count"
    BYTES = "bytes"
    SECONDS = "seconds"
    INSTANT = "instant"
    PERCENT = "percent"
    RATIO = "ratio"


class Tone(StrEnum):
    """How good something is."""

    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Column(Struct, frozen=True):
    """``name`` is its key in CSV and JSON, ``title`` what people read."""

    name: str
    title: str
    kind: Kind = Kind.TEXT


class Figure(Struct, frozen=True):
    """One number that sums a report up."""

    name: str
    title: str
    value: Cell
    kind: Kind = Kind.COUNT
    tone: Tone = Tone.PLAIN


class Table(Struct, frozen=True):
    """``more``: so many rows are left out. ``empty`` is what is said of a table without rows."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: int = 0
    empty: str = "None."


class ChartKind(StrEnum):
    """``columns`` stand beside each other, as days do; ``bars`` lie below each other, as names do. Series are stacked."""

    COLUMNS = "columns"
    BARS = "bars"


class Series(Struct, frozen=True):
    """One value for each label of its chart."""

    title: str
    values: tuple[float, ...]
    tone: Tone = Tone.PLAIN


class Chart(Struct, frozen=True):
    name: str
    title: str
    kind: ChartKind
    unit: Kind
    labels: tuple[str, ...]
    series: tuple[Series, ...]


class Need(Struct, frozen=True):
    """Something that somebody should look at, and the command to begin with."""

    text: str
    command: str = ""
    tone: Tone = Tone.BAD


class Report(Struct, frozen=True):
    """``answers`` is the question, ``verdict`` the answer on one line, ``good`` whether it is a good one (``None``: that is
    no question here). ``begins`` and ``until`` bound the time that it tells of; times of day are those of ``zone``.
    ``limits``: to which servers, pools or lists it is limited."""

    name: str
    title: str
    answers: str
    mesh: str
    made: str
    begins: str
    until: str
    zone: str
    verdict: str
    good: bool | None = None
    needs: tuple[Need, ...] = ()
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    format: int = FORMAT


class ReportShow(Struct, frozen=True):
    """``since_ns`` until ``until_ns``, or the last ``days`` (the coming ones of a report that looks ahead); without any of
    them what is usual for the report. ``selection`` is a selection list. At most ``limit`` rows of each table."""

    name: str
    days: float | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    server: str | None = None
    pool: str | None = None
    selection: str | None = None
    zone: str | None = None
    limit: int = 1000


class ReportInfo(Struct, frozen=True):
    """A report that there is. ``days`` is the time that it usually tells of, ``None``: it tells of what is now. ``ahead``:
    of the time to come. ``whole_mesh``: only for whom may see the whole mesh."""

    name: str
    title: str
    answers: str
    days: float | None
    ahead: bool
    whole_mesh: bool


class ReportList(Struct, frozen=True):
    reports: tuple[ReportInfo, ...]
