"""What becomes of active attempts when a server is lost: commands that close them, so that they are tried again."""

from __future__ import annotations

from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import CloseAttempt
from caso_mesh.model.jobs import Attempt
from caso_mesh.model.settings import number
from caso_mesh.model.states import AttemptState
from caso_mesh.planning import lifecycle

_SECOND = 1_000_000_000


def give_up(state: ControlState, attempt: Attempt, at_ns: int, *, started: bool) -> CloseAttempt:
    """For an attempt whose media server is lost: its part is recovered elsewhere, the second time after a pause."""
    run = state.runs.get(attempt.run)
    part = None if run is None else lifecycle.part_of(run, attempt.source)
    wait_s = number(state.settings_of_mesh(), "recovery-retry-s") if part is not None and part.recovered else 0.0
    return CloseAttempt(
        attempt.id,
        AttemptState.RECOVERED,
        at_ns,
        retry_not_before_ns=at_ns + round(wait_s * _SECOND) if wait_s else 0,
        taken_back=not started,
    )


def take_back(attempt: Attempt, at_ns: int) -> CloseAttempt:
    """For an attempt whose media server is there and whose other end is lost: its part waits for that."""
    return CloseAttempt(attempt.id, AttemptState.RECOVERED, at_ns, taken_back=True)
