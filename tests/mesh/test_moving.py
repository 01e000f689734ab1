"""Devices that are carried from server to server, seen by more of them, or taken away from one."""

from __future__ import annotations

import shutil

import pytest
from mesh.trees import assert_equal, make_tree

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError

pytestmark = pytest.mark.jumping


async def move(mesh, name, **to):
    places = {server: str(path) for server, path in to.items()}
    return await mesh.call("alpha", "device.move", q.DeviceMove(name, places), v.DeviceView)


async def share(mesh, name, server, path=None):
    request = q.DeviceShare(name, server, None if path is None else str(path))
    return await mesh.call("alpha", "device.share", request, v.DeviceView)


async def media(mesh):
    rows = (await mesh.call("alpha", "medium.list", q.DeviceListRequest(), v.MediumList)).media
    return {each.label: each.state for each in rows}


async def restored(mesh, set_id, server, tree):
    base = mesh.folder / f"back-{server}-{set_id[:8]}"
    submitted = await mesh.call("alpha", "restore", q.RestoreRequest(set=set_id, to=(server, bytes(base))), o.Submitted)
    result = await mesh.result(submitted.run)
    assert result.state == "succeeded", result
    return base / str(tree).lstrip("/")


async def refused(what, code):
    with pytest.raises(CasoError) as error:
        await what
    assert error.value.code == code, error.value
    return error.value


async def test_seeding_a_first_backup_at_the_branch_is_carried_home_and_the_next_incremental_sends_only_differences(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=20)
    (tree / "big").write_bytes(bytes(range(256)) * 8000)
    mesh = await memory_mesh(3)
    await mesh.add_device("beta", "seed")
    first = await mesh.result((await mesh.backup("beta", tree, "device:seed")).run)
    assert first.state == "succeeded", first
    # it has not arrived yet
    home = mesh.folder / "home"
    home.mkdir()
    await refused(move(mesh, "seed", gamma=home), "device-vanished")
    shutil.copytree(mesh.folder / "seed", home, dirs_exist_ok=True)
    shutil.rmtree(mesh.folder / "seed")
    moved = await move(mesh, "seed", gamma=home)
    assert (moved.servers, moved.paths, moved.kind, moved.sets) == (("gamma",), {"gamma": str(home)}, "disk", 1)
    assert (await move(mesh, "seed", gamma=home)).paths == moved.paths
    assert_equal(tree, await restored(mesh, first.set, "alpha", tree))
    (tree / "new").write_bytes(b"new\n" * 1000)
    next_ = await mesh.result((await mesh.backup("beta", tree, "device:seed", type="incremental")).run)
    assert (next_.state, next_.type, next_.server) == ("succeeded", "incremental", "gamma"), next_
    assert next_.bytes_read == 4000
    assert 0 < next_.bytes_stored < 20_000 < first.bytes_stored
    assert await media(mesh) == {"BETA-000001": "imported", "GAMMA-000001": "appendable"}
    await mesh.call("alpha", "medium.retire", q.MediumLabel("GAMMA-000001"), v.Done)
    await refused(mesh.call("alpha", "medium.retire", q.MediumLabel("GAMMA-000009"), v.Done), "not-found")
    last = await mesh.result((await mesh.backup("beta", tree, "device:seed", type="incremental")).run)
    assert last.state == "succeeded", last
    assert await media(mesh) == {
        "BETA-000001": "imported", "GAMMA-000001": "retired", "GAMMA-000002": "appendable",
    }  # fmt: skip
    assert_equal(tree, await restored(mesh, next_.set, "alpha", tree))


