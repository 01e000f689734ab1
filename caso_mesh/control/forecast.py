"""What a night to come will be like: the site as it is, in virtual time, by the very commands and rules by which the office
works. Every due time is judged and opened, every ready part is placed, every end closes its attempt, and starts what the
rules of its policy start, on a draft of the control state.

A run takes as long, and stores as much, as history says; what nobody can predict takes what is typical. Nothing fails,
but what finds its device full. Whoever is away stays away. Pure: the state that is handed in is not changed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from caso_mesh.control.dues import Late, lateness, latest_due_ns, makers_of, next_due_of, opening
from caso_mesh.control.foretold import (
    Away,
    Forecast,
    Known,
    PartForecast,
    Use,
    category_of,
    device_forecast,
    failure_of,
    typical_s,
)
from caso_mesh.control.losses import give_up, take_back
from caso_mesh.control.orders import ends_of
from caso_mesh.control.placing import AT_ONCE, OPENED_WITHIN_NS, Cut, Seen, attempt_of, beside, in_vain
from caso_mesh.control.reducer import enact
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Put
from caso_mesh.model.commands import CloseAttempt, CloseRun, Command, Delegate, SetLiveness
from caso_mesh.model.errors import CasoError, DeviceFull, DeviceVanished, NotReady
from caso_mesh.model.jobs import Attempt, Job, Part, Run, Waiting, kind_of, makes_sets
from caso_mesh.model.settings import number
from caso_mesh.model.states import ATTEMPT_ACTIVE, PASSING, AttemptState, Liveness, RunState
from caso_mesh.planning import lifecycle
from caso_mesh.planning.history import Prediction
from caso_mesh.planning.placement import OVERDUE_NS
from caso_mesh.planning.planner import Planner
from caso_mesh.planning.predicting import StoredSet, predicted
from caso_mesh.planning.problem import Plan
from caso_mesh.planning.retrying import again_after
from caso_mesh.planning.window import is_scheduled, opens_ns, window_ends_ns

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
#: So long after its last due time a night is looked at, if it takes so long.
_LONGEST_NS = 12 * 3600 * _SECOND
#: What happens at the same instant, in this order.
_END, _DUE, _LATE, _TOO_LONG, _LOOK = range(5)

_Part = tuple[str, str]


def forecast(
    state: ControlState,
    known: Known,
    away: Away,
    *,
    now_ns: int,
    from_ns: int,
    until_ns: int,
    go_on: Callable[[], bool] = lambda: True,
) -> Forecast:
    """Lives through the time from ``now_ns`` on, and tells of runs open at ``from_ns`` or due before ``until_ns``; ``go_on`` ends it."""
    night = _Night(state.draft(), known, away, now_ns=now_ns, from_ns=from_ns, until_ns=until_ns)
    night.live(go_on)
    return night.told()


class _Night:
    def __init__(
        self, state: ControlState, known: Known, away: Away, *, now_ns: int, from_ns: int, until_ns: int
    ) -> None:
        self._state = state
        self._known = known
        self._away = away
        self._now_ns, self._from_ns, self._until_ns = now_ns, from_ns, until_ns
        self._history = known.history
        self._typical_s = typical_s(known.history)
        self._window_s = number(state.settings_of_mesh(), "start-window-s")
        seen = known.seen
        self._connected = set(seen.connected) - away.servers
        gone = [state.devices[id] for id in away.devices if id in state.devices]
        self._broken = {
            **seen.broken,
            **{(device.id, path.server): DeviceVanished.code for device in gone for path in device.paths},
        }
        self._holdings = dict.fromkeys(seen.holdings)
        self._held = seen.holdings
        self._stored_bytes = dict(seen.stored_bytes)
        self._free = dict(seen.free_bytes)
        self._sets = {**known.sets, **{each.id: each for each in known.newest.values()}}
        self._newest = dict(known.newest)
        self._cut, self._planner = Cut(), Planner()
        self._plan: Plan | None = None
        self._events: list[tuple[int, int, str]] = []
        self._looks: set[int] = set()
        self._ends_ns: dict[str, int] = {}
        self._expected_ns: dict[str, int] = {}
        self._to_come: dict[str, int] = {}
        self._open: set[str] = set()
        self._ready: set[_Part] = set()
        self._fresh: set[_Part] = set()  # ready since the last plan
        self._followers: dict[str, list[str]] = {}
        self._waits: dict[_Part, Waiting] = {}
        self._guessed: set[str] = set()
        self._made: dict[_Part, int] = {}
        self._stored_on: dict[str, int] = {}
        self._full_at_ns: dict[str, int] = {}
        self._rounds = 0

    # --- living through it ---

    def live(self, go_on: Callable[[], bool]) -> None:
        """From now to the end of the last run that can end."""
        self._begin()
        last_ns = self._until_ns + _LONGEST_NS
        while self._events and self._events[0][0] <= last_ns and go_on() and not self._is_over():
            self._now_ns = max(self._now_ns, self._events[0][0])
            while self._events and self._events[0][0] <= self._now_ns:
                _, what, which = heapq.heappop(self._events)
                self._happen(what, which)
            self._place()

    def _begin(self) -> None:
        state = self._state
        for run in state.open_runs():
            self._take([Put("runs", run.id, run)])
        for id in sorted(self._away.servers):
            self._do(SetLiveness(id, Liveness.NO_COMMUNICATION, self._now_ns))
        for attempt in state.active_attempts():
            self._take_over(attempt)
        for device in state.devices:
            self._note_space(device)
        for job in state.jobs.values():
            self._expect(job)
        self._at(self._now_ns, _LOOK)

    def _take_over(self, attempt: Attempt) -> None:
        """An attempt that runs when it begins."""
        run = self._state.run(attempt.run)
        if attempt.server in self._away.servers:
            self._do(give_up(self._state, attempt, self._now_ns, started=True))
        elif not self._away.servers.isdisjoint(ends_of(attempt, run)):
            self._do(take_back(attempt, self._now_ns))
        else:
            prediction = self._predicted(run, attempt.source)
            told_ns = self._known.seen.ends_at_ns.get(attempt.id)
            self._to_come[attempt.id] = self._known.seen.to_come_bytes.get(attempt.id, 0)
            if told_ns is not None:
                self._expected_ns[attempt.id] = told_ns
            else:
                self._guessed.add(attempt.id)
            fails = not self._away.devices.isdisjoint({attempt.device, attempt.from_device})
            ends_ns = told_ns or attempt.delegated_at_ns + self._guess_ns(prediction)
            self._run_until(attempt, self._now_ns if fails else ends_ns)

    def _is_over(self) -> bool:
        """Whether nothing more will become of the runs that are looked at: all are closed, or wait for what does not come
        by itself."""
        if self._now_ns < self._until_ns:
            return False
        left = [run for id in self._open if (run := self._state.runs[id]).due_at_ns < self._until_ns]
        if any(part.state is RunState.DELEGATED for run in left for part in run.parts):
            return False
        if any(self._may_be_missed(run) for run in left):
            return False
        waits = [self._why((run.id, part.source)) for run in left for part in run.parts if part.state is RunState.READY]
        return not any(each is None or each.reason in PASSING for each in waits)

    def _may_be_missed(self, run: Run) -> bool:
        """Whether the end of its start window is still to come."""
        ends_ns = window_ends_ns(run, self._window_s, self._state.runs.get(run.terms.after or ""))
        return is_scheduled(run) and ends_ns is not None and ends_ns >= self._now_ns

    def _happen(self, what: int, which: str) -> None:
        if what == _END:
            self._end(which)
        elif what == _DUE:
            self._open_due(which)
        elif what == _LATE:
            self._look_whether_late(which)
        elif what == _TOO_LONG:
            self._end_what_takes_too_long(which)

    def _do(self, command: Command) -> None:
        effect = enact(self._state, command, Context("admin", self._now_ns))
        self._take(effect.changes)

    def _at(self, at_ns: int, what: int, which: str = "") -> None:
        if what == _LOOK:
            if at_ns in self._looks:
                return
            self._looks.add(at_ns)
        heapq.heappush(self._events, (at_ns, what, which))

    # --- due times ---

    def _expect(self, job: Job) -> None:
        due_ns = next_due_of(job)
        if due_ns is not None:
            self._at(max(due_ns, self._now_ns), _DUE, job.id)

    def _open_due(self, id: str) -> None:
        job = self._state.jobs.get(id)
        due_ns = None if job is None else next_due_of(job)
        if job is None or job.schedule is None or due_ns is None:
            return
        if due_ns < self._now_ns:
            due_ns = latest_due_ns(job.schedule, due_ns - 1, self._now_ns) or due_ns
        if due_ns <= self._now_ns:
            self._do(opening(self._state, job, due_ns, self._now_ns, self._sets_for(job)))
            for run in self._state.runs_of(id):
                if run.id in self._open and run.terms.catch_up:
                    self._at(self._now_ns + 1, _LATE, run.id)  # it may be overtaken now
            if self._state.jobs[id] is job:
                return  # that run was there already
        self._expect(self._state.jobs[id])

    def _sets_for(self, job: Job) -> dict[str, str]:
        """The newest sets of the sources that a job is about."""
        makers = makers_of(self._state, job)
        found: dict[str, str] = {}
        for source in lifecycle.sources_of(job.spec) if makers else ():
            sets = [known for maker in makers if (known := self._newest.get((maker, source))) is not None]
            if sets:
                found[source] = max(sets, key=lambda each: each.ended_at_ns).id
        return found

    def _watch(self, run: Run) -> None:
        """Looks at a run again when its start window is over."""
        follows = self._state.runs.get(run.terms.after or "")
        ends_ns = window_ends_ns(run, self._window_s, follows)
        if ends_ns is not None:
            self._at(max(self._now_ns, ends_ns + 1), _LATE, run.id)
        elif follows is not None:
            self._followers.setdefault(follows.id, []).append(run.id)

    def _look_whether_late(self, id: str) -> None:
        run = self._state.runs.get(id)
        if run is None or id not in self._open:
            return
        late = lateness(self._state, run, self._window_s, self._now_ns)
        if late is Late.MISSED:
            for each in run.parts:
                self._explain((id, each.source))
            self._do(CloseRun(id, RunState.MISSED, self._now_ns))
        elif late is None:
            follows = self._state.runs.get(run.terms.after or "")
            ends_ns = window_ends_ns(run, self._window_s, follows)
            if ends_ns is None or ends_ns >= self._now_ns:
                self._watch(run)

    # --- handing out ---

    def _place(self) -> None:
        """As the office does: some assignments of a plan, then another plan, until there is nothing to hand out."""
        while self._ready:
            problem = self._cut.problem(self._state, self._seen())
            self._plan, self._shut = (plan := self._planner.plan(problem, self._now_ns)), problem.shut
            self._rounds += 1
            for id, waits in in_vain(self._state, plan):
                self._do(CloseRun(id, RunState.FAILED, self._now_ns, failure_of(NotReady(reason=waits.reason))))
            for one in plan.assignments[:AT_ONCE]:
                run = self._state.runs[one.run]
                part = lifecycle.part_of(run, one.source)
                if run.held or part is None or part.state is not RunState.READY:
                    continue  # it is a test run that was just ended
                attempt, second = attempt_of(run, one, self._now_ns), None
                if one.second_device:
                    attempt, second = beside(attempt, one.second_server, one.second_device)
                self._do(Delegate(attempt, second))
                self._start(run, attempt)
                if second is not None:
                    self._start_beside(run, attempt, second)
            if len(plan.assignments) <= AT_ONCE:
                break
        for name in sorted(self._fresh & self._ready):
            self._explain(name)
        self._fresh.clear()
        if self._ready:
            self._look_again()

    def _look_again(self) -> None:
        """Time alone lets a part start: a window opens, it is tried again, or it waited so long that it takes what there is."""
        if self._ends_ns:
            self._at((self._now_ns // _MINUTE + 1) * _MINUTE, _LOOK)
            return
        for id, source in self._ready:
            run = self._state.runs[id]
            part = lifecycle.part_of(run, source)
            window = "" if part is None or part.any_time else run.terms.window
            for at_ns in (
                *self._shut.values(),
                opens_ns(window, self._now_ns),
                None if part is None else part.not_before_ns,
                run.due_at_ns + OVERDUE_NS + 1,
                run.terms.after_due_at_ns + OPENED_WITHIN_NS + 1,
            ):
                if at_ns is not None and at_ns > self._now_ns:
                    self._at(at_ns, _LOOK)

    def _seen(self) -> Seen:
        if len(self._held) < len(self._holdings):
            self._held = tuple(self._holdings)
        return replace(
            self._known.seen,
            connected=self._connected,
            device_of_set=self._device_of,
            predicted=self._predicted,
            free_bytes=self._free,
            holdings=self._held,
            ends_at_ns=self._expected_ns,
            to_come_bytes=self._to_come,
            stored_bytes=self._stored_bytes,
            broken=self._broken,
            learnt=self._history,
            now_ns=self._now_ns,
        )

    def _device_of(self, set_id: str) -> str | None:
        known = self._sets.get(set_id)
        return None if known is None else known.device

    def _predicted(self, run: Run, source: str) -> Prediction:
        return predicted(self._history, run, source, self._sets.get)

    def _guess_ns(self, prediction: Prediction) -> int:
        return round((self._typical_s if prediction.seconds is None else prediction.seconds) * _SECOND)

    def _start(self, run: Run, attempt: Attempt) -> None:
        prediction = self._predicted(run, attempt.source)
        holds = (attempt.source, attempt.device) in self._holdings
        seconds = prediction.takes_s(holds=holds, speed=self._history.speed_of(attempt.server, attempt.device))
        if seconds is None:
            self._guessed.add(attempt.id)
            ends_ns = self._now_ns + self._guess_ns(prediction)
        else:
            ends_ns = self._expected_ns[attempt.id] = self._now_ns + round(seconds * _SECOND)
        self._to_come[attempt.id] = prediction.stores(holds=holds) if makes_sets(run.spec) else 0
        self._run_until(attempt, ends_ns)
        limit_s = run.terms.cancel_after_s
        if limit_s is not None and not any(part.attempts for part in run.parts):
            self._at(self._now_ns + round(limit_s * _SECOND), _TOO_LONG, run.id)

    def _start_beside(self, run: Run, first: Attempt, second: Attempt) -> None:
        """What goes to a second device goes in step with the first one, and is as much."""
        holds = (second.source, second.device) in self._holdings
        self._to_come[second.id] = self._predicted(run, first.source).stores(holds=holds)
        if first.id in self._expected_ns:
            self._expected_ns[second.id] = self._expected_ns[first.id]
        else:
            self._guessed.add(second.id)
        self._run_until(second, self._ends_ns[first.id])

    def _run_until(self, attempt: Attempt, ends_ns: int) -> None:
        self._ends_ns[attempt.id] = ends_ns
        self._at(max(self._now_ns, ends_ns), _END, attempt.id)

    # --- ends ---

    def _end(self, id: str) -> None:
        attempt = self._state.attempts.get(id)
        if id not in self._ends_ns or attempt is None or attempt.state not in ATTEMPT_ACTIVE:
            return
        run, size = self._state.run(attempt.run), self._to_come[id]
        free = self._free.get(attempt.device)
        if attempt.device in self._away.devices or attempt.from_device in self._away.devices:
            gone = attempt.device if attempt.device in self._away.devices else attempt.from_device
            self._fail(
                run, attempt, DeviceVanished(device=self._state.device(gone).name, detail="it is taken to be away")
            )
        elif free is not None and size > free:
            self._full_at_ns.setdefault(attempt.device, self._now_ns)
            self._fail(run, attempt, DeviceFull(device=self._state.device(attempt.device).name))
        else:
            self._succeed(run, attempt, size)

    def _succeed(self, run: Run, attempt: Attempt, size: int) -> None:
        made = None
        if makes_sets(run.spec):
            made = f"set-of-{attempt.id}"
            before = self._newest.get((run.job, attempt.source))
            whole = size if before is None else before.bytes
            self._sets[made] = self._newest[run.job, attempt.source] = StoredSet(
                made, attempt.device, whole, self._now_ns
            )
            self._holdings[attempt.source, attempt.device] = None
            place = (attempt.server, attempt.device)
            self._stored_bytes[place] = self._stored_bytes.get(place, 0) + size
            self._stored_on[attempt.device] = self._stored_on.get(attempt.device, 0) + size
            self._made[run.id, attempt.source] = size
            if attempt.device in self._free:
                self._free[attempt.device] -= size
                self._note_space(attempt.device)
        self._do(CloseAttempt(attempt.id, AttemptState.SUCCEEDED, self._now_ns, set=made))

    def _fail(self, run: Run, attempt: Attempt, error: CasoError) -> None:
        failure = failure_of(error)
        rules = self._state.error_rules.values()
        again = again_after(rules, run, attempt, failure, category_of, self._now_ns)
        self._do(CloseAttempt(attempt.id, AttemptState.FAILED, self._now_ns, failure=failure, again=again))

    def _end_what_takes_too_long(self, id: str) -> None:
        run = self._state.runs.get(id)
        if run is None or id not in self._open or run.terms.timed_out:
            return
        self._do(CloseRun(id, RunState.TIMED_OUT, self._now_ns, lifecycle.too_long(run)))
        for attempt in self._state.attempts_of(id):
            if attempt.state in ATTEMPT_ACTIVE:
                self._do(CloseAttempt(attempt.id, AttemptState.CANCELED, self._now_ns))

    def _note_space(self, id: str) -> None:
        free = self._free.get(id)
        if free is not None and free < self._state.device(id).low_space_bytes:
            self._full_at_ns.setdefault(id, self._now_ns)

    # --- what changed ---

    def _take(self, changes: Iterable[Put]) -> None:
        for change in changes:
            if change.table == "attempts" and change.record.state not in ATTEMPT_ACTIVE:
                for table in (self._ends_ns, self._expected_ns, self._to_come):
                    table.pop(change.key, None)
            elif change.table == "runs":
                self._take_run(change.record)

    def _take_run(self, run: Run) -> None:
        for part in run.parts:
            key = (run.id, part.source)
            if part.state is RunState.READY and key not in self._ready:
                self._ready.add(key)
                self._fresh.add(key)
            elif part.state is not RunState.READY:
                self._ready.discard(key)
        if run.closed_at_ns is None and run.id not in self._open:
            self._open.add(run.id)
            self._watch(run)
        elif run.closed_at_ns is not None:
            self._open.discard(run.id)
            for id in self._followers.pop(run.id, ()):
                self._watch(self._state.runs[id])

    def _why(self, part: _Part) -> Waiting | None:
        return None if self._plan is None else self._plan.waiting.get(part)

    def _explain(self, part: _Part) -> None:
        """Keeps why a part waits now."""
        waits = self._why(part)
        if waits is not None:
            self._waits[part] = waits

    # --- what came of it ---

    def told(self) -> Forecast:
        state = self._state
        parts, uses = [], []
        for run in state.runs.values():
            if run.due_at_ns >= self._until_ns or (run.closed_at_ns or self._from_ns) < self._from_ns:
                continue
            attempts = state.attempts_of(run.id)
            parts += [self._told(run, part, attempts) for part in run.parts]
        for attempt in state.attempts.values():
            ends_ns = attempt.ended_at_ns or max(self._now_ns, self._ends_ns.get(attempt.id, 0))
            if ends_ns > self._from_ns:
                begins_ns = max(self._from_ns, attempt.delegated_at_ns)
                uses.append(Use(attempt.server, attempt.device, attempt.other, begins_ns, ends_ns))
        free = (self._known.seen.free_bytes, self._free)
        devices = tuple(
            device_forecast(each.id, self._stored_on, free, self._full_at_ns) for each in state.device_list()
        )
        away = frozenset(state.servers) - self._connected
        parts.sort(key=lambda part: (part.due_at_ns, part.name, part.run, part.source))
        return Forecast(tuple(parts), devices, tuple(uses), away, self._now_ns, self._rounds)

    def _told(self, run: Run, part: Part, attempts: list[Attempt]) -> PartForecast:
        key, mine = (run.id, part.source), [each for each in attempts if each.source == part.source]
        if part.state is RunState.READY:
            self._explain(key)
        last = mine[-1] if mine else None
        return PartForecast(
            run=run.id,
            job=run.job,
            name=run.name,
            source=part.source,
            kind=kind_of(run.spec),
            due_at_ns=run.due_at_ns,
            state=part.state,
            begins_at_ns=mine[0].delegated_at_ns if mine else None,
            ends_at_ns=None if last is None or lifecycle.part_is_open(part) else last.ended_at_ns,
            server="" if last is None else last.server,
            device="" if last is None else last.device,
            stored_bytes=self._made.get(key, 0),
            guessed=any(each.id in self._guessed for each in mine),
            waits=self._waits.get(key),
        )
