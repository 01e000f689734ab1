"""Servers that run twice: what all others tell of machines that show a key which is at work elsewhere."""

from __future__ import annotations

from caso_mesh.admin.alarms import Alarms
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.clock import Clock
from caso_mesh.model.nodes import Heartbeat
from caso_mesh.model.states import AlertKind

CATEGORY = "server-twice"
#: Who tells of one tells of it again and again for so long. An office that begins waits for them before it believes an end.
_TOLD_FOR_S = 900.0
#: Of one server so many are heard of: it may lie.
_MOST = 20


class TwinAlarms:
    """Raises the alert of each server that runs twice, and ends it when nobody has met the second one for a while. ``own`` is
    the server in office: only its copy, and that of a voter, is met by others than it."""

    def __init__(self, keeper: ControlKeeper, alarms: Alarms, clock: Clock, own: str) -> None:
        self._keeper = keeper
        self._own = own
        self._alarms = alarms
        self._clock = clock
        self._began_s = clock.monotonic_s()
        #: By the id of who runs twice: who told of it, and when.
        self._told: dict[str, dict[str, float]] = {}

    async def heard(self, teller: str, beat: Heartbeat) -> None:
        """A server tells of those that it has turned away."""
        state, now_s = self._keeper.state, self._clock.monotonic_s()
        named = {twin.node: twin.address for twin in beat.twins[:_MOST]}
        for node, tellers in self._told.items():
            if node not in named:
                tellers.pop(teller, None)
        told_by = state.servers.get(teller)
        for node, address in named.items():
            server = state.servers.get(node)
            # a member is linked with the one in office alone: what it says of others is made up
            if server is None or not (node == self._own or (told_by is not None and told_by.voter)):
                continue
            self._told.setdefault(node, {})[teller] = now_s
            text = (
                f"Two machines run with the key of {server.name}. {state.name_of(teller)} turned away the second one, at "
                f"{address[:262]}. Its state folder was copied: stop one of them for good"
            )
            await self._alarms.begins(AlertKind.ERROR, CATEGORY, text, object=server.name)

    async def look(self) -> None:
        """Ends what nobody tells of any more."""
        now_s = self._clock.monotonic_s()
        for node, tellers in list(self._told.items()):
            self._told[node] = {each: at_s for each, at_s in tellers.items() if now_s - at_s < _TOLD_FOR_S}
            if not self._told[node]:
                del self._told[node]
        standing = self._alarms.standing(CATEGORY)
        if standing and now_s - self._began_s >= _TOLD_FOR_S:
            told = {self._keeper.state.name_of(node) for node in self._told}
            for name in standing:
                if name not in told:
                    await self._alarms.ends(CATEGORY, name)
