"""The overnight summary: is all well, and what needs somebody?"""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.model.reports import Chart, ChartKind, Figure, Kind, Need, Series, Tone
from caso_mesh.model.states import AlertKind, DeviceState, RunState, ServerState
from caso_mesh.model.units import format_size
from caso_mesh.reports import making as m
from caso_mesh.reports import shown
from caso_mesh.reports.missed import without_any
from caso_mesh.reports.rows import AgeRow, AlertRow, DeviceRow, Gathered, Part, RunRow, ServerRow

PARTS = frozenset({Part.RUNS, Part.AGES, Part.DEVICES, Part.SERVERS, Part.ALERTS})
#: So many things that need somebody are named one by one of each sort.
_NAMED = 8
_LOUD = frozenset({AlertKind.ATTENTION.value, AlertKind.ERROR.value})
#: Alerts of these categories are told by the runs, lists, servers and devices themselves.
_TOLD_ELSEWHERE = frozenset(
    {
        "job-failed", "job-timed-out", "job-missed", "backup-overdue", "server-stalled", "server-no-communication",
    }
)  # fmt: skip


def summary(told: Gathered) -> m.Answer:
    """Runs that ended in the time, backups that are overdue, servers, devices and alerts as they are now."""
    ended = [row for row in told.runs if row.ended_ns is not None]
    backups = m.Tally(row for row in ended if row.kind in m.BACKUPS)
    others = m.Tally(row for row in ended if row.kind not in m.BACKUPS)
    still = [row for row in told.runs if row.ended_ns is None]
    wrong = [row for row in ended if row.state in m.ENDED_BADLY and row.sound_since_ns is None]
    overdue = [row for row in told.ages if row.overdue or row.unprotected(told.now_ns)]
    away = [row for row in told.servers if _is_away(row)]
    loud = [row for row in told.alerts if _is_open(row) and row.alert in _LOUD]
    # an alert says more of a device than its state
    named = " ".join(row.text for row in loud if row.category == "device-error")
    unwell = [row for row in told.devices if _is_unwell(row) and (_is_low(row) or row.name not in named)]
    needs = tuple(_needs(wrong, overdue, away, unwell, loud, told.now_ns))
    good = not needs
    stored = round(m.summed(row.bytes_stored for row in ended))
    return m.Answer(
        verdict=_verdict(backups, still, needs),
        good=good,
        needs=needs,
        figures=(
            Figure("backups", "Backups that ended", backups.total),
            Figure("good", "Ended well", backups.good, tone=Tone.GOOD if backups.good else Tone.PLAIN),
            Figure("bad", "Failed or missed", backups.bad, tone=Tone.BAD if backups.bad else Tone.GOOD),
            Figure("rate", "Success rate", backups.rate, Kind.PERCENT, backups.tone if backups.total else Tone.PLAIN),
            Figure("overdue", "Backups overdue or never made", len(overdue), tone=Tone.BAD if overdue else Tone.GOOD),
            Figure("running", "Still running or waiting", len(still)),
            Figure("stored", "Stored", stored, Kind.BYTES),
        ),
        charts=(*m.outcomes_over_time(told, ended, "outcomes", "Runs that ended"), *_stored(told, ended)),
        tables=(
            _wrong(told, [row for row in ended if row.state in m.ENDED_BADLY]),
            _lists(told, ended),
            _still(told, still),
            _alerts(told, [row for row in told.alerts if _is_open(row)]),
            _devices(told),
        ),
        notes=tuple(_notes(told, others)),
    )


def _is_away(row: ServerRow) -> bool:
    return not row.connected and row.state not in {ServerState.DISABLED.value, ServerState.DISCOVERED.value}


def _is_low(row: DeviceRow) -> bool:
    return not row.mesh and row.free_bytes is not None and row.free_bytes < row.low_space_bytes


def _is_unwell(row: DeviceRow) -> bool:
    bad = row.state in {DeviceState.OFFLINE.value, DeviceState.READ_ONLY.value}
    return bad or _is_low(row) or any(place.problem for place in row.places)


