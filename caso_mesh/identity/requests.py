"""Requests of operators, signed end to end: a node that forwards one to the administrator can neither forge nor change
it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from caso_mesh.model.errors import RequestRefused
from caso_mesh.model.ids import SHORT_NODE_ID
from caso_mesh.model.mesh import Roster
from caso_mesh.sealing import signing

if TYPE_CHECKING:
    from caso_mesh.identity.keys import SigningKey
    from caso_mesh.identity.roster import Peer

_DOMAIN = "request/1"
#: A request is accepted this long after it was signed, in seconds. Repeats within it have no second effect, since the
#: control state remembers request ids.
MAX_AGE_S = 600.0


class SignedRequest(Struct, frozen=True):
    """One call of an operator. ``params`` are the packed parameters, exactly as they were signed."""

    call: str
    params: bytes
    request_id: str
    operator: str
    at_ns: int
    signature: bytes


def sign_request(
    key: SigningKey, *, mesh: str, call: str, params: bytes, request_id: str, now_ns: int
) -> SignedRequest:
    """The request, signed by the operator who holds ``key``. ``mesh`` is the mesh's id."""
    signature = key.sign(_DOMAIN, _framed(mesh, call, params, request_id, key.id, now_ns))
    return SignedRequest(call, params, request_id, key.id, now_ns, signature)


def check_request(roster: Roster, signed: SignedRequest, now_ns: int, max_age_s: float = MAX_AGE_S) -> Peer:
    """The operator who signed it, as the roster has it *now*; what it may do is for ``roster.may`` to say.

    Raises ``RemovedFromMesh``, ``NotOnRoster``, ``RequestRefused``.
    """
    # whoever signs needs no roster, nor what reads certificates
    from caso_mesh.identity.roster import find, of_row

    row = find(roster, signed.operator)

    def refuse(detail: str) -> RequestRefused:
        return RequestRefused(who=row.name or signed.operator[:SHORT_NODE_ID], detail=detail)

    if row.kind != "operator":
        raise refuse("only operators sign requests")
    framed = _framed(roster.mesh.id, signed.call, signed.params, signed.request_id, signed.operator, signed.at_ns)
    if not signing.verify(row.public_key, _DOMAIN, framed, signed.signature):
        raise refuse("its signature is wrong")
    if abs(now_ns - signed.at_ns) > max_age_s * 1e9:
        raise refuse("it was signed too long ago, or the clocks differ")
    return of_row(row)


def _framed(mesh: str, call: str, params: bytes, request_id: str, operator: str, at_ns: int) -> bytes:
    parts = (mesh, call, request_id, operator, str(at_ns))
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    head = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    return head + sha256(params).digest()
