"""The administrator asks a server for a voter that has no link with it."""

from __future__ import annotations

from typing import Any

from caso_mesh.admin.ports import Links, NodeAnswer
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer
from caso_mesh.model import telling as t
from caso_mesh.model.errors import Refused
from caso_mesh.wire.codec import pack, unpack

_LARGEST_PARAMS = 1 << 16
#: What is relayed, and how long it may take: a catalog detail may have to be made out of a large tree.
_TIMEOUTS_S = {"catalog.read": 60.0, "catalog.make": 3600.0}


class Relaying:
    """Only what a voter needs for its catalog."""

    def __init__(self, keeper: ControlKeeper, links: Links) -> None:
        self._keeper = keeper
        self._links = links

    def handlers(self) -> dict[str, NodeAnswer]:
        return {"voter.relay": self._relay}

    async def _relay(self, peer: Peer, request: t.VoterRelay, link: Any) -> t.VoterRelayed:
        server = self._keeper.state.servers.get(peer.id)
        if server is None or not server.voter:
            raise Refused(detail=f"{peer.name} is no voter: it is not asked for")
        if request.call not in _TIMEOUTS_S:
            raise Refused(detail=f"{request.call[:100]} is not asked for others")
        params = unpack(request.params, max_bytes=_LARGEST_PARAMS, peer=peer.name)
        timeout_s = _TIMEOUTS_S[request.call]
        answer = await self._links.get(request.server).call(request.call, params, timeout_s=timeout_s)
        return t.VoterRelayed(pack(answer))
