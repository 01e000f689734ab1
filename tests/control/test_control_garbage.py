"""What the collector of garbage has to look at."""

from __future__ import annotations

import gc

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
