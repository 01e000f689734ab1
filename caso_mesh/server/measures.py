"""The figures of one server, as of now: what its metrics are made of."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.server.node import ServerNode


class NodeReadings(Struct, frozen=True):
    """What a server knows of itself. ``facts`` lie in its journal, of which the administrator has not taken in
    ``unacknowledged``. ``read_bytes`` and ``stored_bytes``: of what runs now, as last reported."""

    mesh: str
    server: str
    version: str
    admin: str | None
    term: int
    index: int
    links: int
    facts: int
    unacknowledged: int
    held: int
    active: int
    read_bytes: int
    stored_bytes: int
    takes_work: bool


async def take(node: ServerNode) -> NodeReadings:
    """Raises what the journal raises."""
    heads, floors = await node.journal.incarnations(), await node.journal.floors()
    taken = node.courier.taken
    counts = node.attempts.counts()
    admin = node.linked_admin()
    return NodeReadings(
        mesh=node.orders.roster.mesh.name,
        server=node.config.server,
        version=node.version,
        admin=node.trust.name_of(admin) if admin is not None else None,
        term=node.orders.authority.term,
        index=node.orders.authority.index,
        links=len(node.links.nodes()),
        facts=sum(head.seq - floors.get(head.incarnation, 0) for head in heads),
        unacknowledged=sum(max(0, head.seq - taken.get(head.incarnation, 0)) for head in heads),
        held=len(node.attempts.holding()),
        active=len(node.attempts.running()),
        read_bytes=sum(each.bytes_read for each in counts),
        stored_bytes=sum(each.bytes_stored for each in counts),
        takes_work=node.room.enough,
    )
