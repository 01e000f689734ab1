"""Becoming an operator by a link: the key is made here, its certificate comes from the mesh."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from caso_mesh.model import joining as j
from caso_mesh.model import requests as q
from caso_mesh.model.errors import (
    CannotConnect,
    CasoError,
    CertificateRefused,
    JoinLinkExpired,
    JoinLinkForeign,
    NotOnRoster,
    PeerFault,
    Unavailable,
    UnknownCall,
    UnknownError,
)

if TYPE_CHECKING:
    import ssl

    from caso_mesh.identity.keys import SigningKey
    from caso_mesh.identity.tokens import JoinLink

T = TypeVar("T", bound=Struct)


def accept(text: str, folder: Path, endpoints: tuple[str, ...], timeout_s: float) -> tuple[str, tuple[str, ...]]:
    """Follows the link ``text`` and writes a context into ``folder``; gives the operator's name and the endpoints. After a
    break the same link may be followed again from the same folder.

    Raises the ``JoinLink...`` errors, ``CannotConnect``, ``StateDamaged``, ``OSError``.
    """
    from caso_mesh.identity import certificates, enrolment, tokens
    from caso_mesh.identity.store import write_context
    from caso_mesh.identity.tls import client_context, unverified_client_context

    link = tokens.parse_link(text, "operator")
    if link.expired(time.time_ns()):
        raise JoinLinkExpired
    key = _key(folder)
    signature = enrolment.sign_operator(key, mesh=link.mesh, binding=tokens.digest(link.secret))
    request = j.OperatorRequest(link.secret, key.public_key, signature)
    failures: list[CasoError] = []
    for address in link.addresses:
        try:
            anchors = _anchors(address, link, unverified_client_context, timeout_s)
            tls = client_context(None, None, anchors)
            reply = _ask(address, tls, "enrol.operator", request, j.OperatorReply, timeout_s)
        except (Unavailable, PeerFault, JoinLinkForeign, CertificateRefused, UnknownError) as error:
            failures.append(error)
            continue
        if not reply.anchors or not enrolment.anchors_proven(
            link, reply.anchors[0], reply.anchors[1:], key.public_key, reply.proof
        ):
            raise JoinLinkForeign(address=address)
        if not reply.certificate or certificates.public_key_of(reply.certificate[0]) != key.public_key:
            raise PeerFault(peer=address, detail="it sent the certificate of another operator")
        where = endpoints or reply.addresses or link.addresses
        write_context(folder, endpoints=where, mesh=link.mesh, anchors=reply.anchors, key=key, chain=reply.certificate)
        return reply.name, where
    # what a server said tells more than that another one was not there
    raise next((each for each in failures if not isinstance(each, CannotConnect)), failures[-1])


def _key(folder: Path) -> SigningKey:
    """Made once, so that whoever asks again after a break asks for the same."""
    from caso_mesh.identity.keys import SigningKey
    from caso_mesh.identity.private_files import make_private_folder, read_private, write_private
    from caso_mesh.identity.store import IdentityStore

    path = IdentityStore(folder).operator_key_path
    data = read_private(path)
    if data is not None:
        return SigningKey.from_pem(data, path)
    make_private_folder(folder)
    key = SigningKey.create()
    write_private(path, key.to_pem())
    return key


def _anchors(
    address: str, link: JoinLink, unverified: Callable[[], ssl.SSLContext], timeout_s: float
) -> tuple[bytes, ...]:
    """The mesh's certificates, fetched from who has not proved anything yet, and compared with the link."""
    from caso_mesh.identity.enrolment import believed_anchors

    try:
        reply = _ask(address, unverified(), "enrol.anchors", q.Nothing(), j.AnchorsReply, timeout_s)
    except (UnknownCall, NotOnRoster):
        raise JoinLinkForeign(address=address) from None
    others = believed_anchors(link, reply.root, reply.anchors)
    if reply.mesh != link.mesh or not others:
        raise JoinLinkForeign(address=address)
    return (reply.root, *others)


def _ask(address: str, tls: ssl.SSLContext, call: str, request: Struct, reply: type[T], timeout_s: float) -> T:
    from caso_mesh.wire.blocking import dial
    from caso_mesh.wire.codec import from_wire, to_wire

    connection = dial(address, tls=tls, authorise=lambda certificate: certificate, timeout_s=timeout_s)
    try:
        return from_wire(connection.call(call, to_wire(request), timeout_s=timeout_s), reply)
    finally:
        connection.close()
