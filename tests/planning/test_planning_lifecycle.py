"""What becomes of parts and runs, row by row."""

from __future__ import annotations

import msgspec
import pytest

from caso_mesh.model.errors import Misuse
from caso_mesh.model.ids import attempt_id, run_id
from caso_mesh.model.jobs import (
    Attempt,
    BackupSpec,
    Failure,
    Job,
    RestoreSpec,
    Run,
    SourceRoots,
    Target,
    TargetKind,
    VerifySpec,
)
from caso_mesh.model.states import AttemptState, RunState
from caso_mesh.planning import lifecycle
from caso_mesh.planning.window import is_scheduled, missed_sources

A = AttemptState
GONE = Failure("worker-died", {"attempt": "x", "detail": "y"})


class Story:
    """One run with its attempts; every step checks the invariants."""

    def __init__(self, *sources: str) -> None:
        spec = BackupSpec(
            tuple(SourceRoots(source, (b"srv",)) for source in sources or ("src",)), Target(TargetKind.ANY)
        )
        job = Job("job", "nightly", spec, "ann", 0)
        self.run = lifecycle.begin_run(job, id="job@1", due_at_ns=5, at_ns=5, who="ann")
        self.attempts: list[Attempt] = []
        self.now = 10
        self.check()

    def begin(self, source: str = "src") -> Attempt:
        number = lifecycle.next_number(self.run)
        self.run = lifecycle.delegate(self.run, source)
        attempt = Attempt(attempt_id(self.run.id, number), self.run.id, "job", source, "srv", "dev", number, self.now)
        self.attempts.append(attempt)
        self.check()
        return attempt

    def end(self, number: int, state: AttemptState, **options) -> lifecycle.Closed:
        self.now += 1
        closed = lifecycle.close_attempt(self.run, self.attempts[number - 1], state, at_ns=self.now, **options)
        self.run, self.attempts[number - 1] = closed.run, closed.attempt
        part = lifecycle.part_of(self.run, closed.attempt.source)
        if part is not None and not lifecycle.part_is_open(part):
            self.cancel_active(closed.attempt.source)
        self.check()
        return closed

    def cancel_active(self, source: str | None = None) -> None:
        self.attempts = [
            msgspec.structs.replace(row, cancel=True)
            if row.ended_at_ns is None and source in {None, row.source}
            else row
            for row in self.attempts
        ]

    def part(self, source: str = "src"):
        part = lifecycle.part_of(self.run, source)
        assert part is not None
        return part

    def check(self) -> None:
        lifecycle.validate_run(self.run, self.attempts)


@pytest.mark.parametrize(
    ("attempt", "run"),
    [
        (A.SUCCEEDED, RunState.SUCCEEDED),
        (A.SUCCEEDED_WITH_EXCEPTIONS, RunState.SUCCEEDED_WITH_EXCEPTIONS),
        (A.FAILED, RunState.FAILED),
        (A.CANCELED, RunState.CANCELED),
        (A.TIMED_OUT, RunState.TIMED_OUT),
    ],
)
def test_an_end_of_the_only_part_is_the_end_of_the_run(attempt, run):
    story = Story()
    story.begin()
    assert story.run.state is RunState.DELEGATED
    story.end(1, attempt, set="set-1", failure=GONE)
    assert story.run.state is run
    assert story.run.closed_at_ns == story.now
    assert story.part().set == ("set-1" if attempt in {A.SUCCEEDED, A.SUCCEEDED_WITH_EXCEPTIONS} else None)
    assert story.part().failure == GONE


def test_the_last_part_closes_the_run_with_the_worst_state_of_its_parts():
    story = Story("a", "b", "c")
    for source in "abc":
        story.begin(source)
    story.end(2, A.FAILED)
    assert story.run.state is RunState.DELEGATED
    story.end(1, A.SUCCEEDED)
    assert story.run.closed_at_ns is None
    story.end(3, A.SUCCEEDED_WITH_EXCEPTIONS)
    assert story.run.state is RunState.FAILED
    assert [part.state for part in story.run.parts] == [
        RunState.SUCCEEDED,
        RunState.FAILED,
        RunState.SUCCEEDED_WITH_EXCEPTIONS,
    ]


