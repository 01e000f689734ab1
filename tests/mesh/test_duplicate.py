"""Copies of sets on the device of another server, with real daemons: they survive the first device."""

from __future__ import annotations

import os
import shutil

from mesh.process import ProcessMesh
from mesh.test_spine import disk, restored, with_pool
from mesh.trees import assert_equal
from waiting import wait_for


def the_job(mesh: ProcessMesh, kind: str) -> dict:
    """The open one of that kind."""
    return next(row for row in mesh.jobs() if row["kind"] == kind)


def test_a_copy_on_another_server_is_restored_once_the_first_device_is_destroyed(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    for number in range(10):
        (tree / f"{number}").write_bytes(os.urandom(300_000))
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    first = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-beta", "--wait")
    here = mesh.cli("alpha", "duplicate", first["set"], "--to", "device:disk-beta")
    assert (here.status, here.error_code) == (6, "conflict"), here
    copied = mesh.ok("alpha", "duplicate", first["set"], "--to", "server:gamma", "--verify", "--wait")
    assert (copied["state"], copied["server"], copied["device"]) == ("succeeded", "gamma", "disk-gamma"), copied
    rows = {row["id"]: row for row in mesh.sets()}
    copy = rows[copied["set"]]
    assert copy["copy_of"] == first["set"]
    assert (copy["source"], copy["ended"]) == ("alpha", rows[first["set"]]["ended"])

    for near, chosen in (("beta", first["set"]), ("gamma", copied["set"])):
        answer = mesh.cli("alpha", "restore", f"alpha:{tree}/0", "--to", f"{near}:{mesh.folder}/near-{near}")
        assert answer.status == 0, answer
        assert f"set {chosen} of alpha" in answer.stderr

    (tree / "new").write_bytes(os.urandom(200_000))
    later = mesh.ok("alpha", "backup", f"alpha:{tree}", "--type", "incremental", "--to", "device:disk-beta", "--wait")
    again = mesh.ok("alpha", "duplicate", later["set"], "--to", "server:gamma", "--wait")
    # what is there already is neither read nor stored
    assert 200_000 <= again["bytes_stored"] < 250_000, again

    shutil.rmtree(disk(mesh, "beta"))
    mesh.ok("alpha", "device", "pause", "disk-beta")
    assert_equal(tree, restored(mesh, again["set"], "beta", tree))
    base = mesh.folder / "back-as-of"
    chosen = mesh.cli("alpha", "restore", f"alpha:{tree}", "--to", f"gamma:{base}", "--wait")
    assert chosen.status == 0, chosen
    assert f"set {again['set']} of alpha" in chosen.stderr
    assert_equal(tree, base / str(tree).lstrip("/"))
    assert mesh.ok("alpha", "verify", again["set"], "--wait")["state"] == "succeeded"


def test_a_copy_waits_for_the_server_that_reaches_the_device_of_its_set_and_says_so(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(300_000))
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    first = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-beta", "--wait")
    mesh.kill("beta")
    run = mesh.ok("alpha", "duplicate", first["set"], "--to", "server:gamma")["run"]
    row = wait_for(
        lambda: (row := the_job(mesh, "duplicate")) and row["reason"] == "waiting-for-server" and row,
        30,
        what="it waits for beta",
    )
    assert "beta" in row["reason_text"], row
    mesh.run("beta")
    wait_for(lambda: mesh.ok("alpha", "job", "show", run)["runs"][0]["state"] == "succeeded", 60, what="it was copied")
