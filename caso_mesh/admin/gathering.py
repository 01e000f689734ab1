"""What a report is made of, gathered from control state, tables and what the office sees, and limited to whom may see it.

What people said of the mesh is read in a thread, as of one moment; runs are on the loop, a few thousand at a time; tables are
read in pieces; rows are made in a thread. A mesh of thousands of servers is asked for a report while its jobs go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from msgspec import Struct, structs

from caso_mesh.admin.ages import Age, ages
from caso_mesh.admin.attempts import AttemptRows
from caso_mesh.admin.audit_rows import AuditRow
from caso_mesh.admin.hiding import shown
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links
from caso_mesh.admin.present import reason_text
from caso_mesh.admin.report_questions import alerts_between, audit_between, file_systems, sets_between
from caso_mesh.admin.retaining import Retaining
from caso_mesh.admin.run_rows import Names, ToldRun, made_up_for, run_rows
from caso_mesh.admin.scoping import of_alert, places_of
from caso_mesh.admin.state_rows import (
    Seen,
    alert_row,
    audit_row,
    device_rows,
    media_set_rows,
    medium_rows,
    names_of,
    resource_rows,
    server_rows,
    set_row,
)
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.what_if import beside_the_loop
from caso_mesh.control.forecast import forecast
from caso_mesh.control.foretold import Away, Forecast, Known
from caso_mesh.control.glance import glance
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model.errors import NotReady
from caso_mesh.model.jobs import Run
from caso_mesh.model.settings import number
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.media import media_of
from caso_mesh.reports import rows as r

T = TypeVar("T")

#: Runs of which the attempts are looked up at once, and rows that are made at once.
_PAGE = 500
#: Runs that are passed by at once.
_MANY = 5000
#: Bounds of what one report is made of; the newest count.
_MOST_RUNS, _MOST_OWN, _MOST_ALERTS, _MOST_AUDIT = 200_000, 50_000, 20_000, 50_000


class Scope(Struct, frozen=True):
    """Whom a report is about. ``only``: of these servers (ids), ``None`` = all. ``selection``: of a list (id) alone, or
    empty. ``words``: that for people."""

    only: frozenset[str] | None = None
    selection: str = ""
    words: tuple[str, ...] = ()


class Period(Struct, frozen=True):
    now_ns: int
    begins_ns: int
    until_ns: int
    zone: str


class Gathering:
    """``known`` is what a forecast stands on."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        retaining: Retaining,
        known: Callable[[], Awaitable[Known]],
        own: str,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._retaining = retaining
        self._known = known
        self._own = own
        self._one_night = asyncio.Lock()

    async def gathered(self, parts: Iterable[r.Part], scope: Scope, period: Period, limit: int) -> r.Gathered:
        """The rows of some parts. Raises ``NotReady`` if nobody waits for them any more."""
        state = self._keeper.state
        names = names_of(state)
        found: dict[str, Any] = {}
        left_out: list[tuple[str, int]] = []
        for part in sorted(parts):
            rows, left = await self._part(part, names, scope, period)
            found[part.value] = tuple(rows)
            if left:
                left_out.append((part.value, left))
        return r.Gathered(
            mesh=state.info().name,
            now_ns=period.now_ns,
            begins_ns=period.begins_ns,
            until_ns=period.until_ns,
            zone=period.zone,
            limits=scope.words,
            limit=limit,
            left_out=tuple(left_out),
            **found,
        )

    async def _part(self, part: r.Part, names: Names, scope: Scope, period: Period) -> tuple[Sequence[Any], int]:
        state = self._keeper.state
        match part:
            case r.Part.RUNS:
                return await self._runs(names, scope, period)
            case r.Part.SETS:
                return await self._sets(names, scope), 0
            case r.Part.AGES:
                return await self._ages(scope, period.now_ns), 0
            case r.Part.MEDIA:
                return await self._media(names, scope, period.now_ns), 0
            case r.Part.DEVICES:
                return await asyncio.to_thread(device_rows, glance(state), self._seen(), scope.only), 0
            case r.Part.SERVERS:
                rows_of = server_rows(glance(state), self._seen(), scope.only)
                return await asyncio.to_thread(list, rows_of), 0
            case r.Part.MEDIA_SETS:
                return media_set_rows(state), 0
            case r.Part.ALERTS:
                return await self._alerts(scope, period)
            case r.Part.AUDIT:
                rows = await audit_between(self._tables, period.begins_ns, period.until_ns, _MOST_AUDIT)
                return await asyncio.to_thread(_audit_rows, glance(state), rows, scope), 0
            case r.Part.RESOURCES:
                told = await file_systems(self._tables)
                return await asyncio.to_thread(resource_rows, glance(state), told, scope.only), 0
            case r.Part.WORKLOAD:
                return await self._workload(scope, period), 0

    # --- what is now ---

    def _seen(self) -> Seen:
        reports = {
            (report.device, server): report
            for server, heard in self._live.heard.items()
            for report in heard.beat.devices
        }
        return Seen(self._own, frozenset(self._links.nodes()), reports)

    async def _ages(self, scope: Scope, now_ns: int) -> list[r.AgeRow]:
        state = self._keeper.state
        found = await ages(state, self._tables, await self._retaining.flaws(), now_ns, firsts=True)
        fits = [
            age
            for age in found
            if (scope.only is None or age.source in scope.only) and scope.selection in {"", age.selection.id}
        ]
        return await asyncio.to_thread(_age_rows, glance(state), fits, now_ns)

    async def _media(self, names: Names, scope: Scope, now_ns: int) -> list[r.MediumRow]:
        state, counts, foreign = self._keeper.state, dict[tuple[str, str], int](), list[BackupSet]()
        imported = {device.id for device in state.device_list() if device.imported is not None}
        async for piece in sets_between(self._tables, 0, 2**62):
            for backup in piece:
                place = (backup.server, backup.medium)
                counts[place] = counts.get(place, 0) + 1
                foreign += [backup] if backup.device in imported else []
        media_sets = {each.name: each for each in state.media_set_list()}
        media, devices = [*await self._tables.media(), *media_of(foreign)], dict(state.devices)
        return await asyncio.to_thread(medium_rows, media, media_sets, devices, names, counts, now_ns, scope.only)

    async def _sets(self, names: Names, scope: Scope) -> list[r.SetRow]:
        sets = [backup async for piece in sets_between(self._tables, 0, 2**62) for backup in piece]
        verdicts = await self._retaining.verdicts(sets, self._retaining.away(sets))
        flaws, selection = await self._retaining.flaws(), scope.selection

        def made() -> list[r.SetRow]:
            wanted = {backup.copy_of for backup in sets if backup.copy_of is not None}
            originals = {backup.id: backup for backup in sets if backup.id in wanted}
            rows = (
                set_row(backup, verdicts[backup.id], names, originals, flaws=flaws.of(backup.id))
                for backup in sets
                if scope.only is None or backup.source in scope.only or backup.server in scope.only
            )
            found = [row for row in rows if not selection or row.selection == names.lists.get(selection)]
            originals.clear()
            verdicts.clear()
            let_go(sets)
            return found

        return await asyncio.to_thread(made)

    # --- what happened ---

    async def _alerts(self, scope: Scope, period: Period) -> tuple[list[r.AlertRow], int]:
        state, found = self._keeper.state, list[r.AlertRow]()
        rows = await alerts_between(self._tables, period.begins_ns, period.until_ns, _MOST_ALERTS)
        places = places_of(state)
        for piece in pieces(shown(state, rows), _PAGE):
            found += [
                alert_row(state, row)
                for row in piece
                if scope.only is None or of_alert(state, row, places) & scope.only
            ]
            await asyncio.sleep(0)
        return found, 0

    async def _runs(self, names: Names, scope: Scope, period: Period) -> tuple[list[r.RunRow], int]:
        state = self._keeper.state
        fits = list[Run]()
        for piece in pieces([*state.runs.values()], _MANY):
            fits += [run for run in piece if _concerns(run, period.begins_ns)]
            await asyncio.sleep(0)
        if scope.selection:
            wanted = {job.id for job in names.jobs.values() if job.origin and job.origin.list == scope.selection}
            fits = [run for run in fits if run.job in wanted]
        left = max(0, len(fits) - _MOST_RUNS)
        if left:
            fits = sorted(fits, key=lambda run: run.created_at_ns)[left:]
        found: list[r.RunRow] = []
        for start in range(0, len(fits), _PAGE):
            told = [ToldRun(run, tuple(state.attempts_of(run.id))) for run in fits[start : start + _PAGE]]
            found += await self._rows_of(told, names, scope)
        own = await self._own_runs(scope, period)
        for start in range(0, len(own), _PAGE):
            found += await self._rows_of(own[start : start + _PAGE], names, scope)

        def within() -> list[r.RunRow]:
            sound = made_up_for(found)
            return [
                _since(row, sound)
                for row in found
                if (row.ended_ns is None and row.due_ns < period.until_ns)
                or (row.ended_ns is not None and period.begins_ns <= row.ended_ns < period.until_ns)
            ]

        return await asyncio.to_thread(within), left

    async def _rows_of(self, told: Sequence[ToldRun], names: Names, scope: Scope) -> list[r.RunRow]:
        rows: AttemptRows = await self._tables.attempts([each.run.id for each in told])
        return await asyncio.to_thread(run_rows, told, rows, names, self._live.waiting, scope.only)

    async def _own_runs(self, scope: Scope, period: Period) -> list[ToldRun]:
        """What servers ran by themselves, where that is monitored."""
        state = self._keeper.state
        told = await self._tables.local_runs(limit=_MOST_OWN, since_ns=period.begins_ns, listed=scope.selection or None)
        at = {server for server, _ in told} & state.servers.keys()
        monitored = {id for id in at if number(state.settings_of(id), "local-job-monitoring") >= 1.0}
        return [
            ToldRun(each.run, each.attempts, own=True, selection=each.list)
            for server, each in told
            if server in monitored
        ]

    # --- what is to come ---

    async def _workload(self, scope: Scope, period: Period) -> list[r.WorkRow]:
        async with self._one_night:
            known = await self._known()
            await asyncio.sleep(0)  # that took a while
            draft, over = self._keeper.state.draft(), [False]

            def lived() -> list[r.WorkRow]:
                found = forecast(
                    draft,
                    known,
                    Away(),
                    now_ns=period.now_ns,
                    from_ns=period.begins_ns,
                    until_ns=period.until_ns,
                    go_on=lambda: not over[0],
                )
                return _work_rows(draft, found, scope)

            try:
                with beside_the_loop():
                    found = await asyncio.to_thread(lived)
            except asyncio.CancelledError:
                over[0] = True
                raise
        if over[0]:
            raise NotReady(reason="nobody waits for the answer any more")
        return found


