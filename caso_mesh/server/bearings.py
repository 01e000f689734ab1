"""Who the administrator in office is, and where others may be reached. All of it hints, until a link proves it.

That somebody is in office is believed from that voter alone, by its own greeting, or from orders. What others say only
tells where to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from caso_mesh.identity.claims import is_genuine
from caso_mesh.model.errors import StaleOrders
from caso_mesh.model.mesh import Claim, NodeAddress
from caso_mesh.model.nodes import HelloReply, HelloRequest
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.server.targets import Target
from caso_mesh.server.trust import Trust

#: Addresses that are remembered for one server, and servers asked at the same time for the administrator.
_MOST_ADDRESSES, _MOST_ASKED = 8, 16


class Bearings:
    """``orders`` are those in force, ``peers`` the addresses of the configuration file."""

    def __init__(
        self,
        *,
        own: str,
        trust: Trust,
        orders: Callable[[], Orders],
        in_office: Callable[[], bool],
        authority: Callable[[], Authority | None],
        peers: tuple[str, ...],
    ) -> None:
        self._own = own
        self._trust = trust
        self._orders = orders
        self._in_office = in_office
        self._authority = authority
        self._peers = peers
        self._hints: dict[str, tuple[str, ...]] = {}
        self._greeted: tuple[Authority, str] | None = None
        self._hearsay: str | None = None
        self._denied: set[str] = set()
        self._claim: Claim | None = None
        #: Who was said to be in office and may not be by the roster in force, and what that word stands on.
        self._strange: tuple[Authority, str] | None = None
        #: What the roster stands on that a voter handed over; none of them since this server was started: no less.
        self._vouched = Authority(0, 0, 0)
        #: Addresses by node, of the orders they were read from.
        self._ordered: tuple[tuple[NodeAddress, ...], dict[str, tuple[str, ...]]] = ((), {})
        #: Addresses that people added (``peer add``).
        self.static: list[str] = []
        #: Where this server itself is reached.
        self.addresses: tuple[str, ...] = ()

    # --- who ---

    def voters(self) -> set[str]:
        roster = self._trust.roster
        return {anchor.voter for anchor in roster.anchors if anchor.voter} if roster else set()

    def _proven(self) -> str | None:
        """Who showed by its own greeting, or by orders, that it is in office."""
        if self._in_office():
            return self._own
        least = self.least_lineage()
        if self._greeted is not None and self._trust.row(self._greeted[1]) is not None:
            return self._greeted[1]
        if self._orders().authority.lineage < least:
            return None
        ordered = self._orders().admin
        return ordered if ordered != self._own and ordered not in self._denied else None

    def is_admin(self, node: str) -> bool:
        """Whether ``node`` may ask what only the administrator may."""
        return node == self._proven() and node in self.voters()

    def admin(self) -> str | None:
        """The node id of the administrator in office as far as this server knows."""
        return self._proven() or (self._hearsay if self._hearsay not in self._denied else None)

    def claim(self) -> Claim | None:
        """Who took the mesh over last, as far as this server knows."""
        roster = self._trust.roster
        known = [each for each in (self._claim, roster.mesh.claim if roster else None) if each is not None]
        return max(known, key=lambda each: each.lineage, default=None)

    def least_lineage(self) -> int:
        """What is said in a lower one does not count any more."""
        claim = self.claim()
        return claim.lineage if claim is not None else 0

    def check_current(self, authority: Authority) -> None:
        """Raises ``StaleOrders`` for what stands on a lineage that is over, or on less than the roster in force."""
        least = self.least_lineage()
        if authority.lineage < least:
            raise StaleOrders(given=authority, current=f"lineage {least}")
        if authority < self._vouched:
            raise StaleOrders(given=authority, current=self._vouched)

    def knows_newer(self, peer: str, hello: HelloReply) -> bool:
        """Whether a voter tells of an administrator that is none by the roster in force, on more than that stands on."""
        given = hello.authority
        if given is None or hello.admin is None or peer not in (voters := self.voters()) or hello.admin in voters:
            return False
        return given > self.standing()

    def unknown(self, linked: Callable[[str], bool]) -> tuple[str, str] | None:
        """Who is in office by the word of a peer that stands on more than the roster in force, by which that one does not
        vote, and the names of those who do, while there is a link with none of them: all voters may have been replaced
        while this server was away."""
        told, voters = self._strange, self.voters()
        if told is None or told[0] <= self.standing() or told[1] in voters or any(map(linked, voters)):
            return None
        return self._trust.name_of(told[1]), ", ".join(sorted(map(self._trust.name_of, voters)))

    def standing(self) -> Authority:
        """What the roster in force stands on."""
        return max(self._orders().authority, self._vouched)

    def vouched(self, authority: Authority, admin: str, addresses: tuple[str, ...]) -> None:
        """A voter has handed over a newer roster, which is in force now: ``admin`` is a voter by it."""
        self._vouched = authority
        if self._greeted is not None and self._greeted[0] < authority:
            self._greeted = None
        self._denied.add(self._orders().admin)
        if admin != self._own:
            self._hearsay = admin
            self._denied.discard(admin)
            self.hint(admin, addresses)

    def believe(self, claim: Claim) -> bool:
        """Somebody says that a server took the mesh over; whether that is news, and true: said by the key of a voter."""
        roster, row = self._trust.roster, self._trust.row(claim.node)
        if roster is None or row is None or claim.lineage <= max(self.least_lineage(), self._lineage()):
            return False
        if claim.node not in self.voters() or not is_genuine(claim, mesh=roster.mesh.id, public_key=row.public_key):
            return False
        self._claim = claim
        if self._greeted is not None and self._greeted[0].lineage < claim.lineage:
            self._greeted = None
        if claim.node != self._own:
            self._hearsay = claim.node
            self._denied.discard(claim.node)
        return True

    def _lineage(self) -> int:
        own = self._authority()
        return max(own.lineage if own is not None else 0, self._orders().authority.lineage)

    def heard(self, peer: str, hello: HelloRequest | HelloReply) -> bool:
        """A peer that was authenticated has greeted; whether that changes who is taken for the administrator."""
        before = self.admin()
        self.hint(peer, hello.addresses)
        if hello.authority is not None and hello.admin is not None and hello.admin not in self.voters():
            self._strange = (hello.authority, hello.admin)
        if hello.admin == peer:
            known = self._greeted[0] if self._greeted is not None and self._greeted[1] != peer else None
            least = Authority(self.least_lineage(), 0, 0)
            floor = max(a for a in (known, self.standing(), least) if a is not None)
            if peer in self.voters() and hello.authority is not None and hello.authority >= floor:
                self._greeted = (hello.authority, peer)
                self._denied.discard(peer)
        else:
            if self._greeted is not None and self._greeted[1] == peer:
                self._greeted = None
            self._denied.add(peer)
            if hello.admin is not None and hello.admin in self.voters() and hello.admin != self._own:
                self._hearsay = hello.admin
                self.hint(hello.admin, hello.admin_addresses if isinstance(hello, HelloReply) else ())
        return self.admin() != before

    def ordered(self, admin: str) -> bool:
        """Orders of ``admin`` were taken; whether that changes who is taken for the administrator."""
        before = self.admin()
        self._denied.discard(admin)
        if self._greeted is not None and self._greeted[1] != admin:
            self._greeted = None
        return self.admin() != before

    # --- where ---

    def hint(self, node: str, addresses: Iterable[str]) -> bool:
        """Notes addresses of a server of this mesh; whether there is a new one among them."""
        if node == self._own or self._trust.row(node) is None:
            return False
        known = self._hints.get(node, ())
        merged = tuple(dict.fromkeys((*list(addresses)[:_MOST_ADDRESSES], *known)))[:_MOST_ADDRESSES]
        self._hints[node] = merged
        return not set(merged) <= set(known)

    def hints(self) -> dict[str, tuple[str, ...]]:
        """What was seen or said, by node."""
        return dict(self._hints)

    def addresses_of(self, node: str) -> tuple[str, ...]:
        nodes = self._orders().nodes
        if self._ordered[0] is not nodes:
            self._ordered = (nodes, {each.node: each.addresses for each in nodes})
        ordered = self._ordered[1].get(node, ())
        own = self.addresses if node == self._own else ()
        return tuple(dict.fromkeys((*own, *self._hints.get(node, ()), *ordered)))

    def greeting(self) -> tuple[tuple[str, ...], Authority | None, str | None, tuple[str, ...]]:
        """What this server says in a hello: its addresses, what its word stands on, the administrator and where."""
        admin = self.admin()
        authority = self._authority() if self._in_office() else self._orders().authority
        return self.addresses, authority, admin, self.addresses_of(admin) if admin else ()

    def partners(self) -> set[str]:
        """The other voters, if this server is one: they talk to each other, whoever is in office."""
        voters = self.voters()
        return voters - {self._own} if self._own in voters else set()

    def concerns(self, node: str) -> bool:
        """Whether a link with ``node`` may be of use: one of both is in office, or votes. The one with a voter that was in
        office stays: it costs a heartbeat, and is there when it is in office again, or tells who is."""
        return self._in_office() or node == self.admin() or not self.voters().isdisjoint({self._own, node})

    def wanted(self, linked: Callable[[str], bool]) -> Iterable[Target]:
        """With whom this server wants a link: in office with all, else with the administrator, or with anybody who
        knows who that is; voters with each other."""
        rows = self._trust.roster.rows if self._trust.roster else ()
        if self._in_office():
            for row in rows:
                if row.kind == "node" and row.id != self._own and not linked(row.id):
                    yield Target(row.id, self.addresses_of(row.id))
            return
        for partner in sorted(self.partners()):
            yield Target(partner, self.addresses_of(partner))
        admin = self.admin()
        if admin is not None:
            if linked(admin):
                return
            yield Target(admin, self.addresses_of(admin))
        for address in (*self._peers, *self.static):
            yield Target(None, (address,))
        voters = self.voters()
        others = [row.id for row in rows if row.kind == "node" and row.id not in {admin, self._own}]
        others = sorted((id_ for id_ in others if self.addresses_of(id_)), key=lambda id_: (id_ not in voters, id_))
        for node in others[:_MOST_ASKED]:
            yield Target(node, self.addresses_of(node))
