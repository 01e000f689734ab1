"""Orders: the slice of the control state that one server is handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import Attempt, JobSpec, Run, TestRunSpec, VerifySpec, backup_of
from caso_mesh.model.orders import AttemptOrder, Authority, Orders


def orders_for(
    state: ControlState,
    server_id: str,
    authority: Authority,
    admin: str,
    avoid: Callable[[str], tuple[str, ...]],
    ticket: Callable[[Attempt, Run], bytes],
) -> Orders:
    """What ``server_id`` is to know: itself, whom to trust, its settings, the devices it has a path to, and each
    active attempt in which it is the device's end, the source's end, or both.

    ``admin`` is the node id of the one in office; ``avoid`` gives the sets of a source that must not be a base,
    ``ticket`` what admits the two ends of an attempt to each other (the same for the same attempt, or the slice counts
    as changed). A canceled attempt stays until it is closed. Raises ``NotFound`` for a server that is not in the mesh.
    """
    server = state.server(server_id)
    attempts: list[AttemptOrder] = []
    devices = {device.id: device for device in state.devices_of(server_id)}
    for attempt in state.active_attempts():
        run = state.run(attempt.run)
        end = _end_of(server_id, attempt, run)
        if end is None:
            continue
        attempts.append(
            AttemptOrder(
                attempt=attempt.id,
                run=run.id,
                job=run.job,
                job_name=run.name,
                source=attempt.source,
                media=attempt.server,
                end=end,
                device=attempt.device,
                spec=_cut(run.spec, attempt.source),
                number=attempt.number,
                cancel=attempt.cancel,
                ticket=ticket(attempt, run),
                secret=attempt.secret,
                avoid=avoid(attempt.source),
            )
        )
        if attempt.device in state.devices:
            devices[attempt.device] = state.devices[attempt.device]
    return Orders(
        authority=authority,
        admin=admin,
        server=server,
        roster=state.roster(),
        nodes=state.addresses(),
        settings=state.settings_of(server_id),
        devices=tuple(sorted(devices.values(), key=lambda device: device.name)),
        media_sets=tuple(state.media_set_list()),
        attempts=tuple(attempts),
    )


def ends_of(attempt: Attempt, run: Run) -> tuple[str, ...]:
    """Node ids of the servers that take part in an attempt: the media server first, then the other end, if any."""
    if isinstance(run.spec, VerifySpec) or attempt.source == attempt.server:
        return (attempt.server,)
    return (attempt.server, attempt.source)


def same_slice(one: Orders, other: Orders) -> bool:
    """Whether a server that holds ``one`` need not be sent ``other``: they differ at most in their place in the log.
    Orders of another term are another administrator's word and count as different."""
    level = msgspec.structs.replace(one.authority, index=other.authority.index)
    return msgspec.structs.replace(one, authority=level) == other


def _end_of(server: str, attempt: Attempt, run: Run) -> Literal["device", "source", "both"] | None:
    ends = ends_of(attempt, run)
    if server not in ends:
        return None
    if len(ends) == 1:
        return "both"
    return "device" if server == attempt.server else "source"


def _cut(spec: JobSpec, source: str) -> JobSpec:
    """A backup's spec with the paths of one source alone: nobody learns what others back up."""
    backup = backup_of(spec)
    if backup is None:
        return spec
    cut = msgspec.structs.replace(backup, sources=tuple(part for part in backup.sources if part.server == source))
    return TestRunSpec(cut) if isinstance(spec, TestRunSpec) else cut