def pieces(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Between two of them others are let go on."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def let_go(rows: list[Any]) -> None:
    """A hundred thousand rows that nobody else knows are let go of in pieces: all at once they would keep every other
    thread from going on for 60 ms."""
    while rows:
        del rows[-_PAGE:]


def _work_rows(state: ControlState, found: Forecast, scope: Scope) -> list[r.WorkRow]:
    rows = []
    for part in found.parts:
        job = state.jobs.get(part.job)
        listed = job.origin.list if job is not None and job.origin is not None else ""
        concerned = scope.only is None or part.source in scope.only or part.server in scope.only
        if not concerned or scope.selection not in {"", listed}:
            continue
        device = state.devices.get(part.device)
        rows.append(
            r.WorkRow(
                job=part.name,
                source=state.name_of(part.source),
                state=part.state.value,
                due_ns=part.due_at_ns,
                server=state.name_of(part.server) if part.server else "",
                device=device.name if device is not None else "",
                begins_ns=part.begins_at_ns,
                ends_ns=part.ends_at_ns,
                stored_bytes=part.stored_bytes,
                guessed=part.guessed,
                waits=reason_text(part.waits) if part.waits is not None else "",
            )
        )
    return rows


def _age_rows(state: ControlState, found: Iterable[Age], now_ns: int) -> list[r.AgeRow]:
    return [
        r.AgeRow(
            selection=age.selection.name,
            source=state.name_of(age.source),
            since_ns=age.since_ns,
            newest_ns=age.newest.ended_at_ns if age.newest is not None else None,
            set=age.newest.id if age.newest is not None else "",
            device=state.devices[age.newest.device].name
            if age.newest is not None and age.newest.device in state.devices
            else "",
            allowed_s=age.allowed.seconds,
            origin=age.allowed.origin,
            overdue=age.overdue(now_ns),
            first_due_ns=age.first.due_ns if age.first is not None else None,
            under_way=age.first is not None and age.first.under_way,
            had=age.newest is not None or (age.first is not None and age.first.had),
        )
        for age in found
    ]


def _audit_rows(state: ControlState, rows: Iterable[AuditRow], scope: Scope) -> list[r.AuditRow]:
    return [audit_row(state, row) for row in rows if scope.only is None or row.server in scope.only]


def _concerns(run: Run, begins_ns: int) -> bool:
    return run.closed_at_ns is None or run.closed_at_ns >= begins_ns


def _since(row: r.RunRow, sound: dict[tuple[str, str], int]) -> r.RunRow:
    good_ns = sound.get((row.job, row.source))
    if row.ended_ns is None or good_ns is None or good_ns <= row.ended_ns:
        return row
    return structs.replace(row, sound_since_ns=good_ns)
