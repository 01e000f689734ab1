"""What lies in the devices of a simulated mesh, whatever anybody believes: sets that are there, that were deleted or erased,
or that a device has lost. Whoever deletes is looked at when he does."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from mesh.simulation.stage import DEVICES
from mesh.simulation.watching import Watcher
from mesh.simulation.world import World
from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.jobs import erasing
from caso_mesh.jobs.messages import Consults
from caso_mesh.model.storage import DEFAULT_MEDIA_SET, BackupSet
from caso_mesh.vault.erasing import Erasure
from caso_mesh.vault.holds import Hold, Holds
from caso_mesh.vault.names import parse_set
from caso_mesh.vault.vault import Vault

#: The one media set of the simulation that protects what was written, for longer than it lasts.
PROTECTS = DEFAULT_MEDIA_SET
#: Who deletes what nobody asked to be deleted.
_EXPIRY = "expiry"
#: What was put back so short a while ago may have been missed when it was looked for.
_LOOKED_S = 120.0


class Lost(Struct):
    """Objects that a device has lost, where they are meanwhile, and in which vault (id) they were. ``back_s``: when they were
    put back."""

    device: str
    vault: str
    names: tuple[str, ...]
    aside: Path
    back_s: float | None = None


class Lying(Struct, frozen=True):
    """What lies in a device: sets that are there, and those with a tombstone. ``vault`` is empty where none is whole."""

    vault: str
    alive: frozenset[str]
    gone: dict[str, Hold]


class Vaults:
    """``devices``: the servers that reach each. ``locked``: sets whose lock was confirmed; it lasts longer than the
    simulation."""

    def __init__(self, world: World, watcher: Watcher, devices: Mapping[str, tuple[str, ...]] = DEVICES) -> None:
        self._devices = devices
        self._world = world
        self._watcher = watcher
        self._random = random.Random(f"{world.seed}/vaults")
        self.locked: set[str] = set()
        #: Ids of vaults whose erase began.
        self.erased: set[str] = set()
        #: Set -> who deleted it.
        self.deleted: dict[str, str] = {}
        self.lost: dict[str, Lost] = {}
        self.on_changes: Callable[[ControlState, list[Put]], None] = lambda state, changes: None
        #: What devices are erased into, as was decided: ids of vaults to be.
        self._decided: set[str] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        add, write, erase = Holds.add, ControlState.write, erasing.erase

        def erases(backend: Any, erasure: Erasure, fresh: Any, **more: Any) -> None:
            self._erases(backend, erasure)
            more["randomness"] = self._random.randbytes
            erase(backend, erasure, fresh, **more)

        def adds(holds: Holds, set_id: str, hold: Any, **more: Any) -> Hold:
            if hold == "tombstone":
                self._deletes(set_id, more["who"])
            made = add(holds, set_id, hold, **more)
            if hold == "tombstone" and holds.is_gone(set_id):
                self.deleted.setdefault(set_id, more["who"])
            return made

        def decides(state: ControlState, changes: Any) -> None:
            changes = list(changes)
            self.on_changes(state, changes)
            self._decided.update(
                change.record.erasing
                for change in changes
                if change.table == "devices" and change.record is not None and change.record.erasing
            )
            write(state, changes)

        self._world.hub.on_consult = self._consults
        with (
            mock.patch.object(erasing, "erase", erases),
            mock.patch.object(Holds, "add", adds),
            mock.patch.object(ControlState, "write", decides),
        ):
            yield

    def _erases(self, backend: Any, erasure: Erasure) -> None:
        names = self._names(backend.list("sets/"))
        self._world.note("erases", f"{erasure.attempt} {len(names)} sets of the vault {erasure.vault}")
        if erasure.becomes not in self._decided:
            self._watcher.broken("nothing is erased without the administrator", f"{erasure.attempt} began by itself")
        for set_id in names:
            backup = self._world.hub.published.get(set_id)
            if backup is None or backup.vault != erasure.vault or set_id in self.deleted:
                continue
            if backup.media_set == PROTECTS or set_id in self.locked:
                self._watcher.broken("nothing protected goes", f"{erasure.attempt} erases {set_id} of {backup.attempt}")
        self.erased.add(erasure.vault)

    def _deletes(self, set_id: str, who: str) -> None:
        backup = self._world.hub.published[set_id]
        if backup.media_set == PROTECTS or set_id in self.locked:
            self._watcher.broken("nothing protected goes", f"{who} deletes {set_id} of {backup.attempt}")
        if who == _EXPIRY and not any(
            each.source == backup.source and each.copy_of is None and each.id != set_id and self.is_there(each)
            for each in self._world.hub.published.values()
        ):
            self._watcher.broken("the last good set stays", f"{set_id} of {backup.attempt} expires, and was the last")

    def _names(self, listed: Iterator[tuple[str, int]]) -> list[str]:
        """The ids of the sets among objects."""
        parsed = [parse_set(name) for name, _ in listed]
        sessions = self._world.hub.sessions
        return [sessions[each[1]] for each in parsed if each is not None and each[1] in sessions]

    def _is_of(self, name: str, set_id: str) -> bool:
        parsed = parse_set(name)
        return parsed is not None and self._world.hub.sessions.get(parsed[1]) == set_id

    def is_there(self, backup: BackupSet) -> bool:
        """Whether nothing has become of a set that was published."""
        lost = self.lost.get(backup.id)
        return (
            backup.id not in self.deleted
            and backup.vault not in self.erased
            and (lost is None or lost.back_s is not None)
        )

    def _consults(self, question: Consults) -> None:
        """What is called missing was looked for after it had been named."""
        for set_id in () if question.lacks is None else question.lacks.sets:
            lost = self.lost.get(set_id)
            back_s = None if lost is None else lost.back_s
            just_back = back_s is not None and self._world.loop.time() - back_s < _LOOKED_S
            backup = self._world.hub.published.get(set_id)
            if backup is not None and self.is_there(backup) and not just_back:
                self._watcher.broken("what is called missing is", f"{set_id} is there, and was not found")

    # --- devices that lose sets ---

    def lose(self, backup: BackupSet) -> None:
        """The device has not got a set any more, as far as anybody can see."""
        folder = self._folder(backup.device_name)
        objects = [path for path in sorted((folder / "sets").rglob("*")) if path.is_file()]
        found = [path for path in objects if self._is_of(str(path.relative_to(folder)), backup.id)]
        if not self.is_there(backup) or not found:
            return
        aside = self._world.folder / f"aside-{backup.id}"
        for path in found:
            (aside / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, aside / path.relative_to(folder))
        names = tuple(str(path.relative_to(folder)) for path in found)
        self.lost[backup.id] = Lost(backup.device_name, backup.vault, names, aside)
        self._world.note("lost", f"{backup.attempt} on {backup.device_name}")

    def put_back(self, set_id: str) -> None:
        """It is there again, if its vault is."""
        lost = self.lost[set_id]
        if lost.vault in self.erased or lost.back_s is not None:
            return
        folder = self._folder(lost.device)
        for name in lost.names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(lost.aside / name, folder / name)
        lost.back_s = self._world.loop.time()
        self._world.note("back", f"{set_id[:8]} on {lost.device}")

    def _folder(self, device: str) -> Path:
        return self._world.folder / device

    # --- what there is ---

    async def lying(self) -> dict[str, Lying]:
        """By device (name), as it is when nobody is at work."""
        return {name: await self._lying(name, servers) for name, servers in self._devices.items()}

    async def _lying(self, name: str, servers: tuple[str, ...]) -> Lying:
        node = next(self._world.servers[server].node for server in servers)
        assert node is not None
        device = next(each for each in node.server.orders.devices if each.name == name)
        if device.erasing:
            # nobody looks into it any more, whether or not the first object has gone
            self.erased.add(device.vault)
            return Lying("", frozenset(), {})
        kept = node.server.kept
        access = await kept.vaults.access(device.id)
        with kept.vaults.opened(access) as vault:
            return Lying(device.vault, frozenset(each.id for each in vault.sets()), _gone(vault))


def _gone(vault: Vault) -> dict[str, Hold]:
    found = {}
    for each in vault.sets(deleted=True):
        tombstones = [hold for hold in vault.holds.of(each.id) if hold.hold == "tombstone"]
        if vault.holds.is_gone(each.id):
            found[each.id] = tombstones[0]
    return found
