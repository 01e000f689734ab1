"""Devices move (domain, section 3): an old disk in a new mesh. Mesh A writes it and is gone; mesh B takes it over with A's kit."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from mesh.trees import assert_equal, make_tree
from waiting import wait_for, wait_for_async

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity import kit as kits
from caso_mesh.identity.imported import ForeignKeys, seal_foreign
from caso_mesh.jobs.offline import roster_of
from caso_mesh.model import browsing as b
from caso_mesh.model import importing as i
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError, DeviceVanished, KitIncomplete, NoKey
from caso_mesh.model.listing import CatalogFind, SetListRequest
from caso_mesh.model.states import DeviceState
from caso_mesh.server.rebuilding import Rebuilding
from caso_mesh.vault.keys import load_keys

jumping = pytest.mark.jumping
PASSPHRASE = "eleven wet horses, twelve dry ones"
KIT = "kit0000000000000000000001"


# --- mesh A ----------------------------------------------------------------------------------------------------------


async def make_kit(mesh) -> kits.Kit:
    """A kit as ``kit create`` makes it; when a copy of the mesh for it lies in the device ``disk``."""
    keys = kits.new_keys()
    material = await mesh.call("alpha", "kit.create", q.KitCreate(KIT, keys.public_key), q.KitMaterial)
    secrets = kits.open_secrets(material.sealed, keys, kit=KIT, mesh=material.mesh)
    check = kits.check_of(material.root, secrets)
    await mesh.call("alpha", "kit.confirm", q.KitConfirm(KIT, check), v.KitView)
    disk = mesh.folder / "disk"
    await wait_for_async(lambda: _any(disk / "mesh"), 120.0, what="a copy of the mesh lies in the device", every_s=0.2)
    return kits.Kit(
        KIT, material.mesh, material.mesh_name, material.root, secrets.root_key, secrets.id_key, keys.private_key
    )


async def _any(folder: pathlib.Path) -> bool:
    return folder.is_dir() and bool(os.listdir(folder))


async def old_disk(memory_mesh, tree: pathlib.Path, servers: int = 1) -> tuple[pathlib.Path, kits.Kit, list[str]]:
    """A disk with sets of the last server of a mesh, and its kit; the mesh is gone."""
    mesh = await memory_mesh(servers, seed=7)  # of the same one all keys would be the same
    source = mesh.names[-1]
    await mesh.add_device(mesh.names[0], "disk")
    sets = []
    for type_ in ("full", "incremental"):
        done = await mesh.result((await mesh.backup(source, tree, "device:disk", type=type_)).run)
        assert done.state == "succeeded", done
        sets.append(done.set)
        (tree / f"after-{type_}").write_bytes(b"later\n" * 1000)
    (tree / "after-incremental").unlink()
    # what the second set has, down to the time of the folder
    done = await mesh.result((await mesh.backup(source, tree, "device:disk", type="incremental")).run)
    kit = await make_kit(mesh)
    for name in list(mesh.names):
        await mesh.stop(name)
    return mesh.folder / "disk", kit, [*sets, done.set]


# --- mesh B ----------------------------------------------------------------------------------------------------------


def opened(path: pathlib.Path, kit: kits.Kit, found: i.ForeignVault) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What ``device import`` does with a kit: copies of the keys, and the servers of the old mesh."""
    backend = FolderBackend(str(path), "there", marker=None)
    try:
        try:
            keys = load_keys(backend, kit.id, kit.unwrap, kit.id_key)
        except NoKey:
            raise KitIncomplete(kit=kit.id, path=path) from None
        copies = seal_foreign(
            ForeignKeys(keys.id_key, keys.content_keys),
            {found.node: found.encryption_key},
            vault=found.vault,
            randomness=os.urandom,
        )
        return copies, roster_of(backend, kit, [])
    finally:
        backend.close()


