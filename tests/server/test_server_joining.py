"""Joining by link and by approval, against a small administrator made of the identity room's parts."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from server_world import Clock

from caso_mesh.config import Config
from caso_mesh.identity import approval, certificates, enrolment, tokens
from caso_mesh.identity.authority import Authority as Issuer
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import ANONYMOUS
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import joining as j
from caso_mesh.model import requests as q
from caso_mesh.model.errors import (
    CannotConnect,
    InvalidName,
    JoinLinkExpired,
    JoinLinkForeign,
    JoinLinkInvalid,
    JoinLinkUsed,
    LinkLost,
    PeerFault,
    StateLocked,
    StateNotEmpty,
)
from caso_mesh.model.ids import node_id
from caso_mesh.model.mesh import MeshInfo, Roster, RosterRow
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.server import joining
from caso_mesh.server.folder import StateFolder
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.memory import MemoryNetwork
from caso_mesh.wire.typed import RefusesAll, ask

ID_KEY = b"k" * 32


@dataclasses.dataclass
class Admin:
    """Answers newcomers as the one in office does; ``lose`` drops the link instead of the answer."""

    mesh: str = "mesh1"
    clock: Clock = dataclasses.field(default_factory=Clock)
    lose: int = 0

    def __post_init__(self) -> None:
        self.keys = NodeKeys.create()
        self.issuer = Issuer.create(mesh_id=self.mesh, mesh_name="m", voter=self.keys.id, now_ns=self.clock.ns)
        self.secret = tokens.new_secret(lambda size: bytes(range(size)))
        self.used_by: dict[bytes, bytes] = {}

    def link(self, *addresses: str, life_s: int = 3600) -> str:
        return tokens.make_link(
            mesh=self.mesh,
            root_fingerprint=certificates.fingerprint(self.issuer.root),
            addresses=addresses,
            secret=self.secret,
            expires_at_ns=self.clock.ns + life_s * 10**9,
        )

    def certificate(self) -> bytes:
        return self.issuer.issue_node(self.keys.public_key, now_ns=self.clock.ns)

    def admit(self, said: Any, public_key: bytes, token: bytes | None) -> j.JoinReply:
        newcomer = enrolment.Newcomer(said.name, public_key, said.encryption_key)
        row = enrolment.server_row(
            newcomer, id_key=ID_KEY, mesh=self.mesh, now_ns=self.clock.ns, randomness=lambda size: b"r" * size
        )
        anchors = tuple(self.issuer.anchors(self.keys.id))
        roster = Roster(MeshInfo(self.mesh, "m", 0), anchors, (RosterRow(row.id, row.name, "node", public_key),))
        orders = Orders(Authority(1, 1, 1), self.keys.id, row, roster, (), {}, (), ())
        given = [anchor.certificate for anchor in anchors]
        return j.JoinReply(
            certificate=tuple(self.issuer.chain(self.issuer.issue_node(public_key, now_ns=self.clock.ns))),
            operator_certificate=tuple(
                self.issuer.chain(self.issuer.issue_operator(said.operator_public_key, now_ns=self.clock.ns))
            ),
            wrapped_id_key=row.wrapped_id_key,
            orders=orders,
            proof=enrolment.prove_anchors(token, given[0], given[1:], public_key) if token else b"",
        )

    async def call(self, link: Any, method: str, params: Any) -> Any:
        if method == "enrol.anchors":
            anchors = tuple(self.issuer.anchors(self.keys.id))
            return to_wire(j.AnchorsReply(self.mesh, "m", self.keys.id, self.issuer.root, anchors))
        request = from_wire(params, j.JoinRequest)
        token = tokens.digest(request.secret)
        if request.secret != self.secret:
            raise JoinLinkInvalid(detail="it is not known here")
        if self.used_by.setdefault(request.public_key, request.operator_public_key) != request.operator_public_key:
            raise AssertionError("the same newcomer came with another operator")
        if len(self.used_by) > 1:
            raise JoinLinkUsed
        if self.lose:
            self.lose -= 1
            await link.close()
            await asyncio.Event().wait()
        return to_wire(self.admit(request, request.public_key, token))

    async def notify(self, link: Any, method: str, params: Any) -> None: ...

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None: ...


async def join(network: MemoryNetwork, link: str, state: Path, name: str = "beta") -> str:
    return await joining.join_by_link(
        link,
        folder=StateFolder(state),
        config=Config(server=name, listen="127.0.0.1:0"),
        addresses=("beta:1",),
        never_admin=False,
        network=network.endpoint(None, name=name),
        clock=Clock(),
        version="1",
    )


def listening(network: MemoryNetwork, admin: Admin, address: str) -> Any:
    endpoint = network.endpoint(admin.certificate(), name=address)
    return endpoint.listen(address, authorise=lambda certificate: ANONYMOUS, handler=admin)


async def test_a_pasted_link_with_line_breaks_joins_and_the_folder_is_a_member(tmp_path: Path) -> None:
    network, admin = MemoryNetwork(), Admin()
    async with listening(network, admin, "a:1"):
        link = admin.link("a:1")
        pasted = f"  {link[:40]}\n   {link[40:]}\n"
        assert await join(network, pasted, tmp_path / "s") == "m"
        folder = StateFolder(tmp_path / "s")
        assert joining.is_member(folder) and IdentityStore(folder.identity).load_id_key() == ID_KEY
        with pytest.raises(StateNotEmpty) as caught:
            await join(network, link, tmp_path / "s")
        assert caught.value.fields["server"] == "beta"


async def test_a_join_whose_answer_was_lost_is_repeated_with_the_same_keys(tmp_path: Path) -> None:
    """The operator's key was a new one each time before: the mesh knew the first, the folder kept the second."""
    network, admin = MemoryNetwork(), Admin(lose=1)
    async with listening(network, admin, "a:1"):
        with pytest.raises(LinkLost):
            await join(network, admin.link("a:1"), tmp_path / "s")
        assert not joining.is_member(StateFolder(tmp_path / "s"))
        await join(network, admin.link("a:1"), tmp_path / "s")
        store = IdentityStore(tmp_path / "s" / "identity")
        assert admin.used_by == {store.load_keys().public_key: store.load_operator().key.public_key}


