"""Which set a restore of a place takes: the newest one that can be read now, or a copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from admin.test_admin_inventory import begun

from caso_mesh.model import browsing as b
from caso_mesh.model.device_jobs import Inventoried
from caso_mesh.model.device_work import DeviceLacks
from caso_mesh.model.errors import DeviceAway, NoneReadable
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import BackupSet

pytestmark = pytest.mark.jumping


async def backed_up(w, device="dbeta", **fields) -> BackupSet:
    attempt = await w.delegated(await w.backup(to=f"device:{device}"))
    backup = w.made_set(attempt, vault=f"v-{device[1:]}", **fields)
    await w.report(device[1:], *w.success(attempt, backup))
    return backup


async def copied(w, backup: BackupSet, device: str) -> BackupSet:
    """A copy of a set on another device, with the times of that set."""
    attempt = await w.delegated(await w.backup(to=f"device:{device}"))
    times = {"started_at_ns": backup.started_at_ns, "ended_at_ns": backup.ended_at_ns}
    copy = w.made_set(attempt, vault=f"v-{device[1:]}", copy_of=backup.id, **times)
    await w.report(device[1:], *w.success(attempt, copy))
    return copy


async def lacks(w, device: str, *sets: BackupSet) -> None:
    """An inventory of the device finds all but these."""
    (attempt,) = await begun(w, device)
    await w.node_call(attempt.server, "device.lacks", DeviceLacks(attempt.id, tuple(each.id for each in sets)))
    found = Inventoried(1, 0, len(sets), 0, 0, ("BETA-000001",), 1, 0, 0, 3, 300, 10, 20)
    await w.report(device[1:], w.end(attempt, AttemptState.SUCCEEDED, found=found))


async def chosen(w) -> b.SetChoice:
    return await w.ask("set.as-of", b.SetAsOf("alpha", (b"/srv",)))


async def test_a_set_that_an_inventory_did_not_find_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    """It was chosen, and the restore failed, with an older set beside it that was whole."""
    async with admin_world(tmp_path) as w:
        older, newer = await backed_up(w), await backed_up(w)
        assert (await chosen(w)).id == newer.id
        await lacks(w, "dbeta", newer)
        found = await chosen(w)
        assert found.id == older.id
        (warning,) = found.warnings
        assert newer.id in warning
        assert "dbeta did not find it" in warning
        await w.another_office()
        assert (await chosen(w)).id == older.id, "another administrator knows it as well"


async def test_a_copy_on_another_device_is_taken_before_an_older_set(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await backed_up(w)
        newer = await backed_up(w)
        copy = await copied(w, newer, "dgamma")
        await lacks(w, "dbeta", newer)
        found = await chosen(w)
        assert (found.id, found.device, found.warnings) == (copy.id, "dgamma", ())
        await lacks(w, "dbeta")
        w.problem["dev-gamma"] = "device-missing"
        await w.heartbeat(node("gamma"))
        assert (await chosen(w)).id == newer.id
        w.problem = {"dev-beta": "device-missing"}
        await w.heartbeat(node("gamma"))
        await w.heartbeat(node("beta"))
        assert (await chosen(w)).id == copy.id


async def test_where_none_can_be_read_each_reason_is_told_by_name(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        one, two = await backed_up(w), await backed_up(w)
        w.problem["dev-beta"] = "device-missing"
        await w.heartbeat(node("beta"))
        with pytest.raises(DeviceAway) as away:
            await chosen(w)
        assert "dbeta" in away.value.message
        w.problem.clear()
        await w.heartbeat(node("beta"))
        other = await backed_up(w, "dgamma")
        await lacks(w, "dbeta", one, two)
        w.problem["dev-gamma"] = "device-missing"
        await w.heartbeat(node("gamma"))
        with pytest.raises(NoneReadable) as caught:
            await chosen(w)
        message = caught.value.message
        assert "3 sets" in message
        assert f"set {other.id}: no server reaches its device dgamma now" in message
        assert f"set {two.id}: the last inventory of its device dbeta did not find it there" in message
        assert one.id not in message
