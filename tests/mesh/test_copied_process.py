"""Copied jobs at real daemons: the administrator is killed, and a copied job runs at its due time all the same."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from mesh.process import ProcessMesh
from waiting import wait_for


def copied_and_alone(mesh: ProcessMesh, ahead_s: int) -> bool:
    """A mesh of two whose second server has a copy of a job that is due so many seconds from the start; the administrator
    is killed. Whether all that was done before the job was due."""
    disk, tree = mesh.folder / "disk", mesh.folder / "data"
    disk.mkdir()
    tree.mkdir()
    (tree / "file").write_text("content")
    mesh.ok("alpha", "device", "add", "disk", "--kind", "disk", "--server", "beta", "--path", str(disk))
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead_s)
    job = ("--to", "device:disk", "--schedule", f"once {due:%Y-%m-%dT%H:%M:%S}", "--name", "soon")
    if mesh.cli("alpha", "backup", f"beta:{tree}", *job).status:
        return False
    mesh.ok("alpha", "job", "hold", "soon")
    mesh.ok("alpha", "copy", "to", "server:beta", "--job", "soon")

    def taken() -> bool:
        (row,) = mesh.ok("alpha", "copy", "list")["copies"]
        return bool(row["state"] == "taken")

    wait_for(taken, 60.0, what="beta has the copy", every_s=0.1)
    mesh.kill("alpha")
    return datetime.datetime.now(datetime.UTC) < due - datetime.timedelta(seconds=1)


def test_a_copied_job_runs_at_its_due_time_though_the_administrator_was_killed_and_arrives_once(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    # the later ones are for a machine that is slower than the clock
    for ahead_s in (8, 40, 120):
        mesh = process_mesh(2)
        if copied_and_alone(mesh, ahead_s):
            break
        mesh.stop()
    else:
        raise AssertionError("within two minutes nobody could tell of a job and be killed")

    def ended() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = mesh.ok("beta", "job", "list", "--local", "--state", "ended")["jobs"]
        return rows

    (row,) = wait_for(ended, ahead_s + 60.0, what="the copied job has run", every_s=0.2)
    assert (row["name"], row["state"], row["server"]) == ("soon", "succeeded", "beta")
    mesh.run("alpha")
    (backup,) = wait_for(mesh.sets, 60.0, what="its set has arrived", every_s=0.2)
    assert backup["run"] == row["run"]
    (shown,) = wait_for(lambda: mesh.jobs("alpha", "--state", "ended"), what="its run has arrived")
    assert (shown["run"], shown["state"], shown["local"]) == (row["run"], "succeeded", True)
