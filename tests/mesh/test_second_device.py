"""One read, two devices, with real daemons."""

from __future__ import annotations

import os

from mesh.test_spine import disk, restored, with_pool
from mesh.trees import assert_equal
from waiting import wait_for


def test_a_backup_lies_on_the_devices_of_two_servers_and_the_first_is_good_without_the_second(process_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    for number in range(5):
        (tree / f"{number}").write_bytes(os.urandom(200_000))
    mesh = process_mesh(2)
    with_pool(mesh, "alpha", "beta")
    words = ("backup", f"alpha:{tree}", "--to", "device:disk-alpha", "--second-to", "server:beta", "--wait")
    done = mesh.ok("alpha", *words)
    assert (done["state"], done["bytes_read"], done["device"]) == ("succeeded", 1_000_000, "disk-alpha"), done
    (second,) = done["second"]
    assert (second["state"], second["device"], second["server"]) == ("succeeded", "disk-beta", "beta"), done
    rows = {row["id"]: row for row in mesh.sets()}
    assert rows[second["set"]]["copy_of"] == done["set"]
    for set_id in (done["set"], second["set"]):
        assert_equal(tree, restored(mesh, set_id, "alpha", tree))

    (tree / "new").write_bytes(os.urandom(100_000))
    again = mesh.ok("alpha", *words, "--type", "incremental")
    assert (again["type"], again["bytes_read"]) == ("incremental", 100_000), again
    assert again["second"][0]["state"] == "succeeded", again

    # tried again it is a copy of the first set, which is there by then
    mesh.ok("alpha", "error-rule", "create", "again", "--error", "device-error", "--retries", "20", "--every", "1s")
    packs = disk(mesh, "beta") / "packs"
    packs.rename(packs.with_name("away"))
    packs.write_text("in the way")
    (tree / "newer").write_bytes(os.urandom(100_000))
    alone = mesh.cli("alpha", *words, "--type", "incremental")
    assert alone.status == 7, alone
    assert alone.document["state"] == "succeeded", alone
    (second,) = alone.document["second"]
    # it waits to be tried again, or is just now
    assert second["state"] in {"ready", "delegated", "queued", "running"} and second["set"] is None, alone
    runs = mesh.ok("alpha", "job", "show", second["run"])["runs"]
    (shown,) = (row for row in runs if row["run"] == second["run"])
    assert shown["attempts"][0]["error"]["code"] == "device-error", shown
    assert_equal(tree, restored(mesh, alone.document["set"], "alpha", tree))
    packs.unlink()
    packs.with_name("away").rename(packs)

    def copies():
        return [row for row in mesh.sets() if row["copy_of"] == alone.document["set"]]

    (copy,) = wait_for(copies, 30, what="the second set is made as a copy of the first")
    assert copy["run"] == second["run"]
    assert_equal(tree, restored(mesh, copy["id"], "beta", tree))
