"""What becomes of a control state that is rebuilt from a copy, on another machine, at a later time."""

from __future__ import annotations

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.model.jobs import Failure
from caso_mesh.model.mesh import Anchor, Claim, Operator
from caso_mesh.model.states import AttemptState, Liveness, Role
from caso_mesh.planning import lifecycle

#: Runs that were made after the copy are not known here: their numbers must not be given again.
SERIAL_GAP = 1_000_000
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def essence(state: ControlState) -> bytes:
    """What a copy of the mesh is made anew for when it changes: everything but what comes and goes with each run, and
    who is connected."""
    return _encoder.encode(
        (
            state.mesh,
            state.anchors,
            [
                msgspec.structs.replace(server, liveness=Liveness.ALIVE, silent_since_ns=None, ever_linked=True)
                for server in state.server_list()
            ],
            sorted(state.removed.items()),
            state.operator_list(),
            state.pool_list(),
            state.device_list(),
            state.media_set_list(),
            sorted(state.mesh_settings.items()),
            sorted((pool, sorted(values.items())) for pool, values in state.pool_settings.items()),
            [msgspec.structs.replace(job, serial=0, last_due_at_ns=None) for job in state.job_list()],
            state.selection_lists(),
            state.policy_list(),
            state.association_list(),
            sorted(state.calendars.items()),
            sorted(state.device_pools.items()),
            [(kit.id, kit.public_key, kit.confirmed_at_ns) for kit in state.kit_list()],
        )
    )


def recover(
    state: ControlState, *, admin: str, operator: Operator, addresses: tuple[str, ...], now_ns: int, claim: Claim
) -> None:
    """Changes a state that was just restored from a copy into that of the recovered mesh, whose only voter is ``admin``.

    Runs that were open are canceled, since nobody knows how far they came and what was tried since; what is due goes on from ``now_ns``. Join
    links of that time do not count any more. ``operator`` takes the place of the local operator of the lost machine.
    """
    own = state.server(admin)
    changes = [Put("tokens", digest, None) for digest in state.tokens]
    changes.append(Put("mesh", "", msgspec.structs.replace(state.info(), claim=claim)))
    for server in state.server_list():
        if server.id == admin:
            server = msgspec.structs.replace(
                server, voter=True, liveness=Liveness.ALIVE, silent_since_ns=None, addresses=addresses or own.addresses
            )
        else:
            server = msgspec.structs.replace(
                server,
                voter=False,
                voted=server.voted or server.voter,
                liveness=Liveness.NO_COMMUNICATION,
                silent_since_ns=now_ns,
            )
        changes.append(Put("servers", server.id, server))
    # what other voters have issued is believed: the servers that have it could not come back else
    anchors = tuple(
        anchor if anchor.voter in {None, admin} else Anchor(anchor.certificate, above=anchor.above)
        for anchor in state.anchors
    )
    changes.append(Put("anchors", "", anchors))
    for old in state.operator_list():
        if old.home == admin and old.id != operator.id:
            changes += [Put("operators", old.id, None), Put("removed", old.id, old.name)]
    changes.append(Put("operators", operator.id, operator))
    for job in state.job_list():
        moved = msgspec.structs.replace(
            job,
            serial=job.serial + SERIAL_GAP,
            last_due_at_ns=max(job.last_due_at_ns or job.created_at_ns, now_ns)
            if job.schedule is not None
            else job.last_due_at_ns,
        )
        changes.append(Put("jobs", job.id, moved))
    state.write(changes)
    _end_runs(state, now_ns)


def take_over(state: ControlState, *, admin: str, operator: str, now_ns: int, claim: Claim) -> None:
    """Changes a state into that of a mesh whose only voter is ``admin``, who takes over from one that is lost. The state is
    not an old copy, so work goes on where it was; ``operator``, the local one of that server, may do everything now."""
    changes = [
        Put(
            "servers",
            server.id,
            msgspec.structs.replace(server, voter=server.id == admin, voted=server.voted or server.voter),
        )
        for server in state.server_list()
    ]
    changes.append(Put("mesh", "", msgspec.structs.replace(state.info(), claim=claim)))
    anchors = tuple(
        anchor if anchor.voter in {None, admin} else Anchor(anchor.certificate, above=anchor.above)
        for anchor in state.anchors
    )
    changes.append(Put("anchors", "", anchors))
    local = state.operators.get(operator)
    if local is not None:
        changes.append(Put("operators", local.id, msgspec.structs.replace(local, role=Role.ADMIN)))
    alive = msgspec.structs.replace(
        state.server(admin), voter=True, liveness=Liveness.ALIVE, silent_since_ns=None, never_admin=False
    )
    changes.append(Put("servers", admin, alive))
    state.write(changes)


def _end_runs(state: ControlState, now_ns: int) -> None:
    failure = Failure("attempt-failed", {"attempt": "", "detail": "the mesh was rebuilt while it was open"})
    for attempt in state.active_attempts():
        # what it came to since is in the journal of its server: a success is kept as redundant
        asked = msgspec.structs.replace(attempt, cancel=True)
        closed = lifecycle.close_attempt(
            state.run(attempt.run), asked, AttemptState.INTERRUPTED, at_ns=now_ns, failure=failure
        )
        state.write([Put("attempts", attempt.id, closed.attempt), Put("runs", closed.run.id, closed.run)])
    for run in state.open_runs():
        state.write([Put("runs", run.id, lifecycle.cancel(run, now_ns, failure=failure))])
