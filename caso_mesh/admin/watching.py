"""Who is there and how it goes with them: liveness, what was lost with a server, clocks, devices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links, Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.twins import TwinAlarms
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.losses import give_up, take_back
from caso_mesh.control.orders import ends_of
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import SetLiveness, SetServerAddresses
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.errors import EraseUnfinished, NotFound, StateFull
from caso_mesh.model.jobs import Attempt, Run
from caso_mesh.model.mesh import Server
from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, Liveness, ServerState
from caso_mesh.model.storage import Device
from caso_mesh.planning.liveness import (
    Heard,
    Tick,
    Transition,
    Watch,
    Watched,
    heartbeat_interval_s,
    stalled_after_s,
)

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_MOST_ADDRESSES = 16
#: A server is called silent when it is so much later than two heartbeats: a busy machine answers late.
_LATE_S = 1.0
#: Whoever is there has found another administrator by then, also where thousands look for it.
_COMES_WITHIN_S = 60.0
#: The alerts about servers that are not heard of.
STALLED, LOST = "server-stalled", "server-no-communication"


class _Limits(Struct, frozen=True):
    """What holds for one server, as of a version of its orders."""

    version: tuple[int, int]
    stalled_s: float
    lost_s: float
    interval_s: float
    clock_s: float


class ServerWatch:
    """Commits transitions of liveness, and gives up what was lost with a server."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        submit: Submit,
        alarms: Alarms,
        own: str,
        addresses: Callable[[], tuple[str, ...]],
        version: str,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._submit = submit
        self._alarms = alarms
        self._own = own
        self._addresses = addresses
        self._version = version
        self._clock = clock
        self._watch = Watch(office_s=clock.monotonic_s(), office_ns=clock.now_ns())
        self._office_s = clock.monotonic_s()
        self._heard_until: dict[str, float] = {}
        self._limits_of: dict[str, _Limits] = {}
        self._looked_at: dict[str, float] = {}
        self._twins = TwinAlarms(keeper, alarms, clock, own)

    async def run(self) -> None:
        """Never returns."""
        while True:
            shortest_s = await self._look()
            try:
                async with asyncio.timeout(max(0.05, min(1.0, shortest_s))):
                    await self._live.returned.wait()
            except TimeoutError:
                pass
            self._live.returned.clear()

    def clocks_differ(self) -> bool:
        """Whether the clock of some server that is connected is known to differ from this one. What one that died, or was
        removed, showed in the end says nothing of now."""
        names = set(self._alarms.standing("clock-differs"))
        return any(each.name in names and self._links.linked(each.id) for each in self._keeper.state.server_list())

    def knows(self, server: str) -> bool:
        """Whether this office can tell if a server is there: it has heard it, is old enough for it to have come, or an earlier one
        had found that it is silent."""
        row = self._keeper.state.servers.get(server)
        if row is not None and row.liveness is not Liveness.ALIVE:
            return True
        return server in self._live.heard_at_s or self._clock.monotonic_s() - self._office_s >= _COMES_WITHIN_S

    def silent_s(self, server: str) -> float | None:
        """For how long nothing was heard of a server whose heartbeat is overdue; ``None`` for one that beats as it
        should, is not watched, or never came."""
        silent_s = self._watch.silent_for_s(server, self._clock.monotonic_s())
        if silent_s is None:
            return None
        return silent_s if silent_s > 2 * self._limits(server).interval_s + _LATE_S else None

    def _limits(self, server: str) -> _Limits:
        """Worked out anew only when they may be others: every server is looked at every second."""
        state = self._keeper.state
        version, known = state.orders_version(server), self._limits_of.get(server)
        if known is None or known.version != version:
            settings, others = state.settings_of(server), len(state.servers) - 1
            known = self._limits_of[server] = _Limits(
                version=version,
                stalled_s=stalled_after_s(number(settings, "stalled-after-s"), others),
                lost_s=number(settings, "no-communication-after-s"),
                interval_s=heartbeat_interval_s(number(settings, "heartbeat-interval-s"), others),
                clock_s=number(settings, "clock-difference-s"),
            )
        return known

    async def _look(self) -> float:
        """One round; seconds until the next one is due."""
        state = self._keeper.state
        rows, shortest_s = [], 1.0
        for server in state.server_list():
            limits = self._limits(server.id)
            shortest_s = min(shortest_s, limits.stalled_s / 4)
            if server.id == self._own:
                if server.liveness is not Liveness.ALIVE:
                    await self._transition(Transition(server.id, Liveness.ALIVE, None))
                await self._note_addresses(server, self._addresses(), self._version)
            else:
                rows.append(
                    Watched(server.id, server.liveness, server.silent_since_ns, limits.stalled_s, limits.lost_s)
                )
        self._watch.watch(rows)
        for server_id, at_s in list(self._live.heard_at_s.items()):
            if server_id not in state.servers:
                del self._live.heard_at_s[server_id]
                self._live.heard.pop(server_id, None)
                self._looked_at.pop(server_id, None)
                self._heard_until.pop(server_id, None)
                self._limits_of.pop(server_id, None)
                continue
            if at_s > self._heard_until.get(server_id, -1.0):
                self._heard_until[server_id] = at_s
                for transition in self._watch.handle(Heard(server_id, at_s)):
                    await self._transition(transition)
            beat = self._live.heard.get(server_id)
            if beat is not None and beat.at_s > self._looked_at.get(server_id, -1.0):
                self._looked_at[server_id] = beat.at_s
                await self._look_at(server_id)
        for transition in self._watch.handle(Tick(self._clock.monotonic_s(), self._clock.now_ns())):
            await self._transition(transition)
        await self._twins.look()
        await self._recover()
        return shortest_s

    async def _transition(self, found: Transition) -> None:
        server = self._keeper.state.servers.get(found.server)
        if server is None or server.liveness is found.liveness:
            return
        try:
            await self._submit(SetLiveness(found.server, found.liveness, found.silent_since_ns))
        except NotFound:
            return  # removed meanwhile
        if found.liveness is Liveness.ALIVE:
            for category in (STALLED, LOST):
                await self._alarms.ends(category, server.name)
            return
        if server.set_state is ServerState.DISABLED:
            return  # nobody misses it; what still ran there is recovered all the same
        if found.liveness is Liveness.STALLED:
            text = f"The server {server.name} is silent"
            await self._alarms.begins(AlertKind.WARNING, STALLED, text, object=server.name)
        else:
            text = f"The server {server.name} does not communicate any more"
            await self._alarms.begins(AlertKind.ERROR, LOST, text, object=server.name)

    # --- what was lost with a server ---

    async def _recover(self) -> None:
        """Active attempts on servers in no-communication are given up. Those whose media server is there and whose
        other end is lost are taken back: there is nothing to recover elsewhere, the part waits for its source."""
        state = self._keeper.state
        lost = {s.id for s in state.server_list() if s.liveness is Liveness.NO_COMMUNICATION and s.ever_linked}
        if not lost:
            return
        touched = [(a, state.run(a.run)) for a in state.active_attempts() if lost & {a.server, a.source}]
        rows = await self._tables.attempts([run.id for _, run in touched])
        for attempt, run in touched:
            if attempt.server in lost and isinstance(run.spec, EraseSpec):
                continue  # it may be at work there: nobody else begins before that server has said how it ended
            if attempt.server in lost:
                row = rows.of(attempt)
                running = attempt.id in self._live.progress or (row is not None and row.started_at_ns is not None)
                await self._give_up(attempt, run, started=running)
            elif lost & set(ends_of(attempt, run)):
                await self._take_back(attempt)

    async def _take_back(self, attempt: Attempt) -> None:
        name = self._keeper.state.name_of(attempt.source)
        log.warning("attempt %s is taken back: %s, whose files it needs, does not answer", attempt.id, name)
        command = take_back(attempt, self._clock.now_ns())
        await self._submit(command, request_id=f"taken-back-{attempt.id}")
        self._live.progress.pop(attempt.id, None)

    async def _give_up(self, attempt: Attempt, run: Run, *, started: bool) -> None:
        state, now_ns = self._keeper.state, self._clock.now_ns()
        command = give_up(state, attempt, now_ns, started=started)
        await self._submit(command, request_id=f"recovered-{attempt.id}")
        self._live.progress.pop(attempt.id, None)
        what = "recovered from" if started else "taken back from"
        text = f"{run.name} was {what} {state.name_of(attempt.server)}, which does not answer"
        await self._alarms.once(attempt.id, AlertKind.WARNING, "job-recovered", text, object=run.id)

    # --- what a heartbeat tells beside that a server is there ---

    async def _note_addresses(self, server: Server, addresses: tuple[str, ...], version: str) -> None:
        addresses = addresses[:_MOST_ADDRESSES]
        if (addresses, version) != (server.addresses, server.version):
            await self._submit(SetServerAddresses(server.id, addresses, version))

    async def _look_at(self, server_id: str) -> None:
        state = self._keeper.state
        server = state.servers.get(server_id)
        heard = self._live.heard.get(server_id)
        if server is None or heard is None:
            return
        greeting = self._links.greeting_of(server_id)
        if greeting is not None:
            await self._note_addresses(server, greeting.addresses, greeting.version)
        limit = self._limits(server_id).clock_s
        offset = (heard.beat.now_ns - self._clock.now_ns()) / _SECOND + (self._clock.monotonic_s() - heard.at_s)
        if abs(offset) > limit:
            text = f"The clock of {server.name} differs by {offset:.0f} s from the administrator's"
            await self._alarms.begins(AlertKind.WARNING, "clock-differs", text, object=server.name)
        else:
            await self._alarms.ends("clock-differs", server.name)
        await self._twins.heard(server_id, heard.beat)
        for report in heard.beat.devices:
            device = state.devices.get(report.device)
            if device is not None and device.path_on(server_id) is not None:
                await self._look_at_device(server, device, report)

    async def _look_at_device(self, server: Server, device: Device, report: DeviceReport) -> None:
        place = f"{server.name}:{device.name}"
        if report.problem == StateFull.code:
            return  # nothing is wrong with the device, and the server raises an alert of its own
        if report.problem == EraseUnfinished.code and device.erasing:
            return  # somebody is at it, or there is an alert that says so
        if report.problem is not None:
            text = f"The device {device.name} cannot be used on {server.name}: {report.detail}"
            await self._alarms.begins(AlertKind.ERROR, "device-error", text, object=place)
            return
        await self._alarms.ends("device-error", place)
        if device.imported is None and report.free_bytes < device.low_space_bytes:
            text = f"The device {device.name} is low on space: {report.free_bytes} bytes are free"
            await self._alarms.begins(AlertKind.WARNING, "device-low-on-space", text, object=device.name)
        else:
            await self._alarms.ends("device-low-on-space", device.name)
