"""Placement by one who remembers: the plans of ``place``, made out of what has changed since the last one.

The parts of each target are kept in order, and so is how much work waits for whom. A round looks only at targets that
have a free pair, and ends when there is none left. What is unchanged is known by being the same object: whoever makes
the tables hands in the same rows again.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort

from caso_mesh.planning.candidates import Key, Reach, key_of
from caso_mesh.planning.demand import Demand
from caso_mesh.planning.placement import Order, Waits, order_of, turn
from caso_mesh.planning.problem import Assignment, Plan, Problem, ReadyPart
from caso_mesh.planning.round import OVERDUE_NS, Round, holders, overdue

_Line = list[tuple[Order, ReadyPart]]


class Planner:
    """``plan(problem, now_ns)`` equals ``place(problem, now_ns)``, whatever was planned before."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._reach: Reach | None = None
        self._holdings: tuple[tuple[str, str], ...] = ()
        self._held_by: dict[str, set[str]] = {}
        self._forget()

    def plan(self, problem: Problem, now_ns: int) -> Plan:
        """The assignments of ``place``, in the same order, and the same reasons."""
        if now_ns < self._now_ns:
            self._forget()  # a clock that was put back: what was overdue may not be any more
        self._now_ns = now_ns
        self._take(problem.parts)
        self._age()
        if self._reach is None or not self._reach.holds(problem):
            self._reach = Reach(problem)
        if problem.holdings is not self._holdings:
            self._holdings, self._held_by = problem.holdings, holders(problem.holdings)
        round = Round(problem, now_ns, self._reach, self._demand, self._held_by)
        assignments: list[Assignment] = []
        if not problem.in_grace:
            self._hand_out(round, assignments)
        return Plan(tuple(assignments), Waits(round, problem.parts, assignments))

    def _hand_out(self, round: Round, assignments: list[Assignment]) -> None:
        lines = [(key, line) for key, line in self._lines.items() if line and round.idle(key)]
        heads = [(line[0][0], place, 0) for place, (_, line) in enumerate(lines)]
        heapq.heapify(heads)
        yielded: list[ReadyPart] = []
        priority = None
        idle_at = [0] * len(lines)  # the number of assignments when a line was last known to have a free pair
        while heads:
            order, which, position = heads[0]
            key, line = lines[which]
            if order[0] != priority:
                _last_turn(round, yielded, assignments)
                priority = order[0]
            if idle_at[which] != len(assignments):
                if not round.idle(key):
                    heapq.heappop(heads)
                    continue
                idle_at[which] = len(assignments)
            part = line[position][1]
            if turn(round, part, assignments, last=False):
                yielded.append(part)
            if position + 1 < len(line):
                heapq.heapreplace(heads, (line[position + 1][0], which, position + 1))
            else:
                heapq.heappop(heads)
        _last_turn(round, yielded, assignments)

    # --- what waits ---

    def _forget(self) -> None:
        self._rows: dict[int, ReadyPart] = {}
        self._parts: dict[tuple[str, str], ReadyPart] = {}
        self._orders: dict[tuple[str, str], Order] = {}
        self._lines: dict[Key, _Line] = {}
        self._ages: list[tuple[int, tuple[str, str]]] = []
        self._demand = Demand()
        self._last: tuple[ReadyPart, ...] | None = None

    def _take(self, parts: tuple[ReadyPart, ...]) -> None:
        """Takes in what is new or has changed, and lets go what is not there any more."""
        if parts is self._last:
            return
        self._last = parts
        # rows live as long as they are known, so that no other one has the number of one of them
        before, now = self._rows, dict(zip(map(id, parts), parts, strict=True))
        self._rows = now
        for gone in sorted(before.keys() - now.keys(), key=lambda each: _name(before[each])):
            self._remove(_name(before[gone]))
        for new in sorted(now.keys() - before.keys(), key=lambda each: _name(now[each])):
            self._add(_name(now[new]), now[new])

    def _add(self, name: tuple[str, str], part: ReadyPart) -> None:
        order = order_of(part, self._now_ns)
        self._parts[name] = part
        self._orders[name] = order
        insort(self._lines.setdefault(key_of(part), []), (order, part))
        self._demand.add(part)
        if not overdue(part, self._now_ns):
            heapq.heappush(self._ages, (part.due_at_ns + OVERDUE_NS, name))

    def _remove(self, name: tuple[str, str]) -> None:
        part = self._parts.pop(name)
        self._drop(part, self._orders.pop(name))
        self._demand.add(part, -1)

    def _drop(self, part: ReadyPart, order: Order) -> None:
        line = self._lines[key_of(part)]
        del line[bisect_left(line, order, key=lambda entry: entry[0])]
        if not line:
            del self._lines[key_of(part)]

    def _age(self) -> None:
        """Puts to the front what has become overdue."""
        while self._ages and self._ages[0][0] < self._now_ns:
            _, name = heapq.heappop(self._ages)
            part = self._parts.get(name)
            if part is None:
                continue
            self._drop(part, self._orders[name])
            order = self._orders[name] = order_of(part, self._now_ns)
            insort(self._lines.setdefault(key_of(part), []), (order, part))


def _name(part: ReadyPart) -> tuple[str, str]:
    return part.run, part.source


def _last_turn(round: Round, yielded: list[ReadyPart], assignments: list[Assignment]) -> None:
    for part in yielded:
        turn(round, part, assignments, last=True)
    yielded.clear()
