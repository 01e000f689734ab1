"""What discovery yields: somebody claims to be there, under these addresses. Never more than a hint."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Literal, Protocol

from msgspec import Struct

from caso_mesh.model.errors import InvalidValue

_HOST = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,15})?\]\Z"
)


class Sighting(Struct, frozen=True):
    """Somebody who claims to be a server. It replaces an earlier sighting of the same ``node``.

    ``mesh`` is the short id of its mesh, None for a new server; ``node`` its node id, "" if unknown (static peers);
    ``addresses`` are HOST:PORT; ``instance`` tells one start of its daemon from the next (of a static peer: the
    address). Everything here is a claim: only the link says who is there.
    """

    mesh: str | None
    node: str
    name: str
    addresses: tuple[str, ...]
    version: str
    instance: str
    discovered_by: Literal["mdns", "static"]


class Gone(Struct, frozen=True):
    """A goodbye: the ``instance`` of ``node`` is not there any more. A killed daemon sends none."""

    node: str
    instance: str


class Discovery(Protocol):
    """A way to find servers and to be found."""

    async def announce(self, sighting: Sighting) -> None:
        """Says who is here from now on, instead of what was said before; returns before it is heard."""
        ...

    def sightings(self) -> AsyncIterator[Sighting | Gone]:
        """All who are seen now, then each change, without end; each call is a stream of its own. Never ourselves.

        A reader that is slow misses what was overtaken, not what is: at most one event per server waits.
        """
        ...


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``. Raises ``InvalidValue``."""
    host, _, port = address.rpartition(":")
    if not _HOST.match(host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        raise InvalidValue(value=address, what="address", expected="Use HOST:PORT, as in 192.0.2.7:7300")
    return host, int(port)
