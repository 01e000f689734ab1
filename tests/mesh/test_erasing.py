"""Erasing real devices: with the daemon killed in the middle, and what a device is good for afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mesh.process import ProcessMesh
from waiting import wait_for

#: So many objects that a daemon can be killed between the first and the last one.
MANY = 2000


def filled(disk: Path) -> None:
    for number in range(MANY):
        name = f"{number % 256:02x}{number:030x}"
        folder = disk / "packs" / "d" / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_daemon_that_is_killed_while_it_erases_leaves_no_vault_and_goes_on_and_the_next_backup_is_full(
    process_mesh: Callable[..., ProcessMesh], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("content")
    disk.mkdir()
    mesh = process_mesh(1)
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    mesh.ok("alpha", "mediaset", "create", "brief", "--append", "1s", "--protection", "0s", "--keep", "365d")
    backup = ("backup", f"alpha:{tmp_path / 'files'}", "--to", "device:disk", "--media-set", "brief", "--wait")
    first = mesh.ok("alpha", *backup)["set"]
    before = json.loads((disk / "format").read_text().splitlines()[0])["vault"]
    filled(disk)
    assert mesh.cli("alpha", "device", "erase", "disk", "--yes").error_code == "last-good"
    run = wait_for(lambda: begun(mesh), 30, what="the protection is over")
    wait_for(lambda: (disk / "erasing").exists() and not (disk / "format").exists(), 30, what="it has begun")
    mesh.kill("alpha")
    assert (disk / "erasing").exists() and not (disk / "format").exists()
    assert any((disk / "packs").rglob("*")), "it was killed in the middle"

    mesh.run("alpha")
    assert mesh.ok("alpha", "job", "watch", run)["state"] == "succeeded"
    after = json.loads((disk / "format").read_text().splitlines()[0])["vault"]
    assert after != before
    assert not (disk / "erasing").exists()
    assert not [path for path in (disk / "packs").rglob("*") if path.is_file()]
    assert mesh.sets() == []
    states = [row["state"] for row in mesh.ok("alpha", "history", "--kind", "erase")["entries"]]
    assert states == ["succeeded", "interrupted"]
    (device,) = mesh.ok("alpha", "device", "list")["devices"]
    assert (device["state"], device["sets"]) == ("online", 0)
    told = mesh.ok("alpha", "audit", "list", "--what", "device-erased")["entries"]
    assert [each["changed"][0]["old"] for each in told] == [before]

    result = mesh.ok("alpha", *backup, "--type", "incremental")
    assert (result["type"], result["state"]) == ("full", "succeeded")
    assert result["set"] != first
    assert [row["label"] for row in mesh.ok("alpha", "medium", "list")["media"]] == ["ALPHA-000002"]
    assert mesh.ok("alpha", "verify", result["set"], "--wait")["state"] == "succeeded"


def begun(mesh: ProcessMesh) -> str | None:
    answer = mesh.cli("alpha", "device", "erase", "disk", "--yes", "--even-last-good")
    assert answer.status == 0 or answer.error_code == "protected", answer
    return answer.document["run"] if answer.status == 0 else None
