"""Alerts of a server are seen and answered at either end, also while the other one is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertAnswered, AlertDetail, AlertFollow, AlertsNow
from caso_mesh.model.errors import NotFound
from caso_mesh.model.states import AlertKind

pytestmark = pytest.mark.jumping


async def raised(mesh: MemoryMesh, server: str, *texts: str) -> dict[str, str]:
    """Texts -> ids."""
    writer = mesh.nodes[server].server.facts
    return {text: await writer.alert(AlertKind.ERROR, "catalog-error", text, object=server) for text in texts}


async def seen(mesh: MemoryMesh, at: str, *, local: bool, all: bool = False) -> dict[str, str | None]:
    """Text -> answer of the alerts of the category."""
    call = "local.alert.list" if local else "alert.list"
    request = q.AlertListRequest(all=all, categories=("catalog-error",))
    return {row.text: row.response for row in (await mesh.call(at, call, request, v.AlertList)).alerts}


async def answer(mesh: MemoryMesh, at: str, id_: str, response: str, *, local: bool) -> str:
    """The answer that counts, as far as is known there."""
    call = "local.alert.answer" if local else "alert.answer"
    found = await mesh.call(at, call, q.AlertAnswer(id_, response), AlertAnswered)
    assert found.first == (found.response == response)
    return found.response


async def here(mesh: MemoryMesh, at: str, id_: str) -> tuple[str | None, str | None]:
    """The answer to an alert, and what of it is known at that server alone."""
    view = (await mesh.call(at, "local.alert.show", q.Named(id_), AlertDetail)).alert
    return view.response, view.here


async def test_alerts_of_a_server_are_answered_at_either_end_of_a_cut_and_closed_at_both_when_it_is_over(memory_mesh):
    mesh = await memory_mesh(2)
    texts = ("at the server", "at the administrator", "at both, there first", "not at all")
    ids = await raised(mesh, "beta", *texts)

    async def came() -> bool:
        return set(await seen(mesh, "alpha", local=False)) == set(texts)

    await wait_for_async(came, 60, every_s=1, what="alpha has them")
    assert set(await seen(mesh, "beta", local=True)) == set(texts) and await seen(mesh, "alpha", local=True) == {}
    mesh.network.cut(mesh.endpoint("alpha"), mesh.endpoint("beta"))
    await answer(mesh, "beta", ids["at the server"], "mine", local=True)
    await answer(mesh, "beta", ids["at both, there first"], "mine", local=True)
    await answer(mesh, "alpha", ids["at the administrator"], "ours", local=False)
    await answer(mesh, "alpha", ids["at both, there first"], "ours", local=False)
    assert await answer(mesh, "beta", ids["at the server"], "once more", local=True) == "mine"
    assert await answer(mesh, "alpha", ids["at the administrator"], "once more", local=False) == "ours"
    assert await here(mesh, "beta", ids["at the server"]) == ("mine", "the answer")
    assert await here(mesh, "beta", ids["not at all"]) == (None, None)
    assert set(await seen(mesh, "beta", local=True)) == {"at the administrator", "not at all"}
    assert set(await seen(mesh, "alpha", local=False)) == {"at the server", "not at all"}
    with pytest.raises(NotFound):
        await answer(mesh, "beta", "nothing", "x", local=True)
    # what was answered here is known after a restart, too
    await mesh.stop("beta")
    await mesh.run("beta")
    mesh.network.heal()
    expected = {texts[0]: "mine", texts[1]: "ours", texts[2]: "ours", texts[3]: None}

    async def agreed() -> bool:
        there, here = [await seen(mesh, at, local=at == "beta", all=True) for at in ("alpha", "beta")]
        return there == here == expected

    await wait_for_async(agreed, 600, every_s=5, what="both ends agree")
    assert list(await seen(mesh, "beta", local=True)) == list(await seen(mesh, "alpha", local=False)) == ["not at all"]
    assert await here(mesh, "beta", ids["at both, there first"]) == ("ours", None)


async def test_alerts_of_a_server_are_watched_at_it_while_nobody_is_in_office(memory_mesh):
    mesh = await memory_mesh(2)
    await mesh.stop("alpha")
    which = q.AlertListRequest(True, categories=("catalog-error",))

    async def follow(known: str) -> AlertsNow:
        return await mesh.call("beta", "local.alert.follow", AlertFollow(which, known, 30.0), AlertsNow)

    first = await follow("")
    assert first.alerts == ()
    (id_,) = (await raised(mesh, "beta", "now")).values()
    second = await follow(first.mark)
    await answer(mesh, "beta", id_, "seen", local=True)
    third = await follow(second.mark)
    assert [(each.text, each.response, each.here) for now in (second, third) for each in now.alerts] == [
        ("now", None, None),
        ("now", "seen", "the answer"),
    ]


async def test_an_alert_is_seen_at_the_administrator_if_its_category_is_on_at_both_ends(memory_mesh):
    mesh = await memory_mesh(2)
    off = q.SettingSet("alerts-off", "catalog-error", server="beta")
    await mesh.call("alpha", "settings.set", off, v.SettingList)

    async def ordered() -> bool:
        return mesh.nodes["beta"].server.orders.settings["alerts-off"] == "catalog-error"

    await wait_for_async(ordered, 60, every_s=0.5, what="beta knows")
    kept = await raised(mesh, "beta", "kept there")
    await mesh.call("alpha", "settings.set", q.SettingSet("alerts-off", "none", server="beta"), v.SettingList)
    await wait_for_async(lambda: _not(ordered), 60, every_s=0.5, what="beta knows")
    await raised(mesh, "beta", "told")

    async def came() -> bool:
        return set(await seen(mesh, "alpha", local=False)) == {"told"}

    await wait_for_async(came, 60, every_s=0.5, what="alpha has it")
    hidden = q.SettingSet("alerts-hidden", "catalog-error", server="beta")
    await mesh.call("alpha", "settings.set", hidden, v.SettingList)
    assert await seen(mesh, "alpha", local=False, all=True) == {}
    assert set(await seen(mesh, "beta", local=True)) == {"kept there", "told"}
    assert await here(mesh, "beta", kept["kept there"]) == (None, "all of it")


async def _not(asked: Callable[[], Awaitable[bool]]) -> bool:
    return not await asked()
