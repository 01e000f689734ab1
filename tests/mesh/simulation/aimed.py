"""Storms that are aimed: at each rule that is broken on purpose, what makes it matter, more often than chance does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.simulation.faults import Storm
from mesh.simulation.script import Script, Stage
from mesh.simulation.stage import NAMES
from mesh.simulation.world import World
from msgspec import Struct, structs

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError
from caso_mesh.wire.memory import Conditions

#: Longer than a server may be silent until its attempts are given up.
_GIVEN_UP_S = (34.0, 50.0)
#: How long it is waited for an attempt to aim at.
_PATIENCE_S = 30.0
#: Ways on which orders are outdated when they arrive, and on which a log is sent for a while. Less than the silence at
#: which links end.
_LATE, _SLOW = Conditions(delay_s=4.0), Conditions(delay_s=0.4)


class Aim(Struct, frozen=True):
    """``faults`` may name those of every storm too. ``scripts`` changes what attempts do, ``settings`` are made first.
    ``operations``: what operators do beside. ``concurrency``: jobs that each device takes at once."""

    faults: tuple[str, ...]
    scripts: Callable[[Script], Script] = lambda script: script
    settings: dict[str, str] = {}
    operations: tuple[str, ...] = ()
    concurrency: int = 1


def _deaf(script: Script) -> Script:
    """Only ends by force, long after it was given up."""
    return structs.replace(script, course="deaf", seconds=2.0, rejoin_s=200.0)


def _slow_to_tell(script: Script) -> Script:
    return structs.replace(script, course="well", seconds=min(script.seconds, 8.0), tell_s=3.0)


def _well(script: Script) -> Script:
    return structs.replace(script, course="well", seconds=min(script.seconds, 15.0))


def _quick(script: Script) -> Script:
    """Many sets, while devices are looked through at leisure."""
    return structs.replace(script, course="well", seconds=min(script.seconds, 2.0), tell_s=0.0, pace_s=2.0)


def _fails(script: Script) -> Script:
    return structs.replace(script, course="fails")


AIMS: dict[str, Aim] = {
    "cursor-before-commit": Aim(("office-alone",), _well),
    "late-success-counts": Aim(("cut-device",), _well),
    "numbers-reused": Aim(("kill", "cut-device")),
    "lower-orders": Aim(("late-orders",)),
    "no-fence": Aim(("cut-source",), _deaf),
    "vault-not-asked": Aim(("kill-published",), _slow_to_tell),
    "begun-again": Aim(("kill", "power", "kill-at")),
    "unknown-is-forgotten": Aim(("log-behind",), _well),
    "founder-elects-itself": Aim(("founder",)),
    "pruned-too-early": Aim(("lost-after-pruning",), _well, {"journal-keep-s": "0s"}),
    "no-detail-anew": Aim(("power", "cut"), _well),
    "lost-detail-untold": Aim(("kill-published",), _slow_to_tell),
    "erase-untold": Aim(("kill", "cut"), _well, operations=("erase", "delete")),
    "deletion-untold": Aim(("kill",), _well, operations=("delete",)),
    "erase-unasked": Aim(("cut", "kill"), _well, operations=("erase",)),
    "protection-unseen": Aim(("reset",), _quick, operations=("backup", "erase", "lock")),
    # a device that takes one job at a time is not written to while it is looked through
    "not-looked-again": Aim(("reset",), _quick, operations=("backup", "inventory"), concurrency=3),
    "the-last-expires": Aim(("reset",), _well, operations=("expire",)),
    "unfinished-untold": Aim(("kill",), _fails, operations=("erase",)),
    "canceled-too-soon": Aim(("cut", "one-way"), _well, operations=("cancel",)),
    "retired-goes-on": Aim(("kill",), _well, operations=("retire",)),
    "keys-kept": Aim(("kill",), _well, operations=("replace",)),
    "used-is-deleted": Aim(("kill",), _well, operations=("media-set",)),
}


class AimedStorm(Storm):
    """As a storm, of what ``aim`` names."""

    def __init__(self, world: World, seconds: float, aim: Aim) -> None:
        super().__init__(world, seconds)
        aimed = {
            "cut-device": self._cut_device,
            "cut-source": self._cut_source,
            "kill-published": self._kill_published,
            "log-behind": self._log_behind,
            "lost-after-pruning": self._lost_after_pruning,
            "office-alone": self._office_alone,
            "late-orders": self._late_orders,
            "founder": self._founder,
        }
        self.kinds = {name: (self.all_kinds | aimed)[name] for name in aim.faults}
        self.paces = [4.0]
        world.hub.scripts = aim.scripts

    def _office(self) -> str | None:
        return next((n for n in NAMES if (node := self._world.servers[n].node) is not None and node.in_office), None)

    async def _cut_end(self, ends: set[str]) -> None:
        """The server of one end of an attempt is cut from those who vote until its attempts were given up; the other end is
        not cut from it."""

        def at_work() -> list[Stage]:
            office = self._office()
            stages = sorted(self._world.hub.at_work.values(), key=lambda stage: stage.attempt)
            return [each for each in stages if each.end in ends and self._world.ids[each.server] != office]

        for _ in range(round(_PATIENCE_S)):
            if stages := at_work():
                break
            await asyncio.sleep(1.0)
        else:
            return
        name = self._world.ids[self._random.choice(stages).server]
        others = sorted(self._voters - {name})
        ways = [(name, other) for other in others] + [(other, name) for other in others]
        self._world.network.cut_ways(ways)
        await asyncio.sleep(self._random.uniform(*_GIVEN_UP_S))
        self._world.network.heal_ways(ways)

    async def _cut_device(self) -> None:
        await self._cut_end({"device"})

    async def _cut_source(self) -> None:
        await self._cut_end({"source"})

    async def _kill_published(self) -> None:
        """The next set is written, and its daemon dies before it heard of that."""

        def published(server: str) -> None:
            self._world.hub.on_published = lambda server: None
            self._world.loop.call_soon(die, self._world.ids[server])

        def die(name: str) -> None:
            if self._world.servers[name].node is not None:
                self._world.crash(name, power=self._random.random() < 0.3)
                self._world.loop.call_later(self._random.uniform(1.0, 8.0), self._world.start, name)

        self._world.hub.on_published = published

    async def _log_behind(self) -> None:
        """A voter writes its log slowly, so that its tables tell of what is not in there yet, and starts again."""
        name = self._random.choice(sorted(self._voters - {self._office() or ""}))
        server = self._world.servers[name]
        server.log_s = 8.0
        await asyncio.sleep(self._random.uniform(8.0, 20.0))
        if server.node is not None:
            self._world.crash(name)
            self._world.start(name)
            await asyncio.sleep(5.0)
        server.log_s = 0.0

    async def _office_alone(self) -> None:
        """The one in office is cut from the other voters, not from those who report; then its machine loses power."""
        name = self._office()
        if name is None:
            return
        ways = [way for other in sorted(self._voters - {name}) for way in ((name, other), (other, name))]
        self._world.network.cut_ways(ways)
        await asyncio.sleep(self._random.uniform(0.5, 8.0))
        if self._world.servers[name].node is not None:
            self._world.crash(name, power=True)
            await asyncio.sleep(self._random.uniform(1.0, 10.0))
            self._world.start(name)
        self._world.network.heal_ways(ways)

    async def _lost_after_pruning(self) -> None:
        """The other voters write what servers tell very slowly. When servers have pruned their journals meanwhile, the disk of
        the one in office is an older copy, and the others lose power: what they had not taken in durably is gone."""
        name = self._office()
        if name is None or self.put_back or not self._enough_vote():
            return
        self.put_back[name] = self._world.loop.time()
        copy = self._world.keep_copy(name)
        others = [self._world.servers[each] for each in sorted(self._voters - {name})]
        for server in others:
            server.tables_s = 300.0
        pruned = await self._pruned(name)
        for server in others:
            server.tables_s = 0.0
        if not pruned:
            del self.put_back[name]
            return
        voters = [each for each in sorted(self._voters) if self._world.servers[each].node is not None]
        for each in voters:
            self._world.crash(each, power=True, state=copy if each == name else None)
        self.on_put_back(name)
        await asyncio.sleep(5.0)
        for each in voters:
            self._world.start(each)

    async def _pruned(self, name: str) -> bool:
        """Returns when some server has pruned facts that it wrote since, or will not soon; false if the office of ``name`` ended
        before."""
        before = await self._journals()
        for _ in range(90):
            await asyncio.sleep(1.0)
            if self._office() != name:
                return False
            now = await self._journals()
            if any(now[each][0] > head for each, (_, head) in before.items() if each in now and each != name):
                break
        return True

    async def _journals(self) -> dict[str, tuple[int, int]]:
        """Of the newest incarnation at each server: the last number that was pruned, and the last one."""
        found = {}
        for name, server in self._world.servers.items():
            if server.node is not None:
                journal = server.node.server.journal
                head = await journal.head()
                found[name] = ((await journal.floors()).get(head.incarnation, 0), head.seq)
        return found

    async def _late_orders(self) -> None:
        """What the one in office says arrives late at a server, which has heard of its successor by then."""
        name = self._office()
        if name is None:
            return
        late = [each for each in NAMES if each != name and each not in self._voters]
        for each in late:
            self._world.network.slow_down(name, each, _LATE)
        await asyncio.sleep(self._random.uniform(2.0, 6.0))
        to = self._random.choice(sorted(self._voters - {name}))
        await self._world.ask("admin.transfer", q.AdminTransfer(to), v.Done, tries=2, at=lambda: to)
        await asyncio.sleep(8.0)
        for each in late:
            self._world.network.slow_down(name, each, None)

    async def _founder(self) -> None:
        """Who founded the mesh votes no more, then again: it is cut off while it is sent what was decided, and starts
        again."""
        founder, others = NAMES[0], NAMES[1:]
        ways = [way for other in others for way in ((founder, other), (other, founder))]
        if founder in self._voters:
            await self._world.ask("voter.remove", q.ServerName(founder), v.ServerView, tries=4)
            self._voters.discard(founder)
        for other in others:
            self._world.network.slow_down(founder, other, _SLOW)
        adding = asyncio.create_task(self._add(founder))
        seat = self._world.servers[founder].node
        for _ in range(600):
            await asyncio.sleep(0.05)
            if seat is not None and seat.seat.voter is not None:
                break
        await asyncio.sleep(self._random.uniform(0.0, 1.5))
        self._world.network.cut_ways(ways)
        if self._world.servers[founder].node is not None:
            self._world.crash(founder)
            await asyncio.sleep(1.0)
            self._world.start(founder)
        await asyncio.sleep(self._random.uniform(5.0, 25.0))
        self._world.network.heal_ways(ways)
        for other in others:
            self._world.network.slow_down(founder, other, None)
        await adding

    async def _add(self, name: str) -> None:
        self._voters.add(name)
        self.ever_voted.add(name)
        try:
            await self._world.ask("voter.add", q.ServerName(name), v.ServerView, tries=8)
        except CasoError as error:
            self._world.note("refused", error.code)
