"""Erasing a device at the administrator: what speaks against it, when it is asked for and when its attempt asks once more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from admin.test_admin_inventory import backed_up

from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.commands import PutMediaSet
from caso_mesh.model.device_work import MayErase, OpenSession
from caso_mesh.model.erasing import DeviceErase
from caso_mesh.model.errors import CasoError, ClocksDiffer, Conflict, InUse, LastGood, NotFound, Protected, WrongState
from caso_mesh.model.states import AttemptState, DeviceState
from caso_mesh.model.storage import MediaSet

pytestmark = pytest.mark.jumping
SECOND = 1_000_000_000


async def unprotected(w, device="dbeta", **fields):
    """A set without protection."""
    if "brief" not in w.state.media_sets:
        await w.submit(PutMediaSet(MediaSet("brief", 1.0, 0.0, 86400.0 * 100), True))
    attempt = await w.delegated(await w.backup(to=f"device:{device}", media_set="brief"))
    backup = w.made_set(attempt, vault=f"v-{device[1:]}", media_set="brief", **fields)
    await w.report(device[1:], *w.success(attempt, backup))
    await asyncio.sleep(2)  # in virtual time
    return backup


async def erase(w, name="dbeta", **fields):
    """The attempt of a new erase."""
    submitted = await w.ask("device.erase", DeviceErase(name, **fields))
    return await w.delegated(submitted.run)


async def may(w, attempt, *sessions, sets=1):
    return await w.node_call(attempt.server, "device.may-erase", MayErase(attempt.id, "v-beta", sets, sessions))


async def test_a_device_is_erased_with_the_sets_told_gone_before_and_a_new_vault_after(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await unprotected(w)
        with pytest.raises(LastGood) as refused:
            await w.ask("device.erase", DeviceErase("dbeta"))
        assert refused.value.fields["lines"] == "s"
        attempt = await erase(w, last_good=True)
        becomes = w.state.run(attempt.run).spec.becomes
        grant = await may(w, attempt)
        assert grant.recipients[node("beta")] == w.state.servers[node("beta")].encryption_key
        assert w.state.device("dev-beta").erasing == becomes
        assert not (await w.ask("set.list", q.SetListRequest())).sets
        (audit,) = w.facts.audits("device-erased")
        assert (audit.changed[0].old, audit.changed[0].new) == ("v-beta", becomes)
        assert (audit.who, audit.fields["sets"]) == ("ann", 1)
        assert w.facts.alerts("device-erased")
        await w.report("beta", w.end(attempt, AttemptState.SUCCEEDED))
        assert w.state.device("dev-beta").vault == becomes
        # a fact of before that comes late brings nothing back
        late = await w.delegated(await w.backup(to="device:dgamma"))
        assert late
        await w.report("beta", facts.SetPublished(backup))
        assert not (await w.ask("set.list", q.SetListRequest())).sets


async def test_an_erase_does_not_run_a_second_time(tmp_path: Path) -> None:
    """It made the vault of the first time once more, whose sets were known to be erased: all that was written to it from
    then on was taken for gone."""
    async with admin_world(tmp_path) as w:
        await unprotected(w)
        attempt = await erase(w, last_good=True)
        await may(w, attempt)
        await w.report("beta", w.end(attempt, AttemptState.SUCCEEDED))
        with pytest.raises(Conflict, match="caso-mesh device erase"):
            await w.ask("job.run", q.JobName(w.state.run(attempt.run).job))
        again = await w.ask("device.erase", DeviceErase("dbeta"))
        assert w.state.run(again.run).spec.becomes != w.state.run(attempt.run).spec.becomes


async def test_what_is_locked_or_protected_stays_whatever_is_said(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await backed_up(w)
        for strong in (False, True):
            with pytest.raises(Protected):
                await w.ask("device.erase", DeviceErase("dbeta", strong))
        brief = await unprotected(w, "dgamma")
        await w.report("gamma", facts.SetLocked(brief.id, "dev-gamma", "ann", None))
        with pytest.raises(Protected) as refused:
            await w.ask("device.erase", DeviceErase("dgamma", True))
        assert refused.value.fields["set"] == brief.id
        assert backup.id != brief.id


async def test_what_changed_since_it_was_asked_for_counts_when_the_attempt_asks(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await unprotected(w)
        attempt = await erase(w, last_good=True)
        await w.report("beta", facts.SetLocked(backup.id, "dev-beta", "ann", None))
        with pytest.raises(Protected):
            await may(w, attempt)
        assert not w.state.device("dev-beta").erasing
        assert {row.id for row in (await w.ask("set.list", q.SetListRequest())).sets} == {backup.id}


async def test_a_device_in_use_is_not_erased(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        running = await w.delegated(await w.backup(to="device:dbeta"))
        with pytest.raises(InUse):
            await w.ask("device.erase", DeviceErase("dbeta"))
        await w.report("beta", w.end(running, AttemptState.FAILED))
        attempt = await erase(w)
        with pytest.raises(InUse):
            await w.ask("device.erase", DeviceErase("dbeta"))
        await w.report("beta", w.end(attempt, AttemptState.FAILED))
        for state in (DeviceState.READ_ONLY, DeviceState.OFFLINE, DeviceState.PAUSED):
            await w.ask("device.set", q.DeviceSet("dbeta", state))
            with pytest.raises(WrongState):
                await w.ask("device.erase", DeviceErase("dbeta"))


async def test_an_open_session_speaks_against_it_while_anybody_may_be_at_work_for_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        other = await w.delegated(await w.backup(to="device:dgamma"))
        attempt = await erase(w)
        with pytest.raises(InUse, match="attempt"):
            await may(w, attempt, OpenSession("w", "s", node("gamma"), other.id))
        w.links.down(node("gamma"))
        with pytest.raises(InUse, match="not connected"):
            await may(w, attempt, OpenSession("w", "s", node("gamma"), "old@1#1"))
        w.links.up(node("gamma"), "gamma")
        await may(w, attempt, OpenSession("w", "s", node("gamma"), "old@1#1"), OpenSession("w", "t", "left", "x@1#1"))
        assert w.state.device("dev-beta").erasing


async def test_nothing_is_given_up_for_a_server_whose_clock_is_wrong_until_it_is_right(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await unprotected(w)
        attempt = await erase(w, last_good=True)
        w.links.offsets_s[node("beta")] = 40.0
        with pytest.raises(ClocksDiffer, match="40 s"):
            await may(w, attempt)
        assert not w.state.device("dev-beta").erasing
        assert {row.id for row in (await w.ask("set.list", q.SetListRequest())).sets} == {backup.id}
        w.links.offsets_s[node("beta")] = 0.0
        await may(w, attempt)
        assert w.state.device("dev-beta").erasing


async def test_only_its_attempt_at_its_server_may_and_not_once_it_is_canceled(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        other = await w.delegated(await w.backup(to="device:dgamma"))
        attempt = await erase(w)
        for server, id_ in ((node("gamma"), attempt.id), (other.server, other.id), (node("beta"), "none@1#1")):
            with pytest.raises(NotFound):
                await w.node_call(server, "device.may-erase", MayErase(id_, "v-beta", 0))
        await w.ask("job.cancel", q.JobCancel(attempt.run))
        with pytest.raises(CasoError):
            await may(w, attempt)
        assert not w.state.device("dev-beta").erasing


async def test_an_erase_that_is_left_is_an_alert_and_goes_on_to_the_same_vault(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await erase(w)
        await may(w, attempt, sets=0)
        becomes = w.state.device("dev-beta").erasing
        (view,) = (await w.ask("device.list", q.DeviceListRequest(state=None, server="beta"))).devices
        assert view.state == "erasing"
        await w.report("beta", w.end(attempt, AttemptState.FAILED))
        await w.until(lambda: w.facts.alerts("erase-unfinished"))
        (view,) = (await w.ask("device.list", q.DeviceListRequest(server="beta"))).devices
        assert view.state == "erase-unfinished"
        again = await erase(w)
        assert w.state.run(again.run).spec.becomes == becomes
        await may(w, again, sets=0)
        await w.report("beta", w.end(again, AttemptState.SUCCEEDED))
        assert w.state.device("dev-beta").vault == becomes
        await w.until(lambda: [each for each in w.facts.all if isinstance(each, facts.AlertCleared)])
        assert len(w.facts.audits("device-erased")) == 1
