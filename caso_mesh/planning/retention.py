"""Which backup sets go now, and why each other stays.

A set goes when now is later than its retention (from its end) and than the overwrite protection of its medium (from the
end of the last write to it), unless it is locked, or a number of its media set keeps it (the newest ones, and the newest
of so many days, weeks of ISO 8601, months and years that have one), or it is the last good one of its line.

A *line* is what one server contributes to one selection list, or, of jobs without a list, what was read of one server
(source and roots). Numbers and the last good one are counted for each line, so that a busy list does not push a quiet
one out. A redundant set counts for neither, nor does one that was found damaged, unless its line has no other. Copies on
another device are lines of their own there. No set needs another one: each is a complete tree, and what an incremental
was measured against may go before it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.storage import BackupSet, MediaSet, Medium
from caso_mesh.planning.media import may_delete_at, protection_end_ns
from caso_mesh.planning.schedule import zone as zone_named

_SECOND = 1_000_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_Period = Callable[[datetime.datetime], tuple[int, ...]]


class Keep(StrEnum):
    """What keeps a set. The first four end by themselves or by a person's act, the others when newer sets come."""

    RETENTION = "retention"
    PROTECTION = "protection"
    LOCKED = "locked"
    NO_MEDIA_SET = "no-media-set"
    IMPORTED = "imported"
    LAST_GOOD = "last-good"
    LAST = "last"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"


#: What keeps a set without end: until newer ones take its place, or its device leaves the mesh.
BY_PLACE = frozenset({Keep.LAST_GOOD, Keep.LAST, Keep.DAILY, Keep.WEEKLY, Keep.MONTHLY, Keep.YEARLY, Keep.IMPORTED})

_PERIODS: Mapping[Keep, _Period] = {
    Keep.DAILY: lambda at: (at.year, at.month, at.day),
    Keep.WEEKLY: lambda at: tuple(at.isocalendar()[:2]),
    Keep.MONTHLY: lambda at: (at.year, at.month),
    Keep.YEARLY: lambda at: (at.year,),
}


class Line(Struct, frozen=True, gc=False):
    """What a set belongs to: ``key`` is equal for sets of one line, ``zone`` is that of its schedule, by which its days
    begin."""

    key: tuple[str, ...]
    zone: str = "UTC"


class Verdict(Struct, frozen=True, gc=False):
    """``kept_by`` is empty for a set that goes now. ``expires_at_ns``: when its dates let it go, ``None`` = never; what
    is kept for its place among the others, such as the last good one, stays longer.
    ``protected_until_ns``: until then nobody may delete it; ``None`` = without end."""

    kept_by: tuple[Keep, ...]
    expires_at_ns: int | None
    protected_until_ns: int | None

    @property
    def goes(self) -> bool:
        return not self.kept_by


