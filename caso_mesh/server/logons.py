"""Logon information on this server: its own copies are opened for its commands, and sealed anew to others that may use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.logons import open_logon, seal_logon
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import NoLogon, NotFound, Refused
from caso_mesh.model.logons import Credentials, LogonOrder
from caso_mesh.model.orders import Orders


class Logons:
    """``orders`` are this server's own: they have its copies."""

    def __init__(
        self,
        keys: NodeKeys,
        name: str,
        orders: Callable[[], Orders],
        is_admin: Callable[[str], bool],
        randomness: Randomness,
    ) -> None:
        self._keys = keys
        self._name = name
        self._orders = orders
        self._is_admin = is_admin
        self._randomness = randomness

    def credentials(self, logon: str) -> Credentials:
        """User and secret. Raises ``NoLogon``, ``SealBroken``."""
        row = self._order(logon)
        return Credentials(row.user, self._open(row))

    async def grant(self, peer: Peer, request: n.LogonGrant, link: object) -> n.LogonGranted:
        """Seals a secret that this server has to others. Their keys are those of the roster, not of the request.

        Raises ``Refused``, ``NoLogon``, ``NotFound`` for who is not on the roster, ``SealBroken``.
        """
        if not self._is_admin(peer.id):
            raise Refused(detail=f"{peer.name} is not the administrator")
        row = self._order(request.name)
        if row.version != request.version:
            raise NoLogon(server=self._name, logon=request.name)
        roster = self._orders().roster
        known = {each.id: each.encryption_key for each in roster.rows if each.kind == "node"}
        for node in request.servers:
            if node not in known:
                raise NotFound(kind="server", name=node)
        recipients = {node: known[node] for node in request.servers}
        copies = await asyncio.to_thread(
            seal_logon,
            self._open(row),
            recipients,
            mesh=roster.mesh.id,
            name=row.name,
            version=row.version,
            randomness=self._randomness,
        )
        return n.LogonGranted(copies)

    def _order(self, logon: str) -> LogonOrder:
        row = next((each for each in self._orders().logons if each.name == logon), None)
        if row is None or not row.sealed:
            raise NoLogon(server=self._name, logon=logon)
        return row

    def _open(self, row: LogonOrder) -> str:
        mesh = self._orders().roster.mesh.id
        return open_logon(self._keys, row.sealed, mesh=mesh, name=row.name, version=row.version)
