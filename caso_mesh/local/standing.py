"""Whether this server may go on by itself: as long as its own certificate says that it belongs to the mesh.

The administrator renews a certificate of seven days every few days. A server that was removed while it was away, or whose
disk was stolen, hears nothing of that; its certificate ends, and with it what it does on its own account. One that reaches
a voter is told that it was removed, and stops at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from caso_mesh.identity import certificates
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import IdentityInUse
from caso_mesh.model.jobs import Waiting
from caso_mesh.model.states import WaitReason
from caso_mesh.model.units import format_instant

#: A certificate that was renewed is noticed after this long.
_LOOK_EACH_S = 30.0


class Standing:
    """Looks at the certificate on disk, which the renewal replaces. ``turned_away``: why voters do not work with this daemon, if
    it is the second one with its key: both would write in each other's place."""

    def __init__(
        self,
        identity: IdentityStore,
        name: str,
        clock: Clock,
        turned_away: Callable[[], IdentityInUse | None] = lambda: None,
    ) -> None:
        self._turned_away = turned_away
        #: A voter has said that this server was removed.
        self.removed = False
        self._identity = identity
        self._name = name
        self._clock = clock
        self._ends_ns = 0

    async def look(self) -> None:
        """Raises ``StateDamaged``, ``StateMissing``."""
        chain = await asyncio.to_thread(self._identity.load_chain)
        self._ends_ns = certificates.life(chain[0]).not_after_ns

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.look()
            left_s = (self._ends_ns - self._clock.now_ns()) / 1_000_000_000
            await asyncio.sleep(min(_LOOK_EACH_S, left_s) if left_s > 0 else _LOOK_EACH_S)

    def barred(self) -> Waiting | None:
        """Why nothing may begin, if so."""
        if self.removed:
            return Waiting(WaitReason.REMOVED_FROM_MESH, {"server": self._name})
        twin = self._turned_away()
        if twin is not None:
            address = str(twin.fields.get("address", ""))
            return Waiting(WaitReason.IDENTITY_IN_USE, {"server": self._name, "address": address})
        if self._clock.now_ns() < self._ends_ns:
            return None
        return Waiting(
            WaitReason.MEMBERSHIP_UNCONFIRMED, {"server": self._name, "since": format_instant(self._ends_ns)}
        )