def _what_is_wrong(row: DeviceRow) -> list[str]:
    if _is_low(row):
        return [f"The device {row.name} is low on space: {format_size(row.free_bytes or 0)} free"]
    problems = [f"The device {row.name}: {place.problem} at {place.server}" for place in row.places if place.problem]
    return problems or [f"The device {row.name} is {row.state}"]


def _is_open(row: AlertRow) -> bool:
    return row.answered_ns is None and row.cleared_ns is None


# --- the answer first ---


def _verdict(backups: m.Tally, still: Sequence[RunRow], needs: Sequence[Need]) -> str:
    if backups.total:
        text = f"{backups.good} of {m.plural(backups.total, 'backup')} ended well"
    else:
        text = "no backup ended in this time"
    if still:
        text += f", {m.plural(len(still), 'run is', 'runs are')} still under way"
    if not needs:
        return f"All well: {text}."
    return f"{m.plural(len(needs), 'thing needs', 'things need')} you. {text[0].upper()}{text[1:]}."


def _needs(
    wrong: Sequence[RunRow],
    overdue: Sequence[AgeRow],
    away: Sequence[ServerRow],
    unwell: Sequence[DeviceRow],
    loud: Sequence[AlertRow],
    now_ns: int,
) -> list[Need]:
    """One for each job that went wrong and was not made up for, list, server, device and alert: of each sort the first
    few, then how many more."""
    found: list[Need] = []
    by_job: dict[tuple[str, str], RunRow] = {}
    for row in sorted(wrong, key=lambda row: -(row.ended_ns or 0)):
        by_job.setdefault((row.job, row.source), row)
    found += _some(
        [
            Need(
                f"{row.job} of {row.source} {_how(row)}" + (f": {row.error_text}" if row.error_text else ""),
                f"caso-mesh why {row.run}",
            )
            for row in by_job.values()
        ],
        "more jobs went wrong",
        "caso-mesh report show failed-jobs",
    )
    found += _some(
        [
            Need(
                f"{row.source} of the list {row.selection}: {without_any(row, now_ns)}"
                if row.newest_ns is None
                else f"{row.source} has no good backup for the list {row.selection} "
                f"that is newer than {shown.period(row.allowed_s or 0.0)}",
                f"caso-mesh why list:{row.selection}",
            )
            for row in overdue
        ],
        "more backups are overdue",
        "caso-mesh report show missed-backups",
    )
    found += _some(
        [Need(f"{row.name} is not connected ({row.state})", "caso-mesh server list") for row in away],
        "more servers are not connected",
        "caso-mesh server list",
    )
    found += _some(
        [Need(text, "caso-mesh report show device-summary") for row in unwell for text in _what_is_wrong(row)],
        "more devices are unwell",
        "caso-mesh device list",
    )
    rest = [row for row in loud if row.category not in _TOLD_ELSEWHERE]
    found += _some(
        [Need(row.text, f"caso-mesh alert show {row.id[:13]}") for row in rest],
        "more alerts are not answered",
        "caso-mesh alert list",
    )
    return found


def _how(row: RunRow) -> str:
    return {RunState.MISSED: "was missed", RunState.TIMED_OUT: "took too long"}.get(RunState(row.state), "failed")


def _some(needs: list[Need], more: str, command: str) -> list[Need]:
    left = len(needs) - _NAMED
    return needs if left <= 0 else [*needs[:_NAMED], Need(f"{left} {more}", command)]


# --- detail ---


def _stored(told: Gathered, ended: Sequence[RunRow]) -> tuple[Chart, ...]:
    buckets = m.Buckets(told)
    sums = buckets.sums((row.ended_ns, row.bytes_stored) for row in ended if row.ended_ns is not None)
    if not any(sums):
        return ()
    series = (Series("Stored", sums),)
    return (Chart("stored", f"Stored by {buckets.word}", ChartKind.COLUMNS, Kind.BYTES, buckets.labels, series),)


