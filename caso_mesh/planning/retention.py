"""Which backup sets a media set keeps for their number: the newest ones, and the newest of so many days, weeks, months
and years (days of UTC, weeks of ISO 8601).

They are counted for each source server and what was read of it (roots and filters), so that a busy list does not push a
quiet one out. A set that is kept so has no end until newer ones take its place.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable

from caso_mesh.model.storage import BackupSet, MediaSet

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_PERIODS: tuple[tuple[str, Callable[[datetime.datetime], tuple[int, ...]]], ...] = (
    ("daily", lambda at: (at.year, at.month, at.day)),
    ("weekly", lambda at: tuple(at.isocalendar()[:2])),
    ("monthly", lambda at: (at.year, at.month)),
    ("yearly", lambda at: (at.year,)),
)


def kept_by_number(sets: Iterable[BackupSet], media_set: MediaSet) -> dict[str, tuple[str, ...]]:
    """The ids of sets of one media set that are kept for their number, each with what keeps it: ``last``, ``daily`` ..."""
    counts = {what: count for count, what in media_set.counts()}
    if not any(counts.values()):
        return {}
    groups: dict[tuple[str, bytes], list[BackupSet]] = {}
    for backup in sets:
        if backup.media_set == media_set.name:
            groups.setdefault((backup.source, backup.filters), []).append(backup)
    kept: dict[str, list[str]] = {}
    for group in groups.values():
        newest_first = sorted(group, key=lambda backup: (backup.ended_at_ns, backup.id), reverse=True)
        for backup in newest_first[: counts["last"]]:
            kept.setdefault(backup.id, []).append("last")
        for what, period_of in _PERIODS:
            seen: set[tuple[int, ...]] = set()
            for backup in newest_first:
                period = period_of(_EPOCH + datetime.timedelta(microseconds=backup.ended_at_ns // 1000))
                if len(seen) < counts[what] and period not in seen:
                    seen.add(period)
                    kept.setdefault(backup.id, []).append(what)
    return {id: tuple(reasons) for id, reasons in kept.items()}
