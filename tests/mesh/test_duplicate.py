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


def test_a_policy_sends_each_full_off_site_and_the_newest_set_when_asked(process_mesh, tmp_path):
    trees = [tmp_path / name for name in ("one", "two")]
    for tree in trees:
        tree.mkdir()
        (tree / "file").write_bytes(os.urandom(300_000))
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    mesh.ok("alpha", "selection", "create", "home", f"alpha:{trees[0]}", f"beta:{trees[1]}")
    mesh.ok("alpha", "policy", "create", "nightly")
    template = ("alpha", "policy", "template", "add", "nightly")
    mesh.ok(*template, "full", "--type", "full", "--to", "device:disk-beta")
    mesh.ok(*template, "offsite", "--type", "duplicate", "--to", "server:gamma", "--media-set", "keep-infinitely")
    mesh.ok("alpha", "policy", "rule", "add", "nightly", "when full succeeds start offsite")
    mesh.ok("alpha", "associate", "home", "nightly")
    mesh.ok("alpha", "job", "run", "home.nightly.full", "--wait")

    def copies() -> dict[str, dict]:
        """By the set that they are copies of."""
        return {row["copy_of"]: row for row in mesh.sets() if row["copy_of"]}

    wait_for(lambda: len(copies()) == 2, 60, what="both sets were copied")
    fulls = {row["id"]: row for row in mesh.sets() if not row["copy_of"]}
    assert copies().keys() == fulls.keys()
    assert {(row["device"], row["media_set"]) for row in copies().values()} == {("disk-gamma", "keep-infinitely")}
    wait_for(lambda: not mesh.jobs(), 30, what="all is done")
    (trees[0] / "more").write_bytes(b"more")
    mesh.ok("alpha", "policy", "rule", "remove", "nightly", "when full succeeds start offsite")
    mesh.ok("alpha", "job", "run", "home.nightly.full", "--wait")
    mesh.ok("alpha", "job", "run", "home.nightly.offsite", "--wait")
    newest = {row["id"]: row["source"] for row in mesh.sets() if not row["copy_of"] and row["id"] not in fulls}
    assert sorted(newest.values()) == ["alpha", "beta"]
    assert copies().keys() == fulls.keys() | newest.keys()

    shutil.rmtree(disk(mesh, "beta"))
    for tree, server in zip(trees, ("alpha", "beta"), strict=True):
        (copy,) = (copies()[id_]["id"] for id_, source in newest.items() if source == server)
        assert_equal(tree, restored(mesh, copy, "gamma", tree))


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
