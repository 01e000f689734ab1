"""What the office needs from the server it is on (``server/`` provides it; neither room imports the other), and who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import Struct

from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer, may, servers_of
from caso_mesh.model import facts
from caso_mesh.model.commands import Command
from caso_mesh.model.states import AlertKind, Role
from caso_mesh.wire.typed import Callee


class Links(Protocol):
    """Open links by node id."""

    def get(self, node: str) -> Callee: ...

    def linked(self, node: str) -> bool: ...

    def nodes(self) -> list[str]: ...

    def observe(self, observer: Callable[[str, bool], None]) -> Callable[[], None]: ...

    def greeting_of(self, node: str) -> Any: ...

    async def clock_offset_s(self, node: str) -> float: ...

    async def wait_for(self, node: str, timeout_s: float) -> Callee: ...


class Facts(Protocol):
    """The journal of the server in office."""

    async def append(self, *new: facts.Fact) -> None: ...

    async def alert(
        self, alert: AlertKind, category: str, text: str, *, object: str = "", fields: dict[str, Any] | None = None
    ) -> str: ...


class Submit(Protocol):
    """Proposes a command and returns its result once it is applied."""

    async def __call__(self, command: Command, *, who: str = "admin", request_id: str | None = None) -> Any: ...


class Caller(Struct, frozen=True):
    """Who asks a call of people: the operator's name, where from, and the request id of a repeatable call. ``person`` is
    the operator by the roster row."""

    who: str
    source: str
    request_id: str
    person: Peer

    def may(self, role: Role, server: str | None) -> bool:
        """Whether the person holds ``role`` in the whole mesh, or on a server (node id)."""
        return may(self.person, role, server)

    def limits(self, role: Role = Role.VIEWER) -> frozenset[str] | None:
        """The servers (node ids) that the person is limited to with ``role``; ``None`` = it holds in the whole mesh."""
        return servers_of(self.person, role)


#: A call of people, answered.
Answer = Callable[[Caller, Any], Awaitable[Any]]
#: A call of a node or a newcomer, answered: who asks, the request, the link.
NodeAnswer = Callable[[Peer, Any, Any], Awaitable[Any]]


class Done(Struct, frozen=True):
    """What a call came to when it was made for the first time."""

    result: Any = None


def done_before(keeper: ControlKeeper, caller: Caller) -> Done | None:
    """What the command of this very request came to, if it was committed earlier. Raises the error it came to."""
    seen = keeper.state.requests.get(caller.request_id)
    return None if seen is None else Done(seen.outcome.value())
