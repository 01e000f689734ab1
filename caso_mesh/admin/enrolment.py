"""Making servers members: join links, and discovered servers that a person approves after comparing a code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct, structs

from caso_mesh.admin.join_secrets import JoinSecrets, audited
from caso_mesh.admin.ports import Answer, Caller, Facts, Links, NodeAnswer, Submit
from caso_mesh.admin.visits import newcomers_at
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.discovery.sighting import Discovery, Gone, Sighting
from caso_mesh.identity import approval, enrolment, tokens
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.certificates import fingerprint, public_key_of
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.tls import unverified_client_context
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import AdmitServer, Command, CreateToken, ReplaceServer
from caso_mesh.model.errors import (
    CasoError,
    CodeMismatch,
    Conflict,
    InvalidValue,
    JoinLinkInvalid,
    NotFound,
    PeerFault,
    Refused,
    Unavailable,
)
from caso_mesh.model.facts import Audit
from caso_mesh.model.ids import check_name, node_id, token_id
from caso_mesh.model.mesh import Operator, Server
from caso_mesh.model.orders import Orders
from caso_mesh.model.states import Role, ServerState
from caso_mesh.model.units import format_instant
from caso_mesh.sealing.signing import can_verify
from caso_mesh.wire.link import Link
from caso_mesh.wire.network import ClientTls, Network, split_address
from caso_mesh.wire.typed import RefusesAll, ask

log = logging.getLogger(__name__)

#: Discovered servers that are greeted at the same time; more wait.
_GREETED_AT_ONCE = 32
#: Discovered servers that are held at once: on a network, anybody may announce anything.
_MOST_NEWCOMERS = 256
_MOST_ADDRESSES, _ADDRESSES_IN_LINK = 16, 8
#: Answers to repeated requests that only this office can give again.
_REMEMBERED = 1000


class Newcomer(Struct):
    """A discovered server: its link, and the code that it shows as well."""

    sighting: Sighting
    link: Link
    reveal: j.AdoptRevealReply
    nonce: bytes
    commitment: bytes
    code: str


class _Greeting:
    """One task for each newcomer, whoever told of it."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._slots = asyncio.Semaphore(_GREETED_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, node: str, greet: Callable[[str, asyncio.Semaphore], Coroutine[Any, Any, None]]) -> None:
        self._tasks = {other: task for other, task in self._tasks.items() if not task.done()}
        if node not in self._tasks:
            self._tasks[node] = self._group.create_task(greet(node, self._slots))


