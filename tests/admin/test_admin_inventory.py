"""Inventories at the administrator: what was found in a device, put before what is believed to be there."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from msgspec import structs

from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.device_jobs import Inventoried
from caso_mesh.model.device_work import DeviceFound, DeviceLacks, OpenSession
from caso_mesh.model.errors import NotFound
from caso_mesh.model.inventories import DeviceInventory, ScheduleWords
from caso_mesh.model.states import AttemptState, DeviceState

pytestmark = pytest.mark.jumping


async def backed_up(w, device="dbeta"):
    attempt = await w.delegated(await w.backup(to=f"device:{device}"))
    backup = w.made_set(attempt, vault="v-beta")
    await w.report("beta", *w.success(attempt, backup))
    return backup


async def begun(w, *devices):
    """The attempts of a new inventory."""
    submitted = await w.ask("device.inventory", DeviceInventory(tuple(devices)))
    run = submitted.run
    await w.until(lambda: all(part.attempts for part in w.state.runs[run].parts))
    return w.state.attempts_of(run)


def found(attempt, *sets, after="", last=True, **fields):
    page = tuple(sorted(sets, key=lambda each: each.id))
    return DeviceFound(attempt.id, after, page, **({"deleted": (), "locks": {}, "last": last} | fields))


async def tell(w, attempt, *sets, **fields):
    return await w.node_call(attempt.server, "device.found", found(attempt, *sets, **fields))


async def listed(w):
    return {row.id: row for row in (await w.ask("set.list", q.SetListRequest())).sets}


async def test_a_set_that_is_not_there_is_marked_counts_for_nothing_and_raises_an_alert_until_it_is_back(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        older, newer = await backed_up(w), await backed_up(w)
        (attempt,) = await begun(w, "dbeta")
        assert (attempt.server, attempt.device, attempt.source) == (node("beta"), "dev-beta", "dev-beta")
        assert (await tell(w, attempt, older)).missing == (newer.id,)
        assert not (await listed(w))[newer.id].missing, "it is looked for once more"
        await w.node_call(attempt.server, "device.lacks", DeviceLacks(attempt.id, (newer.id,)))
        (alert,) = w.facts.alerts("sets-missing")
        assert newer.id in alert.text and "dbeta" in alert.text
        rows = await listed(w)
        assert (rows[newer.id].missing, rows[older.id].missing) == (True, False)
        assert "last-good" in rows[older.id].kept_by, "the one that is there is the last good one"
        assert "last-good" not in rows[newer.id].kept_by
        report = Inventoried(1, 0, 1, 0, 0, ("BETA-000001",), 1, 0, 0, 3, 300, 10, 20)
        await w.report("beta", w.end(attempt, AttemptState.SUCCEEDED_WITH_EXCEPTIONS, found=report))
        shown = await w.ask("job.show", q.JobName(attempt.run))
        inventory = shown.runs[0].attempts[0].inventory
        assert (inventory.device, inventory.sets, inventory.missing) == ("dbeta", 1, 1)

        await w.another_office()
        assert (await listed(w))[newer.id].missing, "another administrator knows it as well"
        (attempt,) = await begun(w, "dbeta")
        assert (await tell(w, attempt, older, newer)).missing == ()
        await w.node_call(attempt.server, "device.lacks", DeviceLacks(attempt.id, ()))
        rows = await listed(w)
        assert not rows[newer.id].missing
        assert "last-good" in rows[newer.id].kept_by
        assert [each for each in w.facts.all if isinstance(each, facts.AlertCleared)]


async def test_a_set_that_nobody_knew_is_catalogued_and_a_deleted_one_goes(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        known = await backed_up(w)
        stray = structs.replace(known, id=w.new_id())
        foreign = structs.replace(known, id=w.new_id(), vault="another")
        changed = structs.replace(known, files=7)
        (attempt,) = await begun(w, "dbeta")
        said = await tell(w, attempt, stray, foreign, changed)
        assert (said.added, said.foreign, said.differ, said.missing) == (
            (stray.id,), (foreign.id,), (known.id,), (),
        )  # fmt: skip
        assert set(await listed(w)) == {known.id, stray.id}
        said = await tell(w, attempt, known, stray, deleted=(known.id,))
        assert said.deleted == (known.id,)
        assert set(await listed(w)) == {stray.id}


async def test_pages_are_compared_each_with_its_own_part(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        one, two, three = sorted([await backed_up(w) for _ in range(3)], key=lambda each: each.id)
        (attempt,) = await begun(w, "dbeta")
        assert (await tell(w, attempt, one, last=False)).missing == ()
        assert (await tell(w, attempt, three, after=one.id, last=False)).missing == (two.id,)
        assert (await tell(w, attempt, after=three.id)).missing == ()


async def test_a_session_of_an_attempt_that_is_over_is_nobodys_and_one_at_work_is_not(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        over = await backed_up(w)
        active = await w.delegated(await w.backup(to="device:dgamma"))
        (attempt,) = await begun(w, "dbeta")
        sessions = tuple(OpenSession("w", f"s{at}", "n", id_) for at, id_ in enumerate((over.attempt, active.id)))
        assert (await tell(w, attempt, over, sessions=sessions)).abandoned == (over.attempt,)


async def test_only_the_attempt_that_runs_at_a_server_is_answered_there(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await backed_up(w)
        (attempt,) = await begun(w, "dbeta")
        other = await w.delegated(await w.backup(to="device:dgamma"))
        for server, request in (
            (node("gamma"), found(attempt, backup)),
            (other.server, structs.replace(found(attempt, backup), attempt=other.id)),
            (node("beta"), structs.replace(found(attempt, backup), attempt="none@1#1")),
        ):
            with pytest.raises(NotFound):
                await w.node_call(server, "device.found", request)
        await w.report("beta", w.end(attempt, AttemptState.SUCCEEDED))
        with pytest.raises(NotFound):
            await w.node_call(node("beta"), "device.lacks", DeviceLacks(attempt.id, (backup.id,)))
        assert not w.facts.alerts("sets-missing")


async def test_all_devices_are_those_that_take_work_when_a_run_begins(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("device.set", q.DeviceSet("dgamma", DeviceState.OFFLINE))
        assert [each.device for each in await begun(w)] == ["dev-beta"]
        await w.ask("device.set", q.DeviceSet("dgamma", DeviceState.READ_ONLY))
        assert {each.device for each in await begun(w, "dgamma")} == {"dev-gamma"}
        with pytest.raises(NotFound):
            await w.ask("device.inventory", DeviceInventory(("none",)))


async def test_an_inventory_recurs_as_any_job_does(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        request = DeviceInventory((), name="weekly", when=ScheduleWords("sun 06:00", "Europe/Berlin"))
        submitted = await w.ask("device.inventory", request)
        assert (submitted.run, submitted.name) == (None, "weekly")
        (row,) = (await w.ask("schedule.preview", q.SchedulePreview())).runs
        assert row.job == "weekly"
        again = await w.ask("job.run", q.JobName("weekly"))
        await w.until(lambda: len(w.state.attempts_of(again.run)) == 2)
