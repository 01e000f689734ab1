"""The calls of people about alerts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection

import msgspec

from caso_mesh.admin import alert_hints, present
from caso_mesh.admin.hiding import shown
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.admin.scoping import of_alert, places_of
from caso_mesh.admin.tables import AlertRow, Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertAnswered, AlertDetail, AlertFollow, AlertsNow
from caso_mesh.model.alerts import BY_NAME
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import AnswerAlert
from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.ids import resolve_prefix
from caso_mesh.model.listing import limited
from caso_mesh.model.states import AlertKind
from caso_mesh.model.units import format_instant

#: How often it is looked at most while somebody watches, and how long one question waits.
_LOOK_S, _LONGEST_S = 0.5, 30.0


class AlertCalls:
    """Answers of the administrator."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables, submit: Submit, clock: Clock) -> None:
        self._keeper = keeper
        self._tables = tables
        self._submit = submit
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "alert.list": self._list,
            "alert.show": self._show,
            "alert.follow": self._follow,
            "alert.answer": self._answer,
        }

    async def open(self) -> int:
        """How many are neither answered nor over."""
        rows, state = await self._tables.alerts(), self._keeper.state
        return len(shown(state, [row for row in rows if row.id not in state.answers and row.cleared_at_ns is None]))

    async def _list(self, caller: Caller, request: q.AlertListRequest) -> v.AlertList:
        found, limit = await self._fitting(caller, request), limited(request.limit)
        return v.AlertList(tuple(found[:limit]), len(found) > limit)

    async def _fitting(self, caller: Caller, request: q.AlertListRequest) -> list[v.AlertView]:
        """Newest first. Raises ``InvalidValue`` for a type or a category that there is not."""
        check_which(request)
        state = self._keeper.state
        limits, only = caller.limits(), present.restricted_to(state, request.server, request.pool)
        views, rows, places = [], await self._tables.alerts(), places_of(state)
        for row in shown(state, rows):
            if not request.all and (row.id in state.answers or row.cleared_at_ns is not None):
                continue
            if only is not None and row.server not in only and not of_alert(state, row, places) & only:
                continue
            if limits is not None and not of_alert(state, row, places) & limits:
                continue
            if request.types and row.alert not in request.types:
                continue
            if request.categories and row.category not in request.categories:
                continue
            if not (request.since_ns or 0) <= row.raised_at_ns:
                continue
            if request.until_ns is not None and row.raised_at_ns >= request.until_ns:
                continue
            views.append(self._view(row))
        return views

    def _view(self, row: AlertRow) -> v.AlertView:
        state = self._keeper.state
        answer = state.answers.get(row.id)
        return v.AlertView(
            id=row.id,
            alert=row.alert,
            category=row.category,
            server=state.name_of(row.server),
            object=row.object,
            text=row.text,
            raised=format_instant(row.raised_at_ns) or "",
            answered=format_instant(answer.at_ns) if answer else None,
            answered_by=answer.who if answer else None,
            response=answer.response if answer else None,
            cleared=format_instant(row.cleared_at_ns),
        )

    async def _row(self, id: str) -> AlertRow:
        """Raises ``NotFound``, ``Ambiguous``."""
        rows = {row.id: row for row in await self._tables.alerts()}
        return rows[resolve_prefix(id, list(rows), "alert")]

    async def _show(self, caller: Caller, request: q.Named) -> AlertDetail:
        row = await self._row(request.name)
        known = BY_NAME.get(row.category)
        about = tuple(sorted(map(self._keeper.state.name_of, of_alert(self._keeper.state, row))))
        if known is None:
            return AlertDetail(self._view(row), about)
        do = alert_hints.of_alert(self._keeper.state, row.category, row.object)
        return AlertDetail(self._view(row), about, known.text, do, known.standing)

    async def _follow(self, caller: Caller, request: AlertFollow) -> AlertsNow:
        return await followed(lambda: self._fitting(caller, request.which), request, self._clock)

    async def _answer(self, caller: Caller, request: q.AlertAnswer) -> AlertAnswered:
        before = done_before(self._keeper, caller)
        if before is not None:
            return AlertAnswered(**before.result)
        row = await self._row(request.id)
        command = AnswerAlert(row.id, request.response, self._clock.now_ns())
        return AlertAnswered(**await self._submit(command, who=caller.who, request_id=caller.request_id))


async def followed(
    fitting: Callable[[], Awaitable[list[v.AlertView]]], request: AlertFollow, clock: Clock
) -> AlertsNow:
    """What fits, as soon as it is not what the caller knows, or when its time is over."""
    end_s = clock.monotonic_s() + max(0.0, min(request.wait_s, _LONGEST_S))
    while True:
        views = tuple((await fitting())[: limited(request.which.limit)])
        mark = hashlib.sha256(msgspec.msgpack.encode(views)).hexdigest()[:16]
        if mark != request.known or clock.monotonic_s() >= end_s:
            return AlertsNow(mark, views)
        await asyncio.sleep(_LOOK_S)


def check_which(request: q.AlertListRequest) -> None:
    """Raises ``InvalidValue`` for a type or a category that there is not."""
    _check("type", request.types, [kind.value for kind in AlertKind], ", ".join(AlertKind))
    _check("category", request.categories, BY_NAME, "one of: caso-mesh alert categories")


def _check(what: str, given: Collection[str], known: Collection[str], expected: str) -> None:
    for each in given:
        if each not in known:
            raise InvalidValue(value=each, what=what, expected=f"Use {expected}")
