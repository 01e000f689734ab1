"""The recurring duties of the office: opening due runs, handing ready parts to media servers, closing what was missed,
recovering what was lost with a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import structs

from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Facts, Links, Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.placing import problem_for
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import CloseAttempt, CloseRun, Delegate, OpenRun, SetLiveness, SetServerAddresses
from caso_mesh.model.errors import CasoError, Conflict, NotFound
from caso_mesh.model.ids import attempt_id
from caso_mesh.model.jobs import Attempt, Job, Run
from caso_mesh.model.mesh import Server
from caso_mesh.model.states import AlertKind, AttemptState, DeviceState, JobState, Liveness, RunState, ServerState
from caso_mesh.planning import lifecycle
from caso_mesh.planning.liveness import Heard, Tick, Transition, Watch, Watched
from caso_mesh.planning.placement import place
from caso_mesh.planning.problem import DeviceRow
from caso_mesh.planning.schedule import next_due_ns
from caso_mesh.planning.window import is_scheduled, missed_sources

log = logging.getLogger(__name__)

#: After taking office nothing is delegated until every enabled server has reported, or this has passed.
_GRACE_S = 5.0
_NEVER_S = 3600.0


class Duties:
    """Reads the control state and what is live; decides by ``planning``; acts by commands only."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        facts: Facts,
        submit: Submit,
        own: str,
        addresses: Callable[[], tuple[str, ...]],
        version: str,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._addresses = addresses
        self._version = version
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._facts = facts
        self._submit = submit
        self._own = own
        self._clock = clock
        self._randomness = randomness
        self._office_s = clock.monotonic_s()
        self._watch = Watch(office_s=self._office_s, office_ns=clock.now_ns())
        self._devices: dict[str, str] = {}
        self._holdings: list[tuple[str, str]] = []
        self._no_data_path: dict[tuple[str, str], float] = {}
        self._clock_alerts: set[str] = set()
        self._device_alerts: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something changed that may let a run start."""
        self._wake.set()

    # --- due runs ---

    def next_due_ns(self, job: Job) -> int | None:
        """When a recurring, active job is due next."""
        if job.schedule is None or job.state is not JobState.ACTIVE:
            return None
        return next_due_ns(job.schedule, job.last_due_at_ns or job.created_at_ns)

    async def open_due_runs(self) -> None:
        """Opens a run for each due time that has come. Never returns.

        Of several due times that passed while nobody was in office only the latest is opened.
        """
        while True:
            now_ns = self._clock.now_ns()
            soonest_s = _NEVER_S
            for job in self._keeper.state.job_list():
                due = self.next_due_ns(job)
                while due is not None and job.schedule is not None and due <= now_ns:
                    later = next_due_ns(job.schedule, due)
                    if later is None or later > now_ns:
                        break
                    due = later
                if due is None:
                    continue
                if due <= now_ns:
                    await self._submit(OpenRun(job.id, due, now_ns), request_id=f"due-{job.id}-{due}")
                    soonest_s = 0.0
                else:
                    soonest_s = min(soonest_s, (due - now_ns) / 1e9)
            await self._change_or(min(soonest_s, 30.0))

    async def _change_or(self, seconds: float) -> None:
        seen = self._keeper.position.index
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._keeper.wait_change(seen)
        except TimeoutError:
            return

    # --- delegation ---

    async def delegate(self) -> None:
        """Hands ready parts to free slots, whenever something has changed. Never returns."""
        unobserve = self._links.observe(lambda node, linked: self._wake.set())
        watcher = asyncio.create_task(self._wake_on_change())
        try:
            while True:
                self._wake.clear()
                await self._place()
                try:
                    async with asyncio.timeout(1.0):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            unobserve()
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _wake_on_change(self) -> None:
        async for _ in self._keeper.changes():
            self._wake.set()

    def _in_grace(self) -> bool:
        if self._clock.monotonic_s() - self._office_s >= _GRACE_S:
            return False
        expected = [
            s.id
            for s in self._keeper.state.server_list()
            if s.state is ServerState.ENABLED and (s.ever_linked or s.id == self._own)
        ]
        return any(server not in self._live.heard for server in expected)

    def no_data_path(self, source: str, server: str) -> None:
        """Two servers could not reach each other: not tried again for ten minutes."""
        self._no_data_path[source, server] = self._clock.monotonic_s() + 600.0

    async def _place(self) -> None:
        state, now_s = self._keeper.state, self._clock.monotonic_s()
        if not any(part.state is RunState.READY for run in state.open_runs() for part in run.parts):
            self._live.waiting = {}
            return
        sets = {run.spec.set for run in state.open_runs() if hasattr(run.spec, "set")}
        for set_id in sets - self._devices.keys():
            backup = await self._tables.set(set_id)
            if backup is not None:
                self._devices[set_id] = backup.device
        self._holdings = sorted(await self._tables.sets_by_source_device())
        free: dict[str, int] = {}
        connected = [s.id for s in state.server_list() if self._links.linked(s.id) and s.id in self._live.heard]
        broken: set[tuple[str, str]] = set()
        for device in state.device_list():
            reports = {place.server: self._live.report_of(device.id, place.server) for place in device.paths}
            broken |= {(device.id, s) for s, report in reports.items() if report is not None and report.problem}
            good = [report.free_bytes for report in reports.values() if report is not None and not report.problem]
            if good:
                free[device.id] = max(good)
        problem = problem_for(
            state,
            connected=connected,
            device_of_set=self._devices.get,
            free_bytes=free,
            holdings=self._holdings,
            no_data_path=[pair for pair, until in self._no_data_path.items() if until > now_s],
            in_grace=self._in_grace(),
        )
        problem = structs.replace(problem, devices=tuple(_seen(row, broken) for row in problem.devices))
        plan = place(problem, self._clock.now_ns())
        self._live.waiting = dict(plan.waiting)
        for each in plan.assignments:
            run = state.runs.get(each.run)
            if run is None:
                continue
            number = lifecycle.next_number(run)
            attempt = Attempt(
                id=attempt_id(run.id, number),
                run=run.id,
                job=run.job,
                source=each.source,
                server=each.server,
                device=each.device,
                number=number,
                delegated_at_ns=self._clock.now_ns(),
                secret=self._randomness(32),
            )
            try:
                await self._submit(Delegate(attempt))
            except (Conflict, NotFound) as error:
                log.info("attempt %s is not delegated: %s", attempt.id, error)

    # --- missed ---

    async def close_missed(self) -> None:
        """Closes scheduled runs that could not start in their window, with an alert. Never returns."""
        while True:
            state, now_ns = self._keeper.state, self._clock.now_ns()
            for run in list(state.open_runs()):
                window_s = state.settings_of_mesh()["start-window-s"]
                if not missed_sources(run, window_s, now_ns):
                    continue
                await self._submit(CloseRun(run.id, RunState.MISSED, now_ns), request_id=f"missed-{run.id}")
                waiting = [w for (r, _), w in self._live.waiting.items() if r == run.id]
                why = f": {waiting[0].reason}" if waiting else ""
                await self._facts.alert(AlertKind.ERROR, "job-missed", f"{run.name} was missed{why}", object=run.id)
            await asyncio.sleep(1.0)

    # --- liveness and recovery ---

    async def watch_servers(self) -> None:
        """Commits transitions of liveness and recovers what was lost with a server. Never returns."""
        heard_until: dict[str, float] = {}
        while True:
            state = self._keeper.state
            rows = []
            shortest = 1.0
            for server in state.server_list():
                settings = state.settings_of(server.id)
                shortest = min(shortest, settings["stalled-after-s"] / 4)
                if server.id == self._own:
                    if server.liveness is not Liveness.ALIVE:
                        await self._transition(Transition(server.id, Liveness.ALIVE, None))
                    await self._note_addresses(server, self._addresses(), self._version)
                    continue
                if server.set_state is ServerState.DISABLED:
                    continue
                rows.append(
                    Watched(
                        server.id,
                        server.liveness,
                        server.silent_since_ns,
                        settings["stalled-after-s"],
                        settings["no-communication-after-s"],
                    )
                )
            self._watch.watch(rows)
            for server_id, heard in list(self._live.heard.items()):
                if heard.at_s > heard_until.get(server_id, -1.0):
                    heard_until[server_id] = heard.at_s
                    for transition in self._watch.handle(Heard(server_id, heard.at_s)):
                        await self._transition(transition)
                    await self._look_at(server_id)
            for transition in self._watch.handle(Tick(self._clock.monotonic_s(), self._clock.now_ns())):
                await self._transition(transition)
            await self._recover()
            try:
                async with asyncio.timeout(max(0.05, min(1.0, shortest))):
                    await self._live.returned.wait()
            except TimeoutError:
                pass
            self._live.returned.clear()

    async def _transition(self, found: Transition) -> None:
        state = self._keeper.state
        server = state.servers.get(found.server)
        if server is None or server.liveness is found.liveness:
            return
        await self._submit(SetLiveness(found.server, found.liveness, found.silent_since_ns))
        if found.liveness is Liveness.ALIVE:
            if server.ever_linked:
                log.info("%s is back", server.name)
            return
        kind = AlertKind.WARNING if found.liveness is Liveness.STALLED else AlertKind.ERROR
        text = "is silent" if found.liveness is Liveness.STALLED else "does not communicate any more"
        await self._facts.alert(
            kind, f"server-{found.liveness}", f"The server {server.name} {text}", object=server.name
        )

    async def _recover(self) -> None:
        """Active attempts on servers in no-communication are given up; runs that nobody could run are held."""
        state, now_ns = self._keeper.state, self._clock.now_ns()
        lost = {s.id for s in state.server_list() if s.liveness is Liveness.NO_COMMUNICATION and s.ever_linked}
        if not lost:
            return
        rows = await self._tables.attempts([a.run for a in state.active_attempts() if a.server in lost])
        for attempt in list(state.active_attempts()):
            if attempt.server not in lost:
                continue
            run = state.run(attempt.run)
            row = rows.get(attempt.id)
            started = row is not None and row.started_at_ns is not None
            part = lifecycle.part_of(run, attempt.source)
            wait_s = state.settings_of_mesh()["recovery-retry-s"] if part is not None and part.recovered else 0.0
            await self._submit(
                CloseAttempt(
                    attempt.id,
                    AttemptState.RECOVERED,
                    now_ns,
                    retry_not_before_ns=now_ns + int(wait_s * 1e9) if wait_s else 0,
                    taken_back=not started,
                )
            )
            self._live.progress.pop(attempt.id, None)
            name = state.name_of(attempt.server)
            what = "recovered from" if started else "taken back from"
            await self._facts.alert(
                AlertKind.WARNING,
                "job-recovered",
                f"{run.name} was {what} {name}, which does not answer",
                object=run.id,
            )
            after = state.runs.get(attempt.run)
            if after is not None and after.stranded:
                await self._facts.alert(
                    AlertKind.ATTENTION,
                    "job-held",
                    f"{run.name} was lost with too many servers; it is held until one returns",
                    object=run.id,
                )

    async def _note_addresses(self, server: Server, addresses: tuple[str, ...], version: str) -> None:
        if (addresses, version) != (server.addresses, server.version):
            await self._submit(SetServerAddresses(server.id, addresses, version))

    async def _look_at(self, server_id: str) -> None:
        """What a heartbeat tells beside that a server is there: its clock, its addresses, its devices."""
        state = self._keeper.state
        server = state.servers.get(server_id)
        heard = self._live.heard.get(server_id)
        if server is None or heard is None:
            return
        greeting = self._links.greeting_of(server_id)
        if greeting is not None:
            await self._note_addresses(server, greeting.addresses, greeting.version)
        limit = state.settings_of(server_id)["clock-difference-s"]
        offset = (heard.beat.now_ns - self._clock.now_ns()) / 1e9 + (self._clock.monotonic_s() - heard.at_s)
        if abs(offset) > limit and server_id not in self._clock_alerts:
            self._clock_alerts.add(server_id)
            await self._facts.alert(
                AlertKind.WARNING,
                "clock-differs",
                f"The clock of {server.name} differs by {offset:.0f} s from the administrator's",
                object=server.name,
            )
        elif abs(offset) <= limit:
            self._clock_alerts.discard(server_id)
        for report in heard.beat.devices:
            key = (server_id, report.device)
            device = state.devices.get(report.device)
            if device is None:
                continue
            if report.problem is not None and key not in self._device_alerts:
                self._device_alerts.add(key)
                await self._facts.alert(
                    AlertKind.ERROR, "device-error", f"{server.name}: {report.detail}", object=device.name
                )
            elif report.problem is None:
                self._device_alerts.discard(key)

    # --- what became of runs ---

    async def tell_ends(self, told: Callable[[Run], None] = lambda run: None) -> None:
        """An alert for each run that ended badly, once. Never returns."""
        known = {run.id for run in self._keeper.state.runs.values() if run.closed_at_ns is not None}
        async for _ in self._keeper.changes():
            for run in list(self._keeper.state.runs.values()):
                if run.closed_at_ns is None or run.id in known:
                    continue
                known.add(run.id)
                told(run)
                await self._tell_end(run)

    async def _tell_end(self, run: Run) -> None:
        scheduled = " (scheduled)" if is_scheduled(run) else ""
        try:
            if run.state is RunState.FAILED:
                failed = [part for part in run.parts if part.state is RunState.FAILED]
                names = ", ".join(self._keeper.state.name_of(part.source) for part in failed)
                code = failed[0].failure.code if failed and failed[0].failure else "error"
                await self._facts.alert(
                    AlertKind.ERROR, "job-failed", f"{run.name}{scheduled} failed for {names}: {code}", object=run.id
                )
            elif run.state is RunState.SUCCEEDED_WITH_EXCEPTIONS:
                await self._facts.alert(
                    AlertKind.WARNING,
                    "job-completed-with-exceptions",
                    f"{run.name}{scheduled} succeeded with exceptions",
                    object=run.id,
                )
        except CasoError as error:
            log.error("no alert for the end of %s: %s", run.id, error)


def _seen(row: DeviceRow, broken: set[tuple[str, str]]) -> DeviceRow:
    """A device without the servers that say they cannot use it now; offline if none is left."""
    servers = tuple(server for server in row.servers if (row.id, server) not in broken)
    if servers or not row.servers:
        return structs.replace(row, servers=servers)
    return structs.replace(row, state=DeviceState.OFFLINE)
