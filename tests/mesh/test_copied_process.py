"""Copied jobs at real daemons: the administrator is killed, and a copied job runs at its due time all the same."""

from __future__ import annotations

import datetime
from typing import Any

from mesh.trees import assert_equal, make_tree
from waiting import wait_for


def test_a_copied_job_runs_at_its_due_time_though_the_administrator_was_killed_and_arrives_once(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = process_mesh(2)
    disk = tmp_path / "disk"
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--kind", "disk", "--server", "beta", "--path", str(disk))
    mesh.ok("alpha", "selection", "create", "home", f"beta:{tree}")
    mesh.ok("alpha", "policy", "create", "soon")
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    at = f"once {due:%Y-%m-%dT%H:%M:%S}"
    full = ("--type", "full", "--to", "device:disk", "--schedule", at)
    mesh.ok("alpha", "policy", "template", "add", "soon", "full", *full)
    mesh.ok("alpha", "copy", "to", "server:beta", "--policy", "soon", "--selection", "home")

    def taken() -> bool:
        (row,) = mesh.ok("alpha", "copy", "list")["copies"]
        return bool(row["state"] == "taken")

    wait_for(taken, 10.0, what="beta has the copy", every_s=0.1)
    mesh.kill("alpha")

    def ended() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = mesh.ok("beta", "job", "list", "--local", "--state", "ended")["jobs"]
        return rows

    (row,) = wait_for(ended, 30.0, what="the copied job has run", every_s=0.2)
    assert (row["name"], row["state"], row["server"]) == ("home.soon.full", "succeeded", "beta")
    assert mesh.cli("beta", "job", "list", "--timeout", "1s").error_code == "no-admin"
    assert mesh.ok("beta", "job", "log", row["run"], "--local")["attempts"]

    mesh.run("alpha")
    mesh.wait_connected("beta")
    (backup,) = wait_for(mesh.sets, 20.0, what="its set has arrived", every_s=0.2)
    assert backup["run"] == row["run"]
    (shown,) = mesh.jobs("alpha", "--state", "ended")
    assert (shown["run"], shown["state"], shown["local"]) == (row["run"], "succeeded", True)
    base = tmp_path / "back"
    mesh.ok("alpha", "restore", backup["id"], "--to", f"alpha:{base}", "--wait")
    assert_equal(tree, base / str(tree).lstrip("/"))
