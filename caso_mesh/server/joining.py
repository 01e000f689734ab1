"""Becoming a member of a mesh with a join link."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from caso_mesh.config import Config
from caso_mesh.identity import certificates, enrolment, tokens
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.tls import client_context, unverified_client_context
from caso_mesh.model import joining as j
from caso_mesh.model import requests as q
from caso_mesh.model.clock import Clock, Randomness
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
from caso_mesh.model.ids import node_id
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.membership import install, is_member, new_state, operator_key
from caso_mesh.server.newcomer import wait_for_approval
from caso_mesh.wire.network import ClientTls, Network
from caso_mesh.wire.typed import RefusesAll, ask

__all__ = ["is_member", "join_by_link", "new_state", "wait_for_approval"]

log = logging.getLogger(__name__)


async def join_by_link(
    text: str,
    *,
    folder: StateFolder,
    config: Config,
    addresses: tuple[str, ...],
    never_admin: bool,
    replaces: str = "",
    network: Network,
    clock: Clock,
    randomness: Randomness = os.urandom,
    same_thread: bool = False,
    version: str,
    warn: Callable[[str], None] = log.warning,
) -> str:
    """Joins, with ``replaces`` in the place of the server of that name; returns the name of the mesh. ``warn`` is told what a
    person should know. After a break the same link may be used again on the same state folder.

    Raises the ``JoinLink...`` errors, ``CannotConnect``, ``AlreadyExists``, ``StateLocked``, ``StateNotEmpty``,
    ``StateForeign``.
    """
    link = tokens.parse_link(text)
    if link.expired(clock.now_ns()):
        raise JoinLinkExpired
    await asyncio.to_thread(folder.make)
    with folder.locked():
        identity, keys = await asyncio.to_thread(new_state, folder, config, randomness)
        operator = await asyncio.to_thread(operator_key, identity, randomness)
        newcomer = enrolment.Newcomer(
            name=config.server,
            public_key=keys.public_key,
            encryption_key=keys.encryption_key,
            addresses=addresses,
            never_admin=never_admin,
            preset=config.preset,
            version=version,
            replaces=replaces,
        )
        request = j.JoinRequest(
            secret=link.secret,
            name=config.server,
            public_key=keys.public_key,
            encryption_key=keys.encryption_key,
            operator_public_key=operator.public_key,
            addresses=addresses,
            version=version,
            signature=enrolment.sign_application(keys, newcomer, mesh=link.mesh, binding=tokens.digest(link.secret)),
            preset=config.preset,
            never_admin=never_admin,
            replaces=replaces,
        )
        # An address may belong to somebody else by now, or not reach the administrator: the next one may.
        failures: list[CasoError] = []
        for address in link.addresses:
            try:
                anchors = await _anchors(network, address, link)
                reply = await _apply(network, address, anchors, request)
            except (Unavailable, PeerFault, JoinLinkForeign, CertificateRefused, UnknownError) as error:
                log.info("joining at %s: %s", address, error)
                failures.append(error)
                continue
            given = [anchor.certificate for anchor in reply.orders.roster.anchors]
            if not given or not enrolment.anchors_proven(link, given[0], given[1:], keys.public_key, reply.proof):
                raise JoinLinkForeign(address=address)
            if reply.orders.roster.mesh.id != link.mesh:
                raise JoinLinkForeign(address=address)
            await install(folder, identity, keys, operator, reply, link.addresses, same_thread=same_thread)
            for warning in reply.warnings:
                warn(warning)
            return reply.orders.roster.mesh.name
        # what a server said tells more than that another one was not there
        raise next((each for each in failures if not isinstance(each, CannotConnect)), failures[-1])


async def _apply(network: Network, address: str, anchors: tuple[bytes, ...], request: j.JoinRequest) -> j.JoinReply:
    connection = await network.dial(
        address,
        tls=ClientTls(lambda: client_context(None, None, anchors)),
        authorise=_any_server,
        handler=RefusesAll(),
    )
    try:
        return await ask(connection, "enrol.join", request, j.JoinReply, timeout_s=30.0)
    finally:
        await connection.close()


def _any_server(certificate: bytes | None) -> Peer:
    if certificate is None:
        raise CertificateRefused(peer="the server", detail="it shows no certificate")
    return Peer(id=node_id(certificates.public_key_of(certificate)), name="a server", kind="node")


async def _anchors(network: Network, address: str, link: tokens.JoinLink) -> tuple[bytes, ...]:
    """The mesh's certificates, fetched from who has not proved anything yet, and compared with the link."""
    connection = await network.dial(
        address, tls=ClientTls(unverified_client_context), authorise=_any_server, handler=RefusesAll()
    )
    try:
        reply = await ask(connection, "enrol.anchors", q.Nothing(), j.AnchorsReply)
    except (UnknownCall, NotOnRoster):
        raise JoinLinkForeign(address=address) from None
    finally:
        await connection.close()
    others = enrolment.believed_anchors(link, reply.root, reply.anchors)
    if reply.mesh != link.mesh or not others:
        raise JoinLinkForeign(address=address)
    return (reply.root, *others)
