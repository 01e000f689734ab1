"""Placement: which ready part of a run goes to which media server and device, and why each other one waits.

A pure function. It delegates only to free slots, so that queues on servers stay nearly empty; takes the longest part
first inside a priority, which brings the end of the last one forward (R. L. Graham, "Bounds on Multiprocessing Timing
Anomalies", 1969: longest processing time first); prefers where the files are and where their chunks are already; keeps
slots for those that can run nowhere else when they would be the last to end; and leaves a slow server what it can end in
time (the idea is that of T. Gonzalez, O. Ibarra and S. Sahni, "Bounds for LPT Schedules on Uniform Processors", 1977).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from caso_mesh.model.jobs import Waiting
from caso_mesh.model.states import PRIORITY_RANK
from caso_mesh.planning.candidates import Reach
from caso_mesh.planning.demand import Demand
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
from caso_mesh.planning.reasons import Reasons
from caso_mesh.planning.round import OVERDUE_NS, Round, Turn, overdue

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
    "Waits",
    "order_of",
    "place",
]

#: Sorts parts: what goes first.
Order = tuple[int, int, int, float, int, str, str]


def place(problem: Problem, now_ns: int) -> Plan:
    """Assigns ready parts to free slots. Every part that is not assigned gets the first reason that would have to
    change. Priority beats due time."""
    demand = Demand()
    for part in problem.parts:
        demand.add(part)
    round = Round(problem, now_ns, Reach(problem), demand)
    assignments: list[Assignment] = []
    in_order = sorted(problem.parts, key=lambda part: order_of(part, now_ns))
    for _, same in groupby(in_order, key=lambda part: part.priority):
        yielded = [part for part in same if turn(round, part, assignments, last=False)]
        for part in yielded:
            turn(round, part, assignments, last=True)
    return Plan(tuple(assignments), Waits(round, problem.parts, assignments))


def turn(round: Round, part: ReadyPart, assignments: list[Assignment], *, last: bool) -> bool:
    """A part's turn; whether it yields to others of its priority."""
    answer = round.consider(part, last=last)
    if isinstance(answer, Turn):
        return answer is Turn.YIELDS
    assignments.append(Assignment(part.run, part.source, *answer, *round.reads(part), *round.second(part)))
    return False


def order_of(part: ReadyPart, now_ns: int) -> Order:
    late = overdue(part, now_ns)
    # What nobody can predict may be long: it is treated as the longest.
    length = float("inf") if part.predicted_s is None else part.predicted_s
    return (
        PRIORITY_RANK[part.priority],
        0 if late else 1,
        part.due_at_ns if late else 0,
        -length,
        part.due_at_ns,
        part.run,
        part.source,
    )


class Waits(Mapping[tuple[str, str], Waiting]):
    """Why each part of a problem waits that got nothing, by (run, source); found out when it is asked."""

    def __init__(self, round: Round, parts: Iterable[ReadyPart], assigned: Iterable[Assignment]) -> None:
        self._reasons = Reasons(round)
        self._all = parts
        self._assigned = {(one.run, one.source) for one in assigned}
        self._parts: dict[tuple[str, str], ReadyPart] | None = None

    def __getitem__(self, key: tuple[str, str]) -> Waiting:
        return self._reasons.why(self._waiting()[key])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._waiting())

    def __len__(self) -> int:
        return len(self._waiting())

    def _waiting(self) -> dict[tuple[str, str], ReadyPart]:
        if self._parts is None:
            named = (((part.run, part.source), part) for part in self._all)
            self._parts = {key: part for key, part in named if key not in self._assigned}
        return self._parts
