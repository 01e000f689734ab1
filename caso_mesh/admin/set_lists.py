"""The list of backup sets, a page at a time: what is not shown is not looked at, unless it decides about what is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from caso_mesh.admin import present
from caso_mesh.admin.on_device import OnDevice
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.retaining import Retaining
from caso_mesh.admin.set_rows import Wanted
from caso_mesh.admin.source_names import source_of
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Whereabouts
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import NotFound
from caso_mesh.model.listing import SetListRequest, SetStanding, in_time, limited
from caso_mesh.model.storage import BackupSet
from caso_mesh.planning.choosing import Flaw
from caso_mesh.planning.retention import Verdict


class SetLists:
    """Answers ``set.list``."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        clock: Clock,
        on_device: OnDevice,
        retaining: Retaining,
    ) -> None:
        self._where = Whereabouts(keeper, tables)
        self._keeper = keeper
        self._tables = tables
        self._clock = clock
        self._on_device = on_device
        self._retaining = retaining

    async def answer(self, caller: Caller, request: SetListRequest) -> b.SetList:
        state = self._keeper.state
        only = present.restricted_to(state, request.server, request.pool, caller.limits())
        source = await source_of(state, self._tables, request.source) if request.source else None
        wanted = Wanted(of=only, source=source, since_ns=request.since_ns, until_ns=request.until_ns)
        standing = SetStanding.EXPIRED if request.expired else request.state
        if request.from_device is not None:
            there = await self._on_device.sets(request.from_device)
            found = _behind([each for each in there if _fits(each, wanted)], request.after)
            shown, more, verdicts = await self._standing(found, standing, limited(request.limit))
        else:
            shown, more, verdicts = await self._known(wanted, standing, request)
        details, kept = await self._tables.detail_states([each.id for each in shown]), await self._where.kept(shown)
        flaws = await self._retaining.flaws()
        names = {server.id: server.name for server in state.server_list()}
        devices = {device.id: device.name for device in state.device_list()}
        return b.SetList(
            tuple(
                present.set_view(
                    each,
                    verdicts[each.id],
                    flaws=[
                        flaw for flaw in flaws.of(each.id) if request.from_device is None or flaw is not Flaw.MISSING
                    ],
                    catalog=details.get(each.id) == "here" or each.id in kept,
                    names=names,
                    devices=devices,
                )
                for each in shown
            ),
            more,
        )

    async def _known(
        self, wanted: Wanted, standing: SetStanding | None, request: SetListRequest
    ) -> tuple[list[BackupSet], bool, Mapping[str, Verdict]]:
        limit = limited(request.limit)
        if request.after is not None:
            place = await self._tables.place_of_set(request.after)
            if place is None:
                raise NotFound(kind="set", name=request.after)
            wanted = replace(wanted, before=place)
        if standing is SetStanding.LOCKED:
            wanted = replace(wanted, locked_ns=self._clock.now_ns())
        if standing is SetStanding.REDUNDANT:
            wanted = replace(wanted, ids=self._retaining.redundant())
        # whether a set has expired is known of all or of none: it is for the newer ones to say
        found = await self._tables.sets_found(wanted, -1 if standing in _JUDGED else limit + 1)
        return await self._standing(found, standing, limit)

    async def _standing(
        self, found: list[BackupSet], standing: SetStanding | None, limit: int
    ) -> tuple[list[BackupSet], bool, Mapping[str, Verdict]]:
        """As many of some sets as fit, whether there are more, and the verdicts on them."""
        if standing not in _JUDGED and standing is not None:
            locks, now_ns, redundant = await self._tables.locks(), self._clock.now_ns(), self._retaining.redundant()
            found = [
                each
                for each in found
                if (
                    present.lock_in_force(locks, each.id, now_ns) is not None
                    if standing is SetStanding.LOCKED
                    else each.id in redundant
                )
            ]
        if standing not in _JUDGED:
            return found[:limit], len(found) > limit, await self._judged(found[:limit])
        verdicts = await self._judged(found)
        fits = [each for each in found if verdicts[each.id].goes is (standing is SetStanding.EXPIRED)]
        return fits[:limit], len(fits) > limit, verdicts

    async def _judged(self, sets: Collection[BackupSet]) -> Mapping[str, Verdict]:
        """They are judged together with all that there are of their lines and on their media."""
        state = self._keeper.state
        touched = {each.source for each in sets} | {each.server for each in sets}
        origins = {state.origin_of(each) for each in touched}
        for server in state.servers.values():
            if server.origin in origins or server.id in origins:
                touched |= {server.id, server.origin, *server.succeeds}
        kin = await self._tables.sets_found(Wanted(of=touched))
        # what lies on a device and is not known is of some line, too
        known = {each.id: each for each in (*kin, *sets)}
        return await self._retaining.verdicts(known.values(), self._retaining.away(known.values()))


#: What is known only when all sets of a line are looked at.
_JUDGED = frozenset({SetStanding.KEPT, SetStanding.EXPIRED})


def _fits(backup: BackupSet, wanted: Wanted) -> bool:
    of = wanted.of
    return (
        wanted.source in {None, backup.source}
        and (of is None or backup.source in of or backup.server in of)
        and in_time(backup.ended_at_ns, wanted.since_ns, wanted.until_ns)
    )


def _behind(sets: list[BackupSet], after: str | None) -> list[BackupSet]:
    """Newest first, behind the one with that id. Raises ``NotFound``."""
    found = sorted(sets, key=lambda each: (each.ended_at_ns, each.id), reverse=True)
    if after is None:
        return found
    place = next((number for number, each in enumerate(found) if each.id == after), None)
    if place is None:
        raise NotFound(kind="set", name=after)
    return found[place + 1 :]