def judge(
    sets: Iterable[BackupSet],
    *,
    media_sets: Mapping[str, MediaSet],
    media: Mapping[tuple[str, str], Medium],
    locks: Mapping[str, int | None],
    redundant: Collection[str],
    damaged: Collection[str] = (),
    away: Collection[str] = (),
    imported: Collection[str] = (),
    line_of: Callable[[BackupSet], Line],
    now_ns: int,
) -> dict[str, Verdict]:
    """A verdict for each of ``sets``, which are all that there are of their lines.

    ``redundant`` are those that do not count at all, and ``damaged`` those that do only where nothing else is left.
    ``media`` by writing server and label. ``locks``: ends of locks, ``None`` = without end. ``away``: devices (ids) that
    nobody reaches; what lies there does not make an older set elsewhere dispensable. ``imported``: devices (ids) that came from
    another mesh, where nothing is deleted; nor does what is there.
    """
    known = list(sets)
    lines: dict[str, Line] = {each.id: line_of(each) for each in known}
    stay = [each for each in known if each.device in imported]
    others = [each for each in known if each.id not in redundant and each.device not in imported]
    good = [each for each in others if each.id not in damaged]
    kept = _by_place(good, [each for each in others if each.id in damaged], media_sets, away, lines)
    written: dict[tuple[str, str], int] = {}
    for each in known:
        place = (each.server, each.medium)
        written[place] = max(written.get(place, 0), each.ended_at_ns)
    found: dict[str, Verdict] = {}
    found.update((each.id, Verdict((Keep.IMPORTED,), None, None)) for each in stay)
    for each in known:
        if each.id in found:
            continue
        media_set = media_sets.get(each.media_set)
        if media_set is None:
            found[each.id] = Verdict((Keep.NO_MEDIA_SET, *kept.get(each.id, ())), None, None)
            continue
        place = (each.server, each.medium)
        record = media.get(place)
        last_write_ns = max(written[place], record.last_write_at_ns if record is not None else 0)
        protected_ns = protection_end_ns(last_write_ns, media_set)
        ends = {
            Keep.RETENTION: None if media_set.keep_s is None else each.ended_at_ns + round(media_set.keep_s * _SECOND),
            Keep.PROTECTION: protected_ns,
        }
        if each.id in locks:
            ends[Keep.LOCKED] = locks[each.id]
            protected_ns = _later(protected_ns, locks[each.id])
        reasons = [reason for reason, end_ns in ends.items() if not may_delete_at(end_ns, now_ns)]
        expires_ns = _later(_later(ends[Keep.RETENTION], ends[Keep.PROTECTION]), ends.get(Keep.LOCKED, 0))
        found[each.id] = Verdict((*reasons, *kept.get(each.id, ())), expires_ns, protected_ns)
    return found


def _by_place(
    good: list[BackupSet],
    damaged: list[BackupSet],
    media_sets: Mapping[str, MediaSet],
    away: Collection[str],
    lines: Mapping[str, Line],
) -> dict[str, tuple[Keep, ...]]:
    """What is kept by where it stands among the others of its line. Where no good set is left, the last damaged one is what
    can be restored at all."""
    kept: dict[str, list[Keep]] = {}
    newest_first = sorted(good, key=_newness, reverse=True)
    last: set[tuple[str, ...]] = set()
    groups: dict[tuple[tuple[str, ...], str], list[BackupSet]] = {}
    for each in newest_first:
        key = lines[each.id].key
        if each.device not in away and key not in last:
            last.add(key)
            kept[each.id] = [Keep.LAST_GOOD]
        groups.setdefault((key, each.media_set), []).append(each)
    for each in sorted(damaged, key=_newness, reverse=True):
        key = lines[each.id].key
        if each.device not in away and key not in last:
            last.add(key)
            kept[each.id] = [Keep.LAST_GOOD]
    for (_, name), group in groups.items():
        media_set = media_sets.get(name)
        if media_set is None:
            continue
        counts = {Keep(what): count for count, what in media_set.counts()}
        for each in group[: counts[Keep.LAST]]:
            kept.setdefault(each.id, []).append(Keep.LAST)
        for what, period_of in _PERIODS.items():
            seen: set[tuple[int, ...]] = set()
            for each in group:
                if len(seen) == counts[what]:
                    break
                period = period_of(_local(each.ended_at_ns, lines[each.id].zone))
                if period not in seen:
                    seen.add(period)
                    kept.setdefault(each.id, []).append(what)
    return {id_: tuple(reasons) for id_, reasons in kept.items()}


def _newness(backup: BackupSet) -> tuple[int, bool, str]:
    return backup.ended_at_ns, backup.made_of is not None, backup.id


def _local(at_ns: int, zone: str) -> datetime.datetime:
    return (_EPOCH + datetime.timedelta(microseconds=at_ns // 1000)).astimezone(zone_named(zone))


def _later(one_ns: int | None, other_ns: int | None) -> int | None:
    return None if one_ns is None or other_ns is None else max(one_ns, other_ns)
