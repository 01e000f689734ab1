"""A forecast as people read it: the verdict first, then lists, servers, devices and runs. Pure."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from caso_mesh.admin.present import reason_text
from caso_mesh.control.foretold import Away, DeviceForecast, Forecast, Known, PartForecast, Use, typical_s
from caso_mesh.control.state import ControlState
from caso_mesh.model import what_if as w
from caso_mesh.model.settings import number
from caso_mesh.model.states import RunState
from caso_mesh.model.units import format_duration, format_instant

_SECOND = 1_000_000_000
_DAY_NS = 86400 * _SECOND
_DONE = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})
_OPEN = frozenset({RunState.READY, RunState.DELEGATED, RunState.ON_HOLD})
_FAILED = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELED})
#: So many are named in the verdict.
_NAMED = 5
#: Nobody plans further ahead.
_LONGEST_DAYS = 3650.0


class Question(Struct, frozen=True):
    """Who is away, and from when until when; told in the time of ``zone``. At most ``limit`` runs are told."""

    away: Away
    now_ns: int
    from_ns: int
    until_ns: int
    zone: zoneinfo.ZoneInfo
    limit: int


def view_of(
    state: ControlState,
    known: Known,
    question: Question,
    found: Forecast,
    usual: Forecast | None,
    daily_bytes: Mapping[str, float],
) -> w.WhatIfView:
    """``usual`` is how it would be with everything there, ``None`` if that is ``found``."""
    without = tuple(sorted(state.name_of(id) for id in question.away.servers))
    without_devices = tuple(sorted(state.device(id).name for id in question.away.devices))
    lists = _lists(state, question, found, usual)
    devices = _devices(state, question, found, usual, daily_bytes)
    ends_ns, usual_ns = found.ends_at_ns(), None if usual is None else usual.ends_at_ns()
    later_s = None if ends_ns is None or usual_ns is None else (ends_ns - usual_ns) / _SECOND
    guessed = sum(part.guessed for part in found.parts)
    good = all(row.done == row.runs for row in lists) and not any(row.full is not None for row in devices)
    by_part = {} if usual is None else {(part.run, part.source): part for part in usual.parts}
    told = found.parts[: question.limit]
    return w.WhatIfView(
        verdict=_verdict(question, found, lists, devices, ends_ns, later_s, [*without, *without_devices]),
        good=good,
        ends=format_instant(ends_ns),
        usual_ends=format_instant(usual_ns),
        later_s=later_s,
        begins=format_instant(question.from_ns) or "",
        until=format_instant(question.until_ns) or "",
        zone=question.zone.key,
        without=without,
        without_devices=without_devices,
        runs_total=len(found.parts),
        lists=lists,
        servers=_servers(state, question, found),
        devices=devices,
        runs=tuple(_run(state, part, by_part.get((part.run, part.source))) for part in told),
        more=len(told) < len(found.parts),
        guessed=guessed,
        typical_s=typical_s(known.history),
        notes=tuple(_notes(state, question, found, guessed, known)),
    )


def _verdict(
    question: Question,
    found: Forecast,
    lists: Sequence[w.WhatIfList],
    devices: Sequence[w.WhatIfDevice],
    ends_ns: int | None,
    later_s: float | None,
    away: Sequence[str],
) -> str:
    total, done = sum(row.runs for row in lists), sum(row.done for row in lists)
    late = [row for row in lists if row.late]
    missing = [row for row in lists if row.missed or row.failed]
    full = [row for row in devices if row.full is not None]
    if not total:
        text = f"Nothing is due until {_clock(question, question.until_ns)}"
    elif done == total:
        text = f"All ends by {_clock(question, ends_ns)}"
    elif not late:
        when = "in time" if ends_ns is None else f"by {_clock(question, ends_ns)}"
        text = f"{done} of {total} runs are done {when}"
    else:
        text = f"Not all is done by {_clock(question, question.until_ns)}: {done} of {total} runs are"
        if ends_ns is not None and ends_ns > question.until_ns:
            text += f", the last one ends at {_clock(question, ends_ns)}"
    if later_s is not None and away:
        text += f", {_shift(later_s)} with {_listed(away)}"
    pieces = [text]
    if missing:
        misses = "misses" if len(missing) == 1 else "miss"
        pieces.append(f"{_counted(missing)} {misses}: {_named(missing)}")
    if late:
        pieces.append(f"late: {_named(late)}")
    pieces += [f"{row.name} takes nothing more from {row.full} on" for row in full]
    return "; ".join(pieces) + "."


def _shift(later_s: float) -> str:
    if abs(later_s) < 1.0:
        return "as"
    return f"{format_duration(abs(later_s))} {'later' if later_s > 0 else 'earlier'} than"


def _counted(rows: Sequence[w.WhatIfList]) -> str:
    lists = sum(row.kind == "list" for row in rows)
    jobs = len(rows) - lists
    pieces = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in ((lists, "list"), (jobs, "job")) if count]
    return " and ".join(pieces)


def _named(rows: Sequence[w.WhatIfList]) -> str:
    named = [f"{row.name} ({row.because})" if row.because else row.name for row in rows[:_NAMED]]
    return _listed(named, more=len(rows) - len(named))


def _listed(names: Sequence[str], more: int = 0) -> str:
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _clock(question: Question, at_ns: int | None) -> str:
    """``05:12``, with the date if it is further off than the next day."""
    if at_ns is None:
        return "-"
    moment = datetime.datetime.fromtimestamp(at_ns // _SECOND, question.zone)
    near = at_ns - question.from_ns < _DAY_NS
    return f"{moment:%H:%M}" if near else f"{moment:%Y-%m-%d %H:%M}"


def _notes(state: ControlState, question: Question, found: Forecast, guessed: int, known: Known) -> Iterable[str]:
    yield f"Times of day are those of {question.zone.key}."
    gone = sorted(state.name_of(id) for id in found.away - question.away.servers)
    if gone:
        yield f"Not connected now, and taken to stay away: {_listed(gone[:_NAMED], len(gone) - _NAMED)}."
    if guessed:
        typical = format_duration(typical_s(known.history))
        yield f"{guessed} runs are like none before: each is taken to last {typical}, and to store nothing."
    if found.looked_until_ns > question.until_ns + _DAY_NS // 3:
        yield f"It was looked no further than {_clock(question, found.looked_until_ns)}."


# --- lists -------------------------------------------------------------------------------------------------------------


def _lists(
    state: ControlState, question: Question, found: Forecast, usual: Forecast | None
) -> tuple[w.WhatIfList, ...]:
    rows, with_all = _by_owner(state, found), {} if usual is None else _by_owner(state, usual)
    told = []
    for row in state.selection_lists():
        away = tuple(sorted(state.name_of(id) for id in row.servers() if id in found.away))
        parts = rows.pop(("list", row.name), [])
        if parts or away:
            told.append(_list(question, row.name, "list", parts, away, with_all.get(("list", row.name)), usual))
    for (kind, name), parts in sorted(rows.items()):
        away = tuple(sorted({state.name_of(part.source) for part in parts if part.source in found.away}))
        told.append(_list(question, name, kind, parts, away, with_all.get((kind, name)), usual))
    # what is not done comes first
    return tuple(sorted(told, key=lambda row: (row.done == row.runs and not row.away, row.done == row.runs, row.name)))


def _by_owner(state: ControlState, found: Forecast) -> dict[tuple[str, str], list[PartForecast]]:
    """Parts by the selection list, or the job, that they belong to; without superseded ones."""
    owned: dict[tuple[str, str], list[PartForecast]] = {}
    for part in found.parts:
        if part.state is not RunState.SUPERSEDED:
            selection = _selection(state, part)
            owned.setdefault(("job", part.name) if selection is None else ("list", selection), []).append(part)
    return owned


def _list(
    question: Question,
    name: str,
    kind: str,
    parts: Sequence[PartForecast],
    away: tuple[str, ...],
    with_all: Sequence[PartForecast] | None,
    usual: Forecast | None,
) -> w.WhatIfList:
    def is_done(part: PartForecast) -> bool:
        return part.state in _DONE and part.ends_at_ns is not None and part.ends_at_ns <= question.until_ns

    missed = [part for part in parts if part.state is RunState.MISSED]
    failed = [part for part in parts if part.state in _FAILED]
    done = [part for part in parts if is_done(part)]
    late = len(parts) - len(done) - len(missed) - len(failed)
    wrong = [*missed, *failed, *(part for part in parts if part.state in _OPEN or not is_done(part))]
    because = next((reason_text(part.waits) for part in wrong if part.waits is not None), None)
    ends_ns = max((part.ends_at_ns for part in parts if part.ends_at_ns is not None), default=None)
    return w.WhatIfList(
        name=name,
        kind=kind,
        runs=len(parts),
        done=len(done),
        missed=len(missed),
        failed=len(failed),
        late=late,
        ends=format_instant(ends_ns),
        because=because,
        away=away,
        usual=None if usual is None else all(is_done(part) for part in with_all or ()),
    )


def _selection(state: ControlState, part: PartForecast) -> str | None:
    job = state.jobs.get(part.job)
    row = state.lists.get(job.origin.list) if job is not None and job.origin is not None else None
    return None if row is None else row.name


# --- servers and devices -----------------------------------------------------------------------------------------------


def _seconds(uses: Collection[Use]) -> float:
    return sum(use.until_ns - use.from_ns for use in uses) / _SECOND


def _load(question: Question, found: Forecast, seconds: float, at_once: int) -> float:
    span_s = (
        min(question.until_ns, max(found.ends_at_ns() or 0, question.from_ns + _SECOND)) - question.from_ns
    ) / _SECOND
    return round(100.0 * seconds / (span_s * max(1, at_once)), 1)


def _servers(state: ControlState, question: Question, found: Forecast) -> tuple[w.WhatIfServer, ...]:
    by_server: dict[str, list[Use]] = {}
    for use in found.uses:
        by_server.setdefault(use.server, []).append(use)
    told = []
    for server in state.server_list():
        uses = by_server.get(server.id, [])
        away = server.id in found.away
        if uses or away:
            at_once = int(number(state.settings_of(server.id), "server-concurrency"))
            seconds = _seconds(uses)
            told.append(w.WhatIfServer(server.name, away, len(uses), seconds, _load(question, found, seconds, at_once)))
    return tuple(told)


def _devices(
    state: ControlState,
    question: Question,
    found: Forecast,
    usual: Forecast | None,
    daily_bytes: Mapping[str, float],
) -> tuple[w.WhatIfDevice, ...]:
    by_device: dict[str, list[Use]] = {}
    for use in found.uses:
        by_device.setdefault(use.device, []).append(use)
    with_all = {} if usual is None else {each.device: each for each in usual.devices}
    told = []
    for each in found.devices:
        device, uses = state.device(each.device), by_device.get(each.device, [])
        seconds, daily = _seconds(uses), daily_bytes.get(each.device, 0.0)
        gone = each.device in question.away.devices or all(path.server in found.away for path in device.paths)
        before = with_all.get(each.device)
        told.append(
            w.WhatIfDevice(
                name=device.name,
                away=gone,
                runs=len(uses),
                seconds=seconds,
                load=_load(question, found, seconds, device.concurrency),
                bytes_stored=each.stored_bytes,
                free_bytes=each.free_before,
                free_bytes_then=each.free_after,
                full=format_instant(each.full_at_ns),
                bytes_a_day=round(daily),
                days_until_full=_days_until_full(each, device.low_space_bytes, daily),
                usual_full=None if before is None else format_instant(before.full_at_ns),
            )
        )
    return tuple(told)


def _days_until_full(row: DeviceForecast, low_space_bytes: int, daily: float) -> float | None:
    if row.full_at_ns is not None:
        return 0.0
    if row.free_after is None or daily <= 0:
        return None
    days = (row.free_after - low_space_bytes) / daily
    return round(days, 1) if days <= _LONGEST_DAYS else None


# --- runs --------------------------------------------------------------------------------------------------------------


def _run(state: ControlState, part: PartForecast, usual: PartForecast | None) -> w.WhatIfRun:
    return w.WhatIfRun(
        run=part.run,
        job=part.name,
        kind=part.kind.value,
        selection=_selection(state, part),
        source=state.name_of(part.source),
        due=format_instant(part.due_at_ns) or "",
        state=part.state.value,
        begins=format_instant(part.begins_at_ns),
        ends=format_instant(part.ends_at_ns),
        server=state.name_of(part.server) if part.server else None,
        device=state.device(part.device).name if part.device in state.devices else None,
        bytes_stored=part.stored_bytes,
        guessed=part.guessed,
        reason=None if part.waits is None else part.waits.reason.value,
        reason_text=None if part.waits is None else reason_text(part.waits),
        usual_state=None if usual is None else usual.state.value,
        usual_begins=None if usual is None else format_instant(usual.begins_at_ns),
        usual_ends=None if usual is None else format_instant(usual.ends_at_ns),
    )
