"""How a run of a job begins."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.model.device_jobs import OfDevices, SurveySpec
from caso_mesh.model.jobs import Failure, Job, JobSpec, OfSetsSpec, Run, Terms, VerifySpec
from caso_mesh.model.states import DeviceState
from caso_mesh.planning import lifecycle


def begin(
    state: ControlState,
    job: Job,
    id: str,
    due_at_ns: int,
    at_ns: int,
    who: str,
    *,
    sets: Mapping[str, str] | None = None,
    after: str | None = None,
    after_due_at_ns: int = 0,
    fired_by: str | None = None,
    by_hand: bool = False,
) -> Run:
    """A run whose parts that cannot be done have failed from the start: with a source that left the mesh, or without a
    set to verify, to copy or to make another one of; what that is, a run that follows another one knows when that has
    ended (``after_the_end``). ``by_hand``: a person started it, who need not mind windows."""
    spec = _with_devices(state, _with_sets(job.spec, sets or {}))
    job = msgspec.structs.replace(job, spec=spec)
    run = lifecycle.begin_run(job, id=id, due_at_ns=due_at_ns, at_ns=at_ns, who=who)
    schedule = job.schedule
    terms = Terms(
        start_window_s=schedule.start_window_s if schedule is not None and not by_hand else None,
        cancel_after_s=schedule.cancel_after_s if schedule is not None else None,
        catch_up=schedule.catch_up if schedule is not None and not by_hand else False,
        window="" if by_hand else job.window,
        first=None if by_hand else job.first,
        after=after,
        after_due_at_ns=after_due_at_ns,
        fired_by=fired_by,
    )
    run = msgspec.structs.replace(run, agreed=None if terms == Terms() else terms)
    other = state.runs.get(after or "")
    if after is not None and (other is None or lifecycle.is_open(other)) and isinstance(spec, OfSetsSpec):
        return run
    return _without_the_impossible(state, run, at_ns)


def after_the_end(state: ControlState, run: Run, sets: Mapping[str, str], at_ns: int) -> Run:
    """A run that followed another one, which has ended and made ``sets`` (by source): it is about those."""
    if not isinstance(run.spec, OfSetsSpec) or any(part.attempts for part in run.parts):
        return run
    about = tuple(sets.get(source) or run.spec.set_of(source) for source in run.spec.sources)
    run = msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, sets=about))
    return _without_the_impossible(state, run, at_ns)


def _without_the_impossible(state: ControlState, run: Run, at_ns: int) -> Run:
    for source in lifecycle.sources_of(run.spec):
        failure = _impossible(state, run.spec, source)
        if failure is not None:
            run = lifecycle.fail_part(run, source, at_ns, failure)
    return run


def _with_sets(spec: JobSpec, sets: Mapping[str, str]) -> JobSpec:
    if not isinstance(spec, OfSetsSpec) or spec.sets:
        return spec
    return msgspec.structs.replace(spec, sets=tuple(sets.get(source, "") for source in spec.sources))


def _with_devices(state: ControlState, spec: JobSpec) -> JobSpec:
    """Of every device: of those that take work. What is in a safe, or paused, is left alone."""
    if not isinstance(spec, SurveySpec) or spec.devices:
        return spec
    working = (DeviceState.ONLINE, DeviceState.READ_ONLY)
    ids = tuple(device.id for device in state.device_list() if device.state in working)
    return msgspec.structs.replace(spec, devices=ids or ("",))  # without any there is one part, which fails


def _impossible(state: ControlState, spec: JobSpec, source: str) -> Failure | None:
    if isinstance(spec, VerifySpec):
        return None
    if isinstance(spec, OfDevices):
        if source in state.devices:
            return None
        return Failure("not-found", {"kind": "device", "name": source or "that takes work"})
    if isinstance(spec, OfSetsSpec):
        if spec.set_of(source):
            return None
        return Failure("not-found", {"kind": "set", "name": f"any of {state.name_of(source)}"})
    if source in state.removed:
        return Failure("not-found", {"kind": "server", "name": state.name_of(source)})
    return None
