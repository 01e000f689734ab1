"""The calls of people about what is copied to servers, so that these run it by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.admin.present import failure_view
from caso_mesh.control.copying import parcel
from caso_mesh.control.documents import parse_target
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.copies import Clash, Copy, CopyTo
from caso_mesh.model.errors import CasoError, EmptyTarget, InvalidValue, UsageError
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import Failure, TargetKind
from caso_mesh.model.listing import limited
from caso_mesh.model.mesh import Server
from caso_mesh.model.units import format_instant


class Copies:
    """Answers of the administrator."""

    def __init__(self, *, keeper: ControlKeeper, submit: Submit, clock: Clock, new_id: IdSource) -> None:
        self._keeper = keeper
        self._submit = submit
        self._clock = clock
        self._new_id = new_id

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"copy.to": self._copy_to, "copy.list": self._list}

    async def _copy_to(self, caller: Caller, request: q.CopyTo) -> v.Copied:
        """To one server all of it or nothing; of a pool those servers are left out that can do nothing with it, and are
        named with the reason. Raises ``NotFound``, ``InvalidValue``, ``UsageError``, ``EmptyTarget``, ``MadeByPolicy``."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._copied(before.result["copies"], (), request)
        state = self._keeper.state
        servers = _servers(state, request.target)
        command = CopyTo(
            servers=tuple(server.id for server in servers),
            clash=Clash.OVERWRITE if request.overwrite else Clash.SKIP,
            seed=self._new_id(),
            at_ns=self._clock.now_ns(),
            lists=tuple(state.list_named(name).id for name in request.selections),
            policies=tuple(state.policy_named(name).id for name in request.policies),
            jobs=tuple(state.job_named(name).id for name in request.jobs),
            error_rules=request.error_rules,
            settings=request.settings,
        )
        refused: dict[str, CasoError] = {}
        for server in servers:
            try:
                parcel(state, command, server, caller.who)
            except (EmptyTarget, UsageError) as error:
                if len(servers) == 1:
                    raise
                refused[server.id] = error
        if len(refused) == len(servers):
            raise next(iter(refused.values()))
        command = structs.replace(command, servers=tuple(id for id in command.servers if id not in refused))
        result = await self._submit(command, who=caller.who, request_id=caller.request_id)
        told = tuple(
            v.CopyRefused(state.name_of(id), failure_view(Failure(error.code, error.fields)) or {})
            for id, error in refused.items()
        )
        return self._copied(result["copies"], told, request, len(command.servers))

    def _copied(
        self, ids: Sequence[str], refused: tuple[v.CopyRefused, ...], request: q.CopyTo, servers: int = 0
    ) -> v.Copied:
        state = self._keeper.state
        rows = sorted((state.copies[id] for id in ids if id in state.copies), key=lambda copy: copy.number)
        return v.Copied(tuple(_view(state, row) for row in rows), refused, servers if request.settings else 0)

    async def _list(self, caller: Caller, request: q.CopyListRequest) -> v.CopyList:
        state, limits = self._keeper.state, caller.limits()
        server = state.server_named(request.server).id if request.server is not None else None
        rows = [row for row in state.copy_list(server)[::-1] if limits is None or row.server in limits]
        limit = limited(request.limit)
        return v.CopyList(tuple(_view(state, row) for row in rows[:limit]), len(rows) > limit)


def _servers(state: ControlState, text: str) -> list[Server]:
    target = parse_target(text)
    if target.kind is TargetKind.SERVER:
        return [state.server_named(target.name or "")]
    if target.kind is TargetKind.POOL:
        servers = state.servers_of_pool(target.name or "")
        if not servers:
            raise UsageError(detail=f"The pool {target.name} has no server")
        return servers
    raise InvalidValue(value=text, what="target of a copy", expected="Use server:NAME or pool:NAME")


def _view(state: ControlState, row: Copy) -> v.CopyView:
    return v.CopyView(
        id=row.id,
        number=row.number,
        server=state.name_of(row.server),
        state="waiting" if row.taken_at_ns is None else "taken",
        clash=row.clash.value,
        copied=format_instant(row.at_ns) or "",
        copied_by=row.who,
        taken=format_instant(row.taken_at_ns),
        outcomes=tuple(v.CopyOutcome(each.kind, each.name, each.came.value, each.reason) for each in row.outcomes),
    )