async def test_addresses_that_are_dead_or_another_meshs_are_passed_over(tmp_path: Path) -> None:
    network, admin, other = MemoryNetwork(), Admin(), Admin(mesh="mesh2")
    async with listening(network, admin, "a:1"), listening(network, other, "o:1"):
        await join(network, admin.link("dead:1", "o:1", "a:1"), tmp_path / "s")
        assert other.used_by == {}, "nothing was sent to it"


async def test_what_a_server_said_is_told_rather_than_that_another_was_not_there(tmp_path: Path) -> None:
    network, admin, other = MemoryNetwork(), Admin(), Admin(mesh="mesh2")
    async with listening(network, other, "o:1"):
        with pytest.raises(JoinLinkForeign):
            await join(network, admin.link("o:1", "dead:1"), tmp_path / "s")
    with pytest.raises(CannotConnect):
        await join(network, admin.link("dead:1"), tmp_path / "s")
    async with listening(network, admin, "a:1"):
        await join(network, admin.link("a:1"), tmp_path / "s")


async def test_wrong_expired_and_used_links_say_so_and_block_no_second_try(tmp_path: Path) -> None:
    network, admin = MemoryNetwork(), Admin()
    async with listening(network, admin, "a:1"):
        for bad, error in (
            (admin.link("a:1")[:-9], JoinLinkInvalid),
            ("nonsense", JoinLinkInvalid),
            (admin.link("a:1", life_s=-5), JoinLinkExpired),
        ):
            with pytest.raises(error):
                await join(network, bad, tmp_path / "s")
            assert not (tmp_path / "s").exists(), "such a link makes no folder at all"
        await join(network, admin.link("a:1"), tmp_path / "s")
        with pytest.raises(JoinLinkUsed):
            await join(network, admin.link("a:1"), tmp_path / "t", "gamma")
        fresh = Admin()
    async with listening(network, fresh, "f:1"):
        await join(network, fresh.link("f:1"), tmp_path / "t", "gamma")


