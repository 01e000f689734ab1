"""Logon information at the administrator, who never sees a secret: the calls of people, and who is handed a copy by whom."""

from __future__ import annotations

import asyncio
import logging

from msgspec import structs

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.ports import Answer, Caller, Links, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.commands import DeleteLogon, GrantLogon, PutLogon
from caso_mesh.model.documents import LogonDoc
from caso_mesh.model.errors import CasoError, Conflict, LogonNotPermitted, UsageError
from caso_mesh.model.logons import Logon
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_instant
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_GRANT_S = 30.0
#: To how many servers a secret is sealed at once.
_AT_ONCE = 100
_LOST = "logon-lost"


class Logons:
    """Answers of the administrator, and a duty of the office."""

    def __init__(self, *, keeper: ControlKeeper, links: Links, submit: Submit, alarms: Alarms) -> None:
        self._keeper = keeper
        self._links = links
        self._submit = submit
        self._alarms = alarms

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "logon.recipients": self._recipients,
            "logon.create": self._create,
            "logon.set": self._set,
            "logon.delete": self._delete,
            "logon.list": self._list,
        }

    # --- people ---

    async def _recipients(self, caller: Caller, request: q.LogonUsers) -> v.LogonRecipients:
        state = self._keeper.state
        allowed = state.permitted(self._row("", request, user=""))
        keys = {node: state.server(node).encryption_key for node in sorted(allowed)}
        return v.LogonRecipients(state.info().id, keys)

    async def _create(self, caller: Caller, request: q.LogonCreate) -> v.LogonView:
        if done_before(self._keeper, caller) is None:
            sealed = request.sealed
            row = self._row(request.name, request.users, user=request.user)
            row = structs.replace(row, version=sealed.version, copies=self._copies(row, sealed))
            await self._submit(PutLogon(row, 0), who=caller.who, request_id=caller.request_id)
        return self._view(request.name)

    async def _set(self, caller: Caller, request: q.LogonSet) -> v.LogonView:
        if done_before(self._keeper, caller) is None:
            old = self._keeper.state.logon_named(request.name)
            if request.before is not None and request.before != self._definition(old):
                raise Conflict(detail=f"The logon {old.name} was changed by somebody else meanwhile; try again")
            row = self._row(old.name, request.users, user=request.user)
            row = structs.replace(row, version=old.version)
            if request.sealed is not None:
                row = structs.replace(row, version=request.sealed.version, copies=self._copies(row, request.sealed))
            await self._submit(PutLogon(row, old.revision), who=caller.who, request_id=caller.request_id)
        return self._view(request.name)

    async def _delete(self, caller: Caller, request: q.Named) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._submit(DeleteLogon(request.name), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _list(self, caller: Caller, request: q.Nothing) -> v.LogonList:
        limits, state = caller.limits(), self._keeper.state
        rows = (row for row in state.logon_list() if limits is None or state.permitted(row) & limits)
        return v.LogonList(tuple(self._view(row.name) for row in rows))

    def _row(self, name: str, users: q.LogonUsers, *, user: str) -> Logon:
        state = self._keeper.state
        servers = tuple(state.server_named(each).id for each in users.servers)
        pools = tuple(state.pool_named(each).name for each in users.pools)
        return Logon(name, user, servers, pools, "", 0, {}, "", 0, users.voters)

    def _copies(self, row: Logon, sealed: q.SealedLogon) -> dict[str, bytes]:
        """Raises ``LogonNotPermitted`` for a copy that is for somebody else, ``UsageError`` without any."""
        allowed = self._keeper.state.permitted(row)
        if not sealed.copies and allowed:
            raise UsageError(detail=f"There is no copy of the secret of {row.name} for anybody")
        for node in sealed.copies:
            if node not in allowed:
                raise LogonNotPermitted(server=self._keeper.state.name_of(node), logon=row.name)
        return dict(sealed.copies)

    def _definition(self, row: Logon) -> LogonDoc:
        names = tuple(sorted(self._keeper.state.name_of(server) for server in row.servers))
        return LogonDoc(row.user, names, row.pools, row.voters)

    def _view(self, name: str) -> v.LogonView:
        state = self._keeper.state
        row = state.logon_named(name)
        there = sorted(state.name_of(node) for node in row.copies)
        lacking = sorted(state.name_of(node) for node in state.permitted(row) - row.copies.keys())
        changed = format_instant(row.changed_at_ns) or ""
        return v.LogonView(name, self._definition(row), tuple(there), tuple(lacking), changed, row.changed_by)

    # --- who has no copy yet ---

    async def run(self) -> None:
        """Never returns."""
        while True:
            for row in self._keeper.state.logon_list():
                lacking = self._keeper.state.permitted(row) - row.copies.keys()
                if lacking and row.copies:
                    await self._grant(row, sorted(lacking)[:_AT_ONCE])
                await self._tell(row.name)
            there = self._keeper.state.logons
            for name in self._alarms.standing(_LOST):
                if name not in there:
                    await self._alarms.ends(_LOST, name)
            await asyncio.sleep(_LOOK_S)

    async def _grant(self, row: Logon, lacking: list[str]) -> None:
        """A linked server that has the secret seals it to those that lack it."""
        request = n.LogonGrant(row.name, row.version, tuple(lacking))
        for holder in sorted(row.copies):
            if not self._links.linked(holder):
                continue
            try:
                reply = await ask(self._links.get(holder), "logon.grant", request, n.LogonGranted, timeout_s=_GRANT_S)
            except CasoError as error:
                log.info("the logon %s for %s: %s", row.name, ", ".join(lacking), error)
                continue
            copies = {node: reply.copies[node] for node in lacking if node in reply.copies}
            await self._submit(GrantLogon(row.name, row.version, copies))
            return

    async def _tell(self, name: str) -> None:
        """Nobody has a copy any more: only a person knows the secret."""
        state = self._keeper.state
        row = state.logons.get(name)
        if row is None:
            return
        waiting = sorted(state.name_of(node) for node in state.permitted(row))
        if row.copies or not waiting:
            await self._alarms.ends(_LOST, name)
            return
        text = (
            f"No server has the secret of the logon {name} any more, which {', '.join(waiting)} may use. Type it again: "
            f"caso-mesh logon set {name} --new-secret"
        )
        await self._alarms.begins(AlertKind.ATTENTION, _LOST, text, object=name)