async def import_(mesh, path, kit, *, name="old", server="beta", of=None, **changes) -> v.DeviceView:
    found = await mesh.call("alpha", "device.look", i.DeviceLook(server, str(path)), i.ForeignVault)
    copies, signers = opened(path, kit, found)
    fields = {"copies": copies, "signers": signers, **changes}
    request = i.DeviceImport(name, server, str(path), found.vault, of or kit.mesh, kit.mesh_name, **fields)
    return await mesh.call("alpha", "device.import", request, v.DeviceView, timeout_s=60.0)


async def sets_of(mesh, source="alpha@meadow", at="alpha") -> list[b.SetView]:
    found = await mesh.call(at, "set.list", SetListRequest(source=source), b.SetList)
    return list(found.sets)


async def catalogued(mesh, at="alpha") -> bool:
    return all(each.catalog for each in await mesh.sets(at))


async def restored(mesh, set_id, server, tree, **more) -> pathlib.Path:
    base = mesh.folder / f"back-{server}-{set_id[:12]}"
    request = q.RestoreRequest(set=set_id, to=(server, bytes(base)), **more)
    result = await mesh.result((await mesh.call("alpha", "restore", request, o.Submitted)).run)
    assert result.state == "succeeded", result
    return base / str(tree).lstrip("/")


async def refused(what, code) -> CasoError:
    with pytest.raises(CasoError) as error:
        await what
    assert error.value.code == code, error.value
    return error.value


