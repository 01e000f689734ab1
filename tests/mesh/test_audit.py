"""The audit log through a whole mesh: what was changed from what to what, and trimmed for all voters alike."""

from __future__ import annotations

import asyncio

import pytest
from waiting import wait_for_async

from caso_mesh.model import audit
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.audit import Change
from caso_mesh.model.audit_chain import AuditMark, AuditVerified, AuditVerify
from caso_mesh.model.errors import NotFound


async def entries(mesh, at: str, **which: object) -> tuple[audit.AuditView, ...]:
    return (await mesh.call(at, "audit.list", audit.AuditListRequest(**which), audit.AuditList)).entries


async def verified(mesh, at: str, against: tuple[AuditMark, ...] = ()) -> AuditVerified:
    return await mesh.call(at, "audit.verify", AuditVerify(against), AuditVerified)


@pytest.mark.jumping
async def test_a_change_is_told_with_both_values_and_a_trim_holds_at_the_next_administrator_too(memory_mesh):
    mesh = await memory_mesh(3, voters=True)

    async def vote() -> bool:
        return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(vote, 60.0, what="three servers vote", every_s=0.1)
    await mesh.call("alpha", "settings.set", q.SettingSet("runs-kept", "100"), v.SettingList)
    await mesh.call("alpha", "settings.set", q.SettingSet("runs-kept", "200"), v.SettingList)
    await mesh.call("alpha", "pool.create", q.PoolEdit("west", ("beta",)), v.PoolView)
    with pytest.raises(NotFound):
        await mesh.call("alpha", "pool.set", q.PoolEdit("east", ("beta",)), v.PoolView)

    async def written() -> bool:
        return len(await entries(mesh, "alpha", category="pool")) == 2

    await wait_for_async(written, 30.0, what="all of it is written down", every_s=0.1)
    second, first = await entries(mesh, "alpha", what="settings.set")
    assert first.changed == (Change("setting runs-kept", "", None, 100.0),)
    assert second.changed == (Change("setting runs-kept", "", 100.0, 200.0),)
    refused, made = await entries(mesh, "alpha", category="pool")
    assert (made.changed[0].what, made.changed[0].new["servers"]) == ("pool west", ["beta"])
    assert (refused.outcome, refused.changed) == ("not-found", ())
    assert (made.who, made.source != "") == ("local-alpha", True)

    await asyncio.sleep(10.0)
    now_ns = mesh.clock("alpha").now_ns()
    trimmed = await mesh.call("alpha", "audit.trim", audit.AuditTrim(now_ns - 10**9), audit.AuditTrimmed)
    assert trimmed.removed >= 4
    assert await entries(mesh, "alpha", category="pool") == ()
    await asyncio.sleep(10.0)
    proof = await verified(mesh, "alpha")
    assert (proof.whole, proof.problems, proof.trimmed >= 4) == (True, (), True)
    assert [(each.server, each.state) for each in proof.voters] == [("beta", "same"), ("gamma", "same")]

    async def again_the_same() -> bool:
        return (await verified(mesh, "beta", proof.marks)).compared == len(proof.marks)

    # somebody changes one entry at a voter that is not in office
    tables = mesh.nodes["gamma"].seat.voter.tables
    changes = "UPDATE audit SET who = ? WHERE what = 'audit.trim'"
    await tables._database.write(lambda c: c.execute(changes, ("nobody",)))
    proof = await verified(mesh, "alpha")
    assert (proof.whole, proof.problems) == (False, ())
    assert [(each.server, each.state) for each in proof.voters] == [("beta", "same"), ("gamma", "differs")]
    await tables._database.write(lambda c: c.execute(changes, ("local-alpha",)))
    await mesh.stop("alpha")

    async def again() -> bool:
        return (await mesh.call("beta", "status", q.Nothing(), v.StatusView)).admin in {"beta", "gamma"}

    await wait_for_async(again, 60.0, what="another one is in office")
    assert await entries(mesh, "beta", what="settings.set") == ()
    await wait_for_async(again_the_same, 60.0, what="the next administrator has all that was noted")
    (trim,) = await entries(mesh, "beta", what="audit.trim")
    assert (trim.who, trim.outcome) == ("local-alpha", "done")