def test_attempts_are_numbered_over_all_parts_of_a_run():
    story = Story("a", "b")
    assert [story.begin("b").id, story.begin("a").id] == ["job@1#1", "job@1#2"]


def test_an_interrupted_part_is_ready_at_once_until_its_retries_are_used_up():
    story = Story()
    for number in (1, 2, 3):
        story.begin()
        story.end(number, A.INTERRUPTED, interrupted_retries=2, retry_not_before_ns=999)
        assert story.part().not_before_ns == 0
        assert story.part().state is (RunState.READY if number < 3 else RunState.FAILED)
    assert story.run.state is RunState.FAILED
    assert story.part().failure is not None
    assert story.part().failure.code == "attempt-failed"


def test_the_first_recovery_is_followed_at_once_the_second_later_the_third_when_a_server_returns():
    story = Story()
    story.begin()
    story.end(1, A.RECOVERED, retry_not_before_ns=999)
    assert (story.part().state, story.part().not_before_ns, story.run.held) == (RunState.READY, 0, False)
    story.begin()
    story.end(2, A.RECOVERED, retry_not_before_ns=999)
    assert (story.part().state, story.part().not_before_ns, story.run.held) == (RunState.READY, 999, False)
    story.begin()
    assert story.part().not_before_ns == 0
    story.end(3, A.RECOVERED, retry_not_before_ns=9999)
    assert (story.run.state, story.run.held, story.run.stranded) == (RunState.ON_HOLD, True, True)
    story.run = lifecycle.hold(story.run, False)
    assert (story.run.state, story.run.held, story.run.stranded) == (RunState.READY, False, False)
    story.begin()
    story.end(4, A.SUCCEEDED, set="s")
    assert story.run.state is RunState.SUCCEEDED


def test_what_was_taken_back_before_it_started_does_not_count_as_recovered():
    story = Story()
    for number in (1, 2, 3, 4):
        story.begin()
        story.end(number, A.RECOVERED, taken_back=True, retry_not_before_ns=999)
        assert (story.part().recovered, story.part().not_before_ns, story.run.held) == (0, 0, False)


def test_a_late_success_of_a_closed_part_is_redundant_and_changes_nothing_else():
    story = Story()
    story.begin()
    story.end(1, A.RECOVERED)
    story.begin()
    story.end(2, A.SUCCEEDED, set="second")
    run = story.run
    closed = story.end(1, A.SUCCEEDED, set="late")
    assert closed.changed
    assert closed.attempt.state is A.REDUNDANT
    assert story.run == run
    assert not story.end(1, A.SUCCEEDED, set="late").changed


def test_a_late_success_while_its_part_is_open_closes_it_and_the_other_attempt_becomes_redundant():
    story = Story()
    story.begin()
    story.end(1, A.RECOVERED)
    story.begin()
    story.end(1, A.SUCCEEDED, set="late")
    assert (story.run.state, story.part().set) == (RunState.SUCCEEDED, "late")
    assert story.attempts[1].cancel
    story.end(2, A.SUCCEEDED, set="second")
    assert story.attempts[1].state is A.REDUNDANT
    assert (story.run.state, story.part().set) == (RunState.SUCCEEDED, "late")


@pytest.mark.parametrize("late", [A.FAILED, A.INTERRUPTED, A.CANCELED, A.RECOVERED])
def test_any_other_late_end_has_no_effect(late):
    story = Story()
    story.begin()
    story.end(1, A.RECOVERED)
    before = story.run, story.attempts[0]
    assert not story.end(1, late).changed
    assert (story.run, story.attempts[0]) == before


def test_a_canceled_run_ends_when_its_active_attempts_end():
    story = Story("a", "b")
    story.begin("a")
    story.run = lifecycle.cancel(story.run, 50)
    story.cancel_active()
    assert story.part("b").state is RunState.CANCELED
    assert story.run.closed_at_ns is None
    story.end(1, A.CANCELED)
    assert (story.run.state, story.run.closed_at_ns) == (RunState.CANCELED, story.now)


