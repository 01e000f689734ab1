"""Random commands against the control state: whatever is asked in whatever order, its invariants hold, a failing
command changes nothing, and every voter comes to the same state by the log, by a snapshot, or by both."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from control_world import FOUND, NOW, SECOND, backup, device, job, operator, server
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from caso_mesh.control.orders import orders_for
from caso_mesh.control.placing import Cut, Seen, problem_for
from caso_mesh.control.reducer import apply, check_state, validate
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Outcome
from caso_mesh.model.commands import (
    AddDevice,
    AdmitServer,
    AnswerAlert,
    CancelRun,
    CloseAttempt,
    CloseRun,
    Command,
    CreateJob,
    CreatePool,
    CreateToken,
    Delegate,
    DeleteJob,
    DeletePool,
    Envelope,
    HoldRun,
    OpenRun,
    Prune,
    RemoveDevice,
    RemoveServer,
    RunNow,
    SetDevice,
    SetJob,
    SetLiveness,
    SetPool,
    SetServerAddresses,
    SetServerState,
    SetSetting,
    SetVoter,
    decode,
    encode,
)
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import attempt_id
from caso_mesh.model.jobs import Attempt, RestoreSpec, Run, Target, TargetKind, VerifySpec
from caso_mesh.model.mesh import Pool
from caso_mesh.model.states import (
    ATTEMPT_ACTIVE,
    AttemptState,
    DeviceState,
    JobState,
    Liveness,
    Priority,
    Role,
    RunState,
    ServerState,
)
from caso_mesh.planning.lifecycle import next_number, part_is_open
from caso_mesh.planning.placement import place

NAMES = ("alpha", "beta", "gamma", "delta")
names = st.sampled_from(NAMES)
nodes = names.map(lambda name: f"node-{name}")
jobs = st.sampled_from(["j1", "j2", "j3"])
pools = st.sampled_from(["p", "q"])
disks = st.sampled_from(["d1", "d2"])
digests = st.sampled_from([b"1" * 32, b"2" * 32])
times = st.integers(0, 50).map(lambda seconds: NOW + seconds * SECOND)
members = st.lists(nodes, max_size=3).map(tuple)
targets = st.one_of(
    st.just(Target(TargetKind.ANY)),
    pools.map(lambda name: Target(TargetKind.POOL, name)),
    disks.map(lambda name: Target(TargetKind.DEVICE, name)),
    names.map(lambda name: Target(TargetKind.SERVER, name)),
)
backups = st.builds(
    lambda sources, target: backup(*sources, to=target), st.lists(names, min_size=1, max_size=2, unique=True), targets
)
specs = st.one_of(
    backups, backups, nodes.map(lambda node: RestoreSpec("set", node)), nodes.map(lambda node: VerifySpec("set", node))
)
others = st.one_of(
    st.builds(CreateToken, digests, times),
    st.builds(
        lambda name, token: AdmitServer(server(name), operator(f"op-{name}", Role.VIEWER), token),
        names,
        st.none() | digests,
    ),
    st.builds(SetServerState, nodes, st.sampled_from(ServerState)),
    st.builds(SetServerAddresses, nodes, st.just(("h:1",)), st.sampled_from(["1", "2"])),
    st.builds(SetLiveness, nodes, st.sampled_from(Liveness), st.none() | times),
    st.builds(RemoveServer, nodes, st.just("node-alpha")),
    st.builds(SetVoter, nodes, st.booleans(), st.none() | st.binary(min_size=1, max_size=2)),
    st.builds(lambda name, who: CreatePool(Pool(name, who)), pools, members),
    st.builds(lambda name, who: SetPool(Pool(name, who)), pools, members),
    st.builds(DeletePool, pools),
    st.builds(
        lambda name, on: AddDevice(device(name, *on)), disks, st.lists(names, min_size=1, max_size=3, unique=True)
    ),
    st.builds(SetDevice, disks.map("device-{}".format), st.sampled_from(DeviceState), st.integers(-1, 3), st.none()),
    st.builds(RemoveDevice, disks.map("device-{}".format)),
    st.builds(
        SetSetting,
        st.sampled_from(["interrupted-retries", "nonsense"]),
        st.none() | st.floats(-1, 3),
        st.none() | nodes,
        st.none() | pools,
    ),
    st.builds(
        SetJob, jobs.map("job-{}".format), st.none() | st.sampled_from(JobState), st.none() | st.sampled_from(Priority)
    ),
    st.builds(DeleteJob, jobs.map("job-{}".format)),
    st.builds(AnswerAlert, st.sampled_from(["a1", "a2"]), st.sampled_from(["yes", "no"]), times),
    st.builds(Prune, times),
)


class Voters:
    """One voter lives through the log, one follows by snapshots now and then; they must never differ."""

    def __init__(self) -> None:
        self.state, self.other = ControlState(), ControlState()
        self.cut = Cut()
        self.at_ns, self.index = NOW, 0
        self.seen: list[tuple[Envelope, Outcome]] = []
        self.log: list[Envelope] = []
        self.do(FOUND)
        for name in NAMES[:3]:
            self.do(AdmitServer(server(name), None, None))
            self.do(SetLiveness(f"node-{name}", Liveness.ALIVE, None))
        self.do(AddDevice(device("d1", "alpha", "beta", "gamma", concurrency=9)))
        self.do(CreatePool(Pool("p", ("node-alpha", "node-beta"))))

    def do(self, command: Command) -> Any:
        self.at_ns += SECOND
        return self.apply(Envelope(f"request-{self.index}", "ann", self.at_ns, command))

    def apply(self, envelope: Envelope) -> Any:
        self.index += 1
        before = self.rows()
        refused = None
        if envelope.request_id not in self.state.requests:
            try:
                validate(self.state, envelope.command, who=envelope.who, at_ns=envelope.at_ns)
            except CasoError as error:
                refused = error.to_wire()
            assert self.rows() == before, "validating changes nothing"
        outcome = apply(self.state, decode(encode(envelope)), lineage=1, term=1, index=self.index)
        if envelope.request_id not in {old.request_id for old, _ in self.seen}:
            assert outcome.failure == refused, "what is validated is what is applied"
        if outcome.failure is not None:
            assert self.rows() == before, "a failing command changes nothing"
        apply(self.other, decode(encode(envelope)), lineage=1, term=1, index=self.index)
        self.seen.append((envelope, outcome))
        self.log.append(envelope)
        return outcome.result

    def rows(self) -> dict[str, Any]:
        image = msgspec.msgpack.decode(self.state.snapshot())
        return {name: value for name, value in image.items() if name not in {"requests", "authority"}}

    def repeat(self, one: tuple[Envelope, Outcome]) -> None:
        """A request that is remembered gets the same outcome, and nothing happens."""
        envelope, outcome = one
        if envelope.request_id in self.state.requests:
            before = self.rows()
            self.apply(envelope)
            assert self.seen[-1][1] == outcome
            assert self.rows() == before

    def follow_by_snapshot(self) -> None:
        self.other = ControlState()
        self.other.restore(self.state.snapshot())

    def attempt(self, run: Run, source: str, server: str, device: str, *, off: int = 0) -> Attempt:
        number = next_number(run) + off
        return Attempt(attempt_id(run.id, number), run.id, run.job, source, server, device, number, self.at_ns)

    def place_all(self) -> None:
        """What placement assigns is always accepted."""
        problem = problem_for(self.state, connected=set(self.state.servers), device_of_set=lambda _: "device-d1")
        for one in place(problem, self.at_ns).assignments:
            attempt = self.attempt(self.state.run(one.run), one.source, one.server, one.device)
            assert self.do(Delegate(attempt)) == {"attempt": attempt.id}

    def close(self, id: str, state: AttemptState, *, back: bool, wait: int) -> None:
        before = self.state.attempt(id)
        command = CloseAttempt(id, state, self.at_ns, set="set", retry_not_before_ns=wait, taken_back=back)
        result = self.do(command)
        if result is not None and before.state not in ATTEMPT_ACTIVE and result["changed"]:
            assert state in {AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS}

    def check(self) -> None:
        check_state(self.state)
        check_state(self.other)
        assert self.state.snapshot() == self.other.snapshot()
        # Also what is listed comes in one order, whether it was lived through or restored.
        for ask in (
            ControlState.open_runs,
            ControlState.active_attempts,
            ControlState.server_list,
            ControlState.job_list,
        ):
            assert ask(self.state) == ask(self.other)
        for attempt in self.state.active_attempts():
            run = self.state.run(attempt.run)
            assert attempt.cancel or any(part.source == attempt.source and part_is_open(part) for part in run.parts)
        # who places remembers what was, and comes to the same tables as one who does not
        seen = Seen(connected=set(self.state.servers), device_of_set=lambda _: "device-d1", learnt="nothing")
        assert self.cut.problem(self.state, seen) == Cut().problem(self.state, seen)
        for row in self.state.server_list():
            orders_for(
                self.state, row.id, self.state.authority, "node-alpha", lambda source: (), lambda attempt, run: b""
            )

    def check_replay(self) -> None:
        again = ControlState()
        for index, envelope in enumerate(self.log, start=1):
            apply(again, envelope, lineage=1, term=1, index=index)
        assert again.snapshot() == self.state.snapshot(), "the same log gives the same state"


class Mesh(RuleBasedStateMachine):
    """Hypothesis chooses the commands, and looks for the shortest sequence that breaks something."""

    @initialize()
    def found(self) -> None:
        self.voters = Voters()

    @property
    def state(self) -> ControlState:
        return self.voters.state

    def do(self, command: Command) -> Any:
        return self.voters.do(command)

    @property
    def at_ns(self) -> int:
        return self.voters.at_ns

    @rule(command=others)
    def ask(self, command: Command) -> None:
        self.do(command)

    @rule(name=jobs, spec=specs, run_now=st.booleans())
    def create_job(self, name: str, spec: Any, run_now: bool) -> None:
        self.do(CreateJob(job(name, spec), run_now, self.at_ns))

    @precondition(lambda self: self.state.jobs)
    @rule(data=st.data(), due=times, now=st.booleans())
    def begin_run(self, data: st.DataObject, due: int, now: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.state.jobs)))
        self.do(RunNow(id, self.at_ns) if now else OpenRun(id, due, self.at_ns))

    @precondition(lambda self: self.state.runs)
    @rule(data=st.data(), what=st.sampled_from(["cancel", "hold", "release", "missed", "timed-out"]))
    def steer_run(self, data: st.DataObject, what: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.state.runs)))
        match what:
            case "cancel":
                self.do(CancelRun(id, self.at_ns))
            case "hold" | "release":
                self.do(HoldRun(id, what == "hold"))
            case _:
                self.do(CloseRun(id, RunState(what), self.at_ns))

    @precondition(lambda self: self.state.open_runs())
    @rule(data=st.data(), node=nodes, disk=disks, off=st.integers(0, 9).map(lambda number: number == 9))
    def delegate(self, data: st.DataObject, node: str, disk: str, off: bool) -> None:
        """By hand, also where it is not possible."""
        run = data.draw(st.sampled_from(self.state.open_runs()))
        part = data.draw(st.sampled_from(run.parts))
        self.do(Delegate(self.voters.attempt(run, part.source, node, f"device-{disk}", off=off)))

    @precondition(lambda self: self.state.open_runs())
    @rule()
    def place_all(self) -> None:
        self.voters.place_all()

    @precondition(lambda self: self.state.attempts)
    @rule(data=st.data(), state=st.sampled_from(AttemptState), back=st.booleans(), wait=times)
    def close(self, data: st.DataObject, state: AttemptState, back: bool, wait: int) -> None:
        self.voters.close(data.draw(st.sampled_from(sorted(self.state.attempts))), state, back=back, wait=wait)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.voters.repeat(data.draw(st.sampled_from(self.voters.seen)))

    @rule()
    def follow_by_snapshot(self) -> None:
        self.voters.follow_by_snapshot()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "voters"):
            self.voters.check()

    def teardown(self) -> None:
        if hasattr(self, "voters"):
            self.voters.check_replay()


Mesh.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestRandomCommands = Mesh.TestCase


ENDS = [state for state in AttemptState if state not in ATTEMPT_ACTIVE]


@pytest.mark.parametrize("seed", range(8))
def test_a_long_random_life_of_jobs_keeps_every_invariant(seed):
    """Hypothesis likes short sequences; here work dominates, so that recoveries, late results, cancellations and
    removals meet each other."""
    rng = random.Random(seed)
    voters = Voters()
    ends: set[AttemptState] = set()
    for step in range(250):
        state = voters.state
        kind = rng.choices(
            ["job", "again", "place", "close", "run", "server", "repeat", "snapshot", "prune"],
            [6, 8, 20, 40, 8, 8, 4, 4, 1],
        )[0]
        if kind == "job":
            sources = rng.sample(NAMES, rng.randint(1, 2))
            voters.do(CreateJob(job(f"job{step}", backup(*sources)), run_now=True, at_ns=voters.at_ns))
        elif kind == "again" and state.jobs:
            id = rng.choice(sorted(state.jobs))
            voters.do(
                rng.choice(
                    [
                        RunNow(id, voters.at_ns),
                        OpenRun(id, voters.at_ns, voters.at_ns),
                        DeleteJob(id),
                        SetJob(id, JobState.ACTIVE),
                    ]
                )
            )
        elif kind == "place":
            voters.place_all()
        elif kind == "close" and state.attempts:
            active = [attempt.id for attempt in state.active_attempts()]
            id = rng.choice(active if active and rng.random() < 0.7 else sorted(state.attempts))
            voters.close(id, rng.choice(ENDS), back=rng.random() < 0.2, wait=rng.choice([0, voters.at_ns + 5 * SECOND]))
            ends.add(state.attempts[id].state)
        elif kind == "run" and state.runs:
            id = rng.choice(sorted(state.runs))
            closed = rng.choice([RunState.MISSED, RunState.TIMED_OUT, RunState.CANCELED])
            voters.do(
                rng.choice(
                    [
                        CancelRun(id, voters.at_ns),
                        HoldRun(id, True),
                        HoldRun(id, False),
                        CloseRun(id, closed, voters.at_ns),
                    ]
                )
            )
        elif kind == "server":
            name = rng.choice(NAMES)
            id = f"node-{name}"
            command = rng.choice(
                [
                    AdmitServer(server(name), None, None),
                    SetLiveness(id, rng.choice([Liveness.ALIVE, Liveness.ALIVE, Liveness.STALLED]), voters.at_ns),
                    SetServerState(id, rng.choice([ServerState.ENABLED, ServerState.ENABLED, ServerState.PAUSED])),
                ]
            )
            voters.do(RemoveServer(id, "node-alpha") if rng.random() < 0.03 else command)
        elif kind == "repeat":
            voters.repeat(rng.choice(voters.seen))
        elif kind == "snapshot":
            voters.follow_by_snapshot()
        elif kind == "prune":
            voters.do(Prune(voters.at_ns - 60 * SECOND))
        voters.check()
    voters.check_replay()
    assert ends >= {AttemptState.SUCCEEDED, AttemptState.RECOVERED, AttemptState.INTERRUPTED, AttemptState.REDUNDANT}
