"""What else operators do to a simulated mesh: a seed draws some kinds of it, each with a chance of its own, so that one more
kind leaves what the others do as it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from mesh.simulation import keys
from mesh.simulation.faults import Storm
from mesh.simulation.people import People, known_run
from mesh.simulation.plans import Plans
from mesh.simulation.stage import DEVICES, NAMES, PRESET, newcomer
from mesh.simulation.vaults import Vaults
from mesh.simulation.world import World
from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.founding import join_mesh
from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.canceling import RunsCanceled
from caso_mesh.model.catalogs import CatalogMode
from caso_mesh.model.documents import MediaSetDoc
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.errors import CasoError
from caso_mesh.model.inventories import DeviceInventory
from caso_mesh.model.states import DeviceState
from caso_mesh.model.storage import DEFAULT_MEDIA_SET, BackupSet

T = TypeVar("T", bound=Struct)

#: The media set whose sets may go at once.
BRIEF = "brief"
_BRIEF = MediaSetDoc(append="10s", protection="0s", keep="30s")
_DAY_NS = 86400 * 1_000_000_000
#: So often an erase is asked for while others are at work there.
_TRIES = 15
#: How likely it is that operators do something of one kind; what takes seconds of work is done more seldom,
#: and what people do anyway only on purpose.
_CHANCE, _SELDOM = 0.25, {"backup": 0.0, "foresee": 0.08}
#: How likely it is that all machines that may be lost are, when one is.
_ALL_AT_ONCE = 0.25
_AWAY = (DeviceState.PAUSED, DeviceState.OFFLINE, DeviceState.READ_ONLY)


class Operators:
    """``chosen`` are the kinds of this seed, or those that are asked for."""

    def __init__(
        self,
        world: World,
        people: People,
        vaults: Vaults,
        storm: Storm,
        seconds: float,
        chosen: tuple[str, ...] | None,
    ) -> None:
        self._world = world
        self._people = people
        self.vaults = vaults
        self._storm = storm
        self._end_s = world.loop.time() + seconds
        #: Kind -> what it does, and how long it pauses in the mean.
        kinds: dict[str, tuple[Callable[[random.Random], Awaitable[None]], float]] = {
            "backup": (self._backup, 6.0),
            "cancel": (self._cancel, 8.0),
            "catalog-mode": (self._catalog_mode, 25.0),
            "delete": (self._delete, 12.0),
            "device-state": (self._device_state, 40.0),
            "erase": (self._erase, 35.0),
            "expire": (self._expire, 25.0),
            "foresee": (self._foresee, 60.0),
            "inventory": (self._inventory, 20.0),
            "lock": (self._lock, 50.0),
            "lose": (self._lose, 30.0),
            "media-set": (self._media_set, 30.0),
            "policy": (self._policy, 20.0),
            "replace": (self._replace, 60.0),
            "restore": (self._restore, 15.0),
            "retire": (self._retire, 30.0),
        }
        #: Whoever is there for a purpose does not wait long.
        self._haste = 1.0 if chosen is None else 0.4
        if chosen is None:
            chosen = tuple(name for name in kinds if random.Random(f"{world.seed}/{name}?").random() < _chance(name))
        # of a set that is lost no catalog can be made anew, so that its move would never end
        self.chosen = tuple(name for name in chosen if name != "lose" or "catalog-mode" not in chosen)
        self._kinds = {name: kinds[name] for name in self.chosen}
        self.plans: Plans | None = None
        self._burns = random.Random(f"{world.seed}/burns")
        #: Runs of which it was said that they are canceled, not only that they are going to be.
        self.canceled: set[str] = set()
        #: Medium -> the attempts that there were when it was confirmed that it takes nothing more.
        self.retired: dict[str, frozenset[str]] = {}
        #: Media sets whose deletion was confirmed.
        self.deleted_media_sets: set[str] = set()

    async def prepare(self) -> None:
        """What they need, while nothing is broken yet."""
        goes = bool({"delete", "erase", "expire"} & set(self.chosen))
        if goes:
            await self._let_go()
        if {"foresee", "policy"} & set(self.chosen):
            self.plans = Plans(self._world, BRIEF if goes else DEFAULT_MEDIA_SET)
            await self.plans.prepare()
            self.vaults.on_changes = self.plans.looked_at

    async def _let_go(self) -> None:
        await self._world.ask("mediaset.create", q.MediaSetEdit(BRIEF, _BRIEF), v.Done)
        await self._world.ask("settings.set", q.SettingSet("clock-steady-s", "60s"), v.SettingList)
        draw = random.Random(f"{self._world.seed}/media sets")
        # what is protected goes to one device for sure, so that the others can be erased
        self._people.media_set_of = lambda target: (
            DEFAULT_MEDIA_SET if target == "device:disk-gamma" and draw.random() < 0.5 else BRIEF
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, (does, mean_s) in self._kinds.items():
                group.create_task(self._go_on(name, does, mean_s))
            if "replace" in self._kinds:
                group.create_task(self._see_to_keys())

    async def _go_on(self, name: str, does: Callable[[random.Random], Awaitable[None]], mean_s: float) -> None:
        rng = random.Random(f"{self._world.seed}/{name}")
        while True:
            await asyncio.sleep(rng.expovariate(1 / (mean_s * self._haste)))
            if self._world.loop.time() >= self._end_s:
                return
            self._world.note("operator", name)
            try:
                await does(rng)
            except CasoError as error:
                self._world.note("operator", f"{name}: {error.code}")

    async def _ask(self, rng: random.Random, call: str, request: Struct, reply: type[T], *, tries: int = 8) -> T:
        return await self._world.ask(call, request, reply, tries=tries, rng=rng)

    def _told(self, made: o.Submitted) -> str:
        assert made.run is not None
        self._people.runs.append(made.run)
        self._world.note("told", made.run)
        return made.run

    def _some_set(self, rng: random.Random) -> BackupSet | None:
        published = self._world.hub.published
        return published[rng.choice(sorted(published)[-12:])] if published else None

    # --- sets ---

    async def _backup(self, rng: random.Random) -> None:
        """Beside what people do; some of it is protected."""
        brief = BRIEF in (office_state(self._world) or ControlState()).media_sets and rng.random() < 0.7
        target = f"device:{rng.choice(sorted(DEVICES))}"
        media_set = BRIEF if brief else DEFAULT_MEDIA_SET
        request = q.BackupRequest(((rng.choice(NAMES), b"/usr"),), target=target, media_set=media_set)
        self._told(await self._ask(rng, "backup", request, o.Submitted))

    async def _delete(self, rng: random.Random) -> None:
        backup = self._some_set(rng)
        if backup is not None:
            await self._ask(rng, "set.delete", b.SetName(backup.id), v.Done)

    async def _lock(self, rng: random.Random) -> None:
        backup = self._some_set(rng)
        if backup is not None:
            now_ns = self._world.servers[backup.server_name].clock.now_ns()
            until_ns = rng.choice([None, now_ns + _DAY_NS])
            await self._ask(rng, "set.lock", b.SetLock(backup.id, until_ns), v.Done)
            self.vaults.locked.add(backup.id)

    async def _expire(self, rng: random.Random) -> None:
        expired = await self._ask(rng, "set.expire", q.Nothing(), b.Expired)
        self._world.note("expired", f"{expired.gone} {expired.paused}")

    async def _lose(self, rng: random.Random) -> None:
        backup = self._some_set(rng)
        if backup is not None:
            self.vaults.lose(backup)
            if backup.id in self.vaults.lost and rng.random() < 0.6:
                await asyncio.sleep(rng.uniform(5.0, 40.0))
                self.vaults.put_back(backup.id)

    async def _restore(self, rng: random.Random) -> None:
        backup = self._some_set(rng)
        if backup is not None:
            to = (rng.choice(NAMES), b"/tmp") if rng.random() < 0.7 else None
            self._told(await self._ask(rng, "restore", q.RestoreRequest(backup.id, to=to), o.Submitted))

    # --- devices and media ---

    async def _inventory(self, rng: random.Random) -> None:
        devices = rng.choice([(), *((name,) for name in sorted(DEVICES))])
        run = self._told(await self._ask(rng, "device.inventory", DeviceInventory(devices), o.Submitted))
        await self._perhaps_cancel(rng, run)

    async def _erase(self, rng: random.Random) -> None:
        backup = self._some_set(rng)
        name = rng.choice(sorted(DEVICES)) if backup is None else backup.device_name
        request = DeviceErase(name, rng.random() < 0.8)
        for number in range(_TRIES):
            try:
                made = await self._ask(rng, "device.erase", request, o.Submitted, tries=3)
                break
            except CasoError as error:
                if error.code != "in-use" or number == _TRIES - 1:
                    raise
            await asyncio.sleep(rng.uniform(1.0, 3.0))
        await self._perhaps_cancel(rng, self._told(made))

    async def _perhaps_cancel(self, rng: random.Random, run: str) -> None:
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0.0, 10.0))
            await self._cancel_run(rng, run, by_force=rng.random() < 0.5)

    async def _retire(self, rng: random.Random) -> None:
        backup = self._some_set(rng)
        if backup is None:
            return
        await self._ask(rng, "medium.retire", q.MediumLabel(backup.medium), v.Done)
        state = office_state(self._world)
        if state is not None:
            self.retired.setdefault(backup.medium, frozenset(state.attempts))

    async def _media_set(self, rng: random.Random) -> None:
        """One is made, used perhaps, and deleted while it may be in use."""
        name = f"own-{rng.randrange(1 << 30)}"
        await self._ask(rng, "mediaset.create", q.MediaSetEdit(name, _BRIEF), v.Done)
        if rng.random() < 0.7:
            request = q.BackupRequest(
                ((rng.choice(NAMES), b"/usr"),), target="pool:vaults", media_set=name,
            )  # fmt: skip
            self._told(await self._ask(rng, "backup", request, o.Submitted))
        await asyncio.sleep(rng.uniform(0.0, 25.0))
        await self._ask(rng, "mediaset.delete", q.Named(name), v.Done)
        self.deleted_media_sets.add(name)

    async def _device_state(self, rng: random.Random) -> None:
        name, state = rng.choice(sorted(DEVICES)), rng.choice(list(_AWAY))
        await self._ask(rng, "device.set", q.DeviceSet(name, state), v.DeviceView)
        await asyncio.sleep(rng.uniform(1.0, 20.0))
        await self._ask(rng, "device.set", q.DeviceSet(name, DeviceState.ONLINE), v.DeviceView, tries=12)

    async def _catalog_mode(self, rng: random.Random) -> None:
        mode = rng.choice([*CatalogMode])
        await self._ask(
            rng, "settings.set", q.SettingSet("catalog-mode", mode, server=rng.choice(NAMES)), v.SettingList
        )

    # --- servers ---

    async def _replace(self, rng: random.Random) -> None:
        """The machine of a server that never voted is lost, at times of all of these at once, and another one takes its place,
        under its name."""
        mine = [
            name for name in sorted(NAMES) if name not in self._storm.ever_voted and name not in self._storm.put_back
        ]
        name = rng.choice(mine) if mine else None
        names = [] if name is None else mine if self._burns.random() < _ALL_AT_ONCE else [name]
        lost: dict[str, Path] = {}
        for each in names:
            if self._world.servers[each].node is not None and self._world.settled_start(each):
                self._storm.lose(each)
                lost[each] = self._world.lose(each)
        for each, state in lost.items():
            await asyncio.sleep(rng.uniform(1.0, 20.0))
            await self._put_in_place(rng, each, state)

    async def _put_in_place(self, rng: random.Random, name: str, state: Path) -> None:
        ports = newcomer(self._world, name, f" {self._world.seed}")
        joining = True
        while joining:
            # as long as anybody may believe that the lost one is there, nobody takes its place
            try:
                link = (await self._ask(rng, "token.create", q.TokenCreate(), v.TokenView)).link
                await join_mesh(
                    link=link, server=name, state=state, listen=f"{name}:7300", preset=PRESET, never_admin=True,
                    replaces=name, ports=ports,
                )  # fmt: skip
                joining = False
            except CasoError as error:
                self._world.note("operator", f"replace: {error}")
            await asyncio.sleep(rng.uniform(1.0, 5.0))
        self._world.note("replaced", name)
        self._world.found(name)

    async def _see_to_keys(self) -> None:
        """What alerts say of keys that are lost is done after a while."""
        rng = random.Random(f"{self._world.seed}/keys")
        while self._world.loop.time() < self._end_s:
            await asyncio.sleep(rng.expovariate(1 / 15.0))
            for device in await keys.told(self._world):
                keys.bring_back(self._world, device)

    # --- policies ---

    async def _policy(self, rng: random.Random) -> None:
        assert self.plans is not None
        await self.plans.change(rng)

    async def _foresee(self, rng: random.Random) -> None:
        assert self.plans is not None
        await self.plans.foresee(rng)

    # --- runs ---

    async def _cancel(self, rng: random.Random) -> None:
        """One that is at work, if there is one."""
        active = sorted({stage.run for stage in self._world.hub.at_work.values()})
        if active:
            await self._cancel_run(rng, rng.choice(active), by_force=rng.random() < 0.3)

    async def _cancel_run(self, rng: random.Random, run: str, *, by_force: bool) -> None:
        told = await self._ask(rng, "job.cancel", q.JobCancel(run, by_force), RunsCanceled)
        self.canceled.update(each.run for each in told.runs if each.state == "canceled")
        found = known_run(self._world, run)
        if found is not None and told.runs:
            attempts = sum(part.attempts for part in found.parts)
            self._people.canceled[run] = min(attempts, self._people.canceled.get(run, attempts))


def _chance(kind: str) -> float:
    return _SELDOM.get(kind, _CHANCE)


def office_state(world: World) -> ControlState | None:
    """As the one in office knows it, if there is one."""
    for server in world.servers.values():
        if server.node is not None and server.node.in_office and server.node.seat.voter is not None:
            return server.node.seat.voter.keeper.state
    return None
