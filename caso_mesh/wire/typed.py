"""Calls with records: packs the request, reads the reply strictly."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from msgspec import Struct

from caso_mesh.model.errors import Refused
from caso_mesh.wire.codec import from_wire, to_wire

T = TypeVar("T", bound=Struct)


class Callee(Protocol):
    """A link, or whatever can be called like one."""

    peer: Any

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any: ...

    async def notify(self, method: str, params: Any = None) -> None: ...


async def ask(link: Callee, method: str, request: Struct, reply: type[T], *, timeout_s: float | None = 15.0) -> T:
    """The reply of ``method`` as a record. Raises what ``Link.call`` raises, and ``PeerMalformed``."""
    return from_wire(await link.call(method, to_wire(request), timeout_s=timeout_s), reply)


class RefusesAll:
    """The handler of an end that may be asked nothing: one that joins, or that greets who is no member yet."""

    async def call(self, link: Any, method: str, params: Any) -> Any:
        raise Refused(detail="this end answers nothing")

    async def notify(self, link: Any, method: str, params: Any) -> None:
        raise Refused(detail="this end answers nothing")

    async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None:
        raise Refused(detail="this end answers nothing")
