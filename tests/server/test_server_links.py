"""Who is in office, and the links of a server, over a network in memory with real certificates."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from server_world import Clock
from waiting import wait_for_async

from caso_mesh.identity.authority import Authority as Issuer
from caso_mesh.identity.claims import sign_claim
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer
from caso_mesh.model.errors import (
    CannotConnect,
    CasoError,
    InternalError,
    LinkLost,
    NoAdmin,
    ServerNotLinked,
    StrangeCertificates,
    TimedOut,
)
from caso_mesh.model.mesh import Anchor, MeshInfo, NodeAddress, Roster, RosterRow, Server
from caso_mesh.model.nodes import HelloReply, HelloRequest
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.server.admin_link import AdminLink
from caso_mesh.server.bearings import Bearings
from caso_mesh.server.links import LinkBook
from caso_mesh.server.own_link import OwnLink
from caso_mesh.server.trust import Trust
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.memory import MemoryEndpoint, MemoryNetwork
from caso_mesh.wire.typed import RefusesAll


class Mesh:
    """A roster of some servers; ``voters`` of them may be in office."""

    def __init__(self, *names: str, voters: int = 1) -> None:
        self.clock = Clock()
        self.keys = {name: NodeKeys.create() for name in names}
        first = self.keys[names[0]].id
        self.issuer = Issuer.create(mesh_id="mesh", mesh_name="m", voter=first, now_ns=self.clock.ns)
        anchors = [a for a in self.issuer.anchors(first) if a.voter is None]
        issuing = next(a.certificate for a in self.issuer.anchors(first) if a.voter)
        anchors += [Anchor(issuing, self.keys[name].id) for name in names[:voters]]
        rows = tuple(RosterRow(k.id, name, "node", k.public_key, k.encryption_key) for name, k in self.keys.items())
        self.roster = Roster(MeshInfo("mesh", "m", 0), tuple(anchors), rows)
        self.network = MemoryNetwork(silence_s=2.0)

    def id(self, name: str) -> str:
        return self.keys[name].id

    def endpoint(self, name: str) -> MemoryEndpoint:
        certificate = self.issuer.issue_node(self.keys[name].public_key, now_ns=self.clock.ns)
        return self.network.endpoint(certificate, name=name)

    def orders(self, name: str, *, admin: str, index: int = 1, nodes: tuple[NodeAddress, ...] = ()) -> Orders:
        k = self.keys[name]
        server = Server(name, k.id, k.public_key, k.encryption_key, b"", 0)
        return Orders(Authority(1, 1, index), self.id(admin), server, self.roster, nodes, {}, (), ())


class Site:
    """One server: its trust, its bearings, its book."""

    def __init__(self, mesh: Mesh, name: str, orders: Orders, *, in_office: bool, peers: tuple[str, ...]) -> None:
        self.mesh, self.name, self.orders, self.in_office = mesh, name, orders, in_office
        self.endpoint = mesh.endpoint(name)
        self.trust = Trust(mesh.clock, Path(), Path())
        self.trust.use(mesh.roster)
        self.lineage, self.index = 1, 100
        self.renewed: list[str] = []
        self.bearings = Bearings(
            own=mesh.id(name),
            trust=self.trust,
            orders=lambda: self.orders,
            in_office=lambda: self.in_office,
            authority=lambda: Authority(self.lineage, 2, self.index),
            peers=peers,
        )
        self.book = LinkBook(
            own=lambda: Peer(mesh.id(name), name, "node"),
            network=self.endpoint,
            trust=self.trust,
            handler=self,
            clock=mesh.clock,
            version="1",
            greeting=self.bearings.greeting,
            wanted=lambda: self.bearings.wanted(self.book.linked),
            partners=self.bearings.partners,
            concerns=self.bearings.concerns,
            learnt=lambda peer, hello: self.book.wake() if self.bearings.heard(peer, hello) else None,
            before_hello=self._renew,
            jitter=random.Random(1),
        )

    async def _renew(self, link: Any) -> None:
        self.renewed.append(link.peer.name)

    async def call(self, link: Any, method: str, params: Any) -> Any:
        if method == "link.hello":
            return to_wire(await self.book.greeted(link, from_wire(params, HelloRequest)))
        return method

    async def notify(self, link: Any, method: str, params: Any) -> None:
        return

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        return


@asynccontextmanager
async def site(
    mesh: Mesh, name: str, *, admin: str, in_office: bool = False, peers: tuple[str, ...] = (), port: int = 7000,
    dials: bool = True, nodes: tuple[NodeAddress, ...] = (),
) -> AsyncIterator[Site]:  # fmt: skip
    made = Site(mesh, name, mesh.orders(name, admin=admin, nodes=nodes), in_office=in_office, peers=peers)
    listening = made.endpoint.listen(f"{name}:{port}", authorise=made.trust.authorise, handler=made)
    async with made.book.closing(), listening as listener:
        made.bearings.addresses = (listener.address,)
        task = asyncio.create_task(made.book.run()) if dials else None
        try:
            yield made
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def test_a_server_finds_the_administrator_by_way_of_anybody_who_knows_it() -> None:
    mesh = Mesh("a", "b", "c")
    async with (
        site(mesh, "a", admin="a", in_office=True) as a,
        site(mesh, "b", admin="a", nodes=(NodeAddress(mesh.id("a"), "a", ("a:7000",)),)),
        site(mesh, "c", admin="a", peers=("b:7000",)) as c,
    ):
        await wait_for_async(lambda: c.book.linked(mesh.id("a")) and a.book.linked(mesh.id("c")))
        assert "a" in c.renewed, "an old certificate is renewed before the greeting"


async def test_the_clock_of_a_peer_is_the_one_that_it_has_now_however_old_the_link_is() -> None:
    """It was what the greeting had said: a server whose clock was set right deleted nothing as long as its links lived, and
    one whose clock had gone wrong since was let."""
    mesh = Mesh("a", "b")
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)),)
    right, mesh.clock = mesh.clock, Clock()
    async with site(mesh, "b", admin="a", nodes=nodes) as b:
        wrong, mesh.clock = mesh.clock, right
        async with site(mesh, "a", admin="a", in_office=True) as a:
            await wait_for_async(lambda: a.book.linked(mesh.id("b")))
            assert await a.book.clock_offset_s(mesh.id("a")) == 0
            assert await a.book.clock_offset_s(mesh.id("b")) == 0
            wrong.ns += 40 * 10**9
            assert await a.book.clock_offset_s(mesh.id("b")) == 40
            assert await b.book.clock_offset_s(mesh.id("a")) == -40
            wrong.ns -= 40 * 10**9
            assert await a.book.clock_offset_s(mesh.id("b")) == 0
        await wait_for_async(lambda: not b.book.linked(mesh.id("a")))
        with pytest.raises(ServerNotLinked):
            await b.book.clock_offset_s(mesh.id("a"))


async def test_two_that_dial_each_other_at_once_keep_one_link_and_the_same() -> None:
    mesh = Mesh("a", "b")
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)), NodeAddress(mesh.id("b"), "b", ("b:7000",)))
    async with (
        site(mesh, "a", admin="a", in_office=True, nodes=nodes) as a,
        site(mesh, "b", admin="a", nodes=nodes) as b,
    ):
        await wait_for_async(lambda: a.book.linked(mesh.id("b")) and b.book.linked(mesh.id("a")))
        await asyncio.sleep(0.5)

        def the_same() -> bool:
            one, other = a.book.get(mesh.id("b")), b.book.get(mesh.id("a"))
            return one.session == other.session and not one.closed  # type: ignore[attr-defined]

        await wait_for_async(the_same)


async def test_a_former_administrator_that_still_believes_to_be_is_linked_with_by_the_one_in_office() -> None:
    """It was refused as a lost machine is, and so never heard the orders that tell it."""
    mesh = Mesh("a", "b", voters=2)
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)), NodeAddress(mesh.id("b"), "b", ("b:7000",)))
    async with (
        site(mesh, "a", admin="a", in_office=True, nodes=nodes, dials=False) as a,
        site(mesh, "b", admin="b", in_office=True, nodes=nodes, dials=False) as b,
    ):
        b.lineage = 2
        dialling = asyncio.create_task(b.book.run())
        await wait_for_async(lambda: b.book.linked(mesh.id("a")) and a.book.linked(mesh.id("b")))
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)


async def test_a_lost_link_is_made_anew_and_whoever_waits_for_it_gets_it() -> None:
    mesh = Mesh("a", "b")
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)),)
    async with site(mesh, "a", admin="a", in_office=True) as a, site(mesh, "b", admin="a", nodes=nodes) as b:
        first = await a.book.wait_for(mesh.id("b"), 30.0)
        mesh.network.drop_links()
        await wait_for_async(lambda: first.closed)  # type: ignore[attr-defined]
        second = await a.book.wait_for(mesh.id("b"), 30.0)
        assert second is not first
        with pytest.raises(ServerNotLinked):
            a.book.get("stranger")
        await wait_for_async(lambda: b.book.linked(mesh.id("a")))
        assert await b.book.get(mesh.id("a")).call("anything") == "anything"


@pytest.mark.jumping
async def test_whoever_comes_into_office_dials_a_hundred_at_once_and_its_voters_before_all_others() -> None:
    """With three thousand servers it began three thousand handshakes at once, and its voters heard nothing of it meanwhile."""
    names = [f"s{number:03}" for number in range(300)]
    mesh = Mesh(*names, "voter")
    nodes = tuple(NodeAddress(mesh.id(name), name, (f"{name}:7000",)) for name in (*names, "voter"))
    issuing = mesh.roster.anchors[-1].certificate
    mesh.roster = replace(mesh.roster, anchors=(*mesh.roster.anchors, Anchor(issuing, mesh.id("voter"))))
    under_way, most, dialled = 0, 0, list[str]()
    async with site(mesh, names[0], admin=names[0], in_office=True, nodes=nodes, dials=False) as a:

        async def nobody_answers(address: str, **how: object) -> Any:
            nonlocal under_way, most
            dialled.append(address)
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(10.0)
            under_way -= 1
            raise CannotConnect(address=address, detail="no answer within 10 s")

        a.endpoint.dial = nobody_answers  # type: ignore[method-assign]
        dialling = asyncio.create_task(a.book.run())
        await asyncio.sleep(5.0)
        assert "voter:7000" in dialled
        assert most <= 129
        await wait_for_async(lambda: len(set(dialled)) == 300, 60.0, what="everybody was dialled")
        assert most <= 129
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)


@pytest.mark.jumping
async def test_a_doubted_link_that_leads_nowhere_ends_long_before_its_silence_and_one_that_leads_there_stays() -> None:
    mesh = Mesh("a", "b", "c")
    mesh.network = MemoryNetwork(silence_s=1000.0)
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)),)
    async with (
        site(mesh, "a", admin="a", in_office=True) as a,
        site(mesh, "b", admin="a", nodes=nodes) as b,
        site(mesh, "c", admin="a", nodes=nodes) as c,
    ):
        one, other = await a.book.wait_for(mesh.id("b"), 30.0), await a.book.wait_for(mesh.id("c"), 30.0)
        mesh.network.cut(a.endpoint, b.endpoint)
        waits = asyncio.create_task(one.call("anything", timeout_s=None))
        await asyncio.sleep(10)
        assert not waits.done()
        a.book.doubt(mesh.id("b"), mesh.id("c"), "nobody")
        with pytest.raises(LinkLost):
            await asyncio.wait_for(waits, 8.0)
        assert not other.closed  # type: ignore[attr-defined]
        mesh.network.heal()
        assert await (await b.book.wait_for(mesh.id("a"), 60.0)).call("anything") == "anything"
        assert c.book.linked(mesh.id("a"))


async def test_a_server_that_nobody_believes_any_more_says_so_and_one_that_only_finds_nobody_in_office_does_not() -> (
    None
):
    """It said that no administrator was in office, for ever, when the CA of the mesh had been rotated while it was away."""
    mesh, stranger = Mesh("a", "b", "c"), Mesh("x")
    nodes = tuple(NodeAddress(mesh.id(name), name, (f"{name}:7000",)) for name in "ac")
    async with (
        site(mesh, "a", admin="a", nodes=nodes),
        site(mesh, "b", admin="a", nodes=nodes, dials=False) as b,
        site(mesh, "c", admin="a", nodes=nodes),
    ):
        way = AdminLink(b.book, b.bearings.admin, "b")
        b.trust.use(replace(mesh.roster, anchors=stranger.roster.anchors, rows=mesh.roster.rows))
        with pytest.raises(NoAdmin) as caught:
            way.get()
        assert caught.value.code == NoAdmin.code, "it has reached nobody yet"
        dialling = asyncio.create_task(b.book.run())
        await wait_for_async(b.book.strange)
        with pytest.raises(StrangeCertificates):
            way.get()
        b.trust.use(mesh.roster)
        b.book.wake()
        await wait_for_async(lambda: b.book.strange() is None)
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)


async def test_a_peer_that_greets_a_thousand_times_costs_one_watcher() -> None:
    mesh = Mesh("a", "b")
    async with site(mesh, "a", admin="a", in_office=True) as a, site(mesh, "b", admin="a", dials=False) as b:
        link = await b.endpoint.dial("a:7000", authorise=b.trust.authorise, handler=RefusesAll())
        hello = to_wire(HelloRequest("b" * 9000, "1", ("x:1",) * 9000, None, None, 0))
        for _ in range(50):
            await link.call("link.hello", hello)
        assert len(a.book._watchers) == 1
        greeting = a.book.greeting_of(mesh.id("b"))
        assert greeting is not None and len(greeting.addresses) == 16 and len(greeting.name) == 63
        await link.close()


async def test_a_server_that_left_the_roster_loses_its_link_at_once() -> None:
    mesh = Mesh("a", "b")
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)),)
    async with site(mesh, "a", admin="a", in_office=True) as a, site(mesh, "b", admin="a", nodes=nodes):
        link = await a.book.wait_for(mesh.id("b"), 30.0)
        rows = tuple(row for row in mesh.roster.rows if row.id != mesh.id("b"))
        a.trust.use(Roster(mesh.roster.mesh, mesh.roster.anchors, rows, (mesh.id("b"),)))
        await a.book.roster_changed()
        assert link.closed and not a.book.linked(mesh.id("b"))  # type: ignore[attr-defined]


async def test_a_link_with_a_former_administrator_stays_while_it_votes_and_ends_for_good_when_it_does_not() -> None:
    """They were never closed: after years a thousand members had links with every server that ever was in office."""
    mesh = Mesh("a", "b", "c", voters=2)
    nodes = tuple(NodeAddress(mesh.id(name), name, (f"{name}:7000",)) for name in ("a", "b"))
    async with (
        site(mesh, "a", admin="a", in_office=True, nodes=nodes) as a,
        site(mesh, "b", admin="a", nodes=nodes) as b,
        site(mesh, "c", admin="a", nodes=nodes) as c,
    ):
        await c.book.wait_for(mesh.id("a"), 30.0)
        await b.book.wait_for(mesh.id("a"), 30.0)
        a.in_office, b.in_office, b.index = False, True, 101
        for each in (a, c):
            each.orders = mesh.orders(each.name, admin="b", index=101, nodes=nodes)
            each.bearings.ordered(mesh.id("b"))
        c.book.wake()
        await b.book.wait_for(mesh.id("c"), 30.0)
        await c.book.wait_for(mesh.id("b"), 30.0)
        for each in (a, b, c):
            await each.book.roster_changed()
        assert c.book.nodes() == sorted([mesh.id("a"), mesh.id("b")])
        anchors = tuple(anchor for anchor in mesh.roster.anchors if anchor.voter != mesh.id("a"))
        roster = Roster(mesh.roster.mesh, anchors, mesh.roster.rows)
        for each in (a, b, c):
            each.trust.use(roster)
        await c.book.roster_changed()
        assert c.book.nodes() == [mesh.id("b")]
        await wait_for_async(lambda: a.book.nodes() == [mesh.id("b")], what="a has lost the link with c, too")
        # and neither dials the other again
        assert [list(each.bearings.wanted(each.book.linked)) for each in (a, c)] == [[], []]


async def test_whatever_goes_wrong_with_one_peer_the_book_goes_on() -> None:
    mesh = Mesh("a", "b", "c")
    nodes = (NodeAddress(mesh.id("a"), "a", ("a:7000",)),)
    async with site(mesh, "a", admin="a", in_office=True) as a, site(mesh, "b", admin="a", nodes=nodes) as b:
        real, b.book._before_hello = b.book._before_hello, _fails
        await asyncio.sleep(0.3)
        b.book._before_hello = real
        await a.book.wait_for(mesh.id("b"), 30.0)


async def _fails(link: Any) -> None:
    raise RuntimeError("a bug")


# --- who is in office ---


def hello(admin: str | None, index: int, *, reply: bool = True) -> HelloReply:
    return HelloReply("x", "1", ("x:1",), Authority(1, 1, index), admin, ("y:1",), 0)


def bearings(mesh: Mesh, *, admin: str = "a", own: str = "c") -> Bearings:
    return Site(mesh, own, mesh.orders(own, admin=admin, index=5), in_office=False, peers=()).bearings


def test_a_member_that_is_no_voter_is_never_believed_to_be_in_office() -> None:
    """Any member could say that it was the administrator before, and was obeyed."""
    mesh = Mesh("a", "b", "c", "d", voters=2)
    found = bearings(mesh)
    found.heard(mesh.id("d"), hello(mesh.id("d"), 10**18))
    assert found.admin() == mesh.id("a") and not found.is_admin(mesh.id("d"))


def test_that_a_voter_took_the_mesh_over_is_believed_by_its_signature_whoever_passes_it_on() -> None:
    mesh = Mesh("a", "b", "c", "d", voters=2)
    found = bearings(mesh, own="d")
    assert found.admin() == mesh.id("a")
    assert not found.believe(sign_claim(mesh.keys["c"].signing, mesh="mesh", lineage=2)), "it is no voter"
    genuine = sign_claim(mesh.keys["b"].signing, mesh="mesh", lineage=2)
    assert not found.believe(replace(genuine, lineage=9)), "a lie of whoever passes it on"
    assert not found.believe(sign_claim(mesh.keys["b"].signing, mesh="mesh", lineage=1)), "it is no news"
    assert found.is_admin(mesh.id("a"))
    assert found.believe(genuine)
    assert not found.believe(genuine)
    assert (found.claim(), found.least_lineage()) == (genuine, 2)
    # the old one is not obeyed any more, whatever it says in its lineage
    assert not found.is_admin(mesh.id("a"))
    found.heard(mesh.id("a"), HelloReply("a", "1", (), Authority(1, 99, 99), mesh.id("a"), (), 0))
    assert not found.is_admin(mesh.id("a"))
    assert found.admin() == mesh.id("b")
    found.heard(mesh.id("b"), HelloReply("b", "1", (), Authority(2, 1, 1), mesh.id("b"), (), 0))
    assert found.is_admin(mesh.id("b"))


def test_what_others_say_only_tells_where_to_ask() -> None:
    mesh = Mesh("a", "b", "c", "d", voters=2)
    found = bearings(mesh)
    found.heard(mesh.id("d"), hello(mesh.id("b"), 10**18))
    assert found.admin() == mesh.id("a")
    # the one that was in office says itself that another one is
    found.heard(mesh.id("a"), hello(mesh.id("b"), 6))
    assert found.admin() == mesh.id("b") and not found.is_admin(mesh.id("b"))
    found.heard(mesh.id("b"), hello(mesh.id("b"), 7))
    assert found.is_admin(mesh.id("b")) and not found.is_admin(mesh.id("a"))
    # a high number that a member made up keeps nobody out
    found.heard(mesh.id("d"), hello(mesh.id("a"), 10**18))
    assert found.admin() == mesh.id("b")


def test_a_voter_with_older_authority_than_the_orders_is_not_believed() -> None:
    mesh = Mesh("a", "b", "c", voters=2)
    found = bearings(mesh)
    found.heard(mesh.id("b"), hello(mesh.id("b"), 4))
    assert found.admin() == mesh.id("a")


def test_hints_are_kept_for_members_only_and_few_of_them() -> None:
    mesh = Mesh("a", "b", "c")
    found = bearings(mesh)
    assert not found.hint("stranger", ["x:1"])
    assert found.hint(mesh.id("a"), [f"x:{n}" for n in range(1, 1000)])
    assert len(found.addresses_of(mesh.id("a"))) == 8
    assert not found.hint(mesh.id("a"), ["x:1"]), "nothing new: nobody is woken"
    assert set(found.hints()) == {mesh.id("a")}


# --- a server's link with itself ---


class Handler:
    async def call(self, link: Any, method: str, params: Any) -> Any:
        if method == "hangs":
            await asyncio.Event().wait()
        if method == "bug":
            raise ValueError("a bug")
        raise LinkLost(peer="x")

    async def notify(self, link: Any, method: str, params: Any) -> None:
        raise ValueError("a bug")

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        return


@pytest.mark.parametrize(("method", "error"), [("hangs", TimedOut), ("bug", InternalError), ("other", LinkLost)])
async def test_the_own_link_fails_as_a_link_does(method: str, error: type[CasoError]) -> None:
    """A bare TimeoutError of the own link ended the daemon of the administrator before."""
    with pytest.raises(error):
        await OwnLink(Peer("a", "a", "node"), Handler()).call(method, timeout_s=0.05)
    await OwnLink(Peer("a", "a", "node"), Handler()).notify("bug")