def listing(folder: pathlib.Path) -> list[tuple[str, int, int]]:
    """All that lies below a folder, with size and time of change."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(place, name))
            found.append((os.path.join(place, name), status.st_size, status.st_mtime_ns))
    return sorted(found)


@jumping
async def test_devices_move_sets_of_an_imported_disk_are_browsed_verified_and_restored_to_any_server_and_nothing_is_written_to_it(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=20)
    (tree / "big").write_bytes(os.urandom(3 << 20))
    disk, kit, sets = await old_disk(memory_mesh, tree)
    before = listing(disk)
    mesh = await memory_mesh(3)
    made = await import_(mesh, disk, kit)
    assert (made.state, made.mesh, made.servers, made.sets, made.warnings) == ("imported", "meadow", ("beta",), 3, ())

    rows = await sets_of(mesh)
    assert [row.id for row in rows] == sets[::-1]
    assert {(row.source, row.server, row.device, row.expires) for row in rows} == {
        ("alpha@meadow", "alpha@meadow", "old", None)
    }
    assert {row.kept_by for row in rows} == {("imported",)} and {row.protected_until for row in rows} == {None}
    media = (await mesh.call("alpha", "medium.list", q.DeviceListRequest(), v.MediumList)).media
    assert [(row.label, row.state, row.server, row.sets) for row in media] == [
        ("ALPHA-000001@meadow", "imported", "alpha@meadow", 3)
    ]
    await wait_for_async(lambda: catalogued(mesh), 60.0, what="its sets are catalogued", every_s=0.2)
    found = (await mesh.call("alpha", "catalog.find", CatalogFind(b"big"), b.MatchList)).matches
    assert [(row.server, row.set) for row in found] == [("alpha@meadow", sets[-1])]
    versions = b.CatalogVersions("alpha@meadow", bytes(tree / "after-full"))
    assert len((await mesh.call("alpha", "catalog.versions", versions, b.VersionList)).versions) == 1

    verify = await mesh.call("alpha", "verify", q.VerifyRequest(sets[0]), o.Submitted)
    assert (await mesh.result(verify.run)).state == "succeeded"
    # where the device is, and elsewhere: content is recomputed by the key of the mesh that named it
    for server in ("beta", "gamma"):
        assert_equal(tree, await restored(mesh, sets[-1], server, tree))
    chosen = await mesh.call("alpha", "set.as-of", b.SetAsOf("alpha@meadow", (bytes(tree),)), b.SetChoice)
    assert (chosen.id, chosen.source, chosen.servers) == (sets[-1], "alpha@meadow", ("beta",))
    for server in ("beta", "alpha"):
        drill = await mesh.call("alpha", "drill", q.DrillRequest(sets[0], server), o.Submitted)
        assert (await mesh.result(drill.run)).state == "succeeded"
    assert listing(disk) == before


@jumping
async def test_devices_move_sets_of_an_imported_disk_are_copied_to_devices_of_this_mesh_and_stay_when_it_leaves(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=20)
    (tree / "big").write_bytes(os.urandom(3 << 20))
    disk, kit, sets = await old_disk(memory_mesh, tree)
    before = listing(disk)
    mesh = await memory_mesh(3)
    for server in ("beta", "gamma"):
        await mesh.add_device(server)
    await import_(mesh, disk, kit)

    async def copy(set_id: str, device: str) -> o.RunResult:
        request = q.DuplicateRequest(set_id, f"device:{device}", verify=True)
        result = await mesh.result((await mesh.call("alpha", "duplicate", request, o.Submitted)).run)
        assert (result.state, result.device) == ("succeeded", device), result
        return result

    copies = []
    for device in ("disk-beta", "disk-gamma"):  # both ends on one server, and on two
        first, last = await copy(sets[0], device), await copy(sets[-1], device)
        assert first.bytes_stored > 3_000_000 > 200_000 > last.bytes_stored > 0, "what both sets have is stored once"
        assert (first.files, last.files) == (first.files, first.files + 1)
        copies.append(last.set)
    assert listing(disk) == before
    await refused(copy(sets[0], "old"), "device-imported")

    await mesh.call("alpha", "device.remove", q.DeviceName("old"), v.Done)
    assert listing(disk) == before, "what is on it is for nobody here to delete"
    assert {row.copy_of for row in await sets_of(mesh)} == {sets[0], sets[-1]}
    devices = (await mesh.call("alpha", "device.list", q.DeviceListRequest(), v.DeviceList)).devices
    assert [row.name for row in devices] == ["disk-beta", "disk-gamma"]
    for set_id in copies:
        assert_equal(tree, await restored(mesh, set_id, "alpha", tree))
    await wait_for_async(lambda: catalogued(mesh), 60.0, what="the copies are catalogued", every_s=0.2)
    found = (await mesh.call("alpha", "catalog.find", CatalogFind(b"big"), b.MatchList)).matches
    assert [row.server for row in found] == ["alpha@meadow"]

    # and back again, with all that was known of it
    again = await import_(mesh, disk, kit, name="again", server="gamma")
    assert (again.sets, again.mesh) == (3, "meadow")
    assert {row.id for row in await sets_of(mesh)} >= set(sets)
    assert_equal(tree, await restored(mesh, sets[-1], "beta", tree))


@jumping
async def test_devices_move_an_imported_disk_is_carried_on_and_seen_by_more_servers_with_what_opens_it(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=5)
    disk, kit, sets = await old_disk(memory_mesh, tree)
    mesh = await memory_mesh(3)
    await import_(mesh, disk, kit)
    there = mesh.folder / "there"
    there.mkdir()
    move = q.DeviceMove("old", {"gamma": str(there)})
    await refused(mesh.call("alpha", "device.move", move, v.DeviceView), "device-path-invalid")
    shutil.rmtree(there)
    disk.rename(there)
    before = listing(there)
    moved = await mesh.call("alpha", "device.move", move, v.DeviceView)
    assert moved.servers == ("gamma",)
    await mesh.stop("beta")
    assert_equal(tree, await restored(mesh, sets[-1], "alpha", tree))
    # who alone had it is away
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    await mesh.stop("gamma")
    share = q.DeviceShare("old", "beta", str(there))
    await refused(mesh.call("alpha", "device.share", share, v.DeviceView), "no-key")
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    shared = await mesh.call("alpha", "device.share", share, v.DeviceView)
    assert (shared.kind, shared.servers) == ("shared", ("gamma", "beta"))
    assert listing(there) == before
    await mesh.stop("gamma")
    verify = await mesh.call("alpha", "verify", q.VerifyRequest(sets[0]), o.Submitted)
    assert (await mesh.result(verify.run)).server == "beta"


@jumping
async def test_devices_move_an_import_goes_on_after_a_change_of_administrator_and_while_the_disk_is_gone(
    memory_mesh, tmp_path, monkeypatch
):
    """The administrator dies between the command and the list of sets; the disk is pulled before the next one asks."""
    tree = make_tree(tmp_path / "data", files=5)
    disk, kit, sets = await old_disk(memory_mesh, tree)
    mesh = await memory_mesh(4, voters=True)

    async def voters() -> bool:
        return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == 3

    async def another() -> bool:
        return (await mesh.call("delta", "status", q.Nothing(), v.StatusView)).admin in {"beta", "gamma", "delta"}

    def heard() -> bool:
        """Who has not heard that they vote follows none of them."""
        nodes = [mesh.nodes[name].server for name in ("beta", "gamma", "delta")]
        return all(len({each.voter for each in node.orders.roster.anchors if each.voter}) == 3 for node in nodes)

    await wait_for_async(voters, 60.0, what="three servers vote", every_s=0.1)
    await wait_for_async(heard, 60.0, what="all have heard of it", every_s=0.1)
    away = disk.with_name("pulled")
    found = await mesh.call("alpha", "device.look", i.DeviceLook("delta", str(disk)), i.ForeignVault)
    copies, signers = opened(disk, kit, found)

    async def pulled(*_: object) -> None:
        disk.rename(away)
        raise DeviceVanished(device="old", detail="it was pulled")

    monkeypatch.setattr(Rebuilding, "sets", pulled)
    request = i.DeviceImport("old", "delta", str(disk), found.vault, kit.mesh, kit.mesh_name, copies, signers)
    made = await mesh.call("alpha", "device.import", request, v.DeviceView, timeout_s=60.0)
    assert made.sets == 0 and any("tried again" in each for each in made.warnings)
    monkeypatch.undo()
    await mesh.stop("alpha")
    await wait_for_async(another, 60.0, what="another one is in office", every_s=0.1)

    async def offline() -> bool:
        rows = (await mesh.call("delta", "device.list", q.DeviceListRequest(), v.DeviceList)).devices
        return [(row.name, row.state) for row in rows] == [("old", "offline")]

    await wait_for_async(offline, 120.0, what="the disk is missed", every_s=0.5)
    away.rename(disk)

    async def listed() -> bool:
        return [row.id for row in await sets_of(mesh, at="delta")] == sets[::-1]

    await wait_for_async(listed, 120.0, what="its sets are listed", every_s=0.5)
    await wait_for_async(lambda: catalogued(mesh, "delta"), 120.0, what="and catalogued", every_s=0.5)


@jumping
async def test_devices_move_what_cannot_be_imported_or_done_with_an_imported_device_is_refused_with_the_reason(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=5)
    disk, kit, _ = await old_disk(memory_mesh, tree)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta", "own")
    own = mesh.folder / "own"
    # places
    (tmp_path / "empty").mkdir()
    await refused(import_(mesh, tmp_path / "empty", kit), "device-path-invalid")
    await refused(import_(mesh, own, kit), "in-use")
    copied = tmp_path / "copied"
    shutil.copytree(own, copied)
    for known in (True, False):
        assert "device move" in (await refused(import_(mesh, copied, kit), "device-not-foreign")).hint
        if known:
            await mesh.call("alpha", "device.remove", q.DeviceName("own"), v.Done)
    # what was handed over opens nothing, is for somebody else, or is of another mesh
    found = await mesh.call("alpha", "device.look", i.DeviceLook("beta", str(disk)), i.ForeignVault)
    copies, _ = opened(disk, kit, found)
    (copy,) = copies.values()
    await refused(import_(mesh, disk, kit, copies={found.node: copy[:-1] + b"?"}), "seal-broken")
    await refused(import_(mesh, disk, kit, copies={}), "no-key")
    await refused(import_(mesh, disk, kit, of="another"), "no-key")
    strange = seal_foreign(
        ForeignKeys(b"x" * 32, {"k": b"x" * 32}),
        {found.node: found.encryption_key},
        vault=found.vault,
        randomness=os.urandom,
    )
    await refused(import_(mesh, disk, kit, copies=strange), "no-key")
    read = i.DeviceRead("beta", str(disk), found.vault, ("sets/x",))
    await refused(mesh.call("alpha", "device.read", read, i.ForeignObjects), "object-missing")
    assert (await mesh.call("alpha", "device.list", q.DeviceListRequest(), v.DeviceList)).devices == ()
    # without a copy of the mesh nobody can tell who signed, which is said; a set that is damaged is passed over
    shutil.rmtree(disk / "mesh")
    damaged = next(path for path in sorted((disk / "sets").rglob("*")) if path.is_file())
    content = damaged.read_bytes()
    damaged.chmod(0o600)
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    made = await import_(mesh, disk, kit)
    assert made.sets == 2
    assert any("signatures of alpha cannot be checked" in each for each in made.warnings), made.warnings
    assert any("sets/" in each for each in made.warnings), made.warnings
    again = tmp_path / "again"
    shutil.copytree(disk, again)
    assert "old" in (await refused(import_(mesh, again, kit, name="twice"), "in-use")).message

    there = [row.id for row in await sets_of(mesh)]
    for what in (
        mesh.backup("alpha", tree, "device:old"),
        mesh.call("alpha", "set.delete", b.SetName(there[0]), v.Done),
        mesh.call("alpha", "set.lock", b.SetLock(there[0]), v.Done),
    ):
        error = await refused(what, "device-imported")
        assert "read-only" in error.message and "duplicate" in error.hint
    restore = mesh.call("alpha", "restore", q.RestoreRequest(set=there[0]), o.Submitted)
    assert "--to SERVER:/" in (await refused(restore, "usage")).message
    drill = mesh.call("alpha", "drill", q.DrillRequest(there[0]), o.Submitted)
    assert "--on" in (await refused(drill, "usage")).message
    imported = q.DeviceSet("old", DeviceState.IMPORTED)
    await refused(mesh.call("alpha", "device.set", imported, v.DeviceView), "invalid-value")
    run = (await mesh.backup("alpha", tree, "server:beta")).run

    async def waits() -> bool:
        return [job.reason for job in await mesh.jobs()] == ["device-imported"]

    await wait_for_async(waits, 60.0, what="no imported device is a target", every_s=0.2)
    await refused(
        mesh.call("alpha", "device.import", i.DeviceImport("x", "nobody", "/x", "v", "m", "n", {}, {}), v.DeviceView),
        "not-found",
    )
    await mesh.call("alpha", "job.cancel", q.JobCancel(run), v.Done)


def test_devices_move_an_old_disk_of_a_mesh_that_is_gone_is_imported_with_its_kit_on_the_command_line(
    process_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=10)
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE + "\n")
    words = ("--passphrase-file", str(passphrase))
    gone, kit, disk = process_mesh(1), tmp_path / "kit.txt", tmp_path / "disk"
    disk.mkdir()
    gone.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    set_id = gone.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")["set"]
    gone.ok("alpha", "kit", "create", str(kit), *words)
    wait_for(lambda: (disk / "mesh").is_dir() and os.listdir(disk / "mesh"), 30.0, what="a copy of the mesh lies there")
    gone.terminate("alpha")

    mesh = process_mesh(1)
    there = ("old", "--server", "alpha", "--path", str(disk), "--kit", str(kit))
    made = mesh.ok("alpha", "device", "import", *there, *words)
    assert (made["state"], made["mesh"], made["sets"], made["warnings"]) == ("imported", "meadow", 1, [])
    back = mesh.ok("alpha", "restore", set_id, "--to", f"alpha:{tmp_path}/back", "--wait")
    assert back["state"] == "succeeded"
    assert_equal(tree, tmp_path / "back" / str(tree).lstrip("/"))
