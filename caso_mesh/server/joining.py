"""Becoming a member of a mesh: with a join link, or by waiting until a person approves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from caso_mesh.config import Config, write_config
from caso_mesh.database import Database
from caso_mesh.discovery.sighting import Discovery, Sighting
from caso_mesh.identity import approval, certificates, enrolment, tokens
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.roster import ANONYMOUS, Peer
from caso_mesh.identity.store import IdentityStore
from caso_mesh.identity.tls import client_context, server_context, unverified_client_context
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import (
    CannotConnect,
    CasoError,
    CertificateRefused,
    JoinLinkExpired,
    JoinLinkForeign,
    JoinLinkInvalid,
    NotOnRoster,
    PeerFault,
    StateMissing,
    StateNotEmpty,
    UnknownCall,
)
from caso_mesh.model.ids import check_name, node_id
from caso_mesh.model.views import Done
from caso_mesh.sealing import signing
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.queue import MIGRATIONS, Queue
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.network import ClientTls, Network, ServerTls
from caso_mesh.wire.typed import RefusesAll, ask

log = logging.getLogger(__name__)


def is_member(folder: StateFolder) -> bool:
    """Whether this state folder belongs to a mesh."""
    return (folder.identity / "mesh.id").exists()


def new_state(folder: StateFolder, config: Config) -> tuple[IdentityStore, NodeKeys]:
    """Makes (or takes up again) a state folder that belongs to no mesh yet. Raises ``StateNotEmpty``."""
    check_name(config.server, "server")
    if is_member(folder):
        raise StateNotEmpty(state=folder.path, server=_name_in(folder))
    folder.create()
    write_config(folder.config, config)
    identity = IdentityStore(folder.identity)
    try:
        keys = identity.load_keys()
    except StateMissing:
        keys = NodeKeys.create()
        identity.save_keys(keys)
    return identity, keys


def _name_in(folder: StateFolder) -> str:
    for line in folder.config.read_text("utf-8").splitlines():
        if line.startswith("server"):
            return line.partition("=")[2].strip().strip('"')
    return "another"


async def install(
    folder: StateFolder,
    identity: IdentityStore,
    keys: NodeKeys,
    operator: SigningKey,
    reply: q.JoinReply,
    peers: tuple[str, ...] = (),
) -> None:
    """Writes down what makes this state folder a member; the mesh's id comes last, it is the sign that all is there.
    ``peers``: addresses at which somebody of the mesh was reached."""
    roster = reply.orders.roster
    id_key = enrolment.unwrap_id_key(keys, reply.wrapped_id_key, mesh=roster.mesh.id)

    def write() -> None:
        identity.save_chain(reply.certificate)
        identity.save_anchors(tuple(anchor.certificate for anchor in roster.anchors))
        identity.save_id_key(id_key)
        identity.write_operator(operator, reply.operator_certificate)

    await asyncio.to_thread(write)
    async with Database.open(folder.queue, MIGRATIONS, durable=True) as database:
        queue = Queue(database)
        await queue.save_orders(reply.orders)
        for address in peers:
            await queue.add_peer(address)
    await asyncio.to_thread(identity.save_mesh_id, roster.mesh.id)


# --- by link ---------------------------------------------------------------------------------------------------------


async def join_by_link(
    text: str,
    *,
    folder: StateFolder,
    config: Config,
    addresses: tuple[str, ...],
    never_admin: bool,
    network: Network,
    clock: Clock,
    version: str,
) -> str:
    """Joins; returns the name of the mesh. Raises the ``JoinLink...`` errors, ``CannotConnect``, ``AlreadyExists``."""
    link = tokens.parse_link(text)
    if link.expired(clock.now_ns()):
        raise JoinLinkExpired
    identity, keys = await asyncio.to_thread(new_state, folder, config)
    operator = SigningKey.create()
    last: CasoError = CannotConnect(address=", ".join(link.addresses), detail="the link names no address")
    for address in link.addresses:
        try:
            anchors = await _anchors(network, address, link)
        except CannotConnect as error:
            last = error
            continue
        newcomer = enrolment.Newcomer(
            name=config.server,
            public_key=keys.public_key,
            encryption_key=keys.encryption_key,
            addresses=addresses,
            never_admin=never_admin,
            preset=config.preset,
            version=version,
        )
        request = q.JoinRequest(
            secret=link.secret,
            name=config.server,
            public_key=keys.public_key,
            encryption_key=keys.encryption_key,
            operator_public_key=operator.public_key,
            addresses=addresses,
            version=version,
            signature=enrolment.sign_application(keys, newcomer, mesh=link.mesh, binding=tokens.digest(link.secret)),
            preset=config.preset,
            never_admin=never_admin,
        )
        connection = await network.dial(
            address,
            tls=ClientTls(lambda anchors=anchors: client_context(None, None, anchors)),  # type: ignore[misc]
            authorise=_any_server,
            handler=RefusesAll(),
        )
        try:
            reply = await ask(connection, "enrol.join", request, q.JoinReply, timeout_s=30.0)
        finally:
            await connection.close()
        given = [anchor.certificate for anchor in reply.orders.roster.anchors]
        if not enrolment.anchors_proven(link, given[0], given[1:], keys.public_key, reply.proof):
            raise JoinLinkForeign(address=address)
        await install(folder, identity, keys, operator, reply, link.addresses)
        return reply.orders.roster.mesh.name
    raise last


def _any_server(certificate: bytes | None) -> Peer:
    if certificate is None:
        raise CertificateRefused(peer="the server", detail="it shows no certificate")
    return Peer(id=node_id(certificates.public_key_of(certificate)), name="a server", kind="node")


async def _anchors(network: Network, address: str, link: tokens.JoinLink) -> tuple[bytes, ...]:
    """The mesh's certificates, fetched from who has not proved anything yet, and compared with the link."""
    connection = await network.dial(
        address, tls=ClientTls(unverified_client_context), authorise=_any_server, handler=RefusesAll()
    )
    try:
        reply = await ask(connection, "enrol.anchors", q.Nothing(), q.AnchorsReply)
    except (UnknownCall, NotOnRoster) as error:
        raise JoinLinkInvalid(detail=f"{address} answers {error.code}") from None
    finally:
        await connection.close()
    others = [a.certificate for a in reply.anchors if a.certificate != reply.root]
    if reply.mesh != link.mesh or not enrolment.anchors_match(link, reply.root, others):
        raise JoinLinkForeign(address=address)
    return (reply.root, *others)


