"""What became of runs: an alert for each that ended badly or is stranded, and forgetting what is old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from caso_mesh.admin import present
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Submit
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.seconds import seconds_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import DeleteJob, Prune
from caso_mesh.model.errors import Conflict, NotFound, from_wire
from caso_mesh.model.jobs import Failure, Run, placed_by
from caso_mesh.model.settings import number
from caso_mesh.model.states import AlertKind, RunState
from caso_mesh.planning import lifecycle
from caso_mesh.planning.window import is_scheduled

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_PRUNE_EACH_S, _COUNT_EACH_S = 3600.0, 60.0
#: History is cut before the hour is over if it is longer than it may be by this factor.
_TOO_LONG = 1.1
#: Runs that ended in this time before the office began are told of, if the last one did not come to it.
_LOOK_BACK_NS = 24 * 3600 * _SECOND


def _why(failure: Failure) -> str:
    """As a person reads it; the code is what error rules and ``caso-mesh help errors`` go by."""
    message = from_wire({"code": failure.code, "fields": failure.fields}).message
    return f"{message.removesuffix('.')} ({failure.code})"


class Telling:
    """Alerts about runs. Each end is told once, also when the office ended between the end and its alert, and bears its own
    time: an administrator that was rebuilt has lost what was told, and tells of the last day again."""

    def __init__(self, *, keeper: ControlKeeper, live: Live, alarms: Alarms, clock: Clock) -> None:
        self._keeper = keeper
        self._live = live
        self._alarms = alarms
        self._clock = clock
        self._open: set[str] = set()
        self._last: str | None = None

    async def run(self) -> None:
        """Never returns."""
        self._open = {run.id for run in self._keeper.state.open_runs()}
        self._last = next(reversed(self._keeper.state.runs), None)
        since = self._clock.now_ns() - _LOOK_BACK_NS
        for run in list(self._keeper.state.runs.values()):
            if run.closed_at_ns is not None and run.closed_at_ns >= since:
                await self._tell_end(run)
        async for _ in self._keeper.changes():
            await self._look()

    async def _look(self) -> None:
        state = self._keeper.state
        open_runs = state.open_runs()
        now_open = {run.id for run in open_runs}
        # runs that were made and have ended between two looks: the newest ones of the table
        made: list[str] = []
        for id_ in reversed(state.runs):
            if id_ == self._last:
                break
            made.append(id_)
        ended = [id_ for id_ in (*sorted(self._open), *reversed(made)) if id_ not in now_open]
        for id_ in dict.fromkeys(ended):
            run = state.runs.get(id_)
            if run is not None:
                await self._tell_end(run)
        self._open = now_open
        self._last = made[0] if made else self._last
        held = {
            run.id: f"{run.name} was lost with too many servers; it is held until one returns"
            for run in open_runs
            if run.stranded
        }
        for run in open_runs:
            for part in (part for part in run.parts if part.held_by):
                code = part.failure.code if part.failure is not None else "error"
                source = state.name_of(part.source)
                held[run.id] = (
                    f"{run.name} failed for {source}: {code}; the error rule {part.held_by} holds it until it is released: "
                    f"caso-mesh job release {run.name}"
                )
        await self._tell_held(held)

    async def _tell_held(self, held: dict[str, str]) -> None:
        for id_, text in held.items():
            await self._alarms.begins(AlertKind.ATTENTION, "job-held", text, object=id_)
        for id_ in set(self._alarms.standing("job-held")) - held.keys():
            await self._alarms.ends("job-held", id_)

    async def _tell_second(self, second: Run, first: Run | None) -> None:
        """That a second set is not there, where the first one is; else that one is what is missing."""
        (part,) = second.parts
        made = lifecycle.part_of(first, part.source) if first is not None else None
        if second.state is not RunState.FAILED or (first is not None and (made is None or made.set is None)):
            return
        code = part.failure.code if part.failure is not None else "error"
        name, source = first.name if first is not None else second.name, self._keeper.state.name_of(part.source)
        which = made.set if made is not None and made.set is not None else "SET"
        text = (
            f"{name} stored no second set of {source}: {code}. The first one is good; copy it with: "
            f"caso-mesh duplicate {which} --to {second_target(second)}"
        )
        await self._alarms.once(
            second.id, AlertKind.ERROR, "second-set-missing", text, object=second.id, at_ns=second.closed_at_ns
        )

    async def _tell_end(self, run: Run) -> None:
        state = self._keeper.state
        if run.terms.second_of is not None:
            first = state.runs.get(run.terms.second_of)
            if first is None or first.closed_at_ns is not None:
                await self._tell_second(run, first)
            return
        for second in seconds_of(state, run):
            if second.closed_at_ns is not None:
                await self._tell_second(second, run)
        name = f"{run.name} (scheduled)" if is_scheduled(run) else run.name
        match run.state:
            case RunState.FAILED:
                failed = [part for part in run.parts if part.state is RunState.FAILED]
                names = ", ".join(self._keeper.state.name_of(part.source) for part in failed)
                why = next((_why(part.failure) for part in failed if part.failure), "error")
                kind, category, text = AlertKind.ERROR, "job-failed", f"{name} failed for {names}: {why}"
            case RunState.TIMED_OUT:
                kind, category, text = AlertKind.ERROR, "job-timed-out", f"{name} was not finished in time"
            case RunState.MISSED:
                waiting = self._live.missed_for.pop(run.id, None)
                why = f": {present.reason_text(waiting)}" if waiting else ""
                kind, category, text = AlertKind.ERROR, "job-missed", f"{name} was missed{why}"
            case RunState.SUCCEEDED_WITH_EXCEPTIONS:
                kind, category = AlertKind.WARNING, "job-completed-with-exceptions"
                text = f"{name} succeeded with exceptions"
            case _:
                return
        await self._alarms.once(run.id, kind, category, text, object=run.id, at_ns=run.closed_at_ns)


def second_target(run: Run) -> str:
    placed = placed_by(run.spec)
    return "any" if placed is None else str(placed.target)


def kept_since(state: ControlState, now_ns: int) -> int:
    """History of before this instant is not kept."""
    return now_ns - round(number(state.settings_of_mesh(), "joblog-keep-s") * _SECOND)


async def prune_tables(state: ControlState, tables: Tables, told: list[str], now_ns: int) -> None:
    """Forgets in a voter's tables what is told of runs that the control state has forgotten, and old alerts. ``told``: the
    runs that are told of, each of which was made by where ``state`` is now."""
    local = await tables.local_run_ids()
    gone = [run for run in told if run not in state.runs and run not in local]
    settings = state.settings_of_mesh()
    audited_since_ns = now_ns - round(number(settings, "audit-keep-s") * _SECOND)
    await tables.prune(gone, kept_since(state, now_ns), int(number(settings, "runs-kept")), audited_since_ns)


class Pruning:
    """Forgets the history of runs after ``joblog-keep-s`` or beyond ``runs-kept``, and with it jobs that only ran when
    asked. Not by a clock that is in doubt; and with a certificate of a voter of before, by which servers are still believed,
    only by one that is ``steady``: they would have to join again."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        submit: Submit,
        clock: Clock,
        doubtful: Callable[[], bool],
        steady: Callable[[], bool],
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._submit = submit
        self._clock = clock
        self._doubtful = doubtful
        self._steady = steady

    async def run(self) -> None:
        """Never returns."""
        while True:
            if self._doubtful():
                log.warning("no history is pruned: clocks differ, or this one was set")
            else:
                await self.prune()
            end_s = self._clock.monotonic_s() + _PRUNE_EACH_S
            while self._clock.monotonic_s() < end_s:
                await asyncio.sleep(_COUNT_EACH_S)
                if len(self._keeper.state.runs) > _TOO_LONG * self._most():
                    break

    async def prune(self) -> None:
        """One round."""
        state = self._keeper.state
        before_ns = kept_since(state, self._clock.now_ns())
        runs_before_ns = self._beyond(before_ns)
        if self._anchors_end() and not self._steady():
            log.info("nothing is pruned yet: a certificate of a voter of before ends by a clock that was set")
            return
        if runs_before_ns > before_ns or self._has_old(before_ns):
            await self._submit(Prune(before_ns, runs_before_ns))
        for job in state.job_list():
            if (
                job.origin is None
                and job.schedule is None
                and job.created_at_ns < runs_before_ns
                and not state.runs_of(job.id)
            ):
                try:
                    await self._submit(DeleteJob(job.id))
                except (Conflict, NotFound) as error:
                    log.debug("job %s is not pruned: %s", job.id, error)
        await prune_tables(state, self._tables, await self._tables.runs_told(), self._clock.now_ns())

    def _most(self) -> float:
        return number(self._keeper.state.settings_of_mesh(), "runs-kept")

    def _beyond(self, before_ns: int) -> int:
        """Runs that were closed before this instant are more than may be kept; else ``before_ns``."""
        closed = [
            (run.closed_at_ns, len(run.parts))
            for run in self._keeper.state.runs.values()
            if run.closed_at_ns is not None and run.closed_at_ns >= before_ns
        ]
        left = self._most()
        for at_ns, parts in sorted(closed, reverse=True):
            left -= parts
            if left < 0:
                return at_ns + 1
        return before_ns

    def _anchors_end(self) -> bool:
        now_ns = self._clock.now_ns()
        return any(each.until_ns is not None and each.until_ns < now_ns for each in self._keeper.state.anchors)

    def _has_old(self, before_ns: int) -> bool:
        """Whether pruning would change anything: a command each hour for nothing would only fill the log."""
        state = self._keeper.state
        return (
            any(run.closed_at_ns is not None and run.closed_at_ns < before_ns for run in state.runs.values())
            or any(token.expires_at_ns < before_ns for token in state.tokens.values())
            or any(answer.at_ns < before_ns for answer in state.answers.values())
            or self._anchors_end()
            or any(request.at_ns < before_ns for request in state.requests.values())
        )
