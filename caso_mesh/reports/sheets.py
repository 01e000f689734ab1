"""The tables of a report as CSV (RFC 4180): one document for each table, all of its values exact.

Numbers are plain, instants RFC 3339 in UTC, durations seconds, sizes bytes. A text that a spreadsheet would take for a
formula gets an apostrophe before it, as spreadsheets themselves mark text: names come from anybody.
"""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.reports import Cell, Report, Table

#: With these, and the control characters below, spreadsheets begin a formula.
_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_QUOTED = frozenset('",\r\n')


class Sheet(Struct, frozen=True):
    """``name`` is that of the table."""

    name: str
    text: str


def sheets(report: Report) -> tuple[Sheet, ...]:
    """One for each table, in their order."""
    return tuple(Sheet(table.name, sheet(table)) for table in report.tables)


def sheet(table: Table) -> str:
    """One table; its first line holds the names of the columns."""
    head = [column.name for column in table.columns]
    return "".join(_line(row) for row in [head, *([_cell(cell) for cell in row] for row in table.rows)])


def _line(cells: list[str]) -> str:
    return ",".join(map(_field, cells)) + "\r\n"


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _QUOTED.intersection(text) else text


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, (int, float)):
        return f"{cell:.12g}" if isinstance(cell, float) else str(cell)
    return guarded(cell)


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in _FORMULA or text.lstrip(" ")[:1] in _FORMULA else text
