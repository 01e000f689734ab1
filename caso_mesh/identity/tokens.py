"""Join links: a short-lived, single-use right to join, which pins the mesh by the fingerprint of its root. There are those
for servers and those for operators.

Text form: ``caso-mesh:join:v1:``, or ``caso-mesh:operator:v1:``, and base64url (RFC 4648, section 5, without padding) of a msgpack map.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Literal

import msgspec
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import JoinLinkInvalid, Misuse

Kind = Literal["server", "operator"]
_PREFIX: dict[Kind, str] = {"server": "caso-mesh:join:v1:", "operator": "caso-mesh:operator:v1:"}
_MEANT_FOR: dict[Kind, str] = {
    "server": 'it is for a server: give it to "caso-mesh join"',
    "operator": 'it is for an operator: give it to "caso-mesh context create NAME --link"',
}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
#: 160 random bits.
SECRET_SIZE = 20
_SMALLEST_SECRET = 16
_LONGEST_TEXT = 4096
_MOST_ADDRESSES = 16
_ADDRESS = re.compile(r"[\x21-\x7e]{1,262}\Z")
_MESH_ID = re.compile(r"[a-z0-9._-]{1,64}\Z")


class JoinLink(Struct, frozen=True, forbid_unknown_fields=True):
    """What a join link says. ``root`` is the SHA-256 of the root certificate (DER), ``addresses`` are hints."""

    mesh: str
    root: bytes
    addresses: tuple[str, ...]
    secret: bytes
    expires_at_ns: int

    def expired(self, now_ns: int) -> bool:
        return now_ns > self.expires_at_ns

    def __repr__(self) -> str:
        # the secret must not end in a log
        return f"<JoinLink mesh={self.mesh} addresses={self.addresses}>"


def new_secret(randomness: Randomness) -> bytes:
    """The secret of a new link: ``SECRET_SIZE`` unpredictable bytes."""
    return randomness(SECRET_SIZE)


def make_link(
    *,
    mesh: str,
    root_fingerprint: bytes,
    addresses: tuple[str, ...],
    secret: bytes,
    expires_at_ns: int,
    kind: Kind = "server",
) -> str:
    """The text of a join link. Raises ``Misuse`` if ``parse_link`` would refuse it."""
    link = JoinLink(mesh, root_fingerprint, addresses, secret, expires_at_ns)
    wrong = _wrong(link)
    if wrong:
        raise Misuse(f"this makes no join link: {wrong}")
    text = _PREFIX[kind] + _encode(msgspec.msgpack.encode(link))
    if len(text) > _LONGEST_TEXT:
        raise Misuse("this makes no join link: it is too long")
    return text


def parse_link(text: str, kind: Kind = "server") -> JoinLink:
    """What ``make_link`` made; spaces and line ends around and inside are forgiven. Its expiry is not looked at.

    Raises ``JoinLinkInvalid``.
    """
    if len(text) > 2 * _LONGEST_TEXT:
        raise JoinLinkInvalid(detail="it is too long")
    text = "".join(text.split())
    for other, prefix in _PREFIX.items():
        if other != kind and text.startswith(prefix):
            raise JoinLinkInvalid(detail=_MEANT_FOR[other])
    if not text.startswith(_PREFIX[kind]):
        raise JoinLinkInvalid(detail=f"it does not begin with {_PREFIX[kind]}")
    body = text.removeprefix(_PREFIX[kind])
    if len(text) > _LONGEST_TEXT:
        raise JoinLinkInvalid(detail="it is too long")
    if not _BASE64URL.match(body):
        raise JoinLinkInvalid(detail="it is cut off or mistyped")
    try:
        packed = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        link = msgspec.msgpack.decode(packed, type=JoinLink)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise JoinLinkInvalid(detail="it is cut off or mistyped") from None
    # one link, one text: a second spelling would be a second key wherever links are compared
    if _encode(msgspec.msgpack.encode(link)) != body:
        raise JoinLinkInvalid(detail="it is cut off or mistyped")
    wrong = _wrong(link)
    if wrong:
        raise JoinLinkInvalid(detail=wrong)
    return link


def digest(secret: bytes) -> bytes:
    """What the mesh keeps of a secret: its SHA-256."""
    return hashlib.sha256(secret).digest()


def _wrong(link: JoinLink) -> str | None:
    if not _MESH_ID.match(link.mesh):
        return "its mesh is not an id"
    if len(link.root) != 32:
        return "its fingerprint has not 32 bytes"
    if not _SMALLEST_SECRET <= len(link.secret) <= 64:
        return "its secret is too short or too long"
    if not 1 <= len(link.addresses) <= _MOST_ADDRESSES:
        return "it has no address, or too many"
    if not all(_ADDRESS.match(address) for address in link.addresses):
        return "one of its addresses is not HOST:PORT"
    if not 0 < link.expires_at_ns < 1 << 63:
        return "its expiry is not a time"
    return None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
