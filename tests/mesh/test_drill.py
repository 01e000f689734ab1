"""Restore drills over real daemons and the real command line."""

from __future__ import annotations

import os
import signal

from mesh.trees import make_large_tree, make_tree
from waiting import wait_for


def scratch_of(mesh, name: str) -> list[str]:
    folder = mesh.state(name) / "scratch"
    return os.listdir(folder) if folder.exists() else []


def test_a_drill_restores_a_sample_where_the_files_came_from_or_elsewhere_and_leaves_nothing(process_mesh, tmp_path):
    mesh = process_mesh(2)
    tree = make_tree(tmp_path / "tree", files=200)
    (mesh.folder / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(mesh.folder / "disk"))
    assert mesh.cli("alpha", "drill", "beta").error_code == "not-found"
    done = mesh.cli("alpha", "backup", f"beta:{tree}", "--to", "any", "--wait").document

    drill = mesh.ok("alpha", "drill", "beta", "--sample", "20", "--wait")
    assert (drill["state"], drill["set"], drill["server"]) == ("succeeded", done["set"], "alpha"), drill
    (attempt,) = mesh.ok("alpha", "job", "show", drill["job"])["runs"][0]["attempts"]
    assert attempt["source"] == "beta"
    mesh.logged(drill["run"], "the sample: 20 of", "has not changed since: no differences")

    here = mesh.ok("alpha", "drill", done["set"], "--sample", "100%", "--on", "alpha", "--wait")
    assert (here["state"], here["exceptions"]) == ("succeeded", []), here
    assert here["files"] >= 200
    assert [row["kind"] for row in mesh.jobs("alpha", "--state", "ended")].count("drill") == 2
    for sample in ("0", "0%", "101%", "some"):
        assert mesh.cli("alpha", "drill", "beta", "--sample", sample).error_code == "invalid-value", sample
    assert mesh.cli("alpha", "drill", "beta", "--on", "nobody").error_code == "not-found"
    assert scratch_of(mesh, "alpha") == scratch_of(mesh, "beta") == []


def test_scratch_folders_of_killed_workers_and_daemons_go_by_themselves(process_mesh, tmp_path):
    mesh = process_mesh(1)
    tree = make_large_tree(tmp_path / "tree")
    (mesh.folder / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(mesh.folder / "disk"))
    mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "any", "--wait")
    begun = mesh.begin("alpha", "drill", "alpha", "--sample", "100%", "--wait")
    left = wait_for(lambda: scratch_of(mesh, "alpha"), 30, what="a drill restores", every_s=0.005)
    for pid in mesh.workers("alpha"):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(left) & set(scratch_of(mesh, "alpha")), 30, what="the scratch of the dead is gone")
    assert begun.end().document["state"] == "succeeded"
    assert scratch_of(mesh, "alpha") == []

    left = mesh.state("alpha") / "scratch" / "left"
    mesh.kill("alpha")
    left.mkdir()
    (left / "file").touch()
    mesh.run("alpha")
    wait_for(lambda: not left.exists(), 30, what="what a killed daemon left is gone")
