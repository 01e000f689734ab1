"""Sets that nothing keeps any more go by themselves: by order of the administrator, at the server that reaches the
device."""

from __future__ import annotations

import asyncio
import datetime
import os
from typing import Any

import pytest
from mesh.clock import EPOCH_NS
from mesh.mounts import MEBIBYTE
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import audit as audit_log
from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import MediaSetDoc, PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.states import DeviceState

pytestmark = pytest.mark.jumping
DAY_S = 86400.0
FIRST = datetime.datetime.fromtimestamp(EPOCH_NS / 1e9, datetime.UTC)


def set_clocks(mesh: Any, days: float) -> None:
    """All clocks show so many days after the first of these meshes, a Monday at midnight."""
    for clock in mesh.clocks.values():
        clock.wall_offset_s = days * DAY_S - clock.monotonic_s()


async def mesh_with(memory_mesh: Any, **media_set: Any) -> Any:
    """Two servers, a device of the second, the media set ``short``; a clock is trusted after a minute."""
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await mesh.call("alpha", "settings.set", q.SettingSet("clock-steady-s", "60s"), v.SettingList)
    await mesh.call("alpha", "mediaset.create", q.MediaSetEdit("short", MediaSetDoc(**media_set)), v.Done)
    return mesh


async def backup(mesh: Any, tree: Any, target: str = "server:beta") -> str:
    result = await mesh.result((await mesh.backup("alpha", tree, target, media_set="short")).run)
    assert result.state == "succeeded", result
    return result.set


async def expire(mesh: Any, after_s: float = 95.0) -> b.Expired:
    await asyncio.sleep(after_s)
    return await mesh.call("alpha", "set.expire", q.Nothing(), b.Expired, timeout_s=60.0)


async def why(mesh: Any) -> dict[str, tuple[str, ...]]:
    view = await mesh.call("alpha", "set.expiry", q.Nothing(), b.ExpiryView)
    return {row.set: row.why for row in view.sets}


async def alerts(mesh: Any, category: str) -> list[v.AlertView]:
    found = (await mesh.call("alpha", "alert.list", q.AlertListRequest(), v.AlertList)).alerts
    return [row for row in found if row.category == category]


async def ids(mesh: Any) -> set[str]:
    return {row.id for row in await mesh.sets()}


