"""Erasing devices: asked for by people, and once more when the attempt stands at its device and asks whether it may.

Nothing is erased without this office: the attempt goes on only when ``begin-erase`` is committed by the one that is really in
office, and every voter is told that the sets are gone before the first object goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from caso_mesh.admin import set_rows
from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.clocks import check_clock
from caso_mesh.admin.live import Live
from caso_mesh.admin.ports import Answer, Caller, Facts, Links, Submit
from caso_mesh.admin.retaining import Retaining, line_of
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.control.erasing import erasures, users_of
from caso_mesh.control.importing import refuse_imported
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import outcomes as o
from caso_mesh.model.audit import Change
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import BeginErase
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.device_work import EraseGranted, MayErase, OpenSession
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.errors import InUse, LastGood, NotFound, Protected, WrongState
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import Attempt, Run, set_read
from caso_mesh.model.states import ATTEMPT_ACTIVE, AlertKind, DeviceState
from caso_mesh.model.storage import BackupSet, Device
from caso_mesh.model.units import format_instant
from caso_mesh.planning.choosing import Use
from caso_mesh.planning.media import may_delete_at
from caso_mesh.planning.retention import Keep

ERASED, UNFINISHED = "device-erased", "erase-unfinished"
_EACH_S = 5.0
_NAMED = 5
_END_OF_TIME = "the end of time"


class Erasing:
    """Answers of the administrator, and a duty: an erase that is unfinished is an alert until it has ended well."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        links: Links,
        submit: Submit,
        work: Work,
        retaining: Retaining,
        alarms: Alarms,
        journal: Facts,
        name: str,
        clock: Clock,
        new_id: IdSource,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._links = links
        self._submit = submit
        self._work = work
        self._retaining = retaining
        self._alarms = alarms
        self._journal = journal
        self._name = name
        self._clock = clock
        self._new_id = new_id

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {"device.erase": self._erase}

    def node_handlers(self) -> dict[str, Callable[[Peer, Any, Any], Awaitable[Any]]]:
        """Calls of servers, by name."""
        return {"device.may-erase": self._may_erase}

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(_EACH_S)

    async def look(self) -> None:
        """Whether an erase that had begun is left by all."""
        state = self._keeper.state
        at_work, left = erasures(state), set[str]()
        for device in state.device_list():
            if device.erasing and device.id not in at_work:
                left.add(device.name)
                text = (
                    f"The erase of the device {device.name} has begun and is unfinished: nothing of it can be used. "
                    f"Run it again: caso-mesh device erase {device.name}"
                )
                await self._alarms.begins(AlertKind.ERROR, UNFINISHED, text, object=device.name)
        for name in set(self._alarms.standing(UNFINISHED)) - left:
            await self._alarms.ends(UNFINISHED, name)

    async def _erase(self, caller: Caller, request: DeviceErase) -> o.Submitted:
        """Raises ``NotFound``, ``WrongState``, ``InUse``, ``Protected``, ``LastGood``."""

        async def made() -> EraseSpec:
            device = self._keeper.state.device_named(request.name)
            await self._check(device, last_good=request.last_good)
            return EraseSpec(device.id, device.erasing or self._new_id(), request.last_good)

        return await self._work.create(caller, made, request.priority, f"erase-{request.name}")

    async def _check(self, device: Device, *, last_good: bool, but: Run | None = None) -> None:
        """What speaks against erasing a device. What was begun once is gone already: then only who is at work there."""
        state = self._keeper.state
        refuse_imported(device, "it is not erased from here")
        if device.state is not DeviceState.ONLINE:
            raise WrongState(kind="device", name=device.name, state=device.state)
        other = erasures(state).get(device.id)
        if other is not None and (but is None or other.id != but.id):
            raise InUse(kind="device", name=device.name, by=f"the run {other.id}, which erases it")
        mine = set() if but is None else {attempt.id for attempt in state.attempts_of(but.id)}
        users = [each for each in users_of(state, device.id) if each not in mine]
        users += [
            f"the own work of {state.name_of(server)}"
            for server, heard in sorted(self._live.heard.items())
            if any(load.device == device.id and load.jobs for load in heard.beat.own_work)
        ]
        if users:
            raise InUse(kind="device", name=device.name, by=", ".join(users[:_NAMED]))
        if device.erasing:
            return
        there = await self._tables.ask(partial(set_rows.on_device, device=device.id))
        await self._check_sets(device, there, last_good=last_good)

    async def _check_sets(self, device: Device, there: Sequence[BackupSet], *, last_good: bool) -> None:
        state, now_ns = self._keeper.state, self._clock.now_ns()
        ids = {each.id for each in there}
        for run in state.open_runs():
            for part in run.parts:
                read = set_read(run.spec, part.source)
                if read is not None and read in ids:
                    raise InUse(kind="set", name=read, by=f"the run {run.id}")
        every = await self._tables.sets(limit=-1)
        verdicts = await self._retaining.verdicts(every, ())
        for each in there:
            verdict = verdicts.get(each.id)
            if verdict is None:
                continue  # it came while this was worked out: the server looks itself
            if Keep.NO_MEDIA_SET in verdict.kept_by:
                raise Protected(set=each.id, until=f"its media set {each.media_set} is known again")
            if not may_delete_at(verdict.protected_until_ns, now_ns):
                until = format_instant(verdict.protected_until_ns) or _END_OF_TIME
                raise Protected(set=each.id, until=until)
        if last_good:
            return
        flaws = await self._retaining.flaws()
        elsewhere = {each.id for each in every if each.device != device.id} - flaws.barred(Use.COUNT)
        copied = {each.copy_of for each in every if each.device != device.id and each.id in elsewhere}
        lasts = [
            each
            for each in there
            if each.id in verdicts
            and Keep.LAST_GOOD in verdicts[each.id].kept_by
            and each.copy_of not in elsewhere
            and each.id not in copied
        ]
        if lasts:
            raise LastGood(device=device.name, lines=self._lines(lasts))

    def _lines(self, sets: Sequence[BackupSet]) -> str:
        """Whose last good sets these are, for people."""
        state = self._keeper.state
        line = line_of(state)
        found = []
        for each in sets:
            key = line(each).key
            listed = key[key.index("list") + 1] if "list" in key else ""
            name = state.name_of(state.origin_of(each.source)) if listed else each.source_name
            row = state.lists.get(listed)
            found.append(f"{name} in {row.name}" if row is not None else name)
        named = sorted(set(found))
        return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")

    async def _may_erase(self, peer: Peer, request: MayErase, link: Any) -> EraseGranted:
        """Raises ``NotFound``, and what speaks against it by now."""
        # whoever was deposed learns it here, and lets nothing be erased by what he knew
        await self._keeper.barrier()
        attempt, run, spec = self._attempt(peer, request.attempt)
        await check_clock(self._links, server=peer.id, name=peer.name, admin=self._name)
        device = self._keeper.state.device(spec.device)
        self._check_sessions(device, request.sessions)
        await self._check(device, last_good=spec.last_good, but=run)
        first, old = not device.erasing, device.vault
        await self._submit(BeginErase(attempt.id), who=run.created_by, request_id=f"begin-erase-{attempt.id}")
        await self._journal.append(facts.VaultErased(device.id, old, attempt.id, run.created_by))
        if first:
            await self._tell(device, spec, run, request.sets)
        state = self._keeper.state
        recipients = {
            place.server: state.servers[place.server].encryption_key
            for place in device.paths
            if place.server in state.servers
        }
        recipients |= {kit.id: kit.public_key for kit in state.kit_list()}
        return EraseGranted(recipients, self._clock.now_ns())

    def _attempt(self, peer: Peer, id_: str) -> tuple[Attempt, Run, EraseSpec]:
        state = self._keeper.state
        attempt = state.attempts.get(id_)
        if attempt is None or attempt.server != peer.id or attempt.state not in ATTEMPT_ACTIVE or attempt.cancel:
            raise NotFound(kind="attempt", name=id_[:100])
        run = state.run(attempt.run)
        if not isinstance(run.spec, EraseSpec):
            raise NotFound(kind="attempt", name=id_[:100])
        return attempt, run, run.spec

    def _check_sessions(self, device: Device, sessions: Sequence[OpenSession]) -> None:
        """A session without an end is nobody's if its attempt is over and its server is here to say so, or has left the mesh.
        Raises ``InUse``."""
        state = self._keeper.state
        at_work = {attempt.id for attempt in state.active_attempts()}
        at_work |= {each for heard in self._live.heard.values() for each in (*heard.beat.running, *heard.beat.holding)}
        for each in sessions:
            if each.attempt in at_work:
                raise InUse(kind="device", name=device.name, by=f"the attempt {each.attempt}")
            if each.server in state.servers and not (
                self._links.linked(each.server) and each.server in self._live.heard
            ):
                who = f"{state.name_of(each.server)}, which is not connected and may still write there"
                raise InUse(kind="device", name=device.name, by=f"{who} (attempt {each.attempt})")

    async def _tell(self, device: Device, spec: EraseSpec, run: Run, sets: int) -> None:
        changed = (Change(f"device {device.name}", "vault", device.vault, spec.becomes),)
        fields = {"device": device.name, "sets": sets, "run": run.id, "even_last_good": spec.last_good}
        await self._journal.append(facts.Audit(run.created_by, ERASED, "device", fields=fields, changed=changed))
        text = f"The device {device.name} is erased by {run.created_by}: {sets} backup sets are gone with it"
        await self._alarms.once(spec.becomes, AlertKind.WARNING, ERASED, text, object=device.name)
