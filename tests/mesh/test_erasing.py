"""Erasing real devices: with the daemon killed in the middle, and what a device is good for afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesh.process import ProcessMesh
from waiting import wait_for

#: So many objects that a daemon can be killed between the first and the last one; more, where it was too quick for that.
MANY = (2000, 10_000, 50_000)


def filled(disk: Path, many: int) -> None:
    for number in range(many):
        name = f"{number % 256:02x}{number:030x}"
        folder = disk / "packs" / "d" / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def vault_of(disk: Path) -> str | None:
    """The id of the vault, ``None`` while there is none."""
    with contextlib.suppress(FileNotFoundError):
        return str(json.loads((disk / "format").read_text().splitlines()[0])["vault"])
    return None


def is_in_the_middle(disk: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # of folders that go while they are looked at
        return (disk / "erasing").exists() and vault_of(disk) is None and any((disk / "packs").rglob("*"))
    return False


def killed_in_the_middle(mesh: ProcessMesh, disk: Path) -> tuple[str, str | None]:
    """Erases the device and kills the daemon meanwhile: the run, and the vault that was there."""
    for many in MANY:
        filled(disk, many)
        before = vault_of(disk)
        run = wait_for(lambda: begun(mesh), what="the protection is over")
        wait_for(
            lambda before=before: is_in_the_middle(disk) or vault_of(disk) not in {before, None},
            what="it has begun",
            every_s=0.002,
        )
        mesh.kill("alpha")
        if is_in_the_middle(disk):
            return run, before
        mesh.run("alpha")
        assert mesh.ok("alpha", "job", "watch", run)["state"] == "succeeded"
    raise AssertionError("it was over each time before the daemon was killed")


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
    assert mesh.cli("alpha", "device", "erase", "disk", "--yes").error_code == "last-good"
    run, before = killed_in_the_middle(mesh, disk)
    mesh.run("alpha")
    assert mesh.ok("alpha", "job", "watch", run)["state"] == "succeeded"
    assert vault_of(disk) not in {before, None}
    assert not (disk / "erasing").exists()
    assert not [path for path in (disk / "packs").rglob("*") if path.is_file()]
    assert mesh.sets() == []
    states = [row["state"] for row in mesh.ok("alpha", "history", "--kind", "erase")["entries"]]
    assert states[:2] == ["succeeded", "interrupted"]

    def is_back() -> bool:
        (device,) = mesh.ok("alpha", "device", "list")["devices"]
        return (device["state"], device["sets"]) == ("online", 0)

    wait_for(is_back, what="the server tells that the device is there")
    told = mesh.audited("--what", "device-erased", enough=lambda rows: any(old(row) == before for row in rows))
    assert [old(each) for each in told].count(before) == 1

    result = mesh.ok("alpha", *backup, "--type", "incremental")
    assert (result["type"], result["state"]) == ("full", "succeeded")
    assert result["set"] != first
    (medium,) = mesh.ok("alpha", "medium", "list")["media"]
    assert medium["label"] != "ALPHA-000001"
    assert mesh.ok("alpha", "verify", result["set"], "--wait")["state"] == "succeeded"


def old(entry: dict[str, Any]) -> str:
    """The vault that was erased."""
    return str(entry["changed"][0]["old"])


def begun(mesh: ProcessMesh) -> str | None:
    answer = mesh.cli("alpha", "device", "erase", "disk", "--yes", "--even-last-good")
    assert answer.status == 0 or answer.error_code == "protected", answer
    return answer.document["run"] if answer.status == 0 else None
