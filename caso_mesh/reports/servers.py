"""Reports about servers: those that there are, and those that were backed up."""

from __future__ import annotations

from caso_mesh.model.reports import Cell, Figure, Kind, Need, Tone
from caso_mesh.model.states import ServerState
from caso_mesh.reports import making as m
from caso_mesh.reports.rows import AgeRow, Gathered, Part, ServerRow, SetRow

MANAGED_PARTS = frozenset({Part.SERVERS, Part.RUNS})
MACHINES_PARTS = frozenset({Part.SERVERS, Part.SETS, Part.AGES})
_NAMED = 10


def managed_media_servers(told: Gathered) -> m.Answer:
    writes = m.grouped((row for row in told.runs if row.ended_ns is not None and row.server), lambda row: row.server)
    reads = m.grouped((row for row in told.runs if row.ended_ns is not None), lambda row: row.source)
    away = [row for row in told.servers if not row.connected and row.state != ServerState.DISABLED.value]
    held = [row for row in told.servers if row.state in {ServerState.PAUSED.value, ServerState.DISABLED.value}]
    versions = sorted({row.version for row in told.servers if row.version})
    there = sum(row.connected for row in told.servers)
    return m.Answer(
        verdict=f"{there} of {m.plural(len(told.servers), 'server')} are connected."
        if away
        else f"All {m.plural(len(told.servers), 'server')} are connected or were disabled by hand.",
        good=not away,
        needs=tuple(
            Need(f"{row.name} is not connected ({row.state})", "caso-mesh server list") for row in away[:_NAMED]
        ),
        figures=(
            Figure("servers", "Servers", len(told.servers)),
            Figure("away", "Not connected", len(away), tone=Tone.BAD if away else Tone.GOOD),
            Figure("held", "Paused or disabled", len(held), tone=Tone.WARNING if held else Tone.GOOD),
            Figure("voters", "Voters", sum(row.voter for row in told.servers)),
            Figure("versions", "Versions", len(versions), tone=Tone.WARNING if len(versions) > 1 else Tone.PLAIN),
        ),
        charts=m.bars(
            "stored", "Written by media server", Kind.BYTES,
            [(name, [m.summed(row.bytes_stored for row in tally.rows)]) for name, tally in writes.items()],
            [("Stored", Tone.PLAIN)],
        ),
        tables=(
            m.table(
                told,
                "servers",
                "Servers",
                (
                    m.text("server", "Server"), m.state("state", "State"), m.text("connected", "Connected"),
                    m.text("role", "Role"), m.text("pools", "Pools"), m.text("devices", "Devices"),
                    m.count("as_media_server", "Runs as media server"), m.percent("rate", "Success rate"),
                    m.octets("stored", "Stored"), m.count("as_source", "Runs as source"), m.count("running", "Running"),
                    m.text("version", "Version"), m.instant("silent_since", "Silent since"), m.instant("joined", "Joined"),
                ),
                [
                    _server(row, writes.get(row.name, m.Tally()), reads.get(row.name, m.Tally()))
                    for row in sorted(told.servers, key=lambda row: (row.connected, row.name))
                ],
                "There are no servers.",
            ),
        ),
    )  # fmt: skip


def _server(row: ServerRow, writes: m.Tally, reads: m.Tally) -> tuple[Cell, ...]:
    role = "administrator" if row.admin else "voter" if row.voter else "media server"
    if row.queue_on_hold:
        role += ", queue on hold"
    return (
        row.name, row.state, row.connected, role, ", ".join(row.pools) or None, m.listed(row.devices) or None,
        writes.total, writes.rate, round(m.summed(each.bytes_stored for each in writes.rows)), reads.total, row.running,
        row.version or None, m.at(row.silent_since_ns), m.at(row.joined_ns),
    )  # fmt: skip


# --- machines backed up ---


def machines_backed_up(told: Gathered) -> m.Answer:
    sets: dict[str, list[SetRow]] = {row.name: [] for row in told.servers}
    for backup in told.sets:
        if not backup.redundant and not backup.copy:
            sets.setdefault(backup.source, []).append(backup)
    ages: dict[str, list[AgeRow]] = {}
    for age in told.ages:
        ages.setdefault(age.source, []).append(age)
    known = {row.name for row in told.servers}
    recent = {
        name: [row for row in rows if told.begins_ns <= row.ended_ns < told.until_ns] for name, rows in sets.items()
    }
    done = sum(bool(rows) for rows in recent.values())
    never = [name for name in known if not sets[name]]
    late = [name for name, rows in ages.items() if any(row.overdue for row in rows)]
    rows = [
        _machine(name, sets[name], recent[name], ages.get(name, []), member=name in known)
        for name in sorted(sets, key=lambda name: (bool(sets[name]), bool(recent[name]), name))
    ]
    return m.Answer(
        verdict=f"{done} of {m.plural(len(sets), 'machine')} were backed up in this time"
        + (f"; {m.plural(len(never), 'has', 'have')} no backup at all." if never else "."),
        good=not never and not late,
        needs=tuple(Need(f"{name} has no backup at all", f"caso-mesh backup {name}:/ --to any") for name in sorted(never)[:_NAMED]),
        figures=(
            Figure("machines", "Machines", len(sets)),
            Figure("done", "Backed up in this time", done, tone=Tone.GOOD if done else Tone.PLAIN),
            Figure("never", "Never backed up", len(never), tone=Tone.BAD if never else Tone.GOOD),
            Figure("late", "With overdue backups", len(late), tone=Tone.BAD if late else Tone.GOOD),
            Figure("size", "Newest backups", round(m.summed(_size(row) for row in rows)), Kind.BYTES),
        ),
        charts=m.bars(
            "size", "Newest backups by machine", Kind.BYTES, [(str(row[0]), [_size(row)]) for row in rows], [("Size", Tone.PLAIN)]
        ),
        tables=(
            m.table(
                told,
                "machines",
                "Machines",
                (
                    m.text("machine", "Machine"), m.state("state", "State"), m.text("selections", "Lists"),
                    m.instant("newest", "Newest backup"), m.octets("size", "Size"), m.count("files", "Files"),
                    m.count("recent", "Sets in this time"), m.octets("stored", "Stored in this time"),
                    m.count("sets", "Sets"), m.instant("oldest", "Oldest set"),
                ),
                rows,
                "There are no servers.",
            ),
        ),
        notes=("A machine that has left the mesh is here as long as it has sets.",),
    )  # fmt: skip


def _size(row: tuple[Cell, ...]) -> float:
    return float(row[4]) if isinstance(row[4], (int, float)) else 0.0


def _machine(
    name: str, sets: list[SetRow], recent: list[SetRow], ages: list[AgeRow], *, member: bool
) -> tuple[Cell, ...]:
    newest: dict[tuple[str, tuple[str, ...]], SetRow] = {}
    for row in sorted(sets, key=lambda row: row.ended_ns):
        newest[row.selection, row.roots] = row
    state = (
        "of another mesh"
        if "@" in name
        else "left the mesh"
        if not member
        else "no backup"
        if not sets
        else "backed up"
    )
    if any(age.overdue for age in ages):
        state = "overdue"
    lists = [age.selection for age in ages] or [row.selection for row in newest.values() if row.selection]
    return (
        name, state, m.listed(lists) or None, m.at(max((row.ended_ns for row in sets), default=None)),
        sum(row.bytes for row in newest.values()) if sets else None,
        sum(row.files for row in newest.values()) if sets else None, len(recent),
        sum(row.bytes_stored for row in recent), len(sets), m.at(min((row.ended_ns for row in sets), default=None)),
    )  # fmt: skip
