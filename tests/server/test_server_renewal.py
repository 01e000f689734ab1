"""Certificates of a server that grow old."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from test_server_links import Mesh

from caso_mesh.identity.certificates import NODE_LIFE_S
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model.errors import LinkLost, NoAdmin
from caso_mesh.model.nodes import RenewReply
from caso_mesh.server.renewal import Renewal
from caso_mesh.server.trust import Trust
from caso_mesh.wire.codec import to_wire


class Peer:
    """Answers ``identity.renew`` with what it was given."""

    peer = None

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return to_wire(RenewReply(self.answer, ()))

    async def notify(self, method: str, params: Any = None) -> None: ...


def _site(tmp_path: Path, mesh: Mesh, revivals: list[bool] | None = None) -> tuple[IdentityStore, Renewal]:
    keys, identity = mesh.keys["b"], IdentityStore(tmp_path)
    identity.save_keys(keys)
    identity.save_chain(_chain(mesh, "b"))
    trust = Trust(mesh.clock, identity.chain_path, identity.key_path)
    trust.use(mesh.roster)

    async def revived() -> None:
        if revivals is not None:
            revivals.append(True)

    return identity, Renewal(keys=keys, identity=identity, trust=trust, clock=mesh.clock, revived=revived)


def _chain(mesh: Mesh, name: str) -> tuple[bytes, ...]:
    issued = mesh.issuer.issue_node(mesh.keys[name].public_key, now_ns=mesh.clock.ns)
    return tuple(mesh.issuer.chain(issued))


@pytest.mark.parametrize(("lived", "renewed"), [(0.5, False), (0.7, True), (3.0, True)])
async def test_it_is_renewed_after_two_thirds_of_its_life_also_when_it_has_expired(
    tmp_path: Path, lived: float, renewed: bool
) -> None:
    mesh, revivals = Mesh("a", "b"), list[bool]()
    identity, renewal = _site(tmp_path, mesh, revivals)
    old = identity.load_chain()
    mesh.clock.ns += int(lived * NODE_LIFE_S * 1e9)
    peer = Peer(_chain(mesh, "b"))
    await renewal.renew(peer)
    await renewal.renew(peer)
    assert peer.asked == int(renewed)
    assert (identity.load_chain() != old) is renewed
    assert bool(revivals) is (lived > 1), "its peers had let it in as one that may only renew"


async def test_one_that_a_clock_ahead_has_given_is_replaced_when_clocks_are_right_and_asked_for_rarely_while_the_own_one_is_behind(
    tmp_path: Path,
) -> None:
    """The administrator's clock was nine days ahead for a minute: what it renewed then shut its owners out until those days were
    over."""
    mesh = Mesh("a", "b")
    identity, renewal = _site(tmp_path, mesh)
    now_ns, ahead_ns = mesh.clock.ns, int(9 * 86400e9)
    mesh.clock.ns = now_ns + ahead_ns
    early = _chain(mesh, "b")
    await renewal.renew(Peer(early))
    assert identity.load_chain() == early
    mesh.clock.ns = now_ns
    right = _chain(mesh, "b")
    await renewal.renew(Peer(right))
    assert identity.load_chain() == right
    # the clock of this server is the one that is wrong
    mesh.clock.ns = now_ns - ahead_ns
    peer = Peer(right)
    for _ in range(5):
        await renewal.renew(peer)
    assert peer.asked == 1


async def test_an_answer_that_nobody_would_believe_replaces_nothing_and_ends_nothing(tmp_path: Path) -> None:
    """A certificate for another key was our own misuse before, and ended the daemon."""
    mesh, stranger = Mesh("a", "b"), Mesh("x", "b")
    identity, renewal = _site(tmp_path, mesh)
    old, long_ago = identity.load_chain(), _chain(mesh, "b")
    mesh.clock.ns += int(2 * NODE_LIFE_S * 1e9)
    answers = (
        _chain(mesh, "a"),
        _chain(stranger, "b"),
        long_ago,
        (b"junk",),
        (),
        NoAdmin(server="c"),
        LinkLost(peer="c"),
    )
    for answer in answers:
        await renewal.renew(Peer(answer))
        assert identity.load_chain() == old


async def test_a_roster_with_the_same_anchors_keeps_the_tls_contexts_and_others_replace_them(tmp_path: Path) -> None:
    """Each order brings a roster; a context takes longer to make than a connection to be accepted."""
    mesh, stranger = Mesh("a", "b"), Mesh("x")
    identity, _ = _site(tmp_path, mesh)
    trust = Trust(mesh.clock, identity.chain_path, identity.key_path)
    trust.use(mesh.roster)
    server, client = trust.server_tls(), trust.client_tls()
    trust.use(structs.replace(mesh.roster, rows=mesh.roster.rows[:1]))
    assert trust.server_tls() is server
    assert trust.client_tls() is client
    trust.use(structs.replace(mesh.roster, anchors=stranger.roster.anchors))
    assert trust.server_tls() is not server
    assert trust.client_tls() is not client
    server = trust.server_tls()
    trust.renewed()
    assert trust.server_tls() is not server
