"""Greetings of links without what no honest peer sends."""

from __future__ import annotations

from typing import TypeVar

from msgspec import structs

from caso_mesh.model.nodes import HelloReply, HelloRequest
from caso_mesh.wire.network import split_address

#: Addresses of one server in a greeting.
_MOST_ADDRESSES = 16
#: No id of a node or a daemon is longer.
_LONGEST_ID = 64

H = TypeVar("H", HelloRequest, HelloReply)


def bounded(hello: H) -> H:
    """A greeting without what no honest peer sends: nothing of it is kept or passed on in other sizes."""
    return structs.replace(
        hello,
        name=hello.name[:63],
        version=hello.version[:100],
        addresses=bounded_addresses(hello.addresses),
        admin=hello.admin[:_LONGEST_ID] if hello.admin is not None else None,
        instance=hello.instance[:_LONGEST_ID],
    )


def bounded_reply(reply: HelloReply) -> HelloReply:
    """As ``bounded``."""
    return structs.replace(bounded(reply), admin_addresses=bounded_addresses(reply.admin_addresses))


def bounded_addresses(given: tuple[str, ...]) -> tuple[str, ...]:
    """Those of some addresses that may be ones, not too many."""
    return tuple(address for address in given[:_MOST_ADDRESSES] if _is_address(address))


def _is_address(address: str) -> bool:
    try:
        split_address(address)
    except ValueError:
        return False
    return len(address) <= 262
