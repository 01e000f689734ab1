"""What the collector of garbage has to look at."""

from __future__ import annotations

import gc

from bench.whatif import site

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.jobs import Attempt, BackupSpec, Failure, Part, Run, SourceRoots, Target, TargetKind
from caso_mesh.model.states import AttemptState, Priority, RunState

RUNS = 2000


def test_closed_runs_cost_the_collector_of_garbage_nothing() -> None:
    """With a hundred thousand of them each full look for garbage stopped everything for 200 ms."""
    gc.collect()
    before = len(gc.get_objects())
    state, spec = ControlState(), BackupSpec((SourceRoots("alpha", (b"srv",)),), Target(TargetKind.ANY))
    for n in range(RUNS):
        failure = Failure("device-full", {"device": f"d{n}"})
        parts = (Part("alpha", RunState.FAILED, 1, failure=failure), Part("beta", RunState.SUCCEEDED, 1, set=f"set{n}"))
        run = Run(f"run{n}", "job", "nightly", spec, Priority.LOW, n, n, "ann", parts, RunState.FAILED, closed_at_ns=n)
        tried = Attempt(f"run{n}#1", run.id, "job", "alpha", "beta", "disk", 1, n, AttemptState.FAILED, failure=failure)
        state.write([Put("runs", run.id, run), Put("attempts", tried.id, tried)])
    gc.collect()
    assert len(state.runs) == RUNS
    assert len(gc.get_objects()) - before < RUNS / 10


def test_the_rows_of_many_servers_cost_the_collector_of_garbage_nothing() -> None:
    """With 3,000 of them each full look, as a report brings about, held the loop for 25 ms."""
    gc.collect()
    before = len(gc.get_objects())
    state = site(RUNS, RUNS)[0]
    gc.collect()
    assert len(state.servers) == len(state.lists) == RUNS
    assert len(gc.get_objects()) - before < RUNS / 2


def test_a_draft_and_what_it_was_made_of_know_nothing_of_each_other() -> None:
    """Whichever of both is written to, and however often it was drafted before."""
    spec = BackupSpec((SourceRoots("alpha", (b"srv",)),), Target(TargetKind.ANY))

    def written(state: ControlState, number: int) -> None:
        run = Run(f"job@{number}", "job", "nightly", spec, Priority.LOW, number, number, "ann", ())
        tried = Attempt(f"job@0#{number}", "job@0", "job", "alpha", "beta", "disk", number, 0)
        state.write([Put("runs", run.id, run), Put("attempts", tried.id, tried)])

    def seen(state: ControlState) -> tuple[list[str], list[int]]:
        return [run.id for run in state.runs_of("job")], [each.number for each in state.attempts_of("job@0")]

    def shows(*numbers: int) -> tuple[list[str], list[int]]:
        return [f"job@{number}" for number in numbers], [*numbers]

    state = ControlState()
    written(state, 0)
    first = state.draft()
    second = first.draft()
    written(first, 1)
    written(state, 2)
    written(state, 3)
    assert (seen(state), seen(first), seen(second)) == (shows(0, 2, 3), shows(0, 1), shows(0))
    third = state.draft()
    written(state, 4)
    for id in ("job@0", "job@2", "job@3"):
        third.write([Put("runs", id, None)])
    third.write([Put("attempts", f"job@0#{number}", None) for number in (0, 2)])
    assert (seen(state), seen(third)) == (shows(0, 2, 3, 4), ([], [3]))
    written(third, 5)
    written(second, 6)
    assert (seen(third), seen(second), seen(first)) == ((["job@5"], [3, 5]), shows(0, 6), shows(0, 1))
