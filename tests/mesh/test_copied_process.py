"""Copied jobs at real daemons: the administrator is killed, and a copied job runs at its due time all the same."""

from __future__ import annotations

import datetime
from typing import Any

from waiting import wait_for


def test_a_copied_job_runs_at_its_due_time_though_the_administrator_was_killed_and_arrives_once(process_mesh, tmp_path):
    mesh = process_mesh(2)
    disk, tree = tmp_path / "disk", tmp_path / "data"
    disk.mkdir()
    tree.mkdir()
    (tree / "file").write_text("content")
    mesh.ok("alpha", "device", "add", "disk", "--kind", "disk", "--server", "beta", "--path", str(disk))
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)  # ahead of slow commands too
    job = ("--to", "device:disk", "--schedule", f"once {due:%Y-%m-%dT%H:%M:%S}", "--name", "soon")
    mesh.ok("alpha", "backup", f"beta:{tree}", *job)
    mesh.ok("alpha", "job", "hold", "soon")
    mesh.ok("alpha", "copy", "to", "server:beta", "--job", "soon")

    def taken() -> bool:
        (row,) = mesh.ok("alpha", "copy", "list")["copies"]
        return bool(row["state"] == "taken")

    wait_for(taken, 30.0, what="beta has the copy", every_s=0.1)
    mesh.kill("alpha")

    def ended() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = mesh.ok("beta", "job", "list", "--local", "--state", "ended")["jobs"]
        return rows

    (row,) = wait_for(ended, 30.0, what="the copied job has run", every_s=0.2)
    assert (row["name"], row["state"], row["server"]) == ("soon", "succeeded", "beta")
    mesh.run("alpha")
    (backup,) = wait_for(mesh.sets, 30.0, what="its set has arrived", every_s=0.2)
    assert backup["run"] == row["run"]
    (shown,) = mesh.jobs("alpha", "--state", "ended")
    assert (shown["run"], shown["state"], shown["local"]) == (row["run"], "succeeded", True)