async def test_a_disk_that_is_carried_to_another_folder_or_server_is_refused_where_it_is_not_and_where_it_may_not_be(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await memory_mesh(3)
    await mesh.add_device("beta", "one")
    await mesh.add_device("gamma", "two")
    result = await mesh.result((await mesh.backup("alpha", tree, "device:one")).run)
    here, there = mesh.folder / "one", mesh.folder / "there"
    await refused(move(mesh, "one", gamma=mesh.folder / "two"), "in-use")  # the folder of another device
    await refused(move(mesh, "one", beta=mesh.folder / "none"), "device-path-invalid")
    await refused(move(mesh, "one", beta=here, gamma=there), "invalid-value")  # a disk is in one place
    await refused(move(mesh, "one", nobody=there), "not-found")
    there.mkdir()
    shutil.copytree(mesh.folder / "two", there, dirs_exist_ok=True)
    await refused(move(mesh, "one", beta=there), "device-vanished")  # another vault
    shutil.rmtree(there)
    here.rename(there)
    # nobody opens its keys any more: the server that could is away
    await mesh.stop("beta")
    await refused(move(mesh, "one", gamma=there), "no-key")
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    assert (await move(mesh, "one", beta=there)).paths == {"beta": str(there)}
    assert_equal(tree, await restored(mesh, result.set, "alpha", tree))


async def test_a_device_is_shared_with_one_more_server_taken_away_from_one_and_used_by_those_that_may(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await memory_mesh(3)
    await mesh.add_device("beta", "nas")
    folder, other = mesh.folder / "nas", mesh.folder / "elsewhere"
    other.mkdir()
    await refused(share(mesh, "nas", "gamma", other), "device-not-shared")
    shared = await share(mesh, "nas", "gamma", folder)
    assert (shared.kind, shared.servers) == ("shared", ("beta", "gamma"))
    await refused(share(mesh, "nas", "gamma", folder), "already-exists")
    await mesh.call("alpha", "device.set", q.DeviceSet("nas", quotas={"beta": 10**9}), v.DeviceView)

    # it is not used by whom it is taken from, and the other one goes on
    set_ = q.DeviceSet("nas", enabled={"beta": False})
    shown = await mesh.call("alpha", "device.set", set_, v.DeviceView)
    assert (shown.disabled, shown.quotas) == (("beta",), {"beta": 10**9})
    done = await mesh.result((await mesh.backup("alpha", tree, "device:nas")).run)
    assert (done.state, done.server) == ("succeeded", "gamma")
    run = (await mesh.backup("alpha", tree, "server:beta")).run
    waits = await mesh.call("alpha", "run.follow", q.RunFollow(run), o.RunProgress)
    assert waits.result is None
    (row,) = [each for each in await mesh.jobs() if each.run == run]
    assert (row.reason, row.reason_fields) == ("no-device-in-target", {"target": "server:beta"})
    await mesh.call("alpha", "device.set", q.DeviceSet("nas", enabled={"beta": True}), v.DeviceView)
    assert (await mesh.result(run)).server == "beta"

    assert (await share(mesh, "nas", "gamma")).servers == ("beta",)
    await refused(share(mesh, "nas", "gamma"), "not-found")
    await refused(share(mesh, "nas", "beta"), "usage")
    await refused(
        mesh.call("alpha", "device.set", set_.__class__("nas", enabled={"gamma": True}), v.DeviceView),
        "device-not-seen",
    )
    assert_equal(tree, await restored(mesh, done.set, "alpha", tree))


async def test_two_servers_write_one_device_at_once_share_what_is_stored_and_one_goes_on_without_the_other(
    memory_mesh, tmp_path
):
    # first of all: what changed within 20 ms before a backup is read again by the next
    trees = {name: make_tree(tmp_path / name, files=15) for name in ("beta", "gamma")}
    mesh = await memory_mesh(3)
    folder = mesh.folder / "nas"
    folder.mkdir()
    on = {"beta": str(folder), "gamma": str(folder)}
    await mesh.call("alpha", "device.add", q.DeviceAdd("nas", "shared", on, concurrency=4), v.DeviceView)
    runs = {name: (await mesh.backup(name, tree, "device:nas")).run for name, tree in trees.items()}
    first = {name: await mesh.result(run) for name, run in runs.items()}
    assert {name: (each.state, each.server) for name, each in first.items()} == {
        name: ("succeeded", name) for name in trees
    }
    # what one of them stored the other one need not
    same = await mesh.result((await mesh.backup("gamma", trees["beta"], "device:nas")).run)
    assert same.bytes_read == first["beta"].bytes_read
    assert same.bytes_stored < first["beta"].bytes_stored / 10
    # a server that is gone leaves no lock, and others read what it wrote
    await mesh.stop("beta")
    (trees["gamma"] / "new").write_bytes(b"new" * 1000)
    later = await mesh.result((await mesh.backup("gamma", trees["gamma"], "device:nas", type="incremental")).run)
    assert (later.state, later.bytes_read) == ("succeeded", 3000)
    assert_equal(trees["beta"], await restored(mesh, first["beta"].set, "alpha", trees["beta"]))
