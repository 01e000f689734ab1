"""Backups that read from snapshots of a real btrfs, over real daemons."""

from __future__ import annotations

import os
import random
import signal
import subprocess

from mesh.mounts import run
from mesh.process import NAMES
from waiting import wait_for


def prepare(mount, process_mesh, tmp_path, *, size: int):
    """A mesh of two; ``beta`` has a btrfs with files in a subvolume, ``alpha`` the device. The mesh and that folder."""
    pool = mount("btrfs", tmp_path / "pool", size=512 << 20)
    run("btrfs", "-q", "subvolume", "create", f"{pool}/srv")
    data = pool / "srv" / "data"
    data.mkdir()
    for number in range(8):
        (data / f"file-{number}").write_bytes(random.Random(number).randbytes(size // 8))
    mesh = process_mesh(2)
    (mesh.folder / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(mesh.folder / "disk"))
    return mesh, data


def snapshots(data) -> list[str]:
    done = subprocess.run(["btrfs", "subvolume", "list", str(data)], check=True, capture_output=True, text=True)
    return [path for line in done.stdout.splitlines() if "caso-mesh" in (path := line.split(" path ")[1])]


def test_a_far_source_is_read_from_a_snapshot_under_its_own_paths_and_its_own_file_may_forbid_it(
    mount, process_mesh, tmp_path
):
    mesh, data = prepare(mount, process_mesh, tmp_path, size=1 << 20)
    backup = ("backup", f"beta:{data}", "--to", "any", "--wait", "--snapshot")
    full = mesh.ok("alpha", *backup, "required")
    assert full["state"] == "succeeded", full
    mesh.logged(full["attempt"], "takes a read-only btrfs snapshot of")
    assert snapshots(data) == []
    entries = mesh.ok("alpha", "catalog", "ls", full["set"], str(data))["entries"]
    assert [entry["path"] for entry in entries] == [f"{data}/file-{number}" for number in range(8)]
    (data / "file-3").write_bytes(b"changed")
    again = mesh.ok("alpha", *backup, "auto", "--type", "incremental")
    assert (again["type"], again["bytes_read"]) == ("incremental", 7), again
    live = mesh.ok("alpha", *backup, "never", "--type", "incremental")
    assert (live["type"], live["bytes_read"]) == ("incremental", 0), live

    elsewhere = tmp_path / "plain"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("x")
    refused = mesh.cli("alpha", "backup", f"beta:{elsewhere}", "--to", "any", "--wait", "--snapshot", "required")
    assert (refused.status, refused.document["error"]["code"]) == (1, "snapshot-failed"), str(refused)
    told = mesh.ok("alpha", "backup", f"beta:{elsewhere}", "--to", "any", "--wait", "--snapshot", "auto")
    mesh.logged(told["attempt"], f"{elsewhere} is read as it is, without a snapshot")

    assert mesh.terminate("beta") == 0
    mesh._configure("beta", "snapshots", "false")
    mesh.run("beta")
    mesh.wait_connected(*NAMES[:2])
    refused = mesh.cli("alpha", *backup, "required")
    assert (refused.status, refused.document["error"]["code"]) == (1, "snapshot-failed"), str(refused)
    told = mesh.ok("alpha", *backup, "auto")
    mesh.logged(told["attempt"], "its own file does not allow snapshots")


def test_no_snapshot_outlives_a_killed_worker_or_a_killed_daemon_for_long(mount, process_mesh, tmp_path):
    mesh, data = prepare(mount, process_mesh, tmp_path, size=160 << 20)
    disk = mesh.folder / "disk"
    begun = mesh.begin("alpha", "backup", f"beta:{data}", "--to", "any", "--wait", "--snapshot", "required")
    with mesh.freeze("alpha", disk):
        assert len(snapshots(data)) == 1
        for pid in mesh.workers("beta"):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: snapshots(data) == [], 120, what="the snapshot of a killed worker is removed")
    result = begun.end().document
    assert result["state"] == "succeeded", result
    assert snapshots(data) == []

    begun = mesh.begin(
        "alpha", "backup", f"beta:{data}/file-1", f"beta:{data}", "--to", "any", "--wait", "--snapshot", "auto"
    )
    wait_for(lambda: len(snapshots(data)) == 1, 120, what="a snapshot is taken", every_s=0.005)
    workers = mesh.workers("beta")
    mesh.kill("beta")
    for pid in workers:
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 30.0, what="its workers end with it")
    left = snapshots(data)
    mesh.run("beta")
    wait_for(lambda: not set(left) & set(snapshots(data)), 120, what="what the dead left is removed at the start")
    answer = begun.end()
    assert answer.document["state"] == "succeeded", str(answer)
    assert snapshots(data) == []