# --- by approval -----------------------------------------------------------------------------------------------------


class _Talk(Struct):
    """One conversation with somebody who says to be the administrator."""

    commit: q.AdoptCommit
    nonce: bytes
    revealed: q.AdoptReveal | None = None
    code: str = ""


class Newcomer:
    """Answers the administrator that greets this server, until one was approved by a person."""

    def __init__(
        self,
        *,
        config: Config,
        keys: NodeKeys,
        randomness: Randomness,
        version: str,
        never_admin: bool,
        say: Callable[[str], None],
    ) -> None:
        self._config = config
        self._keys = keys
        self._randomness = randomness
        self._version = version
        self._never_admin = never_admin
        self._say = say
        self._talks: dict[str, _Talk] = {}
        self.operator = SigningKey.create()
        self.addresses: tuple[str, ...] = ()
        self.accepted: asyncio.Future[q.JoinReply] = asyncio.get_running_loop().create_future()
        self.installed = asyncio.Event()

    async def call(self, link: Any, method: str, params: Any) -> Any:
        match method:
            case "adopt.commit":
                return to_wire(self._commit(link, from_wire(params, q.AdoptCommit)))
            case "adopt.reveal":
                return to_wire(self._reveal(link, from_wire(params, q.AdoptReveal)))
            case "adopt.accept":
                self._accept(link, from_wire(params, q.AdoptAccept))
                await self.installed.wait()
                return to_wire(Done())
            case _:
                raise UnknownCall(peer="a server", call=method, detail="this server belongs to no mesh yet")

    async def notify(self, link: Any, method: str, params: Any) -> None:
        raise UnknownCall(peer="a server", call=method, detail="this server belongs to no mesh yet")

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        raise UnknownCall(peer="a server", call=method, detail="this server belongs to no mesh yet")

    def _commit(self, link: Any, commit: q.AdoptCommit) -> q.AdoptCommitReply:
        if len(self._talks) > 100:
            self._talks.clear()
        nonce = self._randomness(approval.NONCE_SIZE)
        self._talks[link.session] = _Talk(commit, nonce)
        return q.AdoptCommitReply(approval.commitment(nonce, self._keys.public_key))

    def _talk(self, link: Any) -> _Talk:
        talk = self._talks.get(link.session)
        if talk is None:
            raise PeerFault(peer="the administrator", detail="it did not begin with a commitment")
        return talk

    def _reveal(self, link: Any, reveal: q.AdoptReveal) -> q.AdoptRevealReply:
        talk = self._talk(link)
        if talk.revealed is not None or not approval.check_reveal(talk.commit.commitment, reveal.nonce, reveal.key):
            raise PeerFault(peer="the administrator", detail="it revealed another key than it had committed to")
        talk.revealed = reveal
        talk.code = approval.code(reveal.nonce, reveal.key, talk.nonce, self._keys.public_key)
        self._say(
            f"{talk.commit.admin_name} of mesh {talk.commit.mesh_name} has found this server. Code: {talk.code}\n"
            f"Compare it there and approve: caso-mesh server approve {self._config.server} --code {talk.code}"
        )
        described = enrolment.Newcomer(
            name=self._config.server,
            public_key=self._keys.public_key,
            encryption_key=self._keys.encryption_key,
            addresses=self.addresses,
            never_admin=self._never_admin,
            preset=self._config.preset,
            version=self._version,
        )
        return q.AdoptRevealReply(
            nonce=talk.nonce,
            key=self._keys.public_key,
            name=self._config.server,
            encryption_key=self._keys.encryption_key,
            operator_public_key=self.operator.public_key,
            addresses=self.addresses,
            version=self._version,
            signature=enrolment.sign_application(
                self._keys, described, mesh=self._keys.id, binding=talk.commit.commitment
            ),
            preset=self._config.preset,
            never_admin=self._never_admin,
        )

    def _accept(self, link: Any, accept: q.AdoptAccept) -> None:
        revealed = self._talk(link).revealed
        if revealed is None or not signing.verify(
            revealed.key, "adopt-accept/1", accept.root + revealed.nonce, accept.signature
        ):
            raise PeerFault(peer="the administrator", detail="the approval was not signed by the key it had revealed")
        anchors = accept.reply.orders.roster.anchors
        own = accept.reply.certificate and certificates.public_key_of(accept.reply.certificate[0])
        if not anchors or anchors[0].certificate != accept.root or own != self._keys.public_key:
            raise PeerFault(peer="the administrator", detail="the approval does not fit this server")
        if not self.accepted.done():
            self.accepted.set_result(accept.reply)


