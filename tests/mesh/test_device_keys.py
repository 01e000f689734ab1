"""Machines that share a device are lost and replaced, one after the other: the keys of the device stay with those that are
there, or it is said aloud that they are lost, and how they come back."""

from __future__ import annotations

import pathlib

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.offline import grant_from
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.states import ServerState
from caso_mesh.server.folder import StateFolder

pytestmark = pytest.mark.jumping


def files(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    (folder / "one").write_bytes(b"one" * 1000)
    return folder


async def shared_device(mesh: MemoryMesh, tree: pathlib.Path) -> str:
    """A set on the device ``nas`` of beta and gamma."""
    folder = mesh.folder / "nas"
    folder.mkdir()
    add = q.DeviceAdd("nas", "shared", {"beta": str(folder), "gamma": str(folder)})
    await mesh.call("alpha", "device.add", add, v.DeviceView)
    done = await mesh.result((await mesh.backup("alpha", tree, "device:nas")).run)
    assert done.state == "succeeded", done
    return str(done.set)


async def lose(mesh: MemoryMesh, name: str, old: str = "") -> None:
    """The machine ``old`` of a server is gone."""
    await mesh.stop(old or name)

    async def gone() -> bool:
        return not {row.name: row for row in await mesh.servers()}[name].connected

    await wait_for_async(gone, 60.0, what=f"{name} is not connected", every_s=0.05)


def key_objects(mesh: MemoryMesh) -> int:
    return sum(path.is_file() for path in (mesh.folder / "nas" / "keys").rglob("*"))


async def standing(mesh: MemoryMesh, *categories: str) -> dict[str, str]:
    """What alerts say, by what they are about."""
    request = q.AlertListRequest(categories=categories)
    listed = await mesh.call("alpha", "alert.list", request, v.AlertList)
    return {row.object: row.text for row in listed.alerts if row.cleared is None}


async def restored(mesh: MemoryMesh, set_id: str, tree: pathlib.Path, where: pathlib.Path) -> None:
    request = q.RestoreRequest(set_id, to=("alpha", bytes(where)))
    made = await mesh.call("alpha", "restore", request, o.Submitted)
    done = await mesh.result(str(made.run))
    assert done.state == "succeeded", done
    assert (where / str(tree).lstrip("/") / "one").read_bytes() == (tree / "one").read_bytes()


async def test_a_paused_server_hands_the_keys_to_the_machine_that_takes_the_place_of_the_other_before_it_starts(
    memory_mesh, tmp_path: pathlib.Path
) -> None:
    """Found by the mesh simulator: of two servers that shared a device one was lost and replaced while the other one was paused.
    That one was not asked for the keys, was lost a few seconds later, and nobody opened the device any more."""
    tree = files(tmp_path / "data")
    mesh = await memory_mesh(3)
    made = await shared_device(mesh, tree)
    await mesh.call("alpha", "server.set-state", q.ServerSetState("gamma", ServerState.PAUSED), v.ServerView)
    await lose(mesh, "beta")
    before = key_objects(mesh)
    await mesh.join("beta2", replaces="beta")

    async def handed() -> bool:
        return key_objects(mesh) > before

    await wait_for_async(handed, 30.0, what="the keys are wrapped to the new machine", every_s=0.05)
    await lose(mesh, "gamma")
    await mesh.run("beta2")
    await mesh.wait_connected("beta")
    await restored(mesh, made, tree, tmp_path / "back")


async def test_a_server_that_does_not_see_the_device_any_more_hands_its_keys_to_a_new_machine_that_does(
    memory_mesh, tmp_path: pathlib.Path
) -> None:
    tree = files(tmp_path / "data")
    mesh = await memory_mesh(3)
    made = await shared_device(mesh, tree)
    await mesh.call("alpha", "device.share", q.DeviceShare("nas", "gamma", None), v.DeviceView)
    await lose(mesh, "beta")
    await mesh.join("beta2", replaces="beta")
    await mesh.run("beta2")
    await mesh.wait_connected("beta")
    await restored(mesh, made, tree, tmp_path / "back")


async def test_keys_that_went_with_all_machines_are_told_of_and_come_back_by_the_state_folder_of_one(
    memory_mesh, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = files(tmp_path / "data")
    mesh = await memory_mesh(3)
    made = await shared_device(mesh, tree)
    for name in ("beta", "gamma"):
        await lose(mesh, name)
    for name in ("beta", "gamma"):
        await mesh.join(f"{name}2", replaces=name)
    said = [record.message for record in caplog.records if "connected has the keys of the device nas" in record.message]
    assert len(said) == 2, caplog.messages
    assert f"caso-mesh vault grant {mesh.folder / 'nas'} --from-state FOLDER" in said[0]
    for name in ("beta", "gamma"):
        await mesh.run(f"{name}2")
        await mesh.wait_connected(name)

    async def told() -> str:
        return (await standing(mesh, "device-keys-lost")).get("nas", "")

    text = await wait_for_async(told, 30.0, what="it is told that nobody opens the device", every_s=0.2)
    assert f"caso-mesh vault grant {mesh.folder / 'nas'} --from-state FOLDER" in text

    former, now = (IdentityStore(StateFolder(mesh.state(name)).identity) for name in ("gamma", "beta2"))
    keys = now.load_keys()
    folder = str(mesh.folder / "nas")
    granted = grant_from(
        folder, former.load_keys(), now.load_mesh_id(), former.load_id_key(), keys.id, keys.encryption_key
    )
    assert granted == 1

    async def over() -> bool:
        return not await standing(mesh, "device-keys-lost", "device-error")

    await wait_for_async(over, 30.0, what="both open the device", every_s=0.2)
    await mesh.stop("beta2")  # the other one was handed them
    await restored(mesh, made, tree, tmp_path / "back")
