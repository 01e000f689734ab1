"""A server that was away while the voters were replaced knows none of the new ones: whom it may believe about them.

Only who is a voter by the roster in force here, on a link that proved its key by that roster. Such a one could also say
that it is in office itself, and give orders: that it names another one gives it nothing more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from caso_mesh.identity.roster import Peer
from caso_mesh.model.errors import CasoError, Refused, StaleOrders
from caso_mesh.model.ids import SHORT_NODE_ID
from caso_mesh.model.nodes import HelloReply, RosterNow
from caso_mesh.model.requests import Nothing
from caso_mesh.server.bearings import Bearings
from caso_mesh.server.greetings import bounded_addresses
from caso_mesh.server.trust import Trust
from caso_mesh.wire.link import Link
from caso_mesh.wire.typed import ask

if TYPE_CHECKING:
    from caso_mesh.server.node import ServerNode

log = logging.getLogger(__name__)


async def ask_whom_to_trust(node: ServerNode, link: Link, hello: HelloReply) -> None:
    """After a greeting: a voter that tells of an administrator whom ``node`` does not know as one hands over its roster.
    What is on disk stays; it is the orders of that administrator, which are let in now, that are kept."""
    if not node.bearings.knows_newer(link.peer.id, hello):
        return
    try:
        given = await ask(link, "roster.get", Nothing(), RosterNow)
        async with node.ordering:
            _use(node, link.peer, given)
    except CasoError as error:
        # the link is none the worse for it, and the next greeting asks again
        log.info("whom to trust, of %s: %s", link.peer.name, error)
        return
    await node.links.roster_changed()
    node.links.wake()


def _use(node: ServerNode, voter: Peer, given: RosterNow) -> None:
    check_vouched(given, voter, node.own(), node.trust, node.bearings)
    log.warning("%s hands over a newer roster, by which %s is in office", voter.name, given.admin[:SHORT_NODE_ID])
    node.trust.use(given.roster)
    node.bearings.vouched(given.authority, given.admin, bounded_addresses(given.admin_addresses))
    node.takeovers.look()


def check_vouched(given: RosterNow, voter: Peer, own: Peer, trust: Trust, bearings: Bearings) -> None:
    """Whether the roster that ``voter`` hands over may take the place of the one in force. Raises ``Refused``;
    ``StaleOrders`` if it stands on no more than that one."""
    held, roster = trust.roster, given.roster
    if held is None or voter.id not in bearings.voters():
        raise Refused(detail=f"{voter.name} is no voter: it may not say whom to trust")
    if roster.mesh.id != held.mesh.id:
        raise Refused(detail=f"the roster of {voter.name} is of another mesh")
    rows = [row for row in roster.rows if row.id == own.id]
    if own.id in roster.removed or not rows or rows[0].public_key != own.public_key:
        raise Refused(detail=f"by the roster of {voter.name} this server could not work with anybody")
    if all(anchor.voter != given.admin for anchor in roster.anchors):
        raise Refused(detail=f"by the roster of {voter.name} its administrator is no voter")
    bearings.check_current(given.authority)
    if given.authority <= bearings.standing():
        raise StaleOrders(given=given.authority, current=bearings.standing())
