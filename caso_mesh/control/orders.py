"""Orders: the slice of the control state that one server is handed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

import msgspec

from caso_mesh.control.state import ControlState
from caso_mesh.model.ids import run_of_attempt
from caso_mesh.model.jobs import Attempt, PartSpec, RestoreSpec, Run, kind_of, part_of_spec
from caso_mesh.model.logons import LogonOrder
from caso_mesh.model.mesh import NodeAddress, RosterRow
from caso_mesh.model.orders import AttemptOrder, Authority, Orders, OrdersChange, SecondEnd
from caso_mesh.model.states import ATTEMPT_ACTIVE, IN_PLACE
from caso_mesh.model.storage import Device

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def orders_for(
    state: ControlState,
    server_id: str,
    authority: Authority,
    admin: str,
    avoid: Callable[[str], tuple[str, ...]],
    ticket: Callable[[Attempt, Run], bytes],
) -> Orders:
    """What ``server_id`` is to know: itself, whom to trust, its settings, the devices it has a path to, the logons that it
    may use, and each active attempt in which it is the device's end, the source's end, or both.

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
        spec = spec_of(state, attempt)
        if end is None or spec is None:
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
                spec=spec,
                number=attempt.number,
                cancel=attempt.cancel,
                by_force=attempt.by_force,
                ticket=ticket(attempt, run),
                secret=attempt.secret,
                avoid=avoid(state.origin_of(attempt.source)),
                origin="" if (origin := state.origin_of(attempt.source)) == attempt.source else origin,
                reader=attempt.reader,
                from_device=attempt.from_device,
                second=None if end == "device" else _second_end(state, attempt, ticket),
                beside=attempt.beside,
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
        devices=tuple(sorted((_told(device, server_id) for device in devices.values()), key=lambda each: each.name)),
        media_sets=tuple(state.media_set_list()),
        attempts=tuple(attempts),
        logons=tuple(
            LogonOrder(row.name, row.user, row.version, row.copies.get(server_id, b""))
            for row in state.logon_list()
            if server_id in state.permitted(row)
        ),
        copies=tuple(copy for copy in state.copy_list(server_id) if copy.taken_at_ns is None),
    )


def _told(device: Device, server: str) -> Device:
    """A device as a server (id) is told of it: of what opens an imported one, its own copy."""
    if device.imported is None:
        return device
    own = {node: copy for node, copy in device.imported.copies.items() if node == server}
    return msgspec.structs.replace(device, imported=msgspec.structs.replace(device.imported, copies=own))


def spec_of(state: ControlState, attempt: Attempt) -> PartSpec | None:
    """What an attempt is about; ``None`` for one beside another that is not known any more. One beside another stores what
    that one reads."""
    run = state.runs.get(run_of_attempt(attempt.beside) if attempt.beside else attempt.run)
    if run is None:
        return None
    spec = part_of_spec(run.spec, attempt.source)
    return msgspec.structs.replace(spec, set=attempt.set) if attempt.set and isinstance(spec, RestoreSpec) else spec


def _second_end(state: ControlState, attempt: Attempt, ticket: Callable[[Attempt, Run], bytes]) -> SecondEnd | None:
    second = state.attempts.get(attempt.second) if attempt.second else None
    if second is None or second.state not in ATTEMPT_ACTIVE:
        return None
    admits = ticket(second, state.run(second.run))
    return SecondEnd(second.id, second.server, second.device, admits, second.secret)


def ends_of(attempt: Attempt, run: Run) -> tuple[str, ...]:
    """Node ids of the servers that take part in an attempt: the media server first, then the other end, if any. The end
    that reads for one beside another is told with that one."""
    if attempt.beside:
        return (attempt.server,)
    if kind_of(run.spec) in IN_PLACE or attempt.other == attempt.server:
        return (attempt.server,)
    return (attempt.server, attempt.other)


def same_slice(one: Orders, other: Orders) -> bool:
    """Whether a server that holds ``one`` need not be sent ``other``: they differ at most in their place in the log.
    Orders of another term are another administrator's word and count as different."""
    level = msgspec.structs.replace(one.authority, index=other.authority.index)
    return msgspec.structs.replace(one, authority=level) == other


def shared_digest(orders: Orders) -> bytes:
    """Of what all servers are told alike, and what most of the orders of a large mesh is: the rows of the roster and the
    addresses."""
    return hashlib.sha256(_encoder.encode((orders.roster.rows, orders.nodes))).digest()


class Difference(msgspec.Struct, frozen=True):
    """Between the rows and addresses of two orders: the same for every server, and worked out once for all."""

    rows: tuple[RosterRow, ...] = ()
    rows_gone: tuple[str, ...] = ()
    nodes: tuple[NodeAddress, ...] = ()
    nodes_gone: tuple[str, ...] = ()


def difference(held: Orders, now: Orders) -> Difference:
    """What of the roster's rows and of the addresses in ``now`` is not in ``held``, and the other way round."""
    rows = {row.id: row for row in held.roster.rows}
    nodes = {each.node: each for each in held.nodes}
    return Difference(
        rows=tuple(row for row in now.roster.rows if rows.get(row.id) != row),
        rows_gone=tuple(sorted(rows.keys() - {row.id for row in now.roster.rows})),
        nodes=tuple(each for each in now.nodes if nodes.get(each.node) != each),
        nodes_gone=tuple(sorted(nodes.keys() - {each.node for each in now.nodes})),
    )


def as_change(base: bytes, now: Orders, found: Difference) -> OrdersChange:
    """``now`` for a server that holds what ``base`` is the digest of, from which ``found`` differs."""
    roster = msgspec.structs.replace(now.roster, rows=found.rows)
    cut = msgspec.structs.replace(now, roster=roster, nodes=found.nodes)
    return OrdersChange(base, cut, found.rows_gone, found.nodes_gone)


def with_change(held: Orders, change: OrdersChange) -> Orders:
    """The whole orders that a change of ``held`` comes to."""
    given = change.orders
    rows = {row.id: row for row in (*held.roster.rows, *given.roster.rows)}
    nodes = {each.node: each for each in (*held.nodes, *given.nodes)}
    for gone in change.rows_gone:
        rows.pop(gone, None)
    for gone in change.nodes_gone:
        nodes.pop(gone, None)
    # as the control state lists them: nodes by name, then operators
    ordered = sorted(rows.values(), key=lambda row: (row.kind != "node", row.name, row.id))
    return msgspec.structs.replace(
        given,
        roster=msgspec.structs.replace(given.roster, rows=tuple(ordered)),
        nodes=tuple(sorted(nodes.values(), key=lambda each: each.name)),
    )


def _end_of(server: str, attempt: Attempt, run: Run) -> Literal["device", "source", "both"] | None:
    ends = ends_of(attempt, run)
    if server not in ends:
        return None
    if attempt.beside:
        return "device"
    if len(ends) == 1:
        return "both"
    return "device" if server == attempt.server else "source"