@pytest.mark.parametrize("end", [A.INTERRUPTED, A.RECOVERED])
def test_a_canceled_attempt_that_is_lost_is_not_tried_again(end):
    story = Story()
    story.begin()
    story.run = lifecycle.cancel(story.run, 50)
    story.cancel_active()
    story.end(1, end)
    assert story.run.state is RunState.CANCELED


def test_an_attempt_that_succeeded_before_the_cancellation_reached_it_has_succeeded():
    story = Story()
    story.begin()
    story.run = lifecycle.cancel(story.run, 50)
    story.cancel_active()
    story.end(1, A.SUCCEEDED, set="s")
    assert story.run.state is RunState.SUCCEEDED


def test_only_parts_that_never_started_are_missed():
    story = Story("a", "b", "c")
    story.begin("a")
    story.begin("b")
    story.end(2, A.INTERRUPTED)
    story.run = lifecycle.miss(story.run, 60)
    story.check()
    assert [part.state for part in story.run.parts] == [RunState.DELEGATED, RunState.READY, RunState.MISSED]
    story.end(1, A.SUCCEEDED)
    story.begin("b")
    story.end(3, A.SUCCEEDED)
    assert story.run.state is RunState.MISSED


def test_a_run_held_by_a_person_says_so_and_goes_on_when_released():
    story = Story()
    story.run = lifecycle.hold(story.run, True)
    assert (story.run.state, story.run.stranded) == (RunState.ON_HOLD, False)
    story.run = lifecycle.hold(story.run, False)
    assert story.run.state is RunState.READY


def test_misuse_is_refused():
    story = Story()
    attempt = story.begin()
    with pytest.raises(Misuse):
        lifecycle.delegate(story.run, "src")
    with pytest.raises(Misuse):
        lifecycle.delegate(story.run, "nobody")
    for state in (A.RUNNING, A.REDUNDANT):
        with pytest.raises(Misuse):
            lifecycle.close_attempt(story.run, attempt, state, at_ns=1)


@pytest.mark.parametrize(
    "broken",
    [
        lambda run: msgspec.structs.replace(run, state=RunState.SUCCEEDED),
        lambda run: msgspec.structs.replace(run, closed_at_ns=1),
        lambda run: msgspec.structs.replace(run, stranded=True),
        lambda run: msgspec.structs.replace(run, parts=run.parts * 2),
        lambda run: msgspec.structs.replace(run, parts=(msgspec.structs.replace(run.parts[0], state=RunState.READY),)),
        lambda run: msgspec.structs.replace(run, parts=(msgspec.structs.replace(run.parts[0], attempts=2),)),
        lambda run: msgspec.structs.replace(
            run, parts=(msgspec.structs.replace(run.parts[0], state=RunState.RUNNING),)
        ),
    ],
)
def test_the_invariants_notice_a_broken_run(broken):
    story = Story()
    story.begin()
    with pytest.raises(Misuse):
        lifecycle.validate_run(broken(story.run), story.attempts)


def test_a_restore_has_one_part_for_its_target_and_a_verify_one_for_its_sets_server():
    assert lifecycle.sources_of(RestoreSpec("set", "target")) == ("target",)
    assert lifecycle.sources_of(VerifySpec("set", "owner")) == ("owner",)


HOUR = 3600 * 10**9


def scheduled() -> Run:
    story = Story("a", "b")
    return msgspec.structs.replace(story.run, id=run_id("job", 1_750_000_000 * 10**9), due_at_ns=1_750_000_000 * 10**9)


def test_a_scheduled_run_is_missed_one_instant_after_its_window():
    run = scheduled()
    assert is_scheduled(run)
    assert missed_sources(run, 3600.0, run.due_at_ns + HOUR) == ()
    assert missed_sources(run, 3600.0, run.due_at_ns + HOUR + 1) == ("a", "b")
    started = lifecycle.delegate(run, "a")
    assert missed_sources(started, 3600.0, run.due_at_ns + 2 * HOUR) == ("b",)


def test_a_run_that_a_person_started_is_never_missed():
    run = Story().run
    assert not is_scheduled(run)
    assert missed_sources(run, 1.0, run.due_at_ns + 1000 * HOUR) == ()
