"""The tables of placement, cut out of the control state and of what only the administrator in office knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import (
    Attempt,
    BackupSpec,
    JobSpec,
    Part,
    RestoreSpec,
    Run,
    TestRunSpec,
    VerifySpec,
    backup_of,
    kind_of,
)
from caso_mesh.model.settings import number
from caso_mesh.model.states import AttemptState, JobState, RunState
from caso_mesh.planning.problem import Busy, DeviceRow, PoolRow, Problem, ReadyPart, ServerRow


def problem_for(
    state: ControlState,
    *,
    connected: Collection[str],
    device_of_set: Callable[[str], str | None],
    predicted_s: Callable[[Run, str], float | None] = lambda run, source: None,
    free_bytes: Mapping[str, int] | None = None,
    silent_since_ns: Mapping[str, int] | None = None,
    holdings: Iterable[tuple[str, str]] = (),
    no_data_path: Iterable[tuple[str, str]] = (),
    in_grace: bool = False,
) -> Problem:
    """Everything that ``planning.placement.place`` depends on.

    ``connected``: node ids of linked servers (the administrator's own too). ``device_of_set``: the device (id) that
    holds a set. ``predicted_s(run, source)``: seconds that a part will take. ``free_bytes`` by device id.
    ``silent_since_ns`` by node id, for links lost so lately that no transition is committed yet. ``holdings``:
    (source, device) that has sets of it. ``no_data_path``: (source, server) that cannot reach each other.
    """
    active = state.active_attempts()
    writing, reading, on_device = _counts(state, active)
    lately = silent_since_ns or {}
    servers = []
    for server in state.server_list():
        settings = state.settings_of(server.id)
        servers.append(
            ServerRow(
                server.id,
                server.name,
                server.state,
                connected=server.id in connected,
                running=writing.get(server.id, 0),
                concurrency=int(number(settings, "server-concurrency")),
                reading=reading.get(server.id, 0),
                source_concurrency=int(number(settings, "source-concurrency")),
                silent_since_ns=lately.get(server.id) if server.silent_since_ns is None else server.silent_since_ns,
            )
        )
    devices = [
        DeviceRow(
            device.id,
            device.name,
            device.state,
            tuple(path.server for path in device.paths if path.enabled),
            running=on_device.get(device.id, 0),
            concurrency=device.concurrency,
            free_bytes=(free_bytes or {}).get(device.id),
            low_space_bytes=device.low_space_bytes,
        )
        for device in state.device_list()
    ]
    parts = [
        _ready(state, run, part, device_of_set=device_of_set, predicted_s=predicted_s(run, part.source))
        for run in state.open_runs()
        for part in run.parts
        if part.state is RunState.READY
    ]
    return Problem(
        servers=tuple(servers),
        devices=tuple(devices),
        parts=tuple(parts),
        pools=tuple(PoolRow(pool.name, pool.servers) for pool in state.pool_list()),
        busy=tuple(Busy(attempt.job, attempt.source, attempt.run) for attempt in active),
        holdings=tuple(holdings),
        no_data_path=tuple(no_data_path),
        in_grace=in_grace,
    )


def _device_of(spec: JobSpec, device_of_set: Callable[[str], str | None]) -> str | None:
    if isinstance(spec, BackupSpec | TestRunSpec):
        return None
    if isinstance(spec, RestoreSpec) and spec.device is not None:
        return spec.device
    return device_of_set(spec.set)


def _counts(state: ControlState, active: Iterable[Attempt]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Active attempts by media server, by the server whose files they touch, and by device."""
    writing: dict[str, int] = {}
    reading: dict[str, int] = {}
    on_device: dict[str, int] = {}
    for attempt in active:
        writing[attempt.server] = writing.get(attempt.server, 0) + 1
        on_device[attempt.device] = on_device.get(attempt.device, 0) + 1
        if not isinstance(state.run(attempt.run).spec, VerifySpec):
            reading[attempt.source] = reading.get(attempt.source, 0) + 1
    return writing, reading, on_device


def _ready(
    state: ControlState,
    run: Run,
    part: Part,
    *,
    device_of_set: Callable[[str], str | None],
    predicted_s: float | None,
) -> ReadyPart:
    spec = run.spec
    job = state.jobs[run.job]
    backup = backup_of(spec)
    tried = [attempt for attempt in state.attempts_of(run.id) if attempt.source == part.source]
    return ReadyPart(
        run=run.id,
        job=run.job,
        job_name=run.name,
        source=part.source,
        kind=kind_of(spec),
        priority=run.priority,
        due_at_ns=run.due_at_ns,
        target=backup.target if backup is not None else None,
        device=_device_of(spec, device_of_set),
        not_before_ns=part.not_before_ns,
        predicted_s=predicted_s,
        on_hold=(run.held and not run.stranded) or job.state is JobState.ON_HOLD,
        stranded=run.stranded,
        recovered_on=tuple(attempt.server for attempt in tried if attempt.state is AttemptState.RECOVERED),
    )
