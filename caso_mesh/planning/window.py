"""The start window: a scheduled run that could not start in it is missed."""

from __future__ import annotations

from caso_mesh.model.ids import run_id
from caso_mesh.model.jobs import Run
from caso_mesh.model.states import RunState

_SECOND = 1_000_000_000


def is_scheduled(run: Run) -> bool:
    """Whether a run came by its job's schedule. One that a person started ("run now") is never missed."""
    return run.id == run_id(run.job, run.due_at_ns)


def window_ends_ns(run: Run, start_window_s: float) -> int:
    """The last instant at which a part of the run may start for the first time."""
    return run.due_at_ns + round(start_window_s * _SECOND)


def missed_sources(run: Run, start_window_s: float, now_ns: int) -> tuple[str, ...]:
    """The parts (by source) of a run that never started and will not: ``CloseRun`` with ``missed`` closes them.

    A part that started once and waits for another try is not missed, however long that takes.
    """
    if run.closed_at_ns is not None or not is_scheduled(run) or now_ns <= window_ends_ns(run, start_window_s):
        return ()
    return tuple(part.source for part in run.parts if part.state is RunState.READY and part.attempts == 0)
