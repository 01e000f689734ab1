"""The keys of the mesh: its authority and what comes after it, recovery kits, keys of devices and secrets of logons."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.desks.means import Custody, Means
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.granting import Granting
from caso_mesh.admin.kits import Kits
from caso_mesh.admin.logons import Logons
from caso_mesh.admin.ports import Answer
from caso_mesh.admin.rotation import Rotation


class KeysDesk:
    """``holds`` and ``steady`` as ``Rotation``."""

    def __init__(
        self, means: Means, custody: Custody, *, holds: Callable[[str, bytes], bool], steady: Callable[[], bool]
    ) -> None:
        keeper, live, links, submit = means.keeper, means.live, means.links, means.submit
        alarms, own, clock, randomness = means.alarms, means.own, means.clock, means.randomness
        self.rotation = Rotation(
            keeper=keeper,
            submit=submit,
            own=own,
            authority=custody.authority,
            next_authority=custody.next_authority,
            holds=holds,
            steady=steady,
            clock=clock,
            randomness=randomness,
        )
        self._kits = Kits(
            keeper=keeper,
            submit=submit,
            links=links,
            alarms=alarms,
            keys=custody.keys,
            server_name=means.name,
            authority=custody.authority,
            id_key=custody.id_key,
            root_key=custody.root_key,
            drop_root_key=custody.drop_root_key,
            clock=clock,
            randomness=randomness,
        )
        self.granting = Granting(keeper=keeper, live=live, links=links, submit=submit, alarms=alarms)
        self._logons = Logons(keeper=keeper, links=links, submit=submit, alarms=alarms)

    def duties(self) -> dict[str, Duty]:
        return {
            "recovery kits": self._kits.run,
            "keys of devices": self.granting.run,
            "secrets of logons": self._logons.run,
            "rotation of the CA": self.rotation.run,
        }

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {**self.rotation.handlers(), **self._kits.handlers(), **self._logons.handlers()}
