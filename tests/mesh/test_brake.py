"""The ransomware brake through a whole mesh: figures of an attempt raise an alert, lock sets, and hold expiry up."""

from __future__ import annotations

import asyncio
import pathlib
import random
from typing import Any

import pytest
from mesh.test_expiry import alerts, expire, mesh_with, set_clocks
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertAnswered
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import Protected

pytestmark = pytest.mark.jumping
WORDS = ["backup", "server", "meadow", "quarterly", "invoice", "of", "the", "river", "and", "tomorrow", "figures"]
JOB = "papers.nightly.inc"


def write(tree: pathlib.Path, files: range, chance: random.Random, *, encrypted: bool = False) -> None:
    for number in files:
        words = " ".join(chance.choice(WORDS) + str(chance.randrange(100)) for _ in range(6000)).encode()
        (tree / f"paper{number}").write_bytes(chance.randbytes(len(words)) if encrypted else words)


async def night(mesh: Any) -> str:
    submitted = await mesh.call("alpha", "job.run", q.JobName(JOB), o.Submitted)
    result = await mesh.result(submitted.run)
    assert result.state == "succeeded", result
    return result.set


async def locked(mesh: Any) -> set[str]:
    return {row.id for row in await mesh.sets() if row.locked}


async def in_office(node: Any) -> bool:
    return node.in_office


async def test_what_looks_encrypted_locks_the_last_good_sets_and_nothing_expires_until_somebody_answers(
    memory_mesh, tmp_path
):
    tree, chance = tmp_path / "papers", random.Random(7)
    tree.mkdir()
    mesh = await mesh_with(memory_mesh, append="1d", protection="1d", keep="1d")
    await mesh.add_device("alpha", "other")
    listed = SelectionDoc(paths=(f"alpha:{tree}",))
    await mesh.call("alpha", "selection.create", q.SelectionCreate("papers", listed), v.SelectionView)
    template = TemplateDoc("incremental", to="device:disk-beta", schedule="once 2030-01-31T02:00", media_set="short")
    await mesh.call(
        "alpha", "policy.create", q.PolicyCreate("nightly", PolicyDoc({"inc": template}, zone="UTC")), v.PolicyView
    )
    await mesh.call("alpha", "associate", q.AssociationEdit("papers", "nightly"), v.PolicyView)
    write(tree, range(20), chance)
    nights = [await night(mesh)]
    for number in range(4):
        write(tree, range(number, number + 3), chance)
        nights.append(await night(mesh))
    # all is written anew, and it is text as ever
    write(tree, range(20), chance)
    nights.append(await night(mesh))
    await asyncio.sleep(30.0)
    assert await alerts(mesh, "mass-change") == []
    write(tree, range(15), chance, encrypted=True)
    bad = await night(mesh)
    (alert,) = await wait_for_async(lambda: alerts(mesh, "mass-change"), 60.0, what="the alert", every_s=1.0)
    assert (alert.alert, alert.object) == ("attention-required", bad)
    assert "the selection list papers on alpha" in alert.text
    await wait_for_async(lambda: locked(mesh), 60.0, what="the lock", every_s=1.0)
    assert await locked(mesh) == {nights[-1]}
    # the intruder's next night is an ordinary one, and much later all others could go
    write(tree, range(1), chance, encrypted=True)
    last = await night(mesh)
    set_clocks(mesh, 5.0)
    held = await expire(mesh)
    assert held.gone == 0
    assert alert.id in held.paused
    assert len(await mesh.sets()) == len(nights) + 2
    with pytest.raises(Protected):
        await mesh.call("alpha", "set.delete", b.SetName(nights[-1]), v.Done)
    await mesh.call("alpha", "alert.answer", q.AlertAnswer(alert.id, "disk restored"), AlertAnswered)
    await expire(mesh)
    assert {row.id for row in await mesh.sets()} == {nights[-1], last}
    set_clocks(mesh, 200.0)
    await expire(mesh)
    assert {row.id for row in await mesh.sets()} == {last}
    told = await mesh.call("alpha", "alert.list", q.AlertListRequest(all=True), v.AlertList)
    (row,) = [row for row in told.alerts if row.category == "mass-change"]
    assert row.cleared is not None, "an answer is not kept for ever, and the alert must not come back with its end"


async def test_the_brake_can_be_taken_off_and_holds_over_a_restart_of_the_administrator(memory_mesh, tmp_path):
    tree, chance = tmp_path / "papers", random.Random(7)
    tree.mkdir()
    mesh = await mesh_with(memory_mesh, append="1d", protection="1d", keep="1d")
    await mesh.call("alpha", "settings.set", q.SettingSet("ransomware-brake", "0"), v.SettingList)

    async def backup() -> str:
        run = (await mesh.backup("alpha", tree, "server:beta", media_set="short")).run
        return (await mesh.result(run)).set

    write(tree, range(10), chance)
    for _ in range(4):
        good = await backup()
    write(tree, range(10), chance, encrypted=True)
    bad = await backup()
    await asyncio.sleep(30.0)
    assert await alerts(mesh, "mass-change") == []
    await mesh.call("alpha", "settings.set", q.SettingSet("ransomware-brake", "1"), v.SettingList)
    (alert,) = await wait_for_async(lambda: alerts(mesh, "mass-change"), 60.0, what="the alert", every_s=1.0)
    assert alert.object == bad, "the sets of the last days are looked at again"
    await wait_for_async(lambda: locked(mesh), 60.0, what="the lock", every_s=1.0)
    assert await locked(mesh) == {good}
    await mesh.stop("alpha")
    node = await mesh.run("alpha")
    await wait_for_async(lambda: in_office(node), 60.0, what="alpha is in office again")
    await mesh.wait_connected("beta", timeout_s=60.0)
    set_clocks(mesh, 3.0)
    assert alert.id in (await expire(mesh, 120.0)).paused
    assert good in {row.id for row in await mesh.sets()}