class Enrolment:
    """Holds nothing that must outlive the office: a discovered server is greeted anew by the next one."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        submit: Submit,
        facts: Facts,
        secrets: JoinSecrets,
        links: Links,
        network: Network,
        discovery: Discovery | None,
        static: Callable[[], Sequence[str]],
        keys: NodeKeys,
        authority: Authority,
        id_key: bytes,
        orders_of: Callable[[str], Orders],
        addresses: Callable[[], tuple[str, ...]],
        server_name: str,
        noted: Callable[..., Awaitable[None]],
        knows: Callable[[str], bool],
        unopened: Callable[[str], tuple[str, ...]],
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._noted = noted
        self._knows = knows
        self._unopened = unopened
        self._keeper = keeper
        self._submit = submit
        self._facts = facts
        self._links = links
        self._network = network
        self._discovery = discovery
        self._static = static
        self._keys = keys
        self._authority = authority
        self._id_key = id_key
        self._orders_of = orders_of
        self._addresses = addresses
        self._server_name = server_name
        self._clock = clock
        self._randomness = randomness
        self._seen: dict[str, Sighting] = {}
        self._newcomers: dict[str, Newcomer] = {}
        self._secrets = secrets
        self._approved: dict[str, str] = {}
        self._suspects: dict[str, None] = {}
        self._lock = asyncio.Lock()

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {"token.create": self._create_token, "server.approve": self._approve}

    def node_handlers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes and newcomers, by name."""
        return {"identity.renew": self._renew, "enrol.join": self._join}

    # --- join links ---

    async def _create_token(self, caller: Caller, request: q.TokenCreate) -> v.TokenView:
        secret, expires = self._secrets.make(caller, request.ttl_s)
        await self._submit(CreateToken(tokens.digest(secret), expires), who=caller.who, request_id=caller.request_id)
        link = tokens.make_link(
            mesh=self._keeper.state.info().id,
            root_fingerprint=fingerprint(self._authority.root),
            addresses=self._addresses()[:_ADDRESSES_IN_LINK],
            secret=secret,
            expires_at_ns=expires,
        )
        return v.TokenView(link, format_instant(expires) or "", token_id(tokens.digest(secret)))

    async def _join(self, peer: Peer, request: j.JoinRequest, link: Any) -> j.JoinReply:
        source = str(link.remote_address)
        fields = {"replaces": request.replaces[:63]} if request.replaces else {}
        async with audited(self._facts, request.name[:63], "enrol.join", source, fields):
            return await self._judge(request, tokens.digest(request.secret), source.rpartition(":")[0])

    async def _judge(self, request: j.JoinRequest, token: bytes, host: str) -> j.JoinReply:
        self._secrets.shown(token, host)
        if self._keeper.state.tokens.get(token) is None:
            raise JoinLinkInvalid(detail="it is not known here")
        newcomer = _newcomer(request)
        mesh = self._keeper.state.info().id
        if not enrolment.check_application(newcomer, request.signature, mesh=mesh, binding=token):
            raise JoinLinkInvalid(detail="the newcomer did not prove that it holds its key")
        if newcomer.replaces:
            self._check_gone(newcomer)
        return await self._admit(newcomer, request.operator_public_key, token=token, who="join-link")

    def _check_gone(self, newcomer: enrolment.Newcomer) -> None:
        """A machine takes the place of one that is not there. Raises ``NotFound``, ``Conflict``, ``Unavailable`` while this
        office is too young to know: it has no link with anybody in its first moments."""
        state = self._keeper.state
        known = state.servers.get(node_id(newcomer.public_key))
        if known is not None and known.succeeds and known.name == newcomer.replaces:
            return  # it is asked for again
        old = state.server_named(newcomer.replaces)
        if self._links.linked(old.id):
            raise Conflict(detail=f"{old.name} is there, and linked: stop its daemon for good before it is replaced")
        if not self._knows(old.id):
            raise Unavailable(
                what=f"The administrator, which took office a moment ago and does not know whether {old.name} is there,"
            )

    async def _admit(
        self, newcomer: enrolment.Newcomer, operator_key: bytes, *, token: bytes | None, who: str
    ) -> j.JoinReply:
        _check_newcomer(newcomer, operator_key)
        state, now_ns = self._keeper.state, self._clock.now_ns()
        row: Server = enrolment.server_row(
            newcomer, id_key=self._id_key, mesh=state.info().id, now_ns=now_ns, randomness=self._randomness
        )
        operator = Operator(
            name=local_operator_name(newcomer.name, row.id),
            id=node_id(operator_key),
            public_key=operator_key,
            role=Role.VIEWER,
            created_at_ns=now_ns,
            server_roles=((row.id, Role.OPERATOR),),
            home=row.id,
        )
        await self._submit(self._command(row, operator, token, newcomer.replaces), who=who)
        # committed first, signed then: the same newcomer that asks again gets the same answer
        chain = enrolment.newcomer_chain(
            self._authority, newcomer.public_key, now_ns=now_ns, randomness=self._randomness
        )
        operator_chain = self._authority.chain(
            self._authority.issue_operator(operator_key, now_ns=now_ns, randomness=self._randomness)
        )
        orders = _first_orders(self._orders_of(row.id), operator.id)
        anchors = [anchor.certificate for anchor in orders.roster.anchors]
        await self._noted(row.id, operator.id)
        proof = enrolment.prove_anchors(token, anchors[0], anchors[1:], newcomer.public_key) if token else b""
        return j.JoinReply(
            certificate=tuple(chain),
            operator_certificate=tuple(operator_chain),
            wrapped_id_key=self._keeper.state.server(row.id).wrapped_id_key,
            orders=orders,
            proof=proof,
            warnings=self._unopened(row.id) if newcomer.replaces else (),
        )

    def _command(self, row: Server, operator: Operator, token: bytes | None, replaces: str) -> Command:
        if not replaces or token is None:
            return AdmitServer(row, operator, token)
        state = self._keeper.state
        known = state.servers.get(row.id)
        old = known.succeeds[-1] if known is not None and known.succeeds else state.server_named(replaces).id
        return ReplaceServer(row, operator, token, old, self._keys.id)

    async def _renew(self, peer: Peer, request: q.Nothing, link: Any) -> n.RenewReply:
        """New certificates for a server that is on the roster, and for the operator of its state folder."""
        now_ns = self._clock.now_ns()
        server = self._keeper.state.server(peer.id)
        chain = enrolment.newcomer_chain(self._authority, server.public_key, now_ns=now_ns, randomness=self._randomness)
        operator = next((each for each in self._keeper.state.operator_list() if each.home == peer.id), None)
        operator_chain: tuple[bytes, ...] = ()
        if operator is not None:
            operator_chain = self._authority.chain(
                self._authority.issue_operator(operator.public_key, now_ns=now_ns, randomness=self._randomness)
            )
        await self._noted(server.id, *([operator.id] if operator is not None else []))
        return n.RenewReply(tuple(chain), tuple(operator_chain))

    # --- discovered servers ---

    async def run(self) -> None:
        """Greets servers that belong to no mesh, and that discovery shows or that answer where a person said
        (``peer add``). Never returns."""
        try:
            async with asyncio.TaskGroup() as group:
                greeting = _Greeting(group)
                named = newcomers_at(self._static, self._known_addresses, self._network)
                group.create_task(self._greet_all(named, greeting))
                if self._discovery is not None:
                    group.create_task(self._greet_all(self._discovery.sightings(), greeting))
        finally:
            self._seen.clear()
            for newcomer in list(self._newcomers.values()):
                await newcomer.link.close()
            self._newcomers.clear()

    async def _greet_all(self, sightings: AsyncIterator[Sighting | Gone], greeting: _Greeting) -> None:
        async for sighting in sightings:
            if isinstance(sighting, Gone):
                self._seen.pop(sighting.node, None)
            elif sighting.mesh is not None:
                self._seen.pop(sighting.node, None)  # it belongs to a mesh now
            elif sighting.node and (sighting.node in self._seen or len(self._seen) < _MOST_NEWCOMERS):
                self._seen[sighting.node] = sighting
                greeting.begin(sighting.node, self._greet)

    def _known_addresses(self) -> set[str]:
        """Of members that were linked once, and of newcomers that are greeted now."""
        members = (server for server in self._keeper.state.server_list() if server.ever_linked)
        return {address for server in members for address in server.addresses} | {
            address
            for newcomer in self._newcomers.values()
            if not newcomer.link.closed
            for address in newcomer.sighting.addresses
        }

    async def _greet(self, node: str, slots: asyncio.Semaphore) -> None:
        """Keeps a link with one newcomer for as long as it is seen. One that was admitted and never got its
        certificates is greeted as well: it can be approved again."""
        pause_s = 1.0
        while node in self._seen and node not in self._keeper.state.removed:
            server = self._keeper.state.servers.get(node)
            if server is not None and server.ever_linked:
                break
            async with slots:
                newcomer = await self._first_contact(self._seen[node])
            if newcomer is not None:
                pause_s = 1.0
                self._newcomers[node] = newcomer
                try:
                    await newcomer.link.wait_closed()
                finally:
                    self._newcomers.pop(node, None)
            elif self._seen[node].discovered_by == "static":
                break  # whoever visits that address tells when somebody is there again
            await asyncio.sleep(pause_s)
            pause_s = min(30.0, 2 * pause_s)
        self._seen.pop(node, None)

    async def _first_contact(self, sighting: Sighting) -> Newcomer | None:
        certificates: list[bytes] = []

        def note(certificate: bytes | None) -> Peer:
            if certificate is None:
                raise PeerFault(peer=sighting.name, detail="it shows no certificate")
            certificates.append(certificate)
            return Peer(id=node_id(public_key_of(certificate)), name=sighting.name, kind="anonymous")

        for address in sighting.addresses:
            link: Link | None = None
            try:
                link = await self._network.dial(
                    address, tls=ClientTls(unverified_client_context), authorise=note, handler=RefusesAll()
                )
                return await self._exchange(sighting, link)
            except (CasoError, ValueError) as error:
                log.debug("greeting %s at %s: %s", sighting.name, address, error)
                if isinstance(error, PeerFault):
                    await self._suspect(sighting, address, error)
                if link is not None:
                    await link.close()
        return None

    async def _suspect(self, sighting: Sighting, address: str, error: PeerFault) -> None:
        """A discovered server that breaks the exchange may be somebody who looks for keys that give a certain code."""
        if sighting.node not in self._suspects:
            self._suspects[sighting.node] = None
            while len(self._suspects) > _MOST_NEWCOMERS:
                del self._suspects[next(iter(self._suspects))]
            fields = {"detail": error.message[:500]}
            entry = Audit(sighting.name[:63], "server.greet", "security", error.code, address[:262], fields)
            await self._facts.append(entry)

    async def _exchange(self, sighting: Sighting, link: Link) -> Newcomer:
        nonce = self._randomness(approval.NONCE_SIZE)
        ours = approval.commitment(nonce, self._keys.public_key)
        commit = j.AdoptCommit(ours, self._keeper.state.info().name, self._server_name)
        theirs = await ask(link, "adopt.commit", commit, j.AdoptCommitReply)
        reveal = await ask(link, "adopt.reveal", j.AdoptReveal(nonce, self._keys.public_key), j.AdoptRevealReply)
        if (
            not approval.check_reveal(theirs.commitment, reveal.nonce, reveal.key)
            or node_id(reveal.key) != link.peer.id
            or link.peer.id != sighting.node
        ):
            raise PeerFault(peer=sighting.name, detail="it revealed another key than it had committed to")
        code = approval.code(nonce, self._keys.public_key, reveal.nonce, reveal.key)
        return Newcomer(sighting, link, reveal, nonce, theirs.commitment, code)

    def discovered(self) -> tuple[v.ServerView, ...]:
        """Those that wait for approval, with their codes."""
        views = []
        for node, newcomer in sorted(self._newcomers.items(), key=lambda item: item[1].reveal.name):
            if newcomer.link.closed:
                continue
            views.append(
                v.ServerView(
                    name=newcomer.reveal.name,
                    id=node,
                    state=ServerState.DISCOVERED.value,
                    connected=True,
                    admin=False,
                    voter=False,
                    pools=(),
                    address=newcomer.sighting.addresses[0] if newcomer.sighting.addresses else "",
                    version=newcomer.reveal.version,
                    code=newcomer.code,
                )
            )
        return tuple(views)

    async def _approve(self, caller: Caller, request: q.ServerApprove) -> v.ServerView:
        async with self._lock:
            approved = self._approved.get(caller.request_id)
            if approved is not None and approved in self._keeper.state.servers:
                return self._member_view(approved)
            found = [
                each for each in self._newcomers.values() if each.reveal.name == request.name and not each.link.closed
            ]
            if not found:
                raise NotFound(kind="discovered server", name=request.name)
            matching = [each for each in found if approval.codes_equal(each.code, request.code)]
            if not matching:
                raise CodeMismatch(code=request.code, server=request.name)
            newcomer = matching[0]
            described = _newcomer(newcomer.reveal)
            binding = approval.commitment(newcomer.nonce, self._keys.public_key)
            mesh = newcomer.link.peer.id  # a newcomer knows no mesh yet: it signs for its own id
            if not enrolment.check_application(described, newcomer.reveal.signature, mesh=mesh, binding=binding):
                raise Refused(detail=f"{request.name} did not prove that it holds its key")
            reply = await self._admit(described, newcomer.reveal.operator_public_key, token=None, who=caller.who)
            root = self._authority.root
            accept = j.AdoptAccept(root, self._keys.sign("adopt-accept/1", root + newcomer.nonce), reply)
            await ask(newcomer.link, "adopt.accept", accept, v.Done, timeout_s=30.0)
            node = node_id(newcomer.reveal.key)
            self._approved[caller.request_id] = node
            while len(self._approved) > _REMEMBERED:
                del self._approved[next(iter(self._approved))]
            self._seen.pop(node, None)
            await newcomer.link.close()
        return self._member_view(node)

    def _member_view(self, node: str) -> v.ServerView:
        server = self._keeper.state.server(node)
        return v.ServerView(
            name=server.name,
            id=server.id,
            state=server.state.value,
            connected=False,
            admin=False,
            voter=server.voter,
            pools=(),
            address=server.addresses[0] if server.addresses else "",
            version=server.version,
        )


