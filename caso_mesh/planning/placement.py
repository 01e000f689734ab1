"""Placement: which ready part of a run goes to which media server and device, and why each other one waits.

A pure function. It delegates only to free slots, so that queues on servers stay nearly empty; takes the longest part
first inside a priority, which brings the end of the last one forward (R. L. Graham, "Bounds on Multiprocessing Timing
Anomalies", 1969: longest processing time first); and prefers where the files are and where their chunks are already.
"""

from __future__ import annotations

from caso_mesh.model.jobs import Target, TargetKind, Waiting
from caso_mesh.model.states import PRIORITY_RANK, JobKind, ServerState, WaitReason
from caso_mesh.model.units import format_instant
from caso_mesh.planning.candidates import Candidates, Pair, Slots, for_set, for_target, waiting
from caso_mesh.planning.problem import (
    Assignment,
    Busy,
    DeviceRow,
    Plan,
    PoolRow,
    Problem,
    ReadyPart,
    ServerRow,
)

__all__ = [
    "OVERDUE_NS",
    "Assignment",
    "Busy",
    "DeviceRow",
    "Plan",
    "PoolRow",
    "Problem",
    "ReadyPart",
    "ServerRow",
    "place",
]

#: A part that waits for so long goes before younger ones of its priority however long they are: longest first alone
#: would let short ones starve in a busy mesh.
OVERDUE_NS = 3600 * 1_000_000_000


def place(problem: Problem, now_ns: int) -> Plan:
    """Assigns ready parts to free slots. Every part that is not assigned gets the first reason that would have to
    change. Priority beats due time."""
    planner = _Planner(problem, now_ns)
    assignments: list[Assignment] = []
    waits: dict[tuple[str, str], Waiting] = {}
    for part in sorted(problem.parts, key=lambda part: _order(part, now_ns)):
        answer = planner.consider(part)
        if isinstance(answer, Waiting):
            waits[part.run, part.source] = answer
        else:
            server, device = answer
            assignments.append(Assignment(part.run, part.source, server.id, device.id))
    return Plan(tuple(assignments), waits)


def _order(part: ReadyPart, now_ns: int) -> tuple[int, int, int, float, int, str, str]:
    overdue = now_ns - part.due_at_ns > OVERDUE_NS
    # What nobody can predict may be long: it is treated as the longest.
    length = float("inf") if part.predicted_s is None else part.predicted_s
    return (
        PRIORITY_RANK[part.priority],
        0 if overdue else 1,
        part.due_at_ns if overdue else 0,
        -length,
        part.due_at_ns,
        part.run,
        part.source,
    )


class _Planner:
    def __init__(self, problem: Problem, now_ns: int) -> None:
        self._now_ns = now_ns
        self._in_grace = problem.in_grace
        self._slots = Slots(problem)
        self._pools = {pool.name: pool.servers for pool in problem.pools}
        self._busy = {(busy.job, busy.source): busy.run for busy in problem.busy}
        self._held_by: dict[str, list[str]] = {}
        for source, device in problem.holdings:
            self._held_by.setdefault(source, []).append(device)
        self._cut: dict[str, set[str]] = {}
        for source, server in problem.no_data_path:
            self._cut.setdefault(source, set()).add(server)
        self._candidates: dict[tuple[str, str], Candidates | Waiting] = {}

    def consider(self, part: ReadyPart) -> Pair | Waiting:
        """The pair that gets the part, with its slots taken, or why it waits."""
        reason = self._not_now(part) or self._no_source(part)
        if reason is not None:
            return reason
        candidates = self._candidates_of(part)
        if isinstance(candidates, Waiting):
            return candidates
        if candidates.blocked is not None:
            if candidates.servers_down and part.recovered_on:
                return waiting(WaitReason.NO_SERVER_LEFT)
            return candidates.blocked
        cut = self._cut.get(part.source, set()) if part.kind is not JobKind.VERIFY else set()
        if cut and all(server.id in cut for server, _ in candidates.pairs):
            names = sorted({server.name for server, _ in candidates.pairs})
            return waiting(WaitReason.NO_DATA_PATH, source=self._name(part.source), server=names)
        pair = self._choose(candidates, part, cut)
        if pair is None:
            return candidates.why_full(cut.__contains__ if cut else None)
        source = self._slots.servers.get(part.source)
        if source is not None and part.kind is not JobKind.VERIFY:
            if not self._slots.source_free(source):
                return waiting(WaitReason.LIMIT_AT_SOURCE, source=source.name, limit=source.source_concurrency)
            self._slots.reading[source.id] += 1
        self._slots.running[pair[0].id] += 1
        self._slots.writing[pair[1].id] += 1
        self._busy[part.job, part.source] = part.run
        return pair

    def _choose(self, candidates: Candidates, part: ReadyPart, cut: set[str]) -> Pair | None:
        held = self._held_by.get(part.source, ())
        lost = cut.union(part.recovered_on)
        pair = candidates.choose(part.source, held, lost.__contains__)
        if pair is None and part.recovered_on:
            # A server that was lost with this part and is back may have it, if nobody else can.
            pair = candidates.choose(part.source, held, cut.__contains__)
        return pair

    def _not_now(self, part: ReadyPart) -> Waiting | None:
        if self._in_grace:
            return waiting(WaitReason.ADMIN_IN_GRACE)
        if part.stranded:
            return waiting(WaitReason.NO_SERVER_LEFT)
        if part.on_hold:
            return waiting(WaitReason.ON_HOLD, job=part.job_name)
        if part.due_at_ns > self._now_ns:
            return waiting(WaitReason.NOT_YET_DUE, due=format_instant(part.due_at_ns))
        if part.not_before_ns > self._now_ns:
            return waiting(WaitReason.RETRY_LATER, at=format_instant(part.not_before_ns))
        blocking = self._busy.get((part.job, part.source))
        if blocking is not None:
            return waiting(WaitReason.BLOCKED_BY_RUN, run=blocking)
        return None

    def _no_source(self, part: ReadyPart) -> Waiting | None:
        """The server whose files are read or written must be linked; paused is no matter, disabled is."""
        if part.kind is JobKind.VERIFY:
            return None
        source = self._slots.servers.get(part.source)
        if source is not None and source.connected and source.state is not ServerState.DISABLED:
            return None
        since = None if source is None else format_instant(source.silent_since_ns)
        return waiting(WaitReason.SOURCE_UNREACHABLE, source=self._name(part.source), since=since or "it joined")

    def _candidates_of(self, part: ReadyPart) -> Candidates | Waiting:
        if part.kind in {JobKind.BACKUP, JobKind.TEST_RUN}:
            target = part.target or Target(TargetKind.ANY)
            key = (target.kind.value, target.name or "")
        else:
            target, key = None, ("set", part.device or "")
        found = self._candidates.get(key)
        if found is None:
            if target is None:
                found = for_set(self._slots, part.device)
            else:
                found = for_target(self._slots, self._pools, target)
            self._candidates[key] = found
        return found

    def _name(self, server: str) -> str:
        row = self._slots.servers.get(server)
        return server if row is None else row.name
