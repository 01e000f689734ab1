"""Handing ready parts of runs to media servers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from caso_mesh.admin.ends import Ends
from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.learning import Learning, Successors, stored_set
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Links, Submit
from caso_mesh.admin.present import reason_text
from caso_mesh.admin.tables import Tables
from caso_mesh.control.foretold import Known
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.placing import AT_ONCE, Cut, Seen, attempt_of, beside, in_vain
from caso_mesh.model.clock import Calendar, Clock, Randomness
from caso_mesh.model.commands import CloseRun, Delegate
from caso_mesh.model.dialects import Dialects, heard
from caso_mesh.model.errors import Conflict, NotFound, NotReady
from caso_mesh.model.features import READS_COPY
from caso_mesh.model.jobs import Attempt, Failure, RestoreSpec, Waiting, set_read
from caso_mesh.model.nodes import HelloReply, HelloRequest
from caso_mesh.model.orders import Authority
from caso_mesh.model.states import Liveness, RunState, ServerState
from caso_mesh.planning.choosing import Use
from caso_mesh.planning.planner import Planner
from caso_mesh.planning.problem import Assignment, Plan

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
#: After taking office nothing is delegated until every enabled server has reported, or this has passed.
_GRACE_S = 5.0
#: Two servers that could not reach each other are not paired for so long.
_NO_PATH_S = 600.0


class Delegation:
    """Reads the control state and what is live; decides by ``planning``; acts by commands only. ``barred``: why nothing
    may be handed out at all now, if so. ``without`` as ``Ends``; without it all is in one process, which ends attempts in
    their order."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        submit: Submit,
        own: str,
        clock: Clock,
        calendar: Calendar,
        randomness: Randomness,
        barred: Callable[[], Waiting | None] = lambda: None,
        without: Callable[[str, str], Authority | None] | None = None,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._submit = submit
        self._own = own
        self._clock = clock
        self._calendar = calendar
        self._randomness = randomness
        self._barred = barred
        self._office_s = clock.monotonic_s()
        self._ends = None if without is None else Ends(live, without)
        self._learning = Learning(tables, live, clock)
        self._cut = Cut()
        self._planner = Planner()
        self._no_data_path: dict[tuple[str, str], float] = {}
        self._wake = asyncio.Event()
        self._learns = asyncio.Lock()

    def wake(self) -> None:
        """Something changed that may let a run start."""
        self._wake.set()

    def facts_came(self) -> None:
        """There may be new sets, and with them devices to be preferred."""
        self._learning.facts_came()
        self._wake.set()

    def no_data_path(self, source: str, server: str) -> None:
        """Two servers could not reach each other."""
        self._no_data_path[source, server] = self._clock.monotonic_s() + _NO_PATH_S

    def _link_changed(self, node: str, linked: bool) -> None:
        if linked:
            # whatever was in its way may be gone: it was started again, or the network is another one
            kept = {pair: until for pair, until in self._no_data_path.items() if node not in pair}
            self._no_data_path = kept
        self._wake.set()

    async def run(self) -> None:
        """Places whenever something has changed. Never returns."""
        unobserve = self._links.observe(self._link_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._wake_on_change())
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

    async def _wake_on_change(self) -> None:
        async for _ in self._keeper.changes():
            self._wake.set()

    def in_grace(self) -> bool:
        """Whether this office is too young to know who is there."""
        if self._clock.monotonic_s() - self._office_s >= _GRACE_S:
            return False
        expected = [
            server.id
            for server in self._keeper.state.server_list()
            if server.state is ServerState.ENABLED and (server.ever_linked or server.id == self._own)
        ]
        return any(server not in self._live.heard for server in expected)

    async def _place(self) -> None:
        state = self._keeper.state
        ready = [
            (run.id, part.source) for run in state.open_runs() for part in run.parts if part.state is RunState.READY
        ]
        bar = self._barred() if ready else None
        if not ready or bar is not None:
            self._live.waiting = dict.fromkeys(ready, bar) if bar is not None else {}
            return
        if self._live.opening:
            return  # it is woken when all are there that are due
        await self._learn_sets()
        problem = self._cut.problem(self._keeper.state, self._seen())
        plan = self._planner.plan(problem, self._calendar.now_ns())
        self._live.waiting = plan.waiting
        await self._end_test_runs(plan)
        by_run: dict[str, list[Assignment]] = {}
        for each in plan.assignments[:AT_ONCE]:
            by_run.setdefault(each.run, []).append(each)
        async with asyncio.TaskGroup() as group:
            for same in by_run.values():
                group.create_task(self._hand_out(same))

    async def _hand_out(self, assignments: Sequence[Assignment]) -> None:
        """Commits assignments of one run, one after the other, since they are numbered."""
        for each in assignments:
            run = self._keeper.state.runs.get(each.run)
            if run is None:
                return
            attempt = attempt_of(run, each, self._clock.now_ns(), self._randomness(32))
            if isinstance(run.spec, RestoreSpec):
                attempt = replace(attempt, set=self._learning.copy_on(run.spec, each.device))
            second: Attempt | None = None
            if each.second_device:
                attempt, second = beside(attempt, each.second_server, each.second_device, self._randomness(32))
            try:
                await self._submit(Delegate(attempt, second))
            except (Conflict, NotFound) as error:
                log.info("attempt %s is not delegated: %s", attempt.id, error)

    async def _end_test_runs(self, plan: Plan) -> None:
        """What keeps a test run waiting, and does not pass by itself, is what it was to find out."""
        for run_id, waits in in_vain(self._keeper.state, plan):
            failure = Failure(NotReady.code, {"reason": reason_text(waits)})
            command = CloseRun(run_id, RunState.FAILED, self._clock.now_ns(), failure)
            try:
                await self._submit(command, request_id=f"not-ready-{run_id}")
            except NotFound as error:
                log.info("the test run %s is not closed: %s", run_id, error)

    async def _learn_sets(self) -> None:
        """Where the sets of restores and verifies lie, which devices hold sets of which source, and what the last backups
        teach."""
        runs = self._keeper.state.open_runs()
        read = (set_read(run.spec, part.source) for run in runs for part in run.parts)
        async with self._learns:
            await self._learning.learn_sets(set_id for set_id in read if set_id is not None)
            await self._learning.learn_copies(
                (run.spec.set for run in runs if isinstance(run.spec, RestoreSpec)), self._keeper.state
            )
            await self._learning.learn(self._keeper.state)

    async def known(self) -> Known:
        """What placement knows now, for a forecast."""
        await self._learn_sets()
        state = self._keeper.state
        barred = (await flaws_of(state, self._tables, self._live)).barred(Use.COPY)
        newest, successors = await self._tables.newest_sets(barred), Successors(state)
        return Known(
            seen=replace(self._seen(), in_grace=False, unended={}),
            history=self._learning.history,
            sets=dict(self._learning.sets),
            newest={(job, successors.of(source)): stored_set(each) for (job, source), each in newest.items()},
        )

    def _seen(self) -> Seen:
        state, now_s = self._keeper.state, self._clock.monotonic_s()
        free: dict[str, int] = {}
        broken: dict[tuple[str, str], str] = {}
        for device in state.device_list():
            for place in device.paths:
                report = self._live.report_of(device.id, place.server)
                if report is None:
                    continue
                if report.problem:
                    broken[device.id, place.server] = report.problem
                else:
                    free[device.id] = max(report.free_bytes, free.get(device.id, 0))
        self._no_data_path = {pair: until for pair, until in self._no_data_path.items() if until > now_s}
        learning, greetings = self._learning, self._greetings()
        ends_at_ns, to_come_bytes = learning.running(state)
        return Seen(
            connected={s.id for s in state.server_list() if self._links.linked(s.id) and s.id in self._live.heard},
            device_of_set=learning.device_of,
            medium_of_set=learning.medium_of,
            copies_of_set=learning.copies_of if state.info().feature_level >= READS_COPY else lambda set_id: (),
            missing_sets=learning.missing_sets,
            predicted=learning.predicted,
            free_bytes=free,
            silent_since_ns=self._silent_since_ns(),
            holdings=learning.holdings,
            no_data_path=tuple(self._no_data_path),
            telling=self._telling(now_s),
            unended={} if self._ends is None else self._ends.missing(state, state.open_runs()),
            speeds=learning.speeds,
            ends_at_ns=ends_at_ns,
            to_come_bytes=to_come_bytes,
            stored_bytes=learning.stored_bytes,
            levels={node: said.feature_level for node, said in greetings.items()},
            dialects={node: _dialects(said) for node, said in greetings.items()},
            broken=broken,
            own_work=tuple(
                (server, load.device, load.jobs)
                for server, last in self._live.heard.items()
                for load in last.beat.own_work
            ),
            learnt=learning.history,
            in_grace=self.in_grace(),
            now_ns=self._calendar.now_ns(),
        )

    def _greetings(self) -> Mapping[str, HelloRequest | HelloReply]:
        """What other servers said of their programs, each when it was linked."""
        greetings = {node: self._links.greeting_of(node) for node in self._links.nodes() if node != self._own}
        return {node: said for node, said in greetings.items() if said is not None}

    def _telling(self, now_s: float) -> tuple[str, ...]:
        """Who is back, or may be in this moment, and has not told yet what it did of what it was given up with."""
        given_up = {server.id for server in self._keeper.state.server_list() if server.liveness is not Liveness.ALIVE}
        return tuple(id for id in sorted(given_up.union(self._live.telling(now_s))) if self._links.linked(id))

    def _silent_since_ns(self) -> Mapping[str, int]:
        """When servers that are not linked now were last heard."""
        now_s, now_ns = self._clock.monotonic_s(), self._clock.now_ns()
        return {
            server: now_ns - round((now_s - last.at_s) * _SECOND)
            for server, last in self._live.heard.items()
            if not self._links.linked(server)
        }


def _dialects(said: HelloRequest | HelloReply) -> Dialects:
    return heard(said.bulk_newest, said.bulk_oldest, said.feature_level)
