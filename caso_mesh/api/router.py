"""Who may call what, and where it is answered.

Every message of every link comes here. Nodes call by their certificate; people sign each call, so that a server that
forwards it to the administrator in office can neither make nor change one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from caso_mesh.identity.requests import SignedRequest, check_request
from caso_mesh.identity.roster import Peer, may
from caso_mesh.model import facts
from caso_mesh.model.calls import BY_NAME, Call
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, NoAdmin, Refused, RoleTooLow, UnknownCall
from caso_mesh.model.mesh import Roster
from caso_mesh.model.requests import SignedCall
from caso_mesh.wire.codec import from_wire, to_wire, unpack

log = logging.getLogger(__name__)

_LONGEST_PARAMS = 4 << 20
#: How much longer than the caller a server that forwards waits for the administrator.
_FORWARD_SLACK_S = 2.0

NodeHandler = Callable[[Peer, Any, Any], Awaitable[Any]]
PeopleHandler = Callable[[Any, Any], Awaitable[Any]]


class Office(Protocol):
    """What the administrator in office answers."""

    node_handlers: Mapping[str, NodeHandler]
    people_handlers: Mapping[str, PeopleHandler]


class AdminLinks(Protocol):
    """The way to the administrator in office. ``get`` raises ``NoAdmin``."""

    def get(self) -> Any: ...


class Facts(Protocol):
    async def append(self, *new: facts.Fact) -> None: ...


class Router:
    """The handler of all links of one server. ``office`` is there while this server is in office."""

    def __init__(
        self,
        *,
        server_name: str,
        local: Mapping[str, NodeHandler],
        roster: Callable[[], Roster],
        admin: AdminLinks,
        facts: Facts,
        clock: Clock,
        caller: Callable[[str, str, str], Any],
    ) -> None:
        self._server_name = server_name
        self._local = local
        self._roster = roster
        self._admin = admin
        self._facts = facts
        self._clock = clock
        self._caller = caller
        self.office: Office | None = None

    # --- what links call ---

    async def call(self, link: Any, method: str, params: Any) -> Any:
        """Answers one call of one peer. Raises what goes to the peer as its error."""
        peer: Peer = link.peer
        if method == "call.signed":
            return await self._signed(peer, from_wire(params or {}, SignedCall), link)
        call = BY_NAME.get(method)
        if call is None:
            raise UnknownCall(peer=peer.name, call=method, detail="unknown call")
        await self._check_kind(peer, call, link)
        request = from_wire(params or {}, call.request)
        if call.place == "admin":
            if self.office is None:
                if call.needs == "anonymous":
                    return await self._admin.get().call(method, params)
                raise NoAdmin(server=self._server_name)
            handler = self.office.node_handlers.get(method)
        else:
            handler = self._local.get(method)
        if handler is None:
            raise UnknownCall(peer=peer.name, call=method, detail="it is for people")
        return to_wire(await handler(peer, request, link))

    async def notify(self, link: Any, method: str, params: Any) -> None:
        """As ``call``, without an answer."""
        try:
            await self.call(link, method, params)
        except CasoError as error:
            log.debug("notification %s of %s: %s", method, link.peer.name, error)

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        raise UnknownCall(peer=link.peer.name, call=method, detail="there is no stream of that name")

    async def _check_kind(self, peer: Peer, call: Call, link: Any) -> None:
        if call.needs == "anonymous":
            return
        if call.needs == "node" and peer.kind == "node" and (not peer.expired or call.name == "identity.renew"):
            return
        await self._refused(peer.name, call.name, "role-too-low", link)
        raise RoleTooLow(who=peer.name or "anybody", call=call.name, role=call.needs)

    async def _refused(self, who: str, what: str, outcome: str, link: Any) -> None:
        source = str(getattr(link, "remote_address", ""))
        await self._facts.append(facts.Audit(who, what, "security", outcome=outcome, source=source))

    # --- people ---

    async def _signed(self, peer: Peer, signed: SignedCall, link: Any) -> Any:
        if peer.kind == "anonymous" or peer.expired:
            raise RoleTooLow(who=peer.name, call=signed.call, role="viewer")
        if peer.kind == "operator" and peer.id != signed.operator:
            await self._refused(peer.name, signed.call, "refused", link)
            raise Refused(detail="a call signed by somebody else")
        call = BY_NAME.get(signed.call)
        if call is None or call.role is None:
            raise UnknownCall(peer=peer.name, call=signed.call, detail="unknown call")
        if call.place == "admin" and self.office is None:
            return await self._forward(signed)
        request_of = SignedRequest(
            signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns, signed.signature
        )
        person = check_request(self._roster(), request_of, self._clock.now_ns())
        params = unpack(signed.params, max_bytes=_LONGEST_PARAMS, peer=person.name)
        request = from_wire(params or {}, call.request, peer=person.name)
        if not self._may(person, call, request):
            await self._refused(person.name, call.name, "role-too-low", link)
            raise RoleTooLow(who=person.name, call=call.name, role=call.needs)
        source = str(getattr(link, "remote_address", ""))
        return to_wire(await self._do(person, call, request, signed, source, link))

    def _may(self, person: Peer, call: Call, request: Struct) -> bool:
        role = call.role
        if role is None:
            return False
        if may(person, role, None):
            return True
        servers = _servers_named(call, request)
        if call.place == "local":
            servers = [self._server_name]
        return bool(servers) and all(may(person, role, server) for server in servers)

    async def _do(
        self, person: Peer, call: Call, request: Struct, signed: SignedCall, source: str, link: Any
    ) -> Struct:
        outcome = "done"
        try:
            async with asyncio.timeout(max(0.1, signed.timeout_s)):
                if call.place == "admin":
                    if self.office is None:
                        raise NoAdmin(server=self._server_name)
                    handler = self.office.people_handlers[call.name]
                    caller = self._caller(person.name, source, f"{signed.operator[:13]}/{signed.request_id}")
                    return await handler(caller, request)
                return await self._local[call.name](person, request, link)
        except CasoError as error:
            outcome = error.code
            raise
        except TimeoutError:
            outcome = "unavailable"
            raise NoAdmin(server=self._server_name) from None
        finally:
            if call.changes:
                fields = _audited(to_wire(request))
                await self._facts.append(
                    facts.Audit(person.name, call.name, _category(call), outcome=outcome, source=source, fields=fields)
                )

    async def _forward(self, signed: SignedCall) -> Any:
        return await self._admin.get().call(
            "call.signed", to_wire(signed), timeout_s=signed.timeout_s + _FORWARD_SLACK_S
        )


def _servers_named(call: Call, request: Struct) -> list[str]:
    """The servers on which a role is needed, by the call's ``scope``."""
    if call.scope is None:
        return []
    value = getattr(request, call.scope)
    if isinstance(value, str):
        return [value]
    if value is None:
        return []
    if value and isinstance(value[0], str):
        return [value[0]]
    return [pair[0] for pair in value]


def _category(call: Call) -> str:
    return call.name.partition(".")[0]


def _audited(value: Any) -> Any:
    """The request as the audit log keeps it: what is long or binary is cut."""
    if isinstance(value, Mapping):
        return {str(key): _audited(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_audited(item) for item in value[:20]]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")[:500]
    if isinstance(value, str):
        return value[:500]
    return value
