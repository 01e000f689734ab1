"""A lost catalog is made anew from the device alone, and is what it was."""

from __future__ import annotations

import shutil

from mesh.process import ProcessMesh
from mesh.test_spine import with_pool
from mesh.trees import make_tree
from waiting import wait_for


def view_of(mesh: ProcessMesh, tree) -> dict:
    """All that people see of what was backed up."""
    sets = sorted(mesh.sets(), key=lambda row: row["id"])
    return {
        "sets": sets,
        "files": [mesh.ok("alpha", "catalog", "ls", row["id"], str(tree / "odd")) for row in sets],
        "found": mesh.ok("alpha", "catalog", "find", "file-1*"),
        "versions": [
            mesh.ok("alpha", "catalog", "versions", f"alpha:{tree}/odd/{name}") for name in ("empty", "large", "gone")
        ],
    }


def made(result: dict) -> dict:
    """What a run made of one device."""
    assert result["state"] == "succeeded", result
    (catalog,) = result["catalogs"]
    assert catalog["made"] == catalog["lacked"]
    return {key: catalog[key] for key in ("sets", "added", "deleted", "lacked")}


def lose(mesh: ProcessMesh, *names: str) -> None:
    for name in names:
        shutil.rmtree(mesh.state("alpha") / name)


def test_lost_tables_and_catalog_come_back_from_journals_and_devices_as_they_were(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=300)
    (tree / "odd" / "gone").write_text("soon")
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")
    (tree / "odd" / "gone").unlink()
    (tree / "odd" / "empty").write_text("full")
    mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--type", "incremental", "--wait")
    before = view_of(mesh, tree)
    assert [row["catalog"] for row in before["sets"]] == [True, True]

    # nothing is lost: nothing happens
    assert made(mesh.ok("alpha", "catalog", "rebuild", "disk-beta")) == {
        "sets": 2,
        "added": 0,
        "deleted": 0,
        "lacked": 0,
    }

    # the catalog and the tables of the administrator are gone: journals bring the records, the device the catalog
    mesh.terminate("alpha")
    lose(mesh, "catalog", "tables")
    shutil.rmtree(mesh.state("beta") / "segments", ignore_errors=True)
    mesh.run("alpha")
    mesh.wait_connected("beta")
    wait_for(lambda: len(mesh.sets()) == 2, 30, what="journals bring back the records of the sets")
    # a voter that misses its catalog has begun to have it made
    assert made(mesh.ok("alpha", "catalog", "rebuild", "disk-beta"))["added"] == 0
    assert view_of(mesh, tree) == before

    # the journal of the media server as well: only the device knows
    mesh.terminate("alpha")
    mesh.terminate("beta")
    lose(mesh, "catalog", "tables")
    for path in mesh.state("beta").glob("journal.db*"):
        path.unlink()
    mesh.run_all("alpha", "beta")
    mesh.wait_connected("beta")
    assert mesh.sets() == []
    rebuilt = mesh.cli("alpha", "catalog", "rebuild", "disk-beta", "--wait", "--timeout", "30s")
    assert rebuilt.status == 0, rebuilt
    assert made(rebuilt.document) == {"sets": 2, "added": 2, "deleted": 0, "lacked": 2}
    (catalog,) = rebuilt.document["catalogs"]
    assert (catalog["device"], catalog["made"]) == ("disk-beta", 2)
    assert catalog["files"] == sum(row["files"] for row in mesh.sets())
    (told,) = mesh.ok("alpha", "history", "--kind", "catalog", "--limit", "1")["entries"]
    assert told["run"] == rebuilt.document["run"]
    after = view_of(mesh, tree)
    # how long a set is protected counts from the last write to its medium, which only the journal told
    for row in (*before["sets"], *after["sets"]):
        row.pop("protected_until"), row.pop("expires")
    assert after == before