async def test_nobody_joins_on_a_folder_that_a_daemon_holds(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with folder.locked(), pytest.raises(StateLocked):
        await join(MemoryNetwork(), Admin().link("a:1"), tmp_path)


# --- approval ---


class Waiting:
    """A new server that waits, and what it says."""

    def __init__(self, network: MemoryNetwork, state: Path) -> None:
        self.said: list[str] = []
        self.ready = asyncio.Event()
        self.folder = StateFolder(state)
        self._network = network

    async def run(self) -> str:
        self.folder.make()
        keys = NodeKeys.create()
        return await joining.wait_for_approval(
            folder=self.folder,
            config=Config(server="beta", listen="beta:7"),
            network=self._network.endpoint(certificates.self_signed(keys.signing.private, Clock().ns), name="beta"),
            discovery=None,
            addresses_of=lambda address: (address,),
            clock=Clock(),
            randomness=lambda size: b"n" * size,
            instance="i",
            version="1",
            never_admin=False,
            say=self.said.append,
            ready=self.ready.set,
        )


async def greet(network: MemoryNetwork, admin: Admin, nonce: bytes, *, mesh_name: str = "m") -> tuple[Any, Any, str]:
    endpoint = network.endpoint(admin.certificate(), name="admin")
    link = await endpoint.dial("beta:7", authorise=lambda certificate: ANONYMOUS, handler=RefusesAll())
    commit = j.AdoptCommit(approval.commitment(nonce, admin.keys.public_key), mesh_name, "a")
    await ask(link, "adopt.commit", commit, j.AdoptCommitReply)
    reveal = await ask(link, "adopt.reveal", j.AdoptReveal(nonce, admin.keys.public_key), j.AdoptRevealReply)
    return link, reveal, approval.code(nonce, admin.keys.public_key, reveal.nonce, reveal.key)


def accept(admin: Admin, reveal: j.AdoptRevealReply, nonce: bytes) -> j.AdoptAccept:
    root = admin.issuer.root
    return j.AdoptAccept(root, admin.keys.sign("adopt-accept/1", root + nonce), admin.admit(reveal, reveal.key, None))


async def test_of_several_meshes_that_greet_a_new_server_the_one_that_is_approved_gets_it(tmp_path: Path) -> None:
    network, one, other = MemoryNetwork(), Admin(), Admin(mesh="mesh2")
    waiting = Waiting(network, tmp_path)
    task = asyncio.create_task(waiting.run())
    await waiting.ready.wait()
    link, reveal, code = await greet(network, one, b"1" * 32)
    other_link, other_reveal, other_code = await greet(network, other, b"2" * 32)
    assert code != other_code and any(code in text for text in waiting.said)
    with pytest.raises(PeerFault):
        # the other one cannot speak in the name of the first
        wrong = accept(one, other_reveal, b"1" * 32)
        await ask(other_link, "adopt.accept", wrong, q.Nothing)
    await link.call("adopt.accept", to_wire(accept(one, reveal, b"1" * 32)))
    await link.close()
    assert await task == "beta:7"
    assert IdentityStore(tmp_path / "identity").load_mesh_id() == "mesh1"
    await other_link.close()


async def test_a_new_server_that_was_restarted_has_the_same_keys(tmp_path: Path) -> None:
    network, admin = MemoryNetwork(), Admin()
    seen = set()
    for nonce in (b"1" * 32, b"2" * 32):
        waiting = Waiting(network, tmp_path)
        task = asyncio.create_task(waiting.run())
        await waiting.ready.wait()
        link, reveal, _ = await greet(network, admin, nonce)
        seen.add((node_id(reveal.key), reveal.operator_public_key))
        await link.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(seen) == 1


async def test_names_of_those_who_greet_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    network, admin = MemoryNetwork(), Admin()
    waiting = Waiting(network, tmp_path)
    task = asyncio.create_task(waiting.run())
    await waiting.ready.wait()
    with pytest.raises(InvalidName):
        await greet(network, admin, b"1" * 32, mesh_name="m\x1b[2J")
    assert len(waiting.said) == 1
    network.drop_links()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
