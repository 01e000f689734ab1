"""Whom this server trusts right now: its roster, and the TLS contexts made of it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from caso_mesh.identity.roster import ANONYMOUS, Peer, authorise
from caso_mesh.identity.tls import client_context, server_context
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CertificateRefused
from caso_mesh.model.mesh import Roster, RosterRow


class Trust:
    """The roster in force. ``None`` while this server belongs to no mesh: then everybody is anonymous."""

    def __init__(self, clock: Clock, chain_path: Path, key_path: Path) -> None:
        self._clock = clock
        self.chain_path = chain_path
        self.key_path = key_path
        self.roster: Roster | None = None
        #: Set, and another one, when anchors have changed.
        self.anchors_changed = asyncio.Event()
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._rows: dict[str, RosterRow] = {}

    def use(self, roster: Roster) -> None:
        """Takes another roster; connections made from now on are judged by it."""
        if self.roster is None or self.roster.anchors != roster.anchors:
            # each order brings a roster, and few bring other anchors: contexts take a millisecond to make
            self._server = self._client = None
            changed, self.anchors_changed = self.anchors_changed, asyncio.Event()
            changed.set()
        self.roster = roster
        self._rows = {row.id: row for row in roster.rows}

    def renewed(self) -> None:
        """This server's certificate has changed on disk."""
        self._server = self._client = None

    def row(self, id: str) -> RosterRow | None:
        return self._rows.get(id)

    def name_of(self, id: str) -> str:
        row = self._rows.get(id)
        return row.name if row else id[:13]

    def anchors(self) -> tuple[bytes, ...]:
        return tuple(anchor.certificate for anchor in self.roster.anchors) if self.roster else ()

    def authorise(self, certificate: bytes | None) -> Peer:
        """See ``identity.roster.authorise``."""
        if certificate is None:
            return ANONYMOUS
        if self.roster is None:
            raise CertificateRefused(peer="this server", detail="it belongs to no mesh yet")
        return authorise(self.roster, certificate, now_ns=self._clock.now_ns())

    def server_tls(self) -> ssl.SSLContext:
        if self._server is None:
            self._server = server_context(
                self.chain_path, self.key_path, self.anchors(), ask_client=self.roster is not None
            )
        return self._server

    def client_tls(self) -> ssl.SSLContext:
        if self._client is None:
            self._client = client_context(self.chain_path, self.key_path, self.anchors())
        return self._client
