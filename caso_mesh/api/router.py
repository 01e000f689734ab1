"""Who may call what, and where it is answered.

Every message of every link comes here. Nodes call by their certificate; people sign each call, so that a server that
forwards it to the administrator in office can neither make nor change one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.identity.requests import SignedRequest, check_request
from caso_mesh.identity.roster import Peer, find, of_row, servers_of
from caso_mesh.model import facts
from caso_mesh.model.audit import Change, category_of
from caso_mesh.model.calls import BY_NAME, SHOWN, Call
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import (
    Ambiguous,
    CasoError,
    NoAdmin,
    NotFound,
    OutsideScope,
    PeerFault,
    PeerMalformed,
    RateLimited,
    Refused,
    RemovedFromMesh,
    RoleTooLow,
    TimedOut,
    UnknownCall,
)
from caso_mesh.model.mesh import Roster
from caso_mesh.model.nodes import SignedCall
from caso_mesh.model.states import Role
from caso_mesh.server.refusals import Refusals
from caso_mesh.wire.codec import from_wire, to_wire, unpack

log = logging.getLogger(__name__)

_LONGEST_PARAMS = 4 << 20
_LONGEST_REQUEST_ID = 128
_LONGEST_NAME = 100
#: What one call may have changed, in the audit log.
_MOST_CHANGES = 200
#: What voters may say to each other by certificates that have expired, beside renewing them: where all of them were
#: switched off for longer than a certificate lives, nobody is in office who could renew one until they have elected.
_ELECTING = frozenset({"link.hello", "consensus.message"})
#: Bounds of what a caller may wait.
_SHORTEST_S, _LONGEST_S = 0.1, 3600.0
#: How often it is looked whether the one that was asked is still in office, and how often it may not be.
_LOOK_S, _DEPOSED_LOOKS = 0.1, 4
#: How much longer than the caller a server that forwards waits for the administrator.
_FORWARD_SLACK_S = 2.0

NodeHandler = Callable[[Peer, Any, Any], Awaitable[Any]]
PeopleHandler = Callable[[Any, Any], Awaitable[Any]]


class Office(Protocol):
    """What the administrator in office answers."""

    node_handlers: Mapping[str, NodeHandler]
    people_handlers: Mapping[str, PeopleHandler]

    def noting(self, request_id: str) -> AbstractContextManager[list[Change]]:
        """While the block lasts, what the commands of a request change comes into the list."""
        ...

    async def concerned(self, call: Call, request: Any) -> frozenset[str]:
        """The servers (node ids) that a call concerns; none: the whole mesh."""
        ...


class AdminLinks(Protocol):
    """The way to the administrator in office. ``get`` raises ``NoAdmin``."""

    def get(self) -> Any: ...


class Facts(Protocol):
    async def append(self, *new: facts.Fact) -> None: ...


class Router:
    """The handler of all links of one server. ``office`` is there while this server is in office; ``own_work`` are the answers
    of what it does by itself."""

    def __init__(
        self,
        *,
        server_name: str,
        own: str,
        local: Mapping[str, NodeHandler],
        roster: Callable[[], Roster],
        admin: AdminLinks,
        facts: Facts,
        refusals: Refusals,
        clock: Clock,
        caller: Callable[[str, str, str, Peer], Any],
        own_work: Mapping[str, PeopleHandler] | None = None,
    ) -> None:
        self._server_name = server_name
        self._own = own
        self._local = local
        self._roster = roster
        self._admin = admin
        self._facts = facts
        self._clock = clock
        self._caller = caller
        self._own_work = own_work or {}
        self._refusals = refusals
        self._members: tuple[Roster | None, frozenset[str]] = (None, frozenset())
        self.office: Office | None = None

    # --- what links call ---

    async def call(self, link: Any, method: str, params: Any) -> Any:
        """Answers one call of one peer. Raises what goes to the peer as its error."""
        peer: Peer = link.peer
        await self._check_member(peer, method, link)
        if method == "call.signed":
            try:
                signed = from_wire(params or {}, SignedCall, peer=peer.name)
            except PeerFault as error:
                await self._note(peer.name, method, error, link)
                raise
            return await self._signed(peer, signed, link)
        call = BY_NAME.get(method)
        if call is None:
            unknown = UnknownCall(peer=peer.name, call=method[:_LONGEST_NAME], detail="unknown call")
            await self._note(peer.name, method, unknown, link)
            raise unknown
        await self._check_kind(peer, call, link)
        try:
            return await self._answer(peer, call, params, link)
        except (Refused, PeerFault) as error:
            # joining writes down itself what came of it, but for a flood
            if not call.changes or isinstance(error, RateLimited):
                await self._note(peer.name, method, error, link)
            raise

    async def _answer(self, peer: Peer, call: Call, params: Any, link: Any) -> Any:
        request = from_wire(params or {}, call.request, peer=peer.name)
        if call.place == "admin":
            if self.office is None:
                # a newcomer reaches the office by way of any server; nobody else's call is handed on, and none twice
                if call.needs == "anonymous" and peer.kind != "node":
                    return await self._other_admin().call(call.name, params)
                raise NoAdmin(server=self._server_name)
            handler = self.office.node_handlers.get(call.name)
        else:
            handler = self._local.get(call.name)
        if handler is None:
            raise UnknownCall(peer=peer.name, call=call.name, detail="it is not for this server, or not now")
        return to_wire(await handler(peer, request, link))

    async def _note(self, who: str, what: str, error: CasoError, link: Any) -> None:
        await self._refusals.note(who, what[:_LONGEST_NAME], error.code, str(getattr(link, "remote_address", "")))

    async def notify(self, link: Any, method: str, params: Any) -> None:
        """As ``call``, without an answer."""
        try:
            await self.call(link, method, params)
        except CasoError as error:
            log.debug("notification %s of %s: %s", method, link.peer.name, error)

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        raise UnknownCall(peer=link.peer.name, call=method[:_LONGEST_NAME], detail="there is no stream of that name")

    def _other_admin(self) -> Any:
        """The link to the administrator in office, which is not this server. Raises ``NoAdmin``: also while this
        server has just been elected and its office has not begun."""
        link = self._admin.get()
        if link.peer.id == self._own:
            raise NoAdmin(server=self._server_name)
        return link

    async def _check_member(self, peer: Peer, method: str, link: Any) -> None:
        """A link outlives the row that let it in: who was removed since is refused at once."""
        if peer.kind == "anonymous" or peer.id == self._own:
            return
        roster = self._roster()
        if self._members[0] is not roster:
            self._members = (roster, frozenset(row.id for row in roster.rows))
        if peer.id not in self._members[1]:
            removed = RemovedFromMesh(peer=peer.name)
            await self._note(peer.name, method, removed, link)
            raise removed

    async def _check_kind(self, peer: Peer, call: Call, link: Any) -> None:
        if call.needs == "anonymous":
            return
        if call.needs == "node" and peer.kind == "node":
            if not peer.expired or call.name == "identity.renew" or (call.name in _ELECTING and self._vote_both(peer)):
                return
        refusal = RoleTooLow(who=peer.name or "anybody", call=call.name, role=call.needs)
        await self._note(peer.name, call.name, refusal, link)
        raise refusal

    def _vote_both(self, peer: Peer) -> bool:
        return {peer.id, self._own} <= {anchor.voter for anchor in self._roster().anchors}

    # --- people ---

    async def _signed(self, peer: Peer, signed: SignedCall, link: Any) -> Any:
        name = signed.call[:_LONGEST_NAME]
        try:
            if peer.kind == "anonymous":
                raise RoleTooLow(who=peer.name, call=name, role="viewer")
            if peer.expired and (peer.kind != "operator" or name != "operator.renew"):
                raise Refused(
                    detail=f"The certificate of {peer.name} has expired, and nobody in office was there to renew it"
                )
            if peer.kind == "operator" and peer.id != signed.operator:
                raise Refused(detail="a call signed by somebody else")
            call = BY_NAME.get(signed.call)
            if call is None or call.role is None:
                raise UnknownCall(peer=peer.name, call=name, detail="unknown call")
            if call.place != "admin" and peer.kind != "operator":
                # it names no server: handed on, it would be done where nobody meant it
                raise Refused(
                    detail=f"What {self._server_name} answers by itself is asked of it, and not by way of another"
                )
            if call.place == "admin" and self.office is None:
                return await self._forward(peer, signed)
            roster = self._roster()
            person, request = self._understood(call, signed)
        except (Refused, PeerFault) as error:
            await self._note(peer.name, name, error, link)
            raise
        try:
            await self._check_scope(person, call, request)
        except Refused as error:
            await self._note(person.name, call.name, error, link)
            raise
        reply = await self._do(person, call, request, signed, link)
        if not call.changes and self._roster() is not roster:
            await self._check_still(person, call, request, link)
        return to_wire(reply)

    async def _check_still(self, person: Peer, call: Call, request: Struct, link: Any) -> None:
        """A call that only shows may wait for what it shows: whoever was revoked meanwhile is shown nothing any more."""
        try:
            now = of_row(find(self._roster(), person.id))
            if (now.role, now.server_roles) != (person.role, person.server_roles):
                await self._check_scope(now, call, request)
        except Refused as error:
            await self._note(person.name, call.name, error, link)
            raise

    def _understood(self, call: Call, signed: SignedCall) -> tuple[Peer, Struct]:
        """The operator by the roster as it is now, and what is asked."""
        request_of = SignedRequest(
            signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature
        )
        person = check_request(self._roster(), request_of, self._clock.now_ns())
        if not 1 <= len(signed.request_id) <= _LONGEST_REQUEST_ID:
            raise PeerMalformed(peer=person.name, detail="its request id is empty or too long")
        params = unpack(signed.params, max_bytes=_LONGEST_PARAMS, peer=person.name)
        return person, from_wire(params or {}, call.request, peer=person.name)

    async def _check_scope(self, person: Peer, call: Call, request: Struct) -> None:
        """Raises ``RoleTooLow`` for who has the role nowhere, ``OutsideScope`` for who has it elsewhere: also when what he
        names is not there, so that nobody learns what others have."""
        held = servers_of(person, Role(call.needs))
        if held is None or (held and call.scope == SHOWN):
            return
        if not held:
            raise RoleTooLow(who=person.name, call=call.name, role=call.needs)
        if call.place in {"local", "own"}:
            concerned = frozenset({self._own})
        elif not call.scope or self.office is None:
            concerned = frozenset()
        else:
            try:
                concerned = await self.office.concerned(call, request)
            except (NotFound, Ambiguous):
                concerned = frozenset()
        if not concerned or not concerned <= held:
            raise OutsideScope(who=person.name, call=call.name, role=call.needs)

    async def _do(self, person: Peer, call: Call, request: Struct, signed: SignedCall, link: Any) -> Struct:
        source = str(getattr(link, "remote_address", ""))
        # what was cut off in the middle may be done all the same: whoever asks again learns it
        outcome, request_id = "unknown", f"{signed.operator[:13]}/{call.name}/{signed.request_id}"
        office = self.office if call.changes and call.place == "admin" else None
        changed: list[Change] = []
        noting: AbstractContextManager[list[Change]] = (
            nullcontext(changed) if office is None else office.noting(request_id)
        )
        try:
            with noting as changed:
                reply = await self._answered(person, call, request, signed, source, link, request_id)
            outcome = "done"
            return reply
        except CasoError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = "internal-error"
            raise
        finally:
            if call.changes:
                await self._audit(person, call, request, outcome, source, changed)

    async def _answered(
        self,
        person: Peer,
        call: Call,
        request: Struct,
        signed: SignedCall,
        source: str,
        link: Any,
        request_id: str,
    ) -> Struct:
        # not a number is below every bound
        seconds = min(max(_SHORTEST_S, signed.timeout_s), _LONGEST_S) if signed.timeout_s > 0 else _SHORTEST_S
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                caller = self._caller(person.name, source, request_id, person)
                if call.place == "own":
                    return await self._handler(self._own_work, call)(caller, request)
                if call.place != "admin":
                    return await self._handler(self._local, call)(person, request, link)
                if self.office is None:
                    raise NoAdmin(server=self._server_name)
                return await self._handler(self.office.people_handlers, call)(caller, request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimedOut(what=f"{call.name} at {self._server_name}", seconds=seconds) from None

    def _handler(self, table: Mapping[str, Any], call: Call) -> Any:
        handler = table.get(call.name)
        if handler is None:
            raise UnknownCall(peer=self._server_name, call=call.name, detail="this server does not answer it")
        return handler

    async def _audit(
        self, person: Peer, call: Call, request: Struct, outcome: str, source: str, changed: list[Change]
    ) -> None:
        fields = facts.audited(to_wire(request))
        fact = facts.Audit(
            person.name,
            call.name,
            category_of(call.name),
            outcome=outcome,
            source=source,
            fields=fields,
            changed=tuple(changed[:_MOST_CHANGES]),
        )
        try:
            await self._facts.append(fact)
        except CasoError as error:
            # what was done is done: the person must not be told otherwise because its record has no room
            log.error("not in the audit log (%s): %s of %s, %s, %s", error, call.name, person.name, outcome, fields)

    async def _forward(self, peer: Peer, signed: SignedCall) -> Any:
        """To the administrator in office. What another server handed on is not handed on again: two that take each
        other for the administrator would play ball with it."""
        if peer.kind != "operator":
            raise NoAdmin(server=self._server_name)
        seconds = min(max(_SHORTEST_S, signed.timeout_s), _LONGEST_S) if signed.timeout_s > 0 else _SHORTEST_S
        until_s = self._clock.monotonic_s() + seconds
        while True:
            link = self._other_admin()
            left_s = max(_SHORTEST_S, until_s - self._clock.monotonic_s())
            asked = to_wire(replace(signed, timeout_s=left_s))
            answer = asyncio.ensure_future(link.call("call.signed", asked, timeout_s=left_s + _FORWARD_SLACK_S))
            try:
                if await self._comes(answer, link):
                    return answer.result()
            finally:
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)

    async def _comes(self, answer: asyncio.Future[Any], link: Any) -> bool:
        """Waits for an answer. One that is in office no longer may still have answered; if it does not come soon the next
        one is asked: it carries its request id, and has no second effect."""
        deposed = 0
        while deposed < _DEPOSED_LOOKS:
            done, _ = await asyncio.wait([answer], timeout=_LOOK_S)
            if done:
                return True
            deposed += not self._serves(link)
        return False

    def _serves(self, link: Any) -> bool:
        try:
            return self._other_admin() is link
        except NoAdmin:
            return False