async def test_over_weeks_of_nightly_backups_the_newest_of_days_weeks_and_months_stay_and_all_others_go(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await mesh_with(
        memory_mesh, append="1d", protection="1d", keep="1d", keep_daily=3, keep_weekly=3, keep_monthly=2
    )
    template = TemplateDoc("incremental", to="server:beta", schedule="once 2030-01-31T02:00", media_set="short")
    listed = SelectionDoc(paths=(f"alpha:{tree}",))
    await mesh.call("alpha", "selection.create", q.SelectionCreate("home", listed), v.SelectionView)
    policy = PolicyDoc(templates={"nightly": template}, zone="UTC")
    await mesh.call("alpha", "policy.create", q.PolicyCreate("always", policy), v.PolicyView)
    await mesh.call("alpha", "associate", q.AssociationEdit("home", "always"), v.PolicyView)
    made: dict[str, str] = {}
    for day in range(44):
        set_clocks(mesh, day + 0.9)
        submitted = await mesh.call("alpha", "job.run", q.JobName("home.always.nightly"), o.Submitted)
        result = await mesh.result(submitted.run)
        assert result.state == "succeeded", result
        made[f"{FIRST + datetime.timedelta(days=day):%m-%d}"] = result.set
        if day % 11 == 10:
            await expire(mesh)
    set_clocks(mesh, 47.0)  # what was only protected or within its retention is so no longer
    await expire(mesh)
    left = await ids(mesh)
    # Sundays: the 9th and the 16th of February; the last one is a Tuesday
    assert [day for day, id in made.items() if id in left] == ["01-31", "02-09", "02-16", "02-17", "02-18"]
    reasons = await why(mesh)
    assert reasons[made["02-18"]] == ("last-good", "daily", "weekly", "monthly")
    assert reasons[made["01-31"]] == ("monthly",)
    # gone for every reader of the device as well, and told
    there = await mesh.call("alpha", "set.list", q.SetListRequest(from_device="disk-beta"), b.SetList)
    assert {row.id for row in there.sets} == left
    audit = await mesh.call("alpha", "audit.list", audit_log.AuditListRequest(), audit_log.AuditList)
    told = {row.fields["set"] for row in audit.entries if row.what == "set.expire" and row.who == "expiry"}
    assert told == set(made.values()) - left


async def test_a_doubtful_clock_expires_nothing_and_a_steady_one_does_every_hour_by_itself(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await mesh_with(memory_mesh, append="1d", protection="1d", keep="7d")
    for name, value in (("heartbeat-interval-s", "20s"), ("clock-steady-s", "10m")):
        await mesh.call("alpha", "settings.set", q.SettingSet(name, value), v.SettingList)
    first = await backup(mesh, tree)
    set_clocks(mesh, 7.0)
    second, last = await backup(mesh, tree), await backup(mesh, tree)
    set_clocks(mesh, 8.0)
    (row,) = (await mesh.call("alpha", "set.list", q.SetListRequest(expired=True), b.SetList)).sets
    assert (row.id, row.expired) == (first, True)
    refused = await expire(mesh, 0.0)
    assert refused.gone == 0
    assert "clock" in refused.paused
    await asyncio.sleep(590.0)
    assert await ids(mesh) == {first, second, last}
    await wait_for_async(lambda: _left(mesh, {second, last}), 60.0, what="the first set expires", every_s=5.0)
    # the retention of the second one ends soon after midnight
    set_clocks(mesh, 14.0 - 20.0 / 1440)
    await asyncio.sleep(700.0)
    for clock in mesh.clocks.values():
        clock.wall_offset_s += 1.0  # a clock that is kept right is not one that was set
    await wait_for_async(lambda: _left(mesh, {last}), 2 * 3600.0, what="the second set expires", every_s=30.0)
    assert mesh.clock("alpha").now_ns() % (3600 * 10**9) < 120 * 10**9, "at the full hour"
    # the last good one never goes by itself
    set_clocks(mesh, 3000.0)
    assert (await expire(mesh)).gone == 0
    assert (await why(mesh))[last] == ("last-good",)
    (row,) = await mesh.sets()
    assert (row.kept_by, row.expired) == (("last-good",), False)


async def test_what_is_locked_or_lies_on_a_device_that_is_away_waits_and_says_so(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await mesh_with(memory_mesh, append="1d", protection="1d", keep="2d")
    old, locked, new = [await backup(mesh, tree) for _ in range(3)]
    until_ns = mesh.clock("alpha").now_ns() + round(40 * DAY_S) * 10**9
    await mesh.call("alpha", "set.lock", b.SetLock(locked, until_ns), v.Done)
    await wait_for_async(lambda: _locked(mesh, locked), 60.0, what="the lock is known", every_s=0.5)
    set_clocks(mesh, 3.0)
    await asyncio.sleep(50.0)
    await mesh.stop("beta")
    assert (await expire(mesh, 45.0)) == b.Expired(0, None)
    assert await why(mesh) == {old: ("device-away",), locked: ("locked",), new: ("last-good",)}
    await wait_for_async(lambda: alerts(mesh, "expiry-waits"), 10.0, what="the alert")
    (alert,) = await alerts(mesh, "expiry-waits")
    assert alert.object == "disk-beta"
    assert "1 expired sets wait" in alert.text
    await mesh.run("beta")
    await mesh.wait_connected("beta", timeout_s=180.0)
    await mesh.call("alpha", "device.set", q.DeviceSet("disk-beta", DeviceState.READ_ONLY), v.DeviceView)
    assert (await expire(mesh, 30.0)).gone == 0
    assert (await why(mesh))[old] == ("device-read-only",)
    await mesh.call("alpha", "device.set", q.DeviceSet("disk-beta", DeviceState.ONLINE), v.DeviceView)
    await expire(mesh, 1.0)
    assert await why(mesh) == {locked: ("locked",), new: ("last-good",)}
    await wait_for_async(lambda: _over(mesh, "expiry-waits"), 10.0, what="the end of the alert")


async def _locked(mesh: Any, set_id: str) -> bool:
    return any(row.locked for row in await mesh.sets() if row.id == set_id)


async def _left(mesh: Any, wanted: set[str]) -> bool:
    return await ids(mesh) == wanted


async def _over(mesh: Any, category: str) -> bool:
    return not await alerts(mesh, category)


async def test_sets_expire_on_a_device_that_is_full(mount, memory_mesh, tmp_path):
    disk = mount("tmpfs", tmp_path / "disk", size=64 * MEBIBYTE)
    tree = tmp_path / "data"
    tree.mkdir()
    mesh = await mesh_with(memory_mesh, append="1d", protection="1d", keep="2d")
    add = q.DeviceAdd("small", "disk", {"beta": str(disk)})
    await mesh.call("alpha", "device.add", add, v.DeviceView)
    made = []
    for _ in range(2):
        (tree / "file").write_bytes(os.urandom(20 * MEBIBYTE))
        made.append(await backup(mesh, tree, target="device:small"))
    (tree / "file").write_bytes(os.urandom(30 * MEBIBYTE))
    submitted = await mesh.backup("alpha", tree, "device:small", media_set="short")
    assert (await mesh.result(submitted.run)).state == "failed"
    # into the reserve, of which 2 % are for this
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "foreign").write_bytes(os.urandom(free - MEBIBYTE // 2))
    set_clocks(mesh, 3.0)
    await expire(mesh)
    assert await ids(mesh) == {made[1]}


async def test_the_next_one_in_office_goes_on_with_it_and_a_medium_without_sets_is_recyclable(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await memory_mesh(4, voters=True)
    await wait_for_async(lambda: _voters(mesh, 3), 60.0, what="three servers vote", every_s=0.1)
    await mesh.add_device("delta")
    await mesh.call("alpha", "settings.set", q.SettingSet("clock-steady-s", "60s"), v.SettingList)
    short = MediaSetDoc(append="1d", protection="1d", keep="1d")
    await mesh.call("alpha", "mediaset.create", q.MediaSetEdit("short", short), v.Done)
    old = await backup(mesh, tree, "server:delta")
    set_clocks(mesh, 1.5)
    new = await backup(mesh, tree, "server:delta")
    set_clocks(mesh, 2.75 - 300.0 / DAY_S)  # five minutes before a full hour
    await mesh.stop("alpha")

    async def another() -> bool:
        return (await mesh.call("delta", "status", q.Nothing(), v.StatusView)).admin in {"beta", "gamma"}

    async def shown() -> set[str]:
        sets = (await mesh.call("delta", "set.list", q.SetListRequest(), b.SetList, timeout_s=60.0)).sets
        return {row.id for row in sets}

    await wait_for_async(another, 60.0, what="another one is in office")
    assert await shown() == {old, new}

    async def gone() -> bool:
        return await shown() == {new}

    await wait_for_async(gone, 600.0, what="the old set expires", every_s=20.0)
    media = (await mesh.call("delta", "medium.list", q.DeviceListRequest(), v.MediumList)).media
    assert [(row.sets, row.state) for row in media] == [(0, "recyclable"), (1, "full")]


async def _voters(mesh: Any, count: int) -> bool:
    return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == count


async def test_an_older_set_stays_when_the_newer_one_is_not_on_its_device_any_more(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await mesh_with(memory_mesh, append="1d", protection="1d", keep="2d")
    oldest, old = await backup(mesh, tree), await backup(mesh, tree)
    there = {path for path in (mesh.folder / "disk-beta").glob("sets/*/*") if path.is_file()}
    new = await backup(mesh, tree)
    (lost,) = {path for path in (mesh.folder / "disk-beta").glob("sets/*/*") if path.is_file()} - there
    lost.unlink()
    set_clocks(mesh, 5.0)
    await expire(mesh)
    assert await ids(mesh) == {old, new}, "the administrator still believes that the newest one is there"
    listed = await mesh.call("alpha", "set.list", q.SetListRequest(from_device="disk-beta"), b.SetList)
    assert [row.id for row in listed.sets] == [old]
    assert oldest not in await ids(mesh)
