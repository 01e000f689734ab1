"""The calls of people about selection lists, policies and what they name."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from caso_mesh.admin import present
from caso_mesh.admin.paging import page
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.control import documents, named
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import (
    Associate,
    Command,
    DeleteCalendar,
    DeleteDevicePool,
    DeleteList,
    DeleteMediaSet,
    DeletePolicy,
    Dissociate,
    PutCalendar,
    PutDevicePool,
    PutList,
    PutMediaSet,
    PutPolicy,
)
from caso_mesh.model.errors import Conflict, InUse, InvalidSchedule, NotFound
from caso_mesh.model.host_commands import CommandKind
from caso_mesh.model.ids import IdSource
from caso_mesh.model.policies import Policy, SelectionList, Template
from caso_mesh.model.units import format_instant


class Policies:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        work: Work,
        submit: Submit,
        clock: Clock,
        new_id: IdSource,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._work = work
        self._submit = submit
        self._clock = clock
        self._new_id = new_id

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "selection.create": self._selection_create,
            "selection.set": self._selection_set,
            "selection.rename": self._selection_rename,
            "selection.copy": self._selection_copy,
            "selection.delete": self._selection_delete,
            "selection.list": self._selection_list,
            "selection.show": self._selection_show,
            "policy.create": self._policy_create,
            "policy.set": self._policy_set,
            "policy.rename": self._policy_rename,
            "policy.copy": self._policy_copy,
            "policy.delete": self._policy_delete,
            "policy.list": self._policy_list,
            "policy.show": self._policy_show,
            "associate": self._associate,
            "dissociate": self._dissociate,
            "calendar.create": self._calendar_create,
            "calendar.set": self._calendar_set,
            "calendar.delete": self._calendar_delete,
            "calendar.list": self._calendar_list,
            "mediaset.create": self._mediaset_create,
            "mediaset.set": self._mediaset_set,
            "mediaset.delete": self._mediaset_delete,
            "device-pool.create": self._device_pool_create,
            "device-pool.set": self._device_pool_set,
            "device-pool.delete": self._device_pool_delete,
            "device-pool.list": self._device_pool_list,
        }

    # --- selection lists ---

    async def _selection_create(self, caller: Caller, request: q.SelectionCreate) -> v.SelectionView:
        if done_before(self._keeper, caller) is not None:
            return self._selection(request.name)
        row = documents.selection_of(self._keeper.state, self.new_list(caller.who, request.name), request.definition)
        warnings = await self.check_places(row, None)
        await self._do(caller, PutList(row, self._new_id()))
        return self._selection(request.name, warnings)

    async def _selection_set(self, caller: Caller, request: q.SelectionSet) -> v.SelectionView:
        if done_before(self._keeper, caller) is not None:
            return self._selection(request.name)
        state = self._keeper.state
        old = state.list_named(request.name)
        if request.before is not None and request.before != documents.selection_doc(state, old):
            raise Conflict(detail=f"The selection list {old.name} was changed by somebody else meanwhile; try again")
        row = documents.selection_of(state, old, request.definition)
        warnings = await self.check_places(row, old)
        await self._do(caller, PutList(row, self._new_id(), before=old))
        return self._selection(request.name, warnings)

    async def _selection_rename(self, caller: Caller, request: q.Renamed) -> v.SelectionView:
        if done_before(self._keeper, caller) is None:
            old = self._keeper.state.list_named(request.name)
            row = msgspec.structs.replace(old, name=request.to)
            await self._do(caller, PutList(row, self._new_id(), before=old))
        return self._selection(request.to)

    async def _selection_copy(self, caller: Caller, request: q.Renamed) -> v.SelectionView:
        if done_before(self._keeper, caller) is None:
            old = self._keeper.state.list_named(request.name)
            new = self.new_list(caller.who, request.to)
            copy = msgspec.structs.replace(
                old, id=new.id, name=new.name, created_by=new.created_by, created_at_ns=new.created_at_ns
            )
            await self._do(caller, PutList(copy, self._new_id()))
        return self._selection(request.to)

    async def _selection_delete(self, caller: Caller, request: q.Named) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._do(caller, DeleteList(self._keeper.state.list_named(request.name).id))
        return v.Done()

    async def _selection_list(self, caller: Caller, request: q.SelectionListRequest) -> v.SelectionViews:
        limits = caller.limits()
        only = present.restricted_to(self._keeper.state, request.server, request.pool, limits)
        rows = self._keeper.state.selection_lists()
        seen = (row for row in rows if only is None or not only.isdisjoint(row.servers()))
        shown, more = page(seen, request, lambda row: row.name)
        return v.SelectionViews(tuple(self._selection(row.name, limits=limits) for row in shown), more)

    async def _selection_show(self, caller: Caller, request: q.Named) -> v.SelectionView:
        limits = caller.limits()
        row = self._keeper.state.list_named(request.name)
        if limits is not None and limits.isdisjoint(row.servers()):
            raise NotFound(kind="selection-list", name=request.name)
        return self._selection(request.name, limits=limits)

    def _selection(
        self, name: str, warnings: Iterable[str] = (), *, limits: frozenset[str] | None = None
    ) -> v.SelectionView:
        """``limits``: of whose files is told (node ids); ``None`` = of all."""
        state = self._keeper.state
        row = state.list_named(name)
        if limits is not None:
            row = msgspec.structs.replace(row, entries=tuple(each for each in row.entries if each.server in limits))
        return v.SelectionView(
            name=row.name,
            id=row.id,
            definition=documents.selection_doc(state, row),
            policies=tuple(
                sorted(state.policy(each.policy).name for each in state.association_list() if each.list == row.id)
            ),
            jobs=tuple(job.name for job in state.jobs_made_of(selection=row.id)),
            created=format_instant(row.created_at_ns) or "",
            created_by=row.created_by,
            warnings=tuple(warnings),
        )

    def new_list(self, who: str, name: str) -> SelectionList:
        """An empty one, to be filled."""
        return SelectionList(self._new_id(), name, (), who, self._clock.now_ns())

    async def check_places(self, row: SelectionList, old: SelectionList | None) -> list[str]:
        """Asks the servers of new entries whether they have and allow these. Raises ``SourcePathMissing``,
        ``NotAllowedHere``, ``CommandNotAllowed``; a server that is away makes a warning."""
        known = set() if old is None else {(entry.server, entry.root) for entry in old.entries}
        warnings: list[str] = []
        for server in row.servers():
            roots = [entry.root for entry in row.entries if entry.server == server]
            new = [root for root in roots if (server, root) not in known]
            if new:
                warnings += await self._work.check_paths(server, new, (), must=False)
        return warnings

    # --- policies ---

    async def _policy_create(self, caller: Caller, request: q.PolicyCreate) -> v.PolicyView:
        if done_before(self._keeper, caller) is not None:
            return self._policy(request.name)
        policy = documents.policy_of(self.new_policy(caller.who, request.name), request.definition)
        self.check_once(policy, None)
        await self._do(caller, PutPolicy(policy, self._new_id()))
        return self._policy(request.name)

    async def _policy_set(self, caller: Caller, request: q.PolicySet) -> v.PolicyView:
        if done_before(self._keeper, caller) is not None:
            return self._policy(request.name)
        state = self._keeper.state
        old = state.policy_named(request.name)
        if request.before is not None and request.before != documents.policy_doc(old):
            raise Conflict(detail=f"The policy {old.name} was changed by somebody else meanwhile; try again")
        policy = documents.policy_of(old, request.definition)
        self.check_once(policy, old)
        lists = [state.selection(each.list) for each in state.association_list() if each.policy == old.id]
        warnings = await self.check_commands(policy, lists)
        await self._do(caller, PutPolicy(policy, self._new_id(), before=old))
        return self._policy(request.name, warnings)

    async def _policy_rename(self, caller: Caller, request: q.Renamed) -> v.PolicyView:
        if done_before(self._keeper, caller) is None:
            old = self._keeper.state.policy_named(request.name)
            policy = msgspec.structs.replace(old, name=request.to)
            await self._do(caller, PutPolicy(policy, self._new_id(), before=old))
        return self._policy(request.to)

    async def _policy_copy(self, caller: Caller, request: q.Renamed) -> v.PolicyView:
        if done_before(self._keeper, caller) is None:
            old = self._keeper.state.policy_named(request.name)
            new = self.new_policy(caller.who, request.to)
            copy = msgspec.structs.replace(
                old, id=new.id, name=new.name, created_by=new.created_by, created_at_ns=new.created_at_ns
            )
            await self._do(caller, PutPolicy(copy, self._new_id()))
        return self._policy(request.to)

    async def _policy_delete(self, caller: Caller, request: q.Named) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._do(caller, DeletePolicy(self._keeper.state.policy_named(request.name).id))
        return v.Done()

    async def _policy_list(self, caller: Caller, request: q.Nothing) -> v.PolicyViews:
        limits = caller.limits()
        rows = self._keeper.state.policy_list()
        return v.PolicyViews(tuple(self._policy(row.name, limits=limits) for row in rows))

    async def _policy_show(self, caller: Caller, request: q.Named) -> v.PolicyView:
        return self._policy(request.name, limits=caller.limits())

    def _policy(self, name: str, warnings: Iterable[str] = (), *, limits: frozenset[str] | None = None) -> v.PolicyView:
        """``limits``: lists and jobs of these servers (node ids) alone; ``None`` = of all."""
        state = self._keeper.state
        policy = state.policy_named(name)
        lists = [state.selection(each.list) for each in state.association_list() if each.policy == policy.id]
        if limits is not None:
            lists = [row for row in lists if not limits.isdisjoint(row.servers())]
        return v.PolicyView(
            name=policy.name,
            id=policy.id,
            definition=documents.policy_doc(policy),
            selections=tuple(sorted(row.name for row in lists)),
            jobs=tuple(job.name for row in lists for job in state.jobs_made_of(policy=policy.id, selection=row.id)),
            created=format_instant(policy.created_at_ns) or "",
            created_by=policy.created_by,
            warnings=tuple(warnings),
        )

    def new_policy(self, who: str, name: str) -> Policy:
        """An empty one, to be filled."""
        return Policy(self._new_id(), name, (), (), who, self._clock.now_ns())

    def check_once(self, policy: Policy, old: Policy | None) -> None:
        """Raises ``InvalidSchedule`` for a template that shall run once, at a time that is over."""
        for template in self.once_over(policy, old):
            written = template.schedule.text if template.schedule is not None else ""
            raise InvalidSchedule(cron=written, detail=f"that time of the template {template.name} is over")

    def once_over(self, policy: Policy, old: Policy | None) -> list[Template]:
        """Templates that shall run once, at a time that is over, and did not say so before."""
        found = []
        for template in policy.templates:
            before = old.template(template.name) if old is not None else None
            schedule = template.schedule
            if schedule is None or schedule.at_ns is None or (before is not None and before.schedule == schedule):
                continue
            if schedule.at_ns <= self._clock.now_ns():
                found.append(template)
        return found

    async def check_commands(self, policy: Policy, lists: Iterable[SelectionList]) -> list[str]:
        """Asks the servers of lists whether they have the commands that templates name. Raises
        ``CommandNotAllowed``."""
        pairs = [
            (name, kind)
            for template in policy.templates
            for name, kind in ((template.pre, CommandKind.PRE), (template.post, CommandKind.POST))
            if name is not None
        ]
        warnings: list[str] = []
        for server in sorted({server for row in lists for server in row.servers()}) if pairs else ():
            warnings += await self._work.check_paths(server, (), tuple(dict.fromkeys(pairs)), must=False)
        return warnings

    async def _associate(self, caller: Caller, request: q.AssociationEdit) -> v.PolicyView:
        state = self._keeper.state
        policy, row = state.policy_named(request.policy), state.list_named(request.selection)
        if done_before(self._keeper, caller) is not None:
            return self._policy(policy.name)
        warnings = await self.check_commands(policy, [row])
        await self._do(caller, Associate(policy.id, row.id, self._new_id()))
        return self._policy(policy.name, warnings)

    async def _dissociate(self, caller: Caller, request: q.AssociationEdit) -> v.PolicyView:
        state = self._keeper.state
        policy, row = state.policy_named(request.policy), state.list_named(request.selection)
        if done_before(self._keeper, caller) is None:
            await self._do(caller, Dissociate(policy.id, row.id))
        return self._policy(policy.name)

    # --- what they name ---

    async def _calendar_create(self, caller: Caller, request: q.CalendarEdit) -> v.CalendarView:
        return await self._calendar(caller, request, new=True)

    async def _calendar_set(self, caller: Caller, request: q.CalendarEdit) -> v.CalendarView:
        return await self._calendar(caller, request, new=False)

    async def _calendar(self, caller: Caller, request: q.CalendarEdit, *, new: bool) -> v.CalendarView:
        row = named.calendar_of(request.name, request.definition)
        if done_before(self._keeper, caller) is None:
            await self._do(caller, PutCalendar(row, new))
        return v.CalendarView(row.name, msgspec.structs.replace(request.definition, days=row.days))

    async def _calendar_delete(self, caller: Caller, request: q.Named) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._do(caller, DeleteCalendar(request.name))
        return v.Done()

    async def _calendar_list(self, caller: Caller, request: q.Nothing) -> v.CalendarViews:
        rows = sorted(self._keeper.state.calendars.items())
        return v.CalendarViews(tuple(v.CalendarView(name, named.calendar_doc(row)) for name, row in rows))

    async def _mediaset_create(self, caller: Caller, request: q.MediaSetEdit) -> v.Done:
        return await self._mediaset(caller, request, new=True)

    async def _mediaset_set(self, caller: Caller, request: q.MediaSetEdit) -> v.Done:
        return await self._mediaset(caller, request, new=False)

    async def _mediaset(self, caller: Caller, request: q.MediaSetEdit, *, new: bool) -> v.Done:
        row = named.media_set_of(request.name, request.definition)
        if done_before(self._keeper, caller) is None:
            await self._do(caller, PutMediaSet(row, new))
        return v.Done()

    async def _mediaset_delete(self, caller: Caller, request: q.Named) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self.check_media_set_empty(request.name)
            await self._do(caller, DeleteMediaSet(request.name))
        return v.Done()

    async def check_media_set_empty(self, name: str) -> None:
        """Raises ``InUse`` while sets or media are of a media set: without it nobody would know when they may go."""
        labels = sorted(medium.label for medium in await self._tables.media() if medium.media_set == name)
        if labels:
            raise InUse(kind="media set", name=name, by=[f"medium {label}" for label in labels[:5]])

    async def _device_pool_create(self, caller: Caller, request: q.DevicePoolEdit) -> v.DevicePoolView:
        return await self._device_pool(caller, request, new=True)

    async def _device_pool_set(self, caller: Caller, request: q.DevicePoolEdit) -> v.DevicePoolView:
        return await self._device_pool(caller, request, new=False)

    async def _device_pool(self, caller: Caller, request: q.DevicePoolEdit, *, new: bool) -> v.DevicePoolView:
        pool = named.device_pool_of(self._keeper.state, request.name, request.definition)
        if done_before(self._keeper, caller) is None:
            await self._do(caller, PutDevicePool(pool, new))
        return v.DevicePoolView(pool.name, named.device_pool_doc(self._keeper.state, pool))

    async def _device_pool_delete(self, caller: Caller, request: q.Named) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._do(caller, DeleteDevicePool(request.name))
        return v.Done()

    async def _device_pool_list(self, caller: Caller, request: q.Nothing) -> v.DevicePoolViews:
        state = self._keeper.state
        rows = sorted(state.device_pools.items())
        return v.DevicePoolViews(tuple(v.DevicePoolView(name, named.device_pool_doc(state, row)) for name, row in rows))

    async def _do(self, caller: Caller, command: Command) -> None:
        await self._submit(command, who=caller.who, request_id=caller.request_id)
