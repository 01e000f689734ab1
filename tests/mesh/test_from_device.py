"""A set is listed, browsed and restored out of its device while the administrator knows nothing of it."""

from __future__ import annotations

import shutil

from mesh.test_spine import with_pool
from mesh.trees import assert_equal, make_tree


def test_a_device_is_enough_to_browse_and_restore_while_tables_catalog_and_journal_are_lost(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=100)
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    set_id = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")["set"]
    listed = mesh.ok("alpha", "catalog", "ls", set_id, str(tree))
    top = mesh.ok("alpha", "catalog", "ls", set_id)
    mesh.terminate("alpha")
    mesh.terminate("beta")
    for name in ("catalog", "tables"):
        shutil.rmtree(mesh.state("alpha") / name)
    for path in mesh.state("beta").glob("journal.db*"):
        path.unlink()
    mesh.run_all("alpha", "beta")
    mesh.wait_connected("beta")
    assert mesh.sets() == []
    assert mesh.cli("alpha", "restore", set_id, "--to", f"alpha:{tmp_path}/no").error_code == "not-found"

    (row,) = mesh.ok("alpha", "set", "list", "--from-device", "disk-beta")["sets"]
    assert (row["id"], row["source"], row["catalog"]) == (set_id, "alpha", False)
    assert mesh.ok("alpha", "set", "list", "--from-device", "disk-beta", "--source", "beta")["sets"] == []
    assert mesh.ok("alpha", "catalog", "ls", set_id, str(tree), "--from-device", "disk-beta") == listed
    found = mesh.ok("alpha", "catalog", "ls", set_id, "--from-device", "disk-beta")
    assert [(each["path"], each["type"]) for each in found["entries"]] == [
        (each["path"], each["type"]) for each in top["entries"]
    ]
    file = next(each["path"] for each in listed["entries"] if each["type"] == "file")
    alone = mesh.ok("alpha", "catalog", "ls", set_id, file, "--escaped", "--from-device", "disk-beta")["entries"]
    assert [(each["path"], each["type"]) for each in alone] == [(file, "file")]
    missing = mesh.cli("alpha", "catalog", "ls", set_id, f"{tree}/not-there", "--from-device", "disk-beta")
    assert (missing.status, missing.error_code) == (5, "path-not-in-set"), missing
    first = mesh.ok("alpha", "catalog", "ls", set_id, str(tree), "--from-device", "disk-beta", "--limit", "3")
    after = first["entries"][-1]["path"]
    rest = mesh.ok(
        "alpha", "catalog", "ls", set_id, str(tree), "--from-device", "disk-beta", "--escaped", "--after", after
    )
    assert first["more"] and first["entries"] + rest["entries"] == listed["entries"]
    back = ("--to", f"alpha:{tmp_path}/back", "--from-device", "disk-beta", "--wait")
    result = mesh.ok("alpha", "restore", set_id[:12], *back)
    assert (result["state"], result["set"]) == ("succeeded", set_id), result
    assert_equal(tree, tmp_path / "back" / str(tree)[1:])
    unknown = mesh.cli("alpha", "restore", "nothing", *back)
    assert unknown.error_code == "not-found"
    assert "on the device disk-beta" in unknown.document["error"]["message"]
    assert mesh.cli("alpha", "restore", set_id, "--from-device", "nowhere").error_code == "not-found"
