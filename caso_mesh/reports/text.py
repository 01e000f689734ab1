r"""A report as plain text, for a terminal, a pipe or a mail. Control characters of names become ``\xHH``."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator

from caso_mesh.model.reports import Figure, Report, Table
from caso_mesh.reports import shown

_WIDE = frozenset({"W", "F"})
#: A column of a text is cut behind so many characters; CSV and JSON have all of it.
_WIDEST = 60
_LINE = 100


def render(report: Report) -> str:
    """The whole report, with a line break at its end."""
    return "\n".join(lines(report)) + "\n"


def head(report: Report) -> Iterator[str]:
    """All but the tables."""
    at = shown.zone(report.zone)
    yield f"{report.title} of {clean(report.mesh)}"
    yield f"{shown.moment(report.begins, at)} to {shown.moment(report.until, at)} ({clean(report.zone)})"
    if report.limits:
        yield f"only of {clean(', '.join(report.limits))}"
    yield ""
    yield clean(report.verdict)
    if report.needs:
        yield ""
    for need in report.needs:
        yield f"  ! {clean(need.text)}"
        if need.command:
            yield f"      {clean(need.command)}"
    if report.figures:
        yield ""
        width = max(len(figure.title) for figure in report.figures)
        yield from (f"{figure.title.ljust(width)}  {_figure(figure, report)}" for figure in report.figures)


def lines(report: Report) -> Iterator[str]:
    yield from head(report)
    for table in report.tables:
        yield ""
        yield from _table(table, report)
    if report.notes:
        yield ""
    for note in report.notes:
        yield from textwrap.wrap(clean(note), _LINE)


def more(table: Table) -> str:
    """What is said of rows that were left out."""
    return f"... and {table.more} more"


def cells(table: Table, report: Report) -> list[list[str]]:
    """The rows as people read them."""
    at = shown.zone(report.zone)
    return [
        [clean(shown.value(cell, column.kind, at)) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def clean(text: str) -> str:
    r"""Without anything that could move a cursor or turn the direction of a line: that becomes ``\xHH`` or ``\uHHHH``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe(char) for char in text)


def _safe(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


def _figure(figure: Figure, report: Report) -> str:
    return clean(shown.value(figure.value, figure.kind, shown.zone(report.zone)))


def _table(table: Table, report: Report) -> Iterator[str]:
    yield clean(table.title)
    if not table.rows:
        yield f"  {table.empty}"
        return
    rows = [[_cut(cell) for cell in row] for row in cells(table, report)]
    heads = [column.title.upper() for column in table.columns]
    widths = [max(map(_width, column)) for column in zip(heads, *rows, strict=True)]
    right = [shown.is_number(column.kind) for column in table.columns]
    for row in [heads, *rows]:
        padded = (
            _pad(cell, width, at_right=at_right) for cell, width, at_right in zip(row, widths, right, strict=True)
        )
        yield ("  " + "  ".join(padded)).rstrip()
    if table.more:
        yield f"  {more(table)}"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in _WIDE else 1 for char in text
    )


def _pad(text: str, width: int, *, at_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if at_right else text + space
