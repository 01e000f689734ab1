"""Tickets: the administrator's word to one server that another may take part in one attempt, over these paths."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from hashlib import sha256

import msgspec
from msgspec import Struct

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import TicketInvalid
from caso_mesh.model.ids import node_id
from caso_mesh.sealing import signing

_DOMAIN = "ticket/1"
_LONGEST = 4096
_NONCE_SIZE = 16
#: How long a ticket admits after it was issued.
TICKET_LIFE_S = 900.0
#: Clocks may differ by this much before a ticket seems to come from the future.
CLOCK_SKEW_S = 30.0


class Ticket(Struct, frozen=True, forbid_unknown_fields=True):
    """``dialler`` and ``acceptor`` are the node ids of both ends; either may check the other's right.

    ``paths`` is ``digest_of_paths`` of what may be read or written. (``lineage``, ``term``, ``index``) is what the
    ticket stands on; ``issuer`` is the node id of the administrator that signed it.
    """

    attempt: str
    part: str
    dialler: str
    acceptor: str
    paths: bytes
    lineage: int
    term: int
    index: int
    issued_at_ns: int
    expires_at_ns: int
    nonce: bytes
    issuer: str


class _Signed(Struct, frozen=True, forbid_unknown_fields=True):
    ticket: bytes
    signature: bytes


def issue(
    keys: NodeKeys,
    *,
    attempt: str,
    part: str,
    dialler: str,
    acceptor: str,
    paths: bytes,
    lineage: int,
    term: int,
    index: int,
    now_ns: int,
    randomness: Randomness,
    life_s: float = TICKET_LIFE_S,
) -> bytes:
    """A ticket signed by the node key of the administrator in office."""
    ticket = Ticket(
        attempt=attempt,
        part=part,
        dialler=dialler,
        acceptor=acceptor,
        paths=paths,
        lineage=lineage,
        term=term,
        index=index,
        issued_at_ns=now_ns,
        expires_at_ns=now_ns + int(life_s * 1e9),
        nonce=randomness(_NONCE_SIZE),
        issuer=keys.id,
    )
    packed = msgspec.msgpack.encode(ticket)
    return msgspec.msgpack.encode(_Signed(packed, keys.sign(_DOMAIN, packed)))


def read_unchecked(data: bytes) -> Ticket:
    """What a ticket says, without believing it: to learn whose key to check it with. Raises ``TicketInvalid``."""
    return _decode(data, "?")[0]


def check(
    data: bytes,
    *,
    issuer_public_key: bytes,
    attempt: str,
    this_node: str,
    other_node: str,
    paths_digest: bytes,
    now_ns: int,
    seen: Callable[[bytes], bool],
    known_term: tuple[int, int] = (0, 0),
) -> Ticket:
    """The ticket, if it admits ``other_node`` (id of the peer's certificate) here, now and for the first time.

    ``issuer_public_key`` (DER) is of the administrator in office that this server knows; ``known_term`` the highest
    (lineage, term) it has seen. ``seen(nonce)`` remembers the nonce and says whether it was there before; it is asked
    last, so that a ticket that fails otherwise is not used up. Nonces need to be remembered until the ticket expires.
    Raises ``TicketInvalid``.
    """

    def refuse(detail: str) -> TicketInvalid:
        return TicketInvalid(attempt=attempt, detail=detail)

    ticket, signed = _decode(data, attempt)
    if ticket.issuer != node_id(issuer_public_key):
        raise refuse("it was not issued by the administrator in office")
    if not signing.verify(issuer_public_key, _DOMAIN, signed.ticket, signed.signature):
        raise refuse("its signature is wrong")
    if (ticket.lineage, ticket.term) < known_term:
        raise refuse("an administrator of an earlier term issued it")
    if ticket.attempt != attempt:
        raise refuse("it is for another attempt")
    # of two workers of one server, one of which writes to a second device, both are the same
    if {ticket.dialler, ticket.acceptor} != {this_node, other_node}:
        raise refuse("it is for other servers")
    if not hmac.compare_digest(ticket.paths, paths_digest):
        raise refuse("it is for other paths")
    if ticket.issued_at_ns > now_ns + int(CLOCK_SKEW_S * 1e9):
        raise refuse("it was issued in the future; the clocks differ")
    if now_ns > ticket.expires_at_ns:
        raise refuse("it has expired")
    if len(ticket.nonce) != _NONCE_SIZE:
        raise refuse("its nonce is malformed")
    if seen(ticket.nonce):
        raise refuse("it was used before")
    return ticket


def digest_of_paths(paths: Iterable[bytes]) -> bytes:
    """SHA-256 of a list of paths; order counts, and no two lists have the same framing."""
    state = sha256(b"caso-mesh/paths/1")
    for path in paths:
        state.update(len(path).to_bytes(8, "big"))
        state.update(path)
    return state.digest()


def _decode(data: bytes, attempt: str) -> tuple[Ticket, _Signed]:
    try:
        if len(data) > _LONGEST:
            raise TicketInvalid(attempt=attempt, detail="it is too long")
        signed = msgspec.msgpack.decode(data, type=_Signed)
        return msgspec.msgpack.decode(signed.ticket, type=Ticket), signed
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise TicketInvalid(attempt=attempt, detail="it is malformed") from None