def _check_newcomer(newcomer: enrolment.Newcomer, operator_key: bytes) -> None:
    """What would fail only after it was committed is refused before."""
    check_name(newcomer.name, "server")
    if not can_verify(operator_key) or operator_key == newcomer.public_key:
        raise InvalidValue(value="its operator's key", what="newcomer", expected="It has a signing key of its own")
    if newcomer.preset not in {"local", "lan", "wan"}:
        raise InvalidValue(value=newcomer.preset[:20], what="preset", expected="Use local, lan or wan")
    if len(newcomer.addresses) > _MOST_ADDRESSES or len(newcomer.version) > 100:
        raise InvalidValue(value=len(newcomer.addresses), what="number of addresses", expected="It is small")
    for address in newcomer.addresses:
        try:
            split_address(address)
        except ValueError as error:
            raise InvalidValue(value=address[:100], what="address", expected=str(error).capitalize()) from None


def local_operator_name(server: str, node: str) -> str:
    """What the operator of a server's state folder is called."""
    name = f"local-{server}"
    return name if len(name) <= 63 else f"{name[:54]}-{node[:8]}"


def _newcomer(said: j.JoinRequest | j.AdoptRevealReply) -> enrolment.Newcomer:
    key = said.public_key if isinstance(said, j.JoinRequest) else said.key
    return enrolment.Newcomer(
        name=said.name,
        public_key=key,
        encryption_key=said.encryption_key,
        addresses=said.addresses,
        never_admin=said.never_admin,
        preset=said.preset,
        version=said.version,
        replaces=said.replaces if isinstance(said, j.JoinRequest) else "",
    )


def _first_orders(orders: Orders, operator: str) -> Orders:
    """What a newcomer needs to find the administrator, also when by then it is another of the voters: its first full
    orders come over the link. They stay small, since one who is not a member yet is sent little at a time."""
    voters = {anchor.voter for anchor in orders.roster.anchors if anchor.voter}
    known = {orders.admin, orders.server.id, operator, *voters}
    rows = tuple(row for row in orders.roster.rows if row.id in known)
    nodes = tuple(node for node in orders.nodes if node.node in known)
    return structs.replace(
        orders, roster=structs.replace(orders.roster, rows=rows, removed=(), former=()), nodes=nodes, attempts=()
    )
