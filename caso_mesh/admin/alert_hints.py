"""What to do about an alert, with what is known of it in the place of the words that stand for it."""

from __future__ import annotations

import shlex

from caso_mesh.control.state import ControlState
from caso_mesh.model.alerts import OF_END, what_to_do
from caso_mesh.model.states import RunState


def of_alert(state: ControlState, category: str, object: str) -> str:
    """``object``: what the alert says that it is about."""
    known: dict[str, str] = {}
    if category.startswith("job-"):
        run = state.runs.get(object)
        job = state.jobs.get(run.job) if run is not None else None
        known = {"RUN": object, "JOB": job.name if job is not None else ""}
    elif category == "backup-overdue":
        name = object.partition(":")[2]
        selection = next((each for each in state.lists.values() if each.name == name), None)
        jobs = [] if selection is None else _jobs_of(state, selection.id)
        known = {"LIST": name, "JOB": jobs[0] if len(jobs) == 1 else ""}
    elif category == "logon-lost":
        known = {"NAME": object}
    elif category == "notification-failed":
        known = {"RECIPIENT": object}
    return what_to_do(category, {word: shlex.quote(value) for word, value in known.items() if value})


def of_end(state: ControlState, run: str, end: RunState) -> str:
    """Of a run that came to ``end``; empty if there is nothing to do about it."""
    return of_alert(state, OF_END[end], run) if end in OF_END else ""


def _jobs_of(state: ControlState, list_id: str) -> list[str]:
    return [job.name for job in state.job_list() if job.origin is not None and job.origin.list == list_id]