async def wait_for_approval(
    *,
    folder: StateFolder,
    config: Config,
    network: Network,
    discovery: Discovery | None,
    addresses_of: Callable[[str], tuple[str, ...]],
    clock: Clock,
    randomness: Randomness,
    instance: str,
    version: str,
    never_admin: bool,
    say: Callable[[str], None],
    ready: Callable[[], None],
) -> str:
    """Announces this server and waits until it was approved and is a member; returns the address it listened at."""
    identity, keys = await asyncio.to_thread(new_state, folder, config)
    certificate = certificates.self_signed(keys.signing.private, clock.now_ns())
    await asyncio.to_thread(identity.save_chain, (certificate,))
    newcomer = Newcomer(
        config=config, keys=keys, randomness=randomness, version=version, never_admin=never_admin, say=say
    )
    tls = ServerTls(lambda: server_context(identity.chain_path, identity.key_path, (), ask_client=False))
    listening = network.listen(config.listen, tls=tls, authorise=lambda certificate: ANONYMOUS, handler=newcomer)
    async with listening as listener:
        address = listener.address
        newcomer.addresses = addresses_of(address)
        folder.write_endpoint(address)
        if discovery is not None:
            await discovery.announce(
                Sighting(
                    mesh=None,
                    node=keys.id,
                    name=config.server,
                    addresses=newcomer.addresses,
                    version=version,
                    instance=instance,
                    discovered_by="mdns",
                )
            )
        say(f"{config.server} ({keys.id[:13]}) listens at {address} and waits to be found and approved")
        ready()
        reply = await newcomer.accepted
        await install(folder, identity, keys, newcomer.operator, reply)
        newcomer.installed.set()
        # the answer must be on its way before the listener goes
        await asyncio.sleep(0.2)
    say(f"{config.server} is a member of {reply.orders.roster.mesh.name} now")
    return address
