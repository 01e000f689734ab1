"""Error-handling rules in the control state, and what they make of failed attempts."""

from __future__ import annotations

import pytest
from control_world import NOW, SECOND, Script, backup
from msgspec.structs import replace

from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import Batch, CancelRun, CloseAttempt, CreateErrorRule, DeleteErrorRule, SetJob
from caso_mesh.model.errors import AlreadyExists, InvalidName, InvalidValue, NotFound, UsageError
from caso_mesh.model.jobs import Failure
from caso_mesh.model.rules import Again, ErrorRule, Then
from caso_mesh.model.states import AttemptState, JobState, RunState

RULE = ErrorRule("full", ("device-full",), 2, 600.0, Then.HOLD)
FULL = Failure("device-full", {"device": "disk-b"})


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta", "gamma")
    script.device("disk-b", "beta")
    return script


def fail(mesh: Script, run: str, again: Again | None) -> None:
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    mesh.do(CloseAttempt(id, AttemptState.FAILED, mesh.at_ns, failure=FULL, again=again))


def test_rules_are_made_once_kept_in_snapshots_and_deleted(mesh):
    mesh.do(CreateErrorRule(RULE))
    with pytest.raises(AlreadyExists):
        mesh.do(CreateErrorRule(RULE))
    other = ControlState()
    other.restore(mesh.state.snapshot())
    assert other.error_rules == {"full": RULE}
    mesh.do(DeleteErrorRule("full"))
    assert mesh.state.error_rules == {}
    with pytest.raises(NotFound):
        mesh.do(DeleteErrorRule("full"))


def test_a_rule_is_changed_in_one_step_and_what_it_holds_stays_on_hold(mesh):
    mesh.do(CreateErrorRule(RULE))
    run = mesh.start("j", backup("gamma"))
    fail(mesh, run, Again("full", held=True))
    changed = replace(RULE, retries=5)
    mesh.do(Batch((DeleteErrorRule("full"), CreateErrorRule(changed)), "seed"))
    assert mesh.state.error_rules == {"full": changed}
    assert mesh.state.run(run).parts[0].held_by == "full"
    with pytest.raises(InvalidValue):
        mesh.do(Batch((DeleteErrorRule("full"), CreateErrorRule(replace(RULE, retries=-1))), "seed"))
    assert mesh.state.error_rules == {"full": changed}


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (ErrorRule("r", (), 2, 600.0), UsageError),
        (ErrorRule("r", ("device",), -1, 600.0), InvalidValue),
        (ErrorRule("r", ("device",), 101, 600.0), InvalidValue),
        (ErrorRule("r", ("device",), 1, -1.0), InvalidValue),
        (ErrorRule("r", ("device",), 1, 86401.0), InvalidValue),
        (ErrorRule("R U", ("device",), 1, 1.0), InvalidName),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(mesh, rule, error):
    with pytest.raises(error):
        mesh.do(CreateErrorRule(rule))
    assert mesh.state.error_rules == {}


def test_a_part_that_is_tried_again_waits_for_its_time_and_a_success_closes_it(mesh):
    run = mesh.start("j", backup("gamma"))
    fail(mesh, run, Again("full", NOW + 600 * SECOND))
    row = mesh.state.run(run)
    (part,) = row.parts
    assert (row.state, part.state, part.retried) == (RunState.READY, RunState.READY, 1)
    assert (part.not_before_ns, part.failure) == (NOW + 600 * SECOND, FULL)
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    mesh.do(CloseAttempt(id, AttemptState.SUCCEEDED, mesh.at_ns, set="set"))
    assert mesh.state.run(run).state is RunState.SUCCEEDED
    assert mesh.state.run(run).parts[0].failure is None


def test_a_rule_that_holds_puts_the_job_on_hold_and_its_release_tries_the_run_again(mesh):
    run = mesh.start("j", backup("gamma"))
    fail(mesh, run, Again("full", 1))
    fail(mesh, run, Again("full", held=True))
    job = mesh.state.run(run).job
    assert mesh.state.job(job).state is JobState.ON_HOLD
    assert mesh.state.run(run).parts[0].held_by == "full"
    assert mesh.state.run(run).closed_at_ns is None
    mesh.do(SetJob(job, JobState.ACTIVE))
    (part,) = mesh.state.run(run).parts
    assert (part.held_by, part.retried, part.state) == ("", 0, RunState.READY)
    mesh.delegate(run, source="gamma", server="beta", device="disk-b")


def test_without_a_rule_the_run_fails_and_one_that_is_held_can_be_canceled(mesh):
    run = mesh.start("j", backup("gamma"))
    fail(mesh, run, None)
    assert mesh.state.run(run).state is RunState.FAILED
    held = mesh.start("k", backup("gamma"))
    fail(mesh, held, Again("full", held=True))
    mesh.do(CancelRun(held, mesh.at_ns))
    assert mesh.state.run(held).state is RunState.CANCELED
    assert mesh.state.run(held).parts[0].held_by == ""


def test_a_run_that_is_being_canceled_is_asked_again_by_force_and_only_then(mesh):
    run = mesh.start("j", backup("gamma"))
    id = mesh.delegate(run, source="gamma", server="beta", device="disk-b")
    mesh.do(CancelRun(run, mesh.at_ns))
    assert (mesh.state.attempt(id).cancel, mesh.state.attempt(id).by_force) == (True, False)
    mesh.do(CancelRun(run, mesh.at_ns, by_force=True))
    assert (mesh.state.attempt(id).cancel, mesh.state.attempt(id).by_force) == (True, True)
    mesh.do(CancelRun(run, mesh.at_ns))
    assert mesh.state.attempt(id).by_force
