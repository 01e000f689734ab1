"""The calls of people about the alerts that a server told of, answered by it alone."""

from __future__ import annotations

from caso_mesh.admin.alert_calls import check_which, followed
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertAnswered, AlertDetail, AlertFollow, AlertsNow
from caso_mesh.model.alerts import BY_NAME, what_to_do
from caso_mesh.model.ids import resolve_prefix
from caso_mesh.model.listing import limited
from caso_mesh.model.units import format_instant
from caso_mesh.server.node import ServerNode
from caso_mesh.server.own_alerts import OwnAlert

#: Characters of an answer.
_LONGEST = 1000


def own_alerts(node: ServerNode) -> dict[str, Answer]:
    """Calls by name."""
    name = node.config.server

    async def fitting(request: q.AlertListRequest) -> list[v.AlertView]:
        """Raises ``InvalidValue`` for a type or a category that there is not."""
        check_which(request)
        return [_view(each, name) for each in (await node.facts.alerts()).all() if _fits(each, request, name)]

    async def named(id_: str) -> OwnAlert:
        """Raises ``NotFound``, ``Ambiguous``."""
        known = {each.id: each for each in (await node.facts.alerts()).all()}
        return known[resolve_prefix(id_, list(known), "alert")]

    async def list_(caller: Caller, request: q.AlertListRequest) -> v.AlertList:
        found, limit = await fitting(request), limited(request.limit)
        return v.AlertList(tuple(found[:limit]), len(found) > limit)

    async def show(caller: Caller, request: q.Named) -> AlertDetail:
        found = await named(request.name)
        category = BY_NAME.get(found.category)
        means, stands = (category.text, category.standing) if category is not None else ("", False)
        return AlertDetail(_view(found, name), (name,), means, what_to_do(found.category, {}), stands)

    async def follow(caller: Caller, request: AlertFollow) -> AlertsNow:
        return await followed(lambda: fitting(request.which), request, node.clock)

    async def answer(caller: Caller, request: q.AlertAnswer) -> AlertAnswered:
        """The first answer stays; whether it counts in the mesh the administrator says. Raises ``NotFound``, ``Ambiguous``."""
        found = await named(request.id)
        if found.answered_ns is not None:
            return AlertAnswered(found.response, found.who, first=False)
        response = request.response[:_LONGEST]
        await node.facts.append(facts.AlertAnswered(found.id, caller.who, response))
        return AlertAnswered(response, caller.who, first=True)

    return {
        "local.alert.list": list_,
        "local.alert.show": show,
        "local.alert.follow": follow,
        "local.alert.answer": answer,
    }


def _fits(each: OwnAlert, request: q.AlertListRequest, name: str) -> bool:
    return (
        (request.all or each.open)
        and request.server in {None, name}
        and request.pool is None
        and (not request.types or each.alert in request.types)
        and (not request.categories or each.category in request.categories)
        and (request.since_ns is None or each.raised_ns >= request.since_ns)
        and (request.until_ns is None or each.raised_ns < request.until_ns)
    )


def _view(each: OwnAlert, name: str) -> v.AlertView:
    answered = each.answered_ns is not None
    return v.AlertView(
        id=each.id,
        alert=each.alert,
        category=each.category,
        server=name,
        object=each.object,
        text=each.text,
        raised=format_instant(each.raised_ns) or "",
        answered=format_instant(each.answered_ns),
        answered_by=each.who if answered else None,
        response=each.response if answered else None,
        cleared=format_instant(each.over_ns),
        here=None if each.told and (each.settled or not answered) else "the answer" if each.told else "all of it",
    )
