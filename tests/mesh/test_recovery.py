"""The mesh survives its last server: a recovery kit, the copies in the devices, and the administrator rebuilt from them."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import stat
import sys
import time
from typing import Any

import pytest
from mesh.process import Answer, ProcessMesh
from mesh.trees import assert_equal, make_tree
from waiting import wait_for

PASSPHRASE = "eleven wet horses, twelve dry ones"


def execute(mesh: ProcessMesh, *argv: str) -> Answer:
    """A command that needs no server."""
    return mesh.execute([sys.executable, "-m", "caso_mesh", *argv, "--json"], argv, json_output=True)


def add_disk(mesh: ProcessMesh, server: str) -> pathlib.Path:
    folder = mesh.folder / f"disk-{server}"
    folder.mkdir()
    mesh.ok("alpha", "device", "add", f"disk-{server}", "--server", server, "--path", str(folder))
    return folder


@pytest.fixture
def passphrase(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return str(path)


def make_kit(mesh: ProcessMesh, passphrase: str, name: str = "kit.txt") -> tuple[pathlib.Path, dict[str, Any]]:
    path = mesh.folder / name
    return path, mesh.ok("alpha", "kit", "create", str(path), "--passphrase-file", passphrase)


def alerts(mesh: ProcessMesh, category: str) -> list[dict[str, Any]]:
    return [row for row in mesh.ok("alpha", "alert", "list")["alerts"] if row["category"] == category]


def opening(mesh: ProcessMesh, device: str, count: int) -> list[dict[str, Any]]:
    """So many kits, all of them confirmed, once each opens the device."""

    def kits() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = mesh.ok("alpha", "kit", "list")["kits"]
        whole = len(found) == count and all(each["devices"] == [device] and each["confirmed"] for each in found)
        return found if whole else []

    return wait_for(kits, what=f"{count} kits open {device}")


def copies(device: pathlib.Path) -> list[str]:
    return sorted(os.listdir(device / "mesh")) if (device / "mesh").is_dir() else []


def new_copy(device: pathlib.Path, before: list[str]) -> None:
    wait_for(
        lambda: copies(device)[-1:] > before[-1:] and bool(copies(device)),
        60.0,
        what=f"a new copy of the mesh lies in {device.name}",
        every_s=0.1,
    )


def test_a_kit_is_made_confirmed_and_the_root_key_leaves_the_server(process_mesh, passphrase, tmp_path):
    mesh = process_mesh(2)
    device = add_disk(mesh, "beta")
    wait_for(lambda: alerts(mesh, "no-recovery-kit"), 30.0, what="the standing alert", every_s=0.1)
    (alert,) = alerts(mesh, "no-recovery-kit")
    assert "attention-required" in alert.values()
    root_key = mesh.state("alpha") / "identity" / "authority" / "ca.key"
    assert root_key.exists()
    assert copies(device) == [], "without a kit there is nobody to seal a copy to"

    path, made = make_kit(mesh, passphrase)
    # a server that has not heard of the kit within the moment that this takes is told of as missing, and makes up for it
    assert (made["devices"] + made["missing"], made["passphrase"]) == (["disk-beta"], None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not root_key.exists()
    wait_for(lambda: not alerts(mesh, "no-recovery-kit"), 30.0, what="the alert is cleared", every_s=0.1)
    assert [kit["id"] for kit in opening(mesh, "disk-beta", 1)] == [made["id"]]

    again = mesh.cli("alpha", "kit", "create", str(path), "--passphrase-file", passphrase)
    assert again.error_code == "already-exists"
    second = mesh.folder / "second.txt"
    refused = mesh.cli("alpha", "kit", "create", str(second), "--passphrase-file", passphrase)
    assert refused.error_code == "root-key-gone"
    assert not second.exists()
    other = mesh.ok("alpha", "kit", "create", str(second), "--from", str(path), "--from-passphrase-file", passphrase)
    assert re.fullmatch(r"[0-9a-z]{5}(-[0-9a-z]{5,6}){4}", other["passphrase"])
    (tmp_path / "made").write_text(other["passphrase"])
    opening(mesh, "disk-beta", 2)
    listed = execute(
        mesh, "vault", "list", str(device), "--kit", str(second), "--passphrase-file", str(tmp_path / "made")
    )
    assert listed.status == 0, str(listed)
    # a viewer's call is not enough, and nothing of the secrets is in any log
    assert (
        mesh.cli("beta", "kit", "create", str(mesh.folder / "third.txt"), "--passphrase-file", passphrase).status == 4
    )
    mesh.audited(what="kit.create")
    assert PASSPHRASE not in json.dumps(mesh.ok("alpha", "audit", "list"))


def test_devices_that_were_away_or_came_later_are_opened_by_the_kit_too(process_mesh, passphrase):
    mesh = process_mesh(3)
    away = add_disk(mesh, "gamma")
    mesh.kill("gamma")
    path, made = make_kit(mesh, passphrase)
    assert made["missing"] == ["disk-gamma"]
    kit = ["--kit", str(path), "--passphrase-file", passphrase]
    assert execute(mesh, "vault", "list", str(away), *kit).error_code == "kit-incomplete"
    later = add_disk(mesh, "beta")
    mesh.run("gamma")

    def complete() -> bool:
        (row,) = mesh.ok("alpha", "kit", "list")["kits"]
        return not row["missing"]

    wait_for(complete, 30.0, what="the kit opens every device", every_s=0.2)
    for device in (away, later):
        assert execute(mesh, "vault", "list", str(device), *kit).status == 0
        new_copy(device, [])


@pytest.mark.timeout(600)
def test_the_administrator_is_rebuilt_from_disks_and_the_kit_and_nobody_joins_again(process_mesh, passphrase, tmp_path):
    mesh = process_mesh(3)
    disk_alpha, disk_beta = add_disk(mesh, "alpha"), add_disk(mesh, "beta")
    mesh.ok("alpha", "pool", "create", "stores", "--server", "beta")
    tree = make_tree(tmp_path / "data")
    at_beta = mesh.ok("alpha", "backup", f"gamma:{tree}", "--to", "device:disk-beta", "--wait")["set"]
    at_alpha = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-alpha", "--wait")["set"]
    path, _ = make_kit(mesh, passphrase)
    kit = ["--kit", str(path), "--passphrase-file", passphrase]
    new_copy(disk_alpha, [])
    before = copies(disk_alpha)
    mesh.ok(
        "alpha", "backup", f"gamma:{tree}", "--to", "pool:stores", "--schedule", "0 2 1 1 *", "--zone", "UTC",
        "--name", "nightly",
    )  # fmt: skip
    new_copy(disk_alpha, before)
    ids = {row["name"]: row["id"] for row in mesh.ok("alpha", "server", "list")["servers"]}
    keys = {name: (mesh.state(name) / "identity" / "node.pem").read_bytes() for name in ("beta", "gamma")}

    for name in ("alpha", "beta", "gamma"):
        mesh.kill(name)
    for segment in (mesh.state("beta") / "catalog" / "segments").glob("*"):
        segment.unlink()  # as a server does with what the administrator had fetched
    lost = mesh.state("lost")
    shutil.move(mesh.state("alpha"), lost)

    began = time.monotonic()
    done = mesh.ok("alpha", "recover", str(disk_alpha), str(disk_beta), *kit)
    recovered_s = time.monotonic() - began
    assert (done["mesh"], done["server"], done["lineage"], done["sets"]) == ("meadow", "alpha", 2, 1)
    assert sorted(done["servers"]) == ["alpha", "beta", "gamma"]
    assert mesh.cli("alpha", "recover", str(disk_alpha), *kit).error_code == "state-not-empty"
    for name in ("beta", "gamma", "alpha"):
        mesh.run(name)
    mesh.wait_connected("alpha", "beta", "gamma")
    linked_s = time.monotonic() - began
    print(f"recover: {recovered_s:.2f} s; all servers linked: {linked_s:.2f} s")

    # who was in the mesh is in it, with the keys it had
    assert {row["name"]: row["id"] for row in mesh.ok("alpha", "server", "list")["servers"]} == ids
    assert {name: (mesh.state(name) / "identity" / "node.pem").read_bytes() for name in keys} == keys
    assert [row["name"] for row in mesh.ok("beta", "device", "list")["devices"]] == ["disk-alpha", "disk-beta"]
    assert mesh.ok("alpha", "pool", "list")["pools"][0]["servers"] == ["beta"]
    assert any("nightly" in json.dumps(row) for row in mesh.jobs("alpha", "--state", "all")) or mesh.ok(
        "alpha", "job", "show", "nightly"
    )
    assert not (mesh.state("alpha") / "identity" / "authority" / "ca.key").exists()

    # sets: beta's from its journal, alpha's own from the device
    wait_for(
        lambda: {at_beta, at_alpha} <= {row["id"] for row in mesh.sets("alpha")},
        60.0,
        what="both sets are known again",
        every_s=0.2,
    )

    def browsed(set_id: str) -> bool:
        answer = mesh.cli("alpha", "catalog", "ls", set_id, str(tree))
        return answer.status == 0 and bool(answer.document["entries"])

    for set_id in (at_beta, at_alpha):
        wait_for(lambda set_id=set_id: browsed(set_id), 30.0, what=f"the catalog of {set_id} is back", every_s=0.2)
        base = tmp_path / f"back-{set_id}"
        result = mesh.ok("alpha", "restore", set_id, "--to", f"gamma:{base}", "--wait")
        assert result["state"] == "succeeded", result
        assert_equal(tree, base / str(tree)[1:])

    assert not alerts(mesh, "catalog-error")

    # work goes on, and no id or label is given twice
    more = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-alpha", "--wait")
    assert more["state"] == "succeeded"
    media = {row["id"]: row["medium"] for row in mesh.sets("alpha")}
    assert media[more["set"]] != media[at_alpha]

    # the lost machine comes back: whom it reaches tells it, and it decides nothing
    config = mesh.state("lost") / "config.toml"
    config.write_text(re.sub(r"(?m)^listen = .*$", 'listen = "127.0.0.1:0"', config.read_text()))
    mesh.run("lost")
    wait_for(lambda: "lineage" in mesh.log("lost", 400), 30.0, what="the lost machine is told", every_s=0.2)

    def decides_nothing() -> bool:
        return mesh.cli("lost", "server", "list", "--timeout", "2s").error_code == "no-admin"

    wait_for(decides_nothing, 30.0, what="the lost machine is not in office any more", every_s=0.2)
    stale = mesh.begin("lost", "backup", f"beta:{tree}", "--to", "device:disk-beta")
    assert mesh.ok("alpha", "status")["admin"] == "alpha"
    result = mesh.ok("beta", "status")
    assert result["admin"] == "alpha"
    good = mesh.ok("alpha", "verify", at_beta, "--wait")
    assert good["state"] == "succeeded"
    stale.end()
    sets = {row["id"] for row in mesh.sets("alpha")}
    assert {at_beta, at_alpha, more["set"]} == sets, "nothing ran by order of the lost machine"
    assert mesh.terminate("lost") == 0


def test_recover_refuses_what_does_not_fit_and_leaves_nothing_behind(process_mesh, passphrase, tmp_path):
    mesh = process_mesh(1)
    disk = add_disk(mesh, "alpha")
    path, _ = make_kit(mesh, passphrase)
    new_copy(disk, [])
    other = process_mesh(1)
    foreign = add_disk(other, "alpha")
    (tmp_path / "empty").mkdir()
    kit = ["--kit", str(path), "--passphrase-file", passphrase]

    def recover(*argv: str) -> Answer:
        return execute(mesh, "recover", *argv, *kit, "--state", str(mesh.state("new")))

    assert recover(str(foreign)).error_code == "kit-foreign"
    assert recover(str(tmp_path / "empty")).error_code == "device-vanished"
    assert recover(str(tmp_path / "nowhere")).error_code == "device-vanished"
    for copy in (disk / "mesh").iterdir():
        shutil.copy(copy, tmp_path)
        copy.write_bytes(copy.read_bytes()[:-1])
    assert recover(str(disk)).error_code == "no-mesh-copy"
    for copy in (disk / "mesh").iterdir():
        shutil.copy(tmp_path / copy.name, copy)
    # after all those tries the same folder still serves
    assert recover(str(disk)).status == 0
    assert recover(str(disk)).error_code == "state-not-empty"
    refused = execute(mesh, "recover", str(disk), *kit, "--state", str(mesh.state("alpha")))
    assert refused.error_code == "state-not-empty"
