"""A server without a mesh: it waits until an administrator finds it and a person approves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from caso_mesh.config import Config
from caso_mesh.discovery.sighting import Discovery, Sighting
from caso_mesh.identity import approval, certificates, enrolment
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.roster import ANONYMOUS
from caso_mesh.identity.tls import server_context
from caso_mesh.model import joining as j
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import (
    Conflict,
    PeerFault,
    RateLimited,
    UnknownCall,
)
from caso_mesh.model.ids import check_name
from caso_mesh.model.views import Done
from caso_mesh.sealing import signing
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.membership import install, new_state, operator_key, wrong_in
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.network import Network, ServerTls

#: Administrators that may greet a waiting server at the same time.
_MOST_TALKS = 100
#: How long the administrator may take to hear that its newcomer is installed.
_ANSWER_S = 5.0


class _Talk(Struct):
    """One conversation with somebody who says to be the administrator."""

    link: Any
    commit: j.AdoptCommit
    nonce: bytes
    revealed: j.AdoptReveal | None = None
    code: str = ""


class Newcomer:
    """Answers the administrator that greets this server, until one was approved by a person."""

    def __init__(
        self,
        *,
        config: Config,
        keys: NodeKeys,
        operator: SigningKey,
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
        self.operator = operator
        self.addresses: tuple[str, ...] = ()
        self.accepted: asyncio.Future[j.JoinReply] = asyncio.get_running_loop().create_future()
        self.installed = asyncio.Event()
        self.approver: Any = None

    async def call(self, link: Any, method: str, params: Any) -> Any:
        match method:
            case "adopt.commit":
                return to_wire(self._commit(link, from_wire(params, j.AdoptCommit)))
            case "adopt.reveal":
                return to_wire(self._reveal(link, from_wire(params, j.AdoptReveal)))
            case "adopt.accept":
                self._accept(link, from_wire(params, j.AdoptAccept))
                await self.installed.wait()
                return to_wire(Done())
            case _:
                raise UnknownCall(peer="a server", call=method, detail="this server belongs to no mesh yet")

    async def notify(self, link: Any, method: str, params: Any) -> None:
        raise UnknownCall(peer="a server", call=method, detail="this server belongs to no mesh yet")

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        raise UnknownCall(peer="a server", call=method, detail="this server belongs to no mesh yet")

    def _commit(self, link: Any, commit: j.AdoptCommit) -> j.AdoptCommitReply:
        # these names come from anybody on the network, and a person will read them
        check_name(commit.mesh_name, "mesh")
        check_name(commit.admin_name, "server")
        if link.session in self._talks:
            raise PeerFault(peer="the administrator", detail="it began a second time")
        for session in [session for session, talk in self._talks.items() if talk.link.closed]:
            del self._talks[session]
        if len(self._talks) >= _MOST_TALKS:
            raise RateLimited(peer="administrators that greet this server")
        nonce = self._randomness(approval.NONCE_SIZE)
        self._talks[link.session] = _Talk(link, commit, nonce)
        return j.AdoptCommitReply(approval.commitment(nonce, self._keys.public_key))

    def _talk(self, link: Any) -> _Talk:
        talk = self._talks.get(link.session)
        if talk is None:
            raise PeerFault(peer="the administrator", detail="it did not begin with a commitment")
        return talk

    def _reveal(self, link: Any, reveal: j.AdoptReveal) -> j.AdoptRevealReply:
        talk = self._talk(link)
        if talk.revealed is not None or not approval.check_reveal(talk.commit.commitment, reveal.nonce, reveal.key):
            raise PeerFault(peer="the administrator", detail="it revealed another key than it had committed to")
        talk.revealed = reveal
        talk.code = approval.code(reveal.nonce, reveal.key, talk.nonce, self._keys.public_key)
        self._say(f"{talk.commit.admin_name} of mesh {talk.commit.mesh_name} has found this server. Code: {talk.code}")
        self._say(f"Compare it there and approve: caso-mesh server approve {self._config.server} --code {talk.code}")
        described = enrolment.Newcomer(
            name=self._config.server,
            public_key=self._keys.public_key,
            encryption_key=self._keys.encryption_key,
            addresses=self.addresses,
            never_admin=self._never_admin,
            preset=self._config.preset,
            version=self._version,
        )
        return j.AdoptRevealReply(
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

    def _accept(self, link: Any, accept: j.AdoptAccept) -> None:
        revealed = self._talk(link).revealed
        if revealed is None or not signing.verify(
            revealed.key, "adopt-accept/1", accept.root + revealed.nonce, accept.signature
        ):
            raise PeerFault(peer="the administrator", detail="the approval was not signed by the key it had revealed")
        wrong = wrong_in(accept.reply, self._keys, self.operator)
        if wrong is None and accept.reply.orders.roster.anchors[0].certificate != accept.root:
            wrong = "the approval names another root than its signature"
        if wrong:
            raise PeerFault(peer="the administrator", detail=wrong)
        if self.accepted.done():
            raise Conflict(detail="This server was approved already")
        self.approver = link
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
    identity, keys = await asyncio.to_thread(new_state, folder, config, randomness)
    operator = await asyncio.to_thread(operator_key, identity, randomness)
    certificate = certificates.self_signed(keys.signing.private, clock.now_ns())
    await asyncio.to_thread(identity.save_chain, (certificate,))
    newcomer = Newcomer(
        config=config,
        keys=keys,
        operator=operator,
        randomness=randomness,
        version=version,
        never_admin=never_admin,
        say=say,
    )
    tls = ServerTls(lambda: server_context(identity.chain_path, identity.key_path, (), ask_client=False))
    listening = network.listen(config.listen, tls=tls, authorise=lambda certificate: ANONYMOUS, handler=newcomer)
    async with listening as listener:
        address = listener.address
        newcomer.addresses = addresses_of(address)
        await asyncio.to_thread(folder.write_endpoint, address)
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
        # the administrator hangs up when it has the answer: before that the listener must not go
        await asyncio.wait([asyncio.ensure_future(newcomer.approver.wait_closed())], timeout=_ANSWER_S)
    say(f"{config.server} is a member of {reply.orders.roster.mesh.name} now")
    return address