def _wrong(told: Gathered, rows: Sequence[RunRow]) -> m.Table:
    return m.table(
        told,
        "wrong",
        "Failed and missed",
        (
            m.text("job", "Job"), m.text("source", "Source"), m.state("state", "State"), m.instant("ended", "Ended"),
            m.text("error", "What happened"), m.text("hint", "What to do"), m.instant("made_up", "Made up for"),
            m.text("run", "Run"),
        ),
        [
            (row.job, row.source, row.state, m.at(row.ended_ns), row.error_text or row.waits, row.error_hint,
             m.at(row.sound_since_ns), row.run)
            for row in sorted(rows, key=lambda row: (row.sound_since_ns is not None, -(row.ended_ns or 0)))
        ],
        "Nothing failed, nothing was missed.",
    )  # fmt: skip


def _lists(told: Gathered, ended: Sequence[RunRow]) -> m.Table:
    ages: dict[str, list[AgeRow]] = {}
    for age in told.ages:
        ages.setdefault(age.selection, []).append(age)
    tallies = m.grouped((row for row in ended if row.selection), lambda row: row.selection)
    rows = []
    for name in sorted({*ages, *tallies}):
        tally, of_list = tallies.get(name, m.Tally()), ages.get(name, [])
        known = [age.newest_ns for age in of_list]
        oldest = min((each for each in known if each is not None), default=None)
        rows.append((
            name, len(of_list), *m.outcome_cells(tally), m.at(None if None in known else oldest),
            sum(age.overdue or age.unprotected(told.now_ns) for age in of_list), round(m.summed(row.bytes_stored for row in tally.rows)),
        ))  # fmt: skip
    rows.sort(key=lambda row: (not (row[4] or row[5] or row[8]), row[0]))
    return m.table(
        told,
        "lists",
        "Selection lists",
        (
            m.text("selection", "List"), m.count("servers", "Servers"), *m.OUTCOME_COLUMNS,
            m.instant("oldest_newest", "All backed up since"), m.count("overdue", "Overdue or never made"),
            m.octets("bytes_stored", "Stored"),
        ),
        rows,
        "There are no selection lists.",
    )  # fmt: skip


def _still(told: Gathered, rows: Sequence[RunRow]) -> m.Table:
    return m.table(
        told,
        "open",
        "Still running or waiting",
        (
            m.text("job", "Job"), m.text("source", "Source"), m.state("state", "State"), m.instant("due", "Due"),
            m.instant("started", "Began"), m.text("server", "Server"), m.text("device", "Device"),
            m.text("waits", "Waits because"),
        ),
        [
            (row.job, row.source, row.state, m.at(row.due_ns), m.at(row.started_ns), row.server or None,
             row.device or None, row.waits or None)
            for row in sorted(rows, key=lambda row: (row.due_ns, row.job))
        ],
        "Nothing runs or waits.",
    )  # fmt: skip


def _alerts(told: Gathered, rows: Sequence[AlertRow]) -> m.Table:
    return m.table(
        told,
        "alerts",
        "Alerts that nobody answered",
        (m.instant("raised", "Raised"), m.state("alert", "Alert"), m.text("category", "Category"),
         m.text("server", "Server"), m.text("text", "Text"), m.text("id", "Id")),
        [(m.at(row.raised_ns), row.alert, row.category, row.server, row.text, row.id) for row in rows],
        "All alerts are answered.",
    )  # fmt: skip


def _devices(told: Gathered) -> m.Table:
    return m.table(
        told,
        "devices",
        "Devices",
        (m.text("device", "Device"), m.state("state", "State"), m.octets("free", "Free"),
         m.octets("total", "Size"), m.percent("used", "Used")),
        [
            (row.name, row.state, row.free_bytes, row.total_bytes,
             None if row.free_bytes is None or not row.total_bytes
             else m.share(row.total_bytes - row.free_bytes, row.total_bytes))
            for row in told.devices
        ],
        "There are no devices.",
    )  # fmt: skip


def _notes(told: Gathered, others: m.Tally) -> list[str]:
    notes = [f"Times of day are those of {told.zone}."]
    if others.total:
        notes.append(f"Beside the backups {m.plural(others.total, 'other run')} ended, {others.good} of them well.")
    if not told.devices:
        notes.append("There is no device that this report could tell of.")
    return notes
