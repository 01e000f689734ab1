"""The calls of people at the administrator: what there is, and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from caso_mesh.admin import present
from caso_mesh.admin.devices import Devices
from caso_mesh.admin.duties import Duties
from caso_mesh.admin.enrolment import Enrolment
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Caller, Links, Submit
from caso_mesh.admin.tables import AttemptRow, Tables
from caso_mesh.admin.work import Work, clean_path
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import (
    AnswerAlert,
    CreatePool,
    DeletePool,
    RemoveServer,
    SetPool,
    SetServerState,
    SetSetting,
)
from caso_mesh.model.errors import CasoError, CatalogNotHere, InvalidValue, NotFound
from caso_mesh.model.ids import resolve_prefix
from caso_mesh.model.jobs import Attempt, Counts, Run
from caso_mesh.model.mesh import Pool
from caso_mesh.model.settings import BY_NAME, SETTINGS, parse_setting
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState, JobState, RunState, ServerState
from caso_mesh.model.storage import FACTORY_MEDIA_SETS, Device
from caso_mesh.model.units import format_instant, format_seconds
from caso_mesh.wire.typed import ask

Answer = Callable[[Caller, Any], Awaitable[Any]]
_SETTABLE = {ServerState.ENABLED, ServerState.PAUSED, ServerState.DISABLED}


class People:
    """One method for each call; all reading is of the control state, the tables and the catalog."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        live: Live,
        links: Links,
        submit: Submit,
        duties: Duties,
        enrolment: Enrolment,
        devices: Devices,
        work: Work,
        own: str,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._catalog = catalog
        self._live = live
        self._links = links
        self._submit = submit
        self._duties = duties
        self._enrolment = enrolment
        self._devices = devices
        self._work = work
        self._own = own
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        return {
            "server.list": self._server_list,
            "server.set-state": self._server_set_state,
            "server.remove": self._server_remove,
            "pool.create": self._pool_create,
            "pool.set": self._pool_set,
            "pool.delete": self._pool_delete,
            "pool.list": self._pool_list,
            "device.add": self._device_add,
            "device.set": self._device_set,
            "device.remove": self._device_remove,
            "device.list": self._device_list,
            "mediaset.list": self._mediaset_list,
            "medium.list": self._medium_list,
            "settings.list": self._settings_list,
            "settings.set": self._settings_set,
            "backup": self._work.backup,
            "restore": self._work.restore,
            "verify": self._work.verify,
            "run.follow": self._run_follow,
            "job.list": self._job_list,
            "job.show": self._job_show,
            "job.log": self._job_log,
            "job.run": self._work.run_now,
            "job.cancel": self._work.cancel,
            "job.hold": self._job_hold,
            "job.release": self._job_release,
            "job.delete": self._work.delete,
            "set.list": self._set_list,
            "catalog.ls": self._catalog_ls,
            "catalog.find": self._catalog_find,
            "catalog.versions": self._catalog_versions,
            "alert.list": self._alert_list,
            "alert.answer": self._alert_answer,
            "audit.list": self._audit_list,
        }

    # --- servers and pools ---

    def _running(self) -> dict[str, int]:
        running: dict[str, int] = {}
        for attempt in self._keeper.state.active_attempts():
            running[attempt.server] = running.get(attempt.server, 0) + 1
        return running

    def _server(self, server_id: str) -> v.ServerView:
        state = self._keeper.state
        return present.server_view(
            state,
            state.server(server_id),
            connected=self._links.linked(server_id),
            admin=server_id == self._own,
            running=self._running().get(server_id, 0),
        )

    async def _server_list(self, caller: Caller, request: q.ServerListRequest) -> v.ServerList:
        if request.discovered:
            return v.ServerList(self._enrolment.discovered())
        state = self._keeper.state
        servers = state.servers_of_pool(request.pool) if request.pool else state.server_list()
        return v.ServerList(tuple(self._server(server.id) for server in servers))

    async def _server_set_state(self, caller: Caller, request: q.ServerSetState) -> v.ServerView:
        if request.state not in _SETTABLE:
            raise InvalidValue(value=request.state, what="state", expected="Use enabled, paused or disabled")
        server = self._keeper.state.server_named(request.name)
        await self._submit(SetServerState(server.id, request.state), who=caller.who, request_id=caller.request_id)
        return self._server(server.id)

    async def _server_remove(self, caller: Caller, request: q.ServerName) -> v.Done:
        server = self._keeper.state.server_named(request.name)
        await self._submit(RemoveServer(server.id, admin=self._own), who=caller.who, request_id=caller.request_id)
        return v.Done()

    def _pool(self, request: q.PoolEdit) -> Pool:
        state = self._keeper.state
        servers = tuple(dict.fromkeys(state.server_named(name).id for name in request.servers))
        return Pool(request.name, servers)

    def _pool_view(self, pool: Pool) -> v.PoolView:
        return v.PoolView(pool.name, tuple(self._keeper.state.name_of(server) for server in pool.servers))

    async def _pool_create(self, caller: Caller, request: q.PoolEdit) -> v.PoolView:
        await self._submit(CreatePool(self._pool(request)), who=caller.who, request_id=caller.request_id)
        return self._pool_view(self._keeper.state.pool_named(request.name))

    async def _pool_set(self, caller: Caller, request: q.PoolEdit) -> v.PoolView:
        await self._submit(SetPool(self._pool(request)), who=caller.who, request_id=caller.request_id)
        return self._pool_view(self._keeper.state.pool_named(request.name))

    async def _pool_delete(self, caller: Caller, request: q.PoolName) -> v.Done:
        await self._submit(DeletePool(request.name), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _pool_list(self, caller: Caller, request: q.Nothing) -> v.PoolList:
        return v.PoolList(tuple(self._pool_view(pool) for pool in self._keeper.state.pool_list()))

    # --- devices and media ---

    async def _device_view(self, device: Device, warnings: tuple[str, ...] = ()) -> v.DeviceView:
        counts = await self._tables.set_counts()
        return self._shown_device(device, counts, warnings)

    def _shown_device(
        self, device: Device, counts: dict[str, tuple[int, int]], warnings: tuple[str, ...] = ()
    ) -> v.DeviceView:
        state = self._keeper.state
        reports = [self._live.report_of(device.id, place.server) for place in device.paths]
        seen = [report for report in reports if report is not None]
        good = [report for report in seen if report.problem is None]
        shown = device.state.value
        if shown == "online" and seen and not good:
            shown = "offline"
        sets, stored = counts.get(device.id, (0, 0))
        return v.DeviceView(
            name=device.name,
            id=device.id,
            kind=device.kind.value,
            servers=tuple(state.name_of(place.server) for place in device.paths),
            paths={state.name_of(place.server): place.path for place in device.paths},
            state=shown,
            free_bytes=max((report.free_bytes for report in good), default=None),
            used_bytes=stored,
            sets=sets,
            running=sum(attempt.device == device.id for attempt in state.active_attempts()),
            concurrency=device.concurrency,
            low_space_bytes=device.low_space_bytes,
            warnings=(*warnings, *(report.detail for report in seen if report.problem is not None)),
        )

    async def _device_add(self, caller: Caller, request: q.DeviceAdd) -> v.DeviceView:
        device, warnings = await self._devices.add(caller, request)
        return await self._device_view(device, warnings)

    async def _device_set(self, caller: Caller, request: q.DeviceSet) -> v.DeviceView:
        return await self._device_view(await self._devices.change(caller, request))

    async def _device_remove(self, caller: Caller, request: q.DeviceName) -> v.Done:
        device = self._keeper.state.device_named(request.name)
        counts = await self._tables.set_counts()
        await self._devices.remove(caller, request, counts.get(device.id, (0, 0))[0])
        return v.Done()

    def _filtered(self, server: str | None, pool: str | None) -> set[str] | None:
        """Node ids that a view is restricted to; ``None`` = all."""
        state = self._keeper.state
        if server is not None:
            return {state.server_named(server).id}
        if pool is not None:
            return {each.id for each in state.servers_of_pool(pool)}
        return None

    async def _device_list(self, caller: Caller, request: q.DeviceListRequest) -> v.DeviceList:
        counts, only = await self._tables.set_counts(), self._filtered(request.server, request.pool)
        return v.DeviceList(
            tuple(
                self._shown_device(device, counts)
                for device in self._keeper.state.device_list()
                if only is None or any(place.server in only for place in device.paths)
            )
        )

    async def _mediaset_list(self, caller: Caller, request: q.Nothing) -> v.MediaSetList:
        factory = {each.name for each in FACTORY_MEDIA_SETS}
        return v.MediaSetList(
            tuple(
                v.MediaSetView(each.name, each.append_s, each.protection_s, each.keep_s, each.name in factory)
                for each in self._keeper.state.media_set_list()
            )
        )

    async def _medium_list(self, caller: Caller, request: q.DeviceListRequest) -> v.MediumList:
        only, now_ns = self._filtered(request.server, request.pool), self._clock.now_ns()
        return v.MediumList(
            tuple(
                present.medium_view(self._keeper.state, medium, now_ns)
                for medium in await self._tables.media()
                if only is None or medium.server in only
            )
        )

    # --- settings ---

    async def _settings_list(self, caller: Caller, request: q.SettingsListRequest) -> v.SettingList:
        state = self._keeper.state
        if request.server is not None:
            values = state.settings_with_origin(state.server_named(request.server).id)
        else:
            own = state.servers.get(self._own)
            preset = own.preset if own else "lan"
            values = {}
            layers = [("mesh", state.mesh_settings)]
            if request.pool is not None:
                state.pool_named(request.pool)
                layers.append((f"pool:{request.pool}", state.pool_settings.get(request.pool, {})))
            for setting in SETTINGS:
                values[setting.name] = (setting.default_for(preset), "default")
                for origin, layer in layers:
                    if setting.name in layer:
                        values[setting.name] = (layer[setting.name], origin)
        return v.SettingList(
            tuple(
                v.SettingView(name, value, origin, BY_NAME[name].default, BY_NAME[name].text)
                for name, (value, origin) in values.items()
            )
        )

    async def _settings_set(self, caller: Caller, request: q.SettingSet) -> v.SettingList:
        state = self._keeper.state
        value = parse_setting(request.name, request.value) if request.value is not None else None
        server = state.server_named(request.server).id if request.server else None
        if request.pool is not None:
            state.pool_named(request.pool)
        command = SetSetting(request.name, value, server=server, pool=request.pool)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return await self._settings_list(caller, q.SettingsListRequest(server=request.server, pool=request.pool))

    # --- jobs ---

    async def _rows(self, runs: list[Run]) -> dict[str, AttemptRow]:
        return await self._tables.attempts([run.id for run in runs])

    def _last_attempt(self, run: Run, source: str) -> Attempt | None:
        tried = [each for each in self._keeper.state.attempts_of(run.id) if each.source == source]
        return max(tried, key=lambda each: each.number, default=None)

    def _parts(self, run: Run, rows: dict[str, AttemptRow]) -> list[v.JobView]:
        views = []
        for part in run.parts:
            attempt = self._last_attempt(run, part.source)
            row = rows.get(attempt.id) if attempt else None
            views.append(present.job_view(self._keeper.state, run, part, attempt, row, self._live))
        return views

    async def _job_list(self, caller: Caller, request: q.JobListRequest) -> v.JobList:
        state, only = self._keeper.state, self._filtered(request.server, request.pool)
        wanted = request.state
        runs = list(state.runs.values()) if wanted else state.open_runs()
        if wanted == "ended":
            runs = [run for run in runs if run.closed_at_ns is not None]
        runs = sorted(runs, key=lambda run: (run.created_at_ns, run.id), reverse=True)[: 10 * request.limit]
        rows = await self._rows(runs)
        shown: list[v.JobView] = []
        names = None if only is None else {state.name_of(each) for each in only}
        for run in runs:
            for view in self._parts(run, rows):
                if names is not None and view.server not in names and view.source not in names:
                    continue
                if wanted not in {None, "all", "ended"} and view.state != wanted:
                    continue
                shown.append(view)
        if wanted in {None, "all", "scheduled", "on-hold"} and only is None:
            shown += self._scheduled(wanted)
        return v.JobList(tuple(shown[: request.limit]))

    def _scheduled(self, wanted: str | None) -> list[v.JobView]:
        views = []
        for job in self._keeper.state.job_list():
            if job.schedule is None:
                continue
            if job.state is JobState.ON_HOLD:
                if wanted != "scheduled":
                    views.append(present.scheduled_view(job, None, "on-hold", "on-hold", {"job": job.name}))
            elif wanted != "on-hold":
                due = self._duties.next_due_ns(job)
                fields = {"due": format_instant(due)}
                views.append(present.scheduled_view(job, due, "scheduled", "not-yet-due", fields))
        return views

    async def _job_show(self, caller: Caller, request: q.JobName) -> v.JobDetail:
        job, state = self._work.find_job(request.name), self._keeper.state
        runs = sorted(state.runs_of(job.id), key=lambda run: (run.created_at_ns, run.id), reverse=True)
        rows = await self._rows(runs)
        return v.JobDetail(
            job=job.id,
            name=job.name,
            kind=present.kind_of(job.spec).value,
            state=job.state.value,
            priority=job.priority.value,
            created=format_instant(job.created_at_ns) or "",
            created_by=job.created_by,
            schedule=job.schedule.cron if job.schedule else None,
            zone=job.schedule.zone if job.schedule else None,
            next_due=format_instant(self._duties.next_due_ns(job)),
            spec=present.spec_view(state, job),
            runs=tuple(
                v.RunView(
                    run=run.id,
                    state=present.run_state(run, rows, state.attempts_of(run.id)).value,
                    due=format_instant(run.due_at_ns) or "",
                    closed=format_instant(run.closed_at_ns),
                    sets=present.set_outcomes(state, run),
                    attempts=tuple(
                        present.attempt_view(state, attempt, rows.get(attempt.id), run)
                        for attempt in sorted(state.attempts_of(run.id), key=lambda each: each.number)
                    ),
                )
                for run in runs
            ),
        )

    async def _job_log(self, caller: Caller, request: q.JobName) -> v.JobLogView:
        logs: dict[str, list[v.LogLineView]] = {}
        if "#" in request.name:
            run = self._work.find_runs(request.name)[0]
            number = request.name.rpartition("#")[2]
            lines = [line for line in await self._tables.log(run) if line.attempt == f"{run}#{number}"]
        else:
            lines = [line for run in self._work.find_runs(request.name) for line in await self._tables.log(run)]
        for line in lines:
            text = v.LogLineView(format_instant(line.at_ns) or "", line.level, line.text)
            logs.setdefault(line.attempt, []).append(text)
        return v.JobLogView(tuple(v.AttemptLog(attempt, tuple(found)) for attempt, found in sorted(logs.items())))

    async def _job_hold(self, caller: Caller, request: q.JobName) -> v.Done:
        return await self._work.hold(caller, request, held=True)

    async def _job_release(self, caller: Caller, request: q.JobName) -> v.Done:
        return await self._work.hold(caller, request, held=False)

    async def _run_follow(self, caller: Caller, request: q.RunFollow) -> v.RunProgress:
        state = self._keeper.state
        run = state.run(resolve_prefix(request.run, state.runs, "run"))
        rows = await self._rows([run])
        active = [each for each in state.attempts_of(run.id) if each.state in ATTEMPT_ACTIVE]
        for attempt in active:
            await self._watch(attempt)
        parts = tuple(self._parts(run, rows))
        result = None
        if run.closed_at_ns is not None and await self._arrived(run, rows):
            result = await self._result(run, rows)
        shown = present.run_state(run, rows, active)
        return v.RunProgress(run.id, shown.value, parts, result)

    async def _watch(self, attempt: Attempt) -> None:
        try:
            link = self._links.get(attempt.server)
            await ask(link, "attempt.watch", q.WatchAttempts((attempt.id,)), v.Done, timeout_s=2.0)
        except CasoError:
            return  # it reports at its own interval, or is away

    async def _arrived(self, run: Run, rows: dict[str, AttemptRow]) -> bool:
        """Whether the facts of a closed run are here to their end, sets and catalogs included."""
        for attempt in self._keeper.state.attempts_of(run.id):
            row = rows.get(attempt.id)
            if attempt.state in {AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS} and (
                row is None or row.ended_at_ns is None
            ):
                return False
        sets = [part.set for part in run.parts if part.set is not None]
        if not all([await self._tables.set(each) for each in sets]):
            return False
        return "pending" not in (await self._tables.detail_states(sets)).values()

    async def _result(self, run: Run, rows: dict[str, AttemptRow]) -> v.RunResult:
        state = self._keeper.state
        last = [self._last_attempt(run, part.source) for part in run.parts]
        attempts = [attempt for attempt in last if attempt is not None]
        told = [rows[attempt.id] for attempt in attempts if attempt.id in rows]
        only = attempts[0] if len(run.parts) == 1 and attempts else None
        row = rows.get(only.id) if only else None
        counts = [each.counts for each in told] or [Counts()]
        exceptions = await self._tables.exceptions([attempt.id for attempt in attempts]) if attempts else []
        failures = [part.failure for part in run.parts if part.failure is not None]
        types = {each.type.value for each in told if each.type is not None}
        return v.RunResult(
            job=run.job,
            run=run.id,
            attempt=only.id if only else None,
            state=run.state.value,
            type=(row.type.value if row and row.type else None) if only else (types.pop() if len(types) == 1 else None),
            server=state.name_of(only.server) if only else None,
            device=present.device_name(state, only.device) if only else None,
            set=run.parts[0].set if len(run.parts) == 1 else None,
            sets=present.set_outcomes(state, run),
            files=sum(each.files for each in counts),
            bytes=sum(each.bytes for each in counts),
            bytes_read=sum(each.bytes_read for each in counts),
            bytes_stored=sum(each.bytes_stored for each in counts),
            seconds=max((each.seconds or 0.0 for each in told), default=0.0),
            exceptions=tuple(present.exception_view(each) for each in exceptions),
            error=present.failure_view(failures[0]) if failures else None,
        )

    # --- sets and catalog ---

    async def _set_list(self, caller: Caller, request: q.SetListRequest) -> v.SetList:
        state, only = self._keeper.state, self._filtered(request.server, request.pool)
        source = state.server_named(request.source).id if request.source else None
        sets = await self._tables.sets(source=source, limit=request.limit)
        if only is not None:
            sets = [each for each in sets if each.server in only or each.source in only]
        media = {medium.label: medium for medium in await self._tables.media()}
        media_sets = {each.name: each for each in state.media_set_list()}
        details = await self._tables.detail_states([each.id for each in sets])
        redundant = {each for ids in self._live.redundant.values() for each in ids}
        names = {server.id: server.name for server in state.server_list()}
        devices = {device.id: device.name for device in state.device_list()}
        return v.SetList(
            tuple(
                present.set_view(
                    each,
                    media,
                    media_sets,
                    redundant=each.id in redundant,
                    catalog=details.get(each.id) == "here",
                    names=names,
                    devices=devices,
                )
                for each in sets
            )
        )

    async def _catalog_ls(self, caller: Caller, request: q.CatalogList) -> v.EntryList:
        backup = await self._work.find_set(request.set)
        if not await self._catalog.has_detail(backup.id):
            raise CatalogNotHere(set=backup.id, server=backup.server_name)
        path = clean_path(b"/" + request.path.lstrip(b"/"))
        entries = await self._catalog.list_folder(
            backup.id, path, after=request.after, limit=min(request.limit, 100_000) + 1
        )
        more = len(entries) > request.limit
        return v.EntryList(tuple(present.entry_view(each) for each in entries[: request.limit]), more)

    async def _catalog_find(self, caller: Caller, request: q.CatalogFind) -> v.MatchList:
        state = self._keeper.state
        source = state.server_named(request.server).id if request.server else None
        matches = await self._catalog.find(
            request.glob,
            source=source,
            since_ns=request.since_ns,
            until_ns=request.until_ns,
            limit=request.limit + 1,
        )
        return v.MatchList(
            tuple(
                v.MatchView(
                    server=state.name_of(match.source),
                    path=present.shown_path(match.path),
                    path_b64=present.b64(match.path),
                    set=match.set,
                    size=match.entry.size,
                    mtime=format_seconds(match.entry.modified[0]),
                    mtime_ns=present.mtime_ns(match.entry.modified),
                    type=match.entry.type.value,
                )
                for match in matches[: request.limit]
            ),
            len(matches) > request.limit,
        )

    async def _catalog_versions(self, caller: Caller, request: q.CatalogVersions) -> v.VersionList:
        source = self._keeper.state.server_named(request.server).id
        path = clean_path(request.path)
        views = []
        for version in await self._catalog.versions(source, path):
            first, last = await self._tables.set(version.first_set), await self._tables.set(version.last_set)
            entry = version.entry
            views.append(
                v.VersionView(
                    path=present.shown_path(entry.path),
                    type=entry.type.value,
                    size=entry.size,
                    mtime=format_seconds(entry.modified[0]),
                    mtime_ns=present.mtime_ns(entry.modified),
                    mode=f"{entry.mode & 0o7777:04o}",
                    first_set=version.first_set,
                    last_set=version.last_set,
                    sets=version.sets,
                    first_seen=(format_instant(first.ended_at_ns) if first else None) or "",
                    last_seen=(format_instant(last.ended_at_ns) if last else None) or "",
                )
            )
        if not views:
            raise NotFound(kind="catalog", name=f"{request.server}:{present.shown_path(path)}")
        return v.VersionList(tuple(views))

    # --- alerts and audit ---

    async def open_alerts(self) -> int:
        answers = self._keeper.state.answers
        rows = await self._tables.alerts()
        return sum(row.id not in answers and row.cleared_at_ns is None for row in rows)

    async def _alert_list(self, caller: Caller, request: q.AlertListRequest) -> v.AlertList:
        state, only = self._keeper.state, self._filtered(request.server, request.pool)
        views = []
        for row in await self._tables.alerts():
            answer = state.answers.get(row.id)
            if (answer is not None or row.cleared_at_ns is not None) and not request.all:
                continue
            if only is not None and row.server not in only:
                continue
            views.append(
                v.AlertView(
                    id=row.id,
                    alert=row.alert,
                    category=row.category,
                    server=state.name_of(row.server),
                    object=row.object,
                    text=row.text,
                    raised=format_instant(row.raised_at_ns) or "",
                    answered=format_instant(answer.at_ns) if answer else None,
                    answered_by=answer.who if answer else None,
                    response=answer.response if answer else None,
                    cleared=format_instant(row.cleared_at_ns),
                )
            )
        return v.AlertList(tuple(views[: request.limit]))

    async def _alert_answer(self, caller: Caller, request: q.AlertAnswer) -> v.Done:
        rows = await self._tables.alerts()
        alert = resolve_prefix(request.id, [row.id for row in rows], "alert")
        command = AnswerAlert(alert, request.response, self._clock.now_ns())
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _audit_list(self, caller: Caller, request: q.AuditListRequest) -> v.AuditList:
        rows = await self._tables.audit(request.limit, request.category)
        return v.AuditList(
            tuple(
                v.AuditView(
                    at=format_instant(row.at_ns) or "",
                    who=row.who,
                    what=row.what,
                    category=row.category,
                    outcome=row.outcome,
                    server=self._keeper.state.name_of(row.server),
                    source=row.source,
                    fields=row.fields,
                )
                for row in rows
            )
        )

    def running_runs(self) -> int:
        """How many runs have an active attempt."""
        return len({a.run for a in self._keeper.state.active_attempts()})

    def open_runs(self) -> list[Run]:
        return [run for run in self._keeper.state.open_runs() if run.state is not RunState.SCHEDULED]
