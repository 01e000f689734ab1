"""Reports about devices, media sets and what lies there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from caso_mesh.model.reports import Cell, Chart, ChartKind, Figure, Kind, Need, Series, Table, Tone
from caso_mesh.model.states import DeviceState
from caso_mesh.model.units import duration_text, format_size
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import DeviceRow, Gathered, MediaSetRow, Part, SetRow

DEVICE_PARTS = frozenset({Part.DEVICES, Part.SETS, Part.RUNS})
USAGE_PARTS = frozenset({Part.SETS})
MEDIA_SET_PARTS = frozenset({Part.MEDIA_SETS, Part.MEDIA, Part.SETS})
_WEEKS_NS = 28 * m.DAY_NS
#: A device that is full within so many days is named.
_SOON = 30
#: Beyond so many days nothing is said of when a device is full.
_FAR = 3650


def by_key(rows: Iterable[SetRow], key: str) -> dict[str, list[SetRow]]:
    """Sets by a field of theirs, in its order."""
    found: dict[str, list[SetRow]] = {}
    for row in rows:
        found.setdefault(getattr(row, key), []).append(row)
    return dict(sorted(found.items()))


def stored(rows: Iterable[SetRow]) -> int:
    return sum(row.bytes_stored for row in rows)


# --- device summary ---


def device_summary(told: Gathered) -> m.Answer:
    sets = by_key(told.sets, "device")
    unwell = [(row, text) for row in told.devices for text in _unwell(row)]
    soon = [
        (row, days)
        for row in told.devices
        if (days := _days_until_full(told, row, sets.get(row.name, []))) is not None
        and days <= _SOON
        and not _is_low(row)
    ]
    free = [row.free_bytes for row in told.devices if row.free_bytes is not None]
    verdict = "All devices are well."
    if unwell or soon:
        names = m.listed([row.name for row, _ in (*unwell, *soon)])
        verdict = f"{m.plural(len({row.name for row, _ in (*unwell, *soon)}), 'device needs', 'devices need')} somebody: {names}."
    elif not told.devices:
        verdict = "There are no devices."
    return m.Answer(
        verdict=verdict,
        good=None if not told.devices else not unwell and not soon,
        needs=tuple(
            [Need(text, "caso-mesh device list") for _, text in unwell]
            + [
                Need(f"{row.name} is full in {days:.0f} days at the pace of four weeks", "caso-mesh what-if --days 7", Tone.WARNING)
                for row, days in soon
            ]
        ),
        figures=(
            Figure("devices", "Devices", len(told.devices)),
            Figure("unwell", "Not well", len({row.name for row, _ in unwell}), tone=Tone.BAD if unwell else Tone.GOOD),
            Figure("free", "Free", sum(free) if free else None, Kind.BYTES),
            Figure("sets", "Backup sets", len(told.sets)),
            Figure("stored", "Stored by them", stored(told.sets), Kind.BYTES),
        ),
        charts=m.bars(
            "space", "Space", Kind.BYTES,
            [
                (row.name, [float(row.total_bytes - row.free_bytes), float(row.free_bytes)])
                for row in told.devices
                if row.free_bytes is not None and row.total_bytes
            ],
            [("Used", Tone.PLAIN), ("Free", Tone.PLAIN)],
        ),
        tables=_device_tables(told, sets),
        notes=("A day is the average of what was stored in the last four weeks and is still there; what expires is not taken off.",
               "Full in days is left out where that is more than ten years away."),
    )  # fmt: skip


def _device_tables(told: Gathered, sets: Mapping[str, list[SetRow]]) -> tuple[Table, ...]:
    """``sets``: by the names of the devices that they lie on."""
    runs = m.grouped((row for row in told.runs if row.ended_ns is not None and row.device), lambda row: row.device)
    return (
        m.table(
            told,
            "devices",
            "Devices",
            (
                m.text("device", "Device"), m.state("state", "State"), m.text("kind", "Kind"),
                m.text("pools", "Pools"), m.octets("free", "Free"), m.octets("total", "Size"),
                m.percent("used", "Used"), m.octets("low_space", "Low below"), m.octets("a_day", "A day"),
                m.count("days_until_full", "Full in days"), m.count("sets", "Sets"), m.octets("stored", "Stored"),
            ),
            [_device(told, row, sets.get(row.name, [])) for row in told.devices],
            "There are no devices.",
        ),
        m.table(
            told,
            "use",
            "Their use",
            (
                m.text("device", "Device"), m.count("runs", "Runs"), m.percent("rate", "Success rate"), m.count("running", "Running"),
                m.count("concurrency", "At once"), m.count("kits", "Recovery kits"),
            ),
            [
                (row.name, tally.total, tally.rate, row.running, row.concurrency, row.kits)
                for row, tally in ((row, runs.get(row.name, m.Tally())) for row in told.devices)
            ],
        ),
        m.table(
            told,
            "places",
            "Where they are",
            (m.text("device", "Device"), m.text("server", "Server"), m.text("path", "Path"), m.text("there", "Reachable"),
             m.text("problem", "Problem")),
            [
                (row.name, place.server, place.path, place.there, place.problem or None)
                for row in told.devices
                for place in row.places
            ],
        ),
    )  # fmt: skip


def _is_low(row: DeviceRow) -> bool:
    """What is only read has room enough."""
    return not row.mesh and row.free_bytes is not None and row.free_bytes < row.low_space_bytes


def _unwell(row: DeviceRow) -> list[str]:
    if _is_low(row):
        return [f"{row.name} is low on space: {format_size(row.free_bytes or 0)} free"]
    problems = [f"{row.name}: {place.problem} at {place.server}" for place in row.places if place.problem]
    bad = row.state in {DeviceState.OFFLINE.value, DeviceState.READ_ONLY.value}
    return problems or ([f"{row.name} is {row.state}"] if bad else [])


def _a_day(told: Gathered, rows: Sequence[SetRow]) -> int | None:
    """Bytes that were stored a day; ``None`` without sets."""
    recent = [row for row in rows if row.ended_ns >= told.now_ns - _WEEKS_NS]
    if not recent:
        return None
    span_ns = min(_WEEKS_NS, max(m.DAY_NS, told.now_ns - min(row.ended_ns for row in recent)))
    return round(stored(recent) * m.DAY_NS / span_ns)


def _days_until_full(told: Gathered, row: DeviceRow, rows: Sequence[SetRow]) -> float | None:
    """``None`` also where that is too far away to say anything."""
    daily = None if row.mesh else _a_day(told, rows)
    if row.free_bytes is None or not daily:
        return None
    days = max(0, row.free_bytes - row.low_space_bytes) / daily
    return days if days <= _FAR else None


def _device(told: Gathered, row: DeviceRow, rows: Sequence[SetRow]) -> tuple[Cell, ...]:
    days = _days_until_full(told, row, rows)
    used = None
    if row.free_bytes is not None and row.total_bytes:
        used = m.share(row.total_bytes - row.free_bytes, row.total_bytes)
    return (
        row.name, row.state, row.kind, ", ".join(row.pools) or None, row.free_bytes, row.total_bytes, used,
        row.low_space_bytes, None if row.mesh else _a_day(told, rows), None if days is None else round(days), len(rows), stored(rows),
    )  # fmt: skip


# --- usage by policy ---


def usage_by_policy(told: Gathered) -> m.Answer:
    groups: dict[tuple[str, str], list[SetRow]] = {}
    for row in told.sets:
        groups.setdefault((row.device, row.policy), []).append(row)
    policies = sorted({policy for _, policy in groups}, key=lambda name: (not name, name))
    devices = sorted({device for device, _ in groups})
    whole = stored(told.sets)
    recent = [row for row in told.sets if told.begins_ns <= row.ended_ns < told.until_ns]
    return m.Answer(
        verdict=f"{format_size(whole)} of {m.plural(len(devices), 'device')} are stored by {m.plural(len(told.sets), 'set')}, "
        f"{format_size(stored(recent))} of that in this time."
        if told.sets
        else "There are no backup sets.",
        figures=(
            Figure("stored", "Stored", whole, Kind.BYTES),
            Figure("recent", "Of that in this time", stored(recent), Kind.BYTES),
            Figure("policies", "Policies", len([name for name in policies if name])),
        ),
        charts=m.bars(
            "stored", "Stored by device and policy", Kind.BYTES,
            [
                (device, [float(stored(groups.get((device, policy), []))) for policy in policies[:6]])
                for device in devices
            ],
            [(policy or "(no policy)", Tone.PLAIN) for policy in policies[:6]],
        ),
        tables=(
            m.table(
                told,
                "usage",
                "By device and policy",
                (
                    m.text("device", "Device"), m.text("policy", "Policy"), m.count("sets", "Sets"),
                    m.octets("size", "Size of their files"), m.octets("stored", "Stored"), m.percent("share", "Share"),
                    m.octets("recent", "Stored in this time"), m.instant("newest", "Newest"),
                ),
                [
                    (device, policy or None, len(rows), sum(row.bytes for row in rows), stored(rows),
                     m.share(stored(rows), stored(by_device)),
                     stored(row for row in rows if told.begins_ns <= row.ended_ns < told.until_ns),
                     m.at(max(row.ended_ns for row in rows)))
                    for device, by_device in by_key(told.sets, "device").items()
                    for policy in policies
                    if (rows := groups.get((device, policy)))
                ],
                "There are no backup sets.",
            ),
        ),
        notes=(
            ("A chunk counts for the set that stored it first. Sets of jobs without a policy, or of a policy that is gone, stand "
            "without one."),
        ),
    )  # fmt: skip


# --- media sets ---


def media_sets(told: Gathered) -> m.Answer:
    sets, media = by_key(told.sets, "media_set"), told.media
    used = [row for row in told.media_sets if sets.get(row.name)]
    going = [row for row in told.sets if row.expired]
    return m.Answer(
        verdict=f"{len(used)} of {m.plural(len(told.media_sets), 'media set')} have backup sets; "
        f"{m.plural(len(going), 'set goes', 'sets go')} with the next pass.",
        figures=(
            Figure("media_sets", "Media sets", len(told.media_sets)),
            Figure("media", "Media", len(media)),
            Figure("sets", "Backup sets", len(told.sets)),
            Figure("stored", "Stored", stored(told.sets), Kind.BYTES),
            Figure("going", "Go with the next pass", len(going)),
            Figure("locked", "Locked", sum(row.locked for row in told.sets)),
        ),
        charts=m.bars(
            "stored", "Stored by media set", Kind.BYTES,
            [(name, [float(stored(rows))]) for name, rows in sets.items()], [("Stored", Tone.PLAIN)],
        ),
        tables=(
            m.table(
                told,
                "media_sets",
                "Media sets",
                (
                    m.text("media_set", "Media set"), m.text("append", "Append for"), m.text("protection", "Protected for"),
                    m.text("keep", "Kept for"), m.text("counts", "And beyond that"), m.count("media", "Media"),
                    m.count("sets", "Sets"), m.octets("stored", "Stored"), m.instant("oldest", "Oldest"),
                    m.instant("newest", "Newest"), m.instant("next_expiry", "Next expires"),
                ),
                [
                    _media_set(row, sets.get(row.name, []), sum(each.media_set == row.name for each in media))
                    for row in told.media_sets
                ],
            ),
            m.table(
                told,
                "media",
                "Media",
                (
                    m.text("label", "Label"), m.state("state", "State"), m.text("media_set", "Media set"),
                    m.text("device", "Device"), m.text("server", "Server"), m.count("sets", "Sets"),
                    m.octets("stored", "Stored"), m.instant("opened", "Opened"), m.instant("last_write", "Last write"),
                ),
                _media(told),
                "There are no media.",
            ),
        ),
    )  # fmt: skip


def _span(seconds: float | None) -> str:
    return "without end" if seconds is None else duration_text(seconds) or "0s"


def _media_set(row: MediaSetRow, rows: Sequence[SetRow], media: int) -> tuple[Cell, ...]:
    ends = [each.expires_ns for each in rows if each.expires_ns is not None and not each.kept_by and not each.locked]
    return (
        row.name, _span(row.append_s), _span(row.protection_s), _span(row.keep_s), ", ".join(row.counts) or None, media,
        len(rows), stored(rows), m.at(min((each.ended_ns for each in rows), default=None)),
        m.at(max((each.ended_ns for each in rows), default=None)), m.at(min(ends, default=None)),
    )  # fmt: skip


def _media(told: Gathered) -> list[tuple[Cell, ...]]:
    on: dict[tuple[str, str], list[SetRow]] = {}
    for row in told.sets:
        on.setdefault((row.server, row.medium), []).append(row)
    return [
        (row.label, row.state, row.media_set, row.device, row.server, len(rows), stored(rows), m.at(row.opened_ns),
         m.at(row.last_write_ns))
        for row in told.media
        for rows in [on.get((row.server, row.label), [])]
    ]  # fmt: skip


def sets_by_media_set(told: Gathered) -> m.Answer:
    groups = by_key(told.sets, "media_set")
    recent = [row for row in told.sets if told.begins_ns <= row.ended_ns < told.until_ns]
    return m.Answer(
        verdict=f"{m.plural(len(told.sets), 'backup set')} in {m.plural(len(groups), 'media set')}, "
        f"{m.plural(len(recent), 'one', 'of them')} made in this time."
        if told.sets
        else "There are no backup sets.",
        figures=(
            Figure("sets", "Backup sets", len(told.sets)),
            Figure("recent", "Made in this time", len(recent)),
            Figure("copies", "Copies on other devices", sum(row.copy for row in told.sets)),
            Figure("locked", "Locked", sum(row.locked for row in told.sets)),
            Figure("stored", "Stored", stored(told.sets), Kind.BYTES),
        ),
        charts=m.bars(
            "sets", "Sets by media set", Kind.COUNT,
            [
                (name, [sum(row.type == kind for row in rows) for kind in ("full", "incremental", "differential", "copy")])
                for name, rows in groups.items()
            ],
            [(kind, Tone.PLAIN) for kind in ("full", "incremental", "differential", "copy")],
        ),
        tables=tuple(
            m.table(
                told,
                f"sets_{place}",
                f"{name}: {m.plural(len(rows), 'set')}",
                (
                    m.text("media_set", "Media set"), m.text("set", "Set"), m.text("source", "Source"),
                    m.text("selection", "List"), m.text("type", "Type"), m.instant("ended", "Ended"),
                    m.text("device", "Device"), m.text("medium", "Medium"), m.count("files", "Files"),
                    m.octets("size", "Size"), m.octets("stored", "Stored"), m.instant("expires", "Expires"),
                    m.text("kept_by", "Kept by"),
                ),
                [
                    (name, row.id, row.source, row.selection or None, "copy of a set" if row.copy else row.type,
                     m.at(row.ended_ns), row.device, row.medium, row.files, row.bytes, row.bytes_stored,
                     m.at(row.expires_ns), _kept(row))
                    for row in sorted(rows, key=lambda row: -row.ended_ns)
                ],
            )
            for place, (name, rows) in enumerate(groups.items(), 1)
        ) or (m.table(told, "sets_1", "Backup sets", (m.text("set", "Set"),), [], "There are no backup sets."),),
    )  # fmt: skip


def _kept(row: SetRow) -> str | None:
    words = [*row.kept_by, *(["locked"] if row.locked else []), *_against(row)]
    return ", ".join(words) or ("goes" if row.expired else None)


def _against(row: SetRow) -> list[str]:
    """What is known against a set."""
    known = {"missing": row.missing, "damaged": row.damaged, "redundant": row.redundant}
    return [word for word, holds in known.items() if holds]


# --- deduplication ---


def deduplication(told: Gathered) -> m.Answer:
    recent = [row for row in told.sets if told.begins_ns <= row.ended_ns < told.until_ns]
    size, kept = sum(row.bytes for row in told.sets), stored(told.sets)
    read, new = sum(row.bytes_read for row in recent), stored(recent)
    buckets = m.Buckets(told)
    over_time = (
        Series("Read", buckets.sums((row.ended_ns, row.bytes_read) for row in recent)),
        Series("Stored", buckets.sums((row.ended_ns, row.bytes_stored) for row in recent)),
    )
    return m.Answer(
        verdict=f"{format_size(size)} of backed up files take {format_size(kept)}: {m.times(size, kept) or 0:g} times less."
        if kept
        else "Nothing is stored.",
        figures=(
            Figure("size", "Files in all sets", size, Kind.BYTES),
            Figure("stored", "Stored", kept, Kind.BYTES),
            Figure("ratio", "Files to stored", m.times(size, kept), Kind.RATIO),
            Figure("read", "Read in this time", read, Kind.BYTES),
            Figure("new", "Stored in this time", new, Kind.BYTES),
            Figure("recent_ratio", "Read to stored", m.times(read, new), Kind.RATIO),
        ),
        charts=tuple(
            Chart(series.title.lower(), f"{series.title} by {buckets.word}", ChartKind.COLUMNS, Kind.BYTES, buckets.labels,
                  (series,))
            for series in over_time
            if any(series.values)
        ),
        tables=tuple(
            m.table(
                told,
                key,
                f"By {heading.lower()}",
                (
                    m.text(key, heading), m.count("sets", "Sets"), m.octets("size", "Files in all sets"),
                    m.octets("stored", "Stored"), m.ratio("ratio", "Files to stored"), m.octets("read", "Read in this time"),
                    m.octets("new", "Stored in this time"), m.ratio("recent_ratio", "Read to stored"),
                ),
                [_ratios(name, rows, told) for name, rows in by_key(told.sets, key).items()],
                "There are no backup sets.",
            )
            for key, heading in (("device", "Device"), ("source", "Source"), ("selection", "List"))
        ),
        notes=(
            ("Stored is what sets added to their devices, after deduplication and compression; a chunk counts for the set that "
            "stored it first. An incremental reads only what changed: read to stored tells of deduplication and compression "
            "alone."),
        ),
    )  # fmt: skip


def _ratios(name: str, rows: Sequence[SetRow], told: Gathered) -> tuple[Cell, ...]:
    recent = [row for row in rows if told.begins_ns <= row.ended_ns < told.until_ns]
    size, kept = sum(row.bytes for row in rows), stored(rows)
    read, new = sum(row.bytes_read for row in recent), stored(recent)
    return (name or None, len(rows), size, kept, m.times(size, kept), read, new, m.times(read, new))


# --- size by resource ---


def size_by_resource(told: Gathered) -> m.Answer:
    groups: dict[tuple[str, str, tuple[str, ...]], list[SetRow]] = {}
    for row in sorted(told.sets, key=lambda row: row.ended_ns):
        if not row.copy and not row.redundant:
            groups.setdefault((row.source, row.selection, row.roots), []).append(row)
    rows = [_resource(told, source, selection, roots, each) for (source, selection, roots), each in groups.items()]
    rows.sort(key=lambda row: -_number(row[4]))
    whole = round(m.summed(_number(row[4]) for row in rows))
    growth = round(m.summed(_number(row[6]) for row in rows))
    sign = "more" if growth >= 0 else "less"
    return m.Answer(
        verdict=f"{format_size(whole)} are backed up of {m.plural(len(rows), 'resource')}, {format_size(abs(growth))} {sign} "
        "than at the beginning of this time."
        if rows
        else "There are no backup sets.",
        figures=(
            Figure("size", "Newest backups", whole, Kind.BYTES),
            Figure("growth", "Growth in this time", growth, Kind.BYTES),
            Figure("resources", "Resources", len(rows)),
            Figure("files", "Files", round(m.summed(_number(row[5]) for row in rows))),
        ),
        charts=m.bars(
            "size", "Newest backup by resource", Kind.BYTES,
            [(f"{row[0]}:{row[2]}", [_number(row[4])]) for row in rows], [("Size", Tone.PLAIN)],
        ),
        tables=(
            m.table(
                told,
                "resources",
                "Resources",
                (
                    m.text("source", "Server"), m.text("selection", "List"), m.text("paths", "Paths"),
                    m.instant("newest", "Newest backup"), m.octets("size", "Size"), m.count("files", "Files"),
                    m.octets("growth", "Growth"), m.percent("growth_percent", "Growth of"), m.octets("stored", "Stored in this time"),
                    m.count("sets", "Sets in this time"), m.octets("stored_of_all", "Stored by all sets"),
                ),
                rows,
                "There are no backup sets.",
            ),
        ),
        notes=("Growth is from the oldest backup of this time to the newest one. A resource is what one server contributes to one list.",),
    )  # fmt: skip


def _number(cell: Cell) -> float:
    return float(cell) if isinstance(cell, (int, float)) else 0.0


def _resource(
    told: Gathered, source: str, selection: str, roots: tuple[str, ...], rows: Sequence[SetRow]
) -> tuple[Cell, ...]:
    newest = rows[-1]
    recent = [row for row in rows if told.begins_ns <= row.ended_ns < told.until_ns]
    growth = recent[-1].bytes - recent[0].bytes if len(recent) > 1 else None
    return (
        source, selection or None, m.listed(roots), m.at(newest.ended_ns), newest.bytes, newest.files, growth,
        None if growth is None else m.share(growth, recent[0].bytes), stored(recent), len(recent), stored(rows),
    )  # fmt: skip
