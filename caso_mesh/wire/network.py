"""The port that everything above uses: listen at an address, dial one, get links."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from caso_mesh.model.errors import CasoError
from caso_mesh.wire.addresses import join_address, split_address
from caso_mesh.wire.handshake import Authorise
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.link import Handler, Link

__all__ = [
    "Authorise",
    "ClientTls",
    "Listener",
    "Network",
    "OnLink",
    "OnRefusal",
    "ServerTls",
    "WorkerFor",
    "join_address",
    "split_address",
]

#: Told once of each link that a listener has opened.
OnLink = Callable[[Link], None]
#: The channel to the worker that answers to a token, for who is at HOST:PORT: a non-blocking AF_UNIX SOCK_SEQPACKET socket;
#: None if none does.
WorkerFor = Callable[[str, str], socket.socket | None]
#: Told of who was refused, or broke the protocol: HOST:PORT, why, and the certificate (DER) if one was shown.
OnRefusal = Callable[[str, CasoError, bytes | None], None]


class ServerTls(msgspec.Struct, frozen=True):
    """Where the accepting end gets its TLS from. Asked anew for each connection: certificates and anchors change."""

    context: Callable[[], ssl.SSLContext]

    def current(self) -> ssl.SSLContext:
        """The context to use now: TLS 1.3 only, without session tickets (each connection shows its certificate)."""
        context = self.context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        return context


class ClientTls(msgspec.Struct, frozen=True):
    """Where the dialling end gets its TLS from. Asked anew for each connection."""

    context: Callable[[], ssl.SSLContext]

    def current(self) -> ssl.SSLContext:
        """The context to use now: TLS 1.3 only."""
        context = self.context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


class Listener(Protocol):
    """An open listener; it ends, with all its links, when its context is left."""

    @property
    def address(self) -> str:
        """HOST:PORT as it really is."""
        ...

    @property
    def links(self) -> frozenset[Link]:
        """The open links that came in here."""
        ...


class Network(Protocol):
    """A way to other nodes: real sockets (``websocket``) or memory (``memory``)."""

    def listen(
        self,
        address: str,
        *,
        tls: ServerTls,
        authorise: Authorise,
        handler: Handler,
        on_link: OnLink | None = None,
        on_refusal: OnRefusal | None = None,
        worker_for: WorkerFor | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> AbstractAsyncContextManager[Listener]:
        """Listens at HOST:PORT (port 0: any free one). Raises ``PortInUse`` or ``CannotListen`` on entering.

        A peer without a certificate is shown to ``authorise`` as ``None``; if admitted it gets ``limits.ANONYMOUS``.
        Connections that name a bulk token go to ``worker_for``; without it, or without such a worker, they are closed.
        """
        ...

    async def dial(
        self,
        address: str,
        *,
        tls: ClientTls,
        authorise: Authorise,
        handler: Handler,
        timeout_s: float = 10.0,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        whole: bool = False,
    ) -> Link:
        """A link to the node at HOST:PORT; whoever dialled closes it. ``whole``: with large packets, also where these did not
        come through before.

        Raises ``CannotConnect``, ``CertificateRefused`` when TLS fails on a certificate of either side, what
        ``authorise`` raises, or the reason for which the other side refuses.
        """
        ...
