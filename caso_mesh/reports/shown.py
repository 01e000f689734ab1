"""Values of reports as people read them, in the time of the report's zone."""

from __future__ import annotations

import datetime
import zoneinfo

from caso_mesh.model.reports import Cell, Kind
from caso_mesh.model.units import format_duration, format_number, format_size, parse_instant_ns

#: What stands for nothing.
NOTHING = "-"
_RIGHT = frozenset({Kind.COUNT, Kind.BYTES, Kind.SECONDS, Kind.PERCENT, Kind.RATIO})


def zone(name: str) -> datetime.tzinfo:
    return zoneinfo.ZoneInfo(name)


def is_number(kind: Kind) -> bool:
    """Whether values of it stand at the right."""
    return kind in _RIGHT


def moment(text: str, at: datetime.tzinfo) -> str:
    """An instant as ``2025-01-31 02:00``."""
    seconds = parse_instant_ns(text) // 1_000_000_000
    return f"{datetime.datetime.fromtimestamp(seconds, at):%Y-%m-%d %H:%M}"


def value(cell: Cell, kind: Kind, at: datetime.tzinfo) -> str:
    """A cell of a kind."""
    if cell is None or cell == "":
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return moment(cell, at) if kind is Kind.INSTANT else cell
    match kind:
        case Kind.BYTES:
            return format_size(round(cell))
        case Kind.SECONDS:
            return period(float(cell))
        case Kind.PERCENT:
            return f"{cell:.1f} %" if cell % 1 else f"{cell:.0f} %"
        case Kind.RATIO:
            return f"{cell:.2f} x"
        case _:
            return f"{cell:,}".replace(",", " ") if isinstance(cell, int) else format_number(cell)


def period(seconds: float) -> str:
    """A duration, of some days in days."""
    days, rest = divmod(round(seconds), 86400)
    return format_duration(seconds) if days < 2 else f"{days}d {rest // 3600:02d}h"
