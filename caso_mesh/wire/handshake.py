"""The first exchange on a new channel: who is it, may it, what are its limits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CannotConnect, CasoError, PeerFault
from caso_mesh.model.ids import base32
from caso_mesh.wire.channel import Channel
from caso_mesh.wire.limits import ANONYMOUS, Limits
from caso_mesh.wire.link import Handler, Link
from caso_mesh.wire.protocol import Connection, GoodbyeReceived, Hello, goodbye

#: DER of the peer's leaf certificate, or None if it showed none -> the peer. Raises a ``CasoError`` to refuse.
Authorise = Callable[[bytes | None], Any]


async def establish(
    channel: Channel,
    *,
    dialled: bool,
    address: str,
    certificate: bytes | None,
    authorise: Authorise,
    handler: Handler,
    limits: Limits,
    random_bytes: Randomness,
    filling_bytes: int = 0,
) -> Link:
    """A started link over ``channel``, which is closed if there will be none. ``filling_bytes``: of a packet of full size.

    Raises what ``authorise`` raises, the reason the peer gives for refusing us, ``PeerFault``, or ``CannotConnect``
    when the channel ends or the peer is silent for ``limits.hello_timeout_s``.
    """
    try:
        async with asyncio.timeout(limits.hello_timeout_s):
            try:
                peer = authorise(certificate)
            except CasoError as refusal:
                await _send(channel, goodbye(refusal), address)
                raise
            if certificate is None and not dialled:
                limits = ANONYMOUS
            return await _exchange(channel, dialled, address, peer, handler, limits, random_bytes, filling_bytes)
    except TimeoutError:
        await channel.close()
        raise CannotConnect(address=address, detail="it does not say hello") from None
    except BaseException:
        await channel.close()
        raise


async def _exchange(
    channel: Channel,
    dialled: bool,
    address: str,
    peer: Any,
    handler: Handler,
    limits: Limits,
    random_bytes: Randomness,
    filling_bytes: int,
) -> Link:
    nonce = random_bytes(16)
    connection = Connection(dialled=dialled, limits=limits, nonce=nonce, peer=address)
    if dialled:
        await _send(channel, connection.hello(filling_bytes), address)
    message = await channel.receive()
    if message is None:
        raise CannotConnect(address=address, detail="it closed the connection")
    try:
        event = connection.receive(message)
    except PeerFault as fault:
        await _send(channel, goodbye(fault), address)
        raise
    if isinstance(event, GoodbyeReceived):
        raise event.error or CannotConnect(address=address, detail="it closed the connection")
    assert isinstance(event, Hello)  # receive() takes nothing else as the first message
    if not dialled:
        await _send(channel, connection.hello(filling_bytes), address)
    both = nonce + event.nonce if dialled else event.nonce + nonce
    session = base32(hashlib.sha256(both).digest()[:16])
    link = Link(channel, connection, handler, peer=peer, dialled=dialled, session=session)
    link.start()
    return link


async def _send(channel: Channel, message: bytes, address: str) -> None:
    try:
        await channel.send(message)
    except OSError as exc:
        raise CannotConnect(address=address, detail=exc.strerror or str(exc) or "the connection was lost") from exc
