"""The spine in meshes that live in this process: in virtual time, and over real TLS."""

from __future__ import annotations

import time

import pytest
from mesh.trees import assert_equal, make_tree
from waiting import wait_for_async

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v


async def restored(mesh, set_id, server, tree):
    base = mesh.folder / f"back-{server}"
    request = q.RestoreRequest(set=set_id, to=(server, bytes(base)))
    submitted = await mesh.call("alpha", "restore", request, o.Submitted)
    result = await mesh.result(submitted.run)
    assert result.state == "succeeded", result
    return base / str(tree).lstrip("/")


@pytest.mark.jumping
async def test_a_mesh_in_memory_is_up_in_no_time_and_knows_its_members(memory_mesh):
    began = time.process_time()
    mesh = await memory_mesh(3)
    took = time.process_time() - began
    assert {row.name: (row.state, row.connected, row.admin) for row in await mesh.servers("gamma")} == {
        "alpha": ("enabled", True, True),
        "beta": ("enabled", True, False),
        "gamma": ("enabled", True, False),
    }
    assert took < 5, f"{took:.2f} s"


@pytest.mark.jumping
async def test_a_backup_through_a_pool_and_its_restore_in_memory(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=100)
    mesh = await memory_mesh(3)
    await mesh.add_device("beta")
    await mesh.add_device("gamma")
    await mesh.add_pool("vaults", "beta", "gamma")
    result = await mesh.result((await mesh.backup("alpha", tree, "pool:vaults")).run)
    assert (result.state, result.type) == ("succeeded", "full"), result
    assert [row.id for row in await mesh.sets("beta")] == [result.set]
    assert_equal(tree, await restored(mesh, result.set, "gamma", tree))


@pytest.mark.jumping
async def test_a_scheduled_backup_fires_by_itself_at_each_due_time_and_builds_on_the_last(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=30)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    schedule = {"schedule": "30 1-3 * * *", "zone": "Europe/Berlin", "name": "nightly"}
    made = await mesh.backup("alpha", tree, "server:beta", **schedule)
    assert made.run is None
    assert made.next_due == "2025-01-06T00:30:00Z", "half past one in Berlin, in winter"
    waiting = await mesh.jobs()
    assert [(row.name, row.state, row.reason) for row in waiting] == [("nightly", "scheduled", "not-yet-due")]

    for count in (1, 2, 3):
        (tree / f"new-{count}").write_bytes(b"this hour's")

        async def so_many(count=count):
            return len(await mesh.sets()) == count

        await wait_for_async(so_many, 2 * 3600, every_s=60, what=f"the backup number {count}")
    sets = sorted(await mesh.sets(), key=lambda row: row.ended)
    assert [row.type for row in sets] == ["full", "incremental", "incremental"]
    assert [row.run for row in sets] == [f"{made.job}@20250106T{hour:02d}3000Z" for hour in range(3)]
    assert all(row.started.startswith(f"2025-01-06T{hour:02d}:30") for hour, row in enumerate(sets))
    assert_equal(tree, await restored(mesh, sets[-1].id, "alpha", tree))
    after = await mesh.jobs()
    assert [(row.state, row.reason_fields["due"]) for row in after] == [("scheduled", "2025-01-07T00:30:00Z")]


@pytest.mark.jumping
async def test_a_server_that_is_cut_off_is_stalled_then_lost_and_nothing_is_lost_when_it_returns(memory_mesh):
    mesh = await memory_mesh(3)
    seen = []

    async def state_of_gamma():
        row = next(row for row in await mesh.servers() if row.name == "gamma")
        if not seen or seen[-1] != row.state:
            seen.append(row.state)
        return row.state

    await state_of_gamma()
    mesh.network.cut(mesh.endpoint("alpha"), mesh.endpoint("gamma"))
    began = mesh.clock("alpha").monotonic_s()

    async def lost():
        return await state_of_gamma() == "no-communication"

    await wait_for_async(lost, 3600, every_s=5, what="gamma is in no-communication")
    took = mesh.clock("alpha").monotonic_s() - began
    assert seen == ["enabled", "stalled", "no-communication"]
    assert 300 + 900 <= took < 300 + 900 + 60
    mesh.network.heal()

    async def back():
        return await state_of_gamma() == "enabled"

    await wait_for_async(back, 600, every_s=1, what="gamma is back")


@pytest.mark.jumping
async def test_a_clock_that_differs_raises_one_alert(memory_mesh):
    mesh = await memory_mesh(2)
    mesh.clocks["beta"].wall_offset_s = 45.0

    async def alerts():
        found = (await mesh.call("alpha", "alert.list", q.AlertListRequest(), v.AlertList)).alerts
        return [row for row in found if row.category == "clock-differs"]

    first = await wait_for_async(alerts, 120, every_s=1, what="an alert")
    assert first[0].object == "beta"
    began = mesh.clock("alpha").monotonic_s()
    await wait_for_async(lambda: mesh.clock("alpha").monotonic_s() > began + 600, 700, every_s=10)
    assert len(await alerts()) == 1


@pytest.mark.jumping
@pytest.mark.parametrize("jump_s", [86400.0, -86400.0], ids=["forwards", "backwards"])
async def test_clocks_that_jump_by_a_day_during_a_backup_neither_end_nor_double_it(memory_mesh, tmp_path, jump_s):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = await memory_mesh(2)
    await mesh.add_device("alpha")
    submitted = await mesh.backup("alpha", tree, "any")

    async def runs():
        return [row for row in await mesh.jobs() if row.run == submitted.run and row.attempt]

    await wait_for_async(runs, 60, every_s=0.01, what="the attempt is on its way")
    for clock in mesh.clocks.values():
        clock.wall_offset_s += jump_s
    result = await mesh.result(submitted.run)
    assert (result.state, result.error) == ("succeeded", None), result
    assert 0.0 <= result.seconds < 3600.0
    [made] = await mesh.sets()
    assert made.started <= made.ended
    (tree / "after").write_bytes(b"after the jump")
    again = await mesh.result((await mesh.backup("alpha", tree, "any", type="incremental")).run)
    assert (again.state, again.type) == ("succeeded", "incremental")
    assert len(await mesh.sets()) == 2
    assert_equal(tree, await restored(mesh, again.set, "alpha", tree))
    assert len(await mesh.jobs("alpha", "all")) == 3  # two backups, one restore: nothing began by itself


async def test_a_backup_and_its_restore_over_real_tls_in_one_process(live_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = await live_mesh(3)
    await mesh.add_device("gamma")
    result = await mesh.result((await mesh.backup("beta", tree, "any")).run, timeout_s=60)
    assert result.state == "succeeded", result
    assert_equal(tree, await restored(mesh, result.set, "alpha", tree))
    await mesh.stop("gamma")
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    assert [row.id for row in await mesh.sets("gamma")] == [result.set]
