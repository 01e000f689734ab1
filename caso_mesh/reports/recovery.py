"""What it takes to get everything back: which device and medium, who reaches it, and what opens it."""

from __future__ import annotations

from caso_mesh.model.reports import Cell, Figure, Kind, Need, Tone
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import DeviceRow, Gathered, Part, SetRow

PARTS = frozenset({Part.SETS, Part.DEVICES, Part.SERVERS})
_NAMED = 10


def media_required(told: Gathered) -> m.Answer:
    """Of each server of each list, and of what jobs without a list back up, the newest good set wherever it lies; where there is
    none, the newest that was found damaged or is missing."""
    lines: dict[tuple[str, str, tuple[str, ...]], list[SetRow]] = {}
    for row in told.sets:
        if not row.redundant:
            key = (row.selection, row.source, () if row.selection else row.roots)
            lines.setdefault(key, []).append(row)
    lines = {key: [row for row in rows if not row.missing and not row.damaged] or rows for key, rows in lines.items()}
    devices = {row.name: row for row in told.devices}
    found = [(key, *_newest(rows)) for key, rows in sorted(lines.items())]
    away = [
        (key, newest) for key, newest, places in found if not any(_is_there(devices.get(row.device)) for row in places)
    ]
    alone = [key for key, _, places in found if len({row.device for row in places}) == 1]
    without_kit = sorted({name for name, row in devices.items() if not row.kits and not row.mesh})
    imported = sorted((name, row.mesh) for name, row in devices.items() if row.mesh)
    needed = sorted({newest.device for _, newest, _ in found})
    size = sum(newest.bytes for _, newest, _ in found)
    if not found:
        verdict = "There is nothing to recover: there are no backup sets."
    elif away:
        verdict = f"{m.plural(len(away), 'newest backup', 'newest backups')} of {len(found)} cannot be reached now."
    else:
        verdict = f"All {m.plural(len(found), 'newest backup')} can be reached, on {m.plural(len(needed), 'device')}."
    return m.Answer(
        verdict=verdict,
        good=None if not found else not away,
        needs=tuple(
            [
                Need(f"{_what(key)}: the newest backup lies on {newest.device}, which nobody reaches", "caso-mesh device list")
                for key, newest in away[:_NAMED]
            ]
            + [
                Need(f"{_what(key)}: the only sets are {'missing' if newest.missing else 'damaged'}", "caso-mesh set list")
                for key, newest, _ in found
                if newest.missing or newest.damaged
            ][:_NAMED]
            + [
                Need(f"No recovery kit opens {name} once the mesh is gone", "caso-mesh kit create", Tone.WARNING)
                for name in without_kit[:_NAMED]
                if name in needed
            ]
            + [
                Need(
                    f"Only a recovery kit of {mesh} opens {name} once this mesh is gone: keep it, or copy what matters",
                    "caso-mesh duplicate SET --to device:NAME",
                    Tone.WARNING,
                )
                for name, mesh in imported[:_NAMED]
                if name in needed
            ]
        ),
        figures=(
            Figure("lines", "To be recovered", len(found)),
            Figure("size", "Size", size, Kind.BYTES),
            Figure("devices", "Devices needed", len(needed)),
            Figure("away", "Cannot be reached", len(away), tone=Tone.BAD if away else Tone.GOOD),
            Figure("alone", "On one device alone", len(alone), tone=Tone.WARNING if alone else Tone.GOOD),
        ),
        charts=m.bars(
            "size", "To be recovered by device", Kind.BYTES,
            [(name, [float(sum(newest.bytes for _, newest, _ in found if newest.device == name))]) for name in needed],
            [("Size", Tone.PLAIN)],
        ),
        tables=(
            m.table(
                told,
                "required",
                "The newest good backup, and where it lies",
                (
                    m.text("source", "Server"), m.text("selection", "List"), m.text("paths", "Paths"),
                    m.instant("as_of", "As of"), m.octets("size", "Size"), m.text("set", "Set"),
                    m.text("device", "Device"), m.text("medium", "Medium"), m.text("reached_by", "Reached by"),
                    m.count("kits", "Recovery kits"), m.text("also_on", "Also on"),
                ),
                [_cells(key, newest, places, devices) for key, newest, places in found],
                "There are no backup sets.",
            ),
        ),
        notes=(
            ("Each set is complete: it needs its own device alone, and no older set. A recovery kit opens a device on a bare "
            "machine when no server is left."),
        ),
    )  # fmt: skip


def _newest(rows: list[SetRow]) -> tuple[SetRow, list[SetRow]]:
    """The newest set, and all that are of the same moment: itself, and its copies on other devices."""
    newest = max(rows, key=lambda row: (row.started_ns, not row.copy, row.ended_ns))
    return newest, [row for row in rows if row.started_ns == newest.started_ns]


def _is_there(device: DeviceRow | None) -> bool:
    return device is not None and any(place.there for place in device.places)


def _what(key: tuple[str, str, tuple[str, ...]]) -> str:
    selection, source, roots = key
    return f"{source} of the list {selection}" if selection else f"{source}:{m.listed(roots, 1)}"


def _cells(
    key: tuple[str, str, tuple[str, ...]], newest: SetRow, places: list[SetRow], devices: dict[str, DeviceRow]
) -> tuple[Cell, ...]:
    device = devices.get(newest.device)
    reached = [place.server for place in device.places if place.there] if device is not None else []
    others = sorted({row.device for row in places} - {newest.device})
    return (
        key[1], key[0] or None, m.listed(newest.roots), m.at(newest.ended_ns), newest.bytes, newest.id, newest.device,
        newest.medium, m.listed(reached) or "nobody now", device.kits if device is not None else None,
        m.listed(others) or None,
    )  # fmt: skip
