"""File systems that hang, of devices and of sources: the daemon lives, what hangs can be ended and says why, other devices
go on, and when it answers again so does all else."""

from __future__ import annotations

import pathlib

import pytest
from mesh.faulty import Faulty
from mesh.process import ProcessMesh
from mesh.trees import assert_equal, make_large_tree, make_tree
from waiting import wait_for


def add_device(mesh: ProcessMesh, name: str, path: pathlib.Path) -> None:
    path.mkdir(exist_ok=True)
    mesh.ok("alpha", "device", "add", name, "--server", "alpha", "--path", str(path))


def back_up(mesh: ProcessMesh, tree: pathlib.Path, device: str) -> dict:
    return dict(mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", f"device:{device}", "--wait"))


def comes_back(mesh: ProcessMesh, set_id: str, tree: pathlib.Path) -> None:
    back = mesh.folder / f"back-{set_id}"
    done = mesh.ok("alpha", "restore", set_id, "--to", f"alpha:{back}", "--strip", "--wait")
    assert (done["state"], done["exceptions"]) == ("succeeded", [])
    assert_equal(tree, back)


def quickly(mesh: ProcessMesh, *argv: str) -> dict:
    """An answer of a daemon that lives: while something hangs, and a command gives up after 15 s."""
    return dict(mesh.ok("alpha", *argv))


def warnings(mesh: ProcessMesh) -> str:
    [device] = [row for row in quickly(mesh, "device", "list")["devices"] if row["name"] == "disk"]
    return str(device["warnings"])


def test_a_device_that_hangs_holds_up_nobody_else_and_its_job_can_be_canceled(faulty, process_mesh, tmp_path):
    """The place of every device was looked at for every job of the server, by the daemon and by the worker: one that hung
    stopped all. And a worker that was killed was waited for until the file system answered."""
    small, large = make_tree(tmp_path / "small", files=30), make_large_tree(tmp_path / "large")
    disk: Faulty = faulty(tmp_path / "disk")
    mesh = process_mesh(1)
    add_device(mesh, "disk", disk.path)
    add_device(mesh, "good", tmp_path / "good")
    first = back_up(mesh, small, "disk")
    begun = mesh.begin("alpha", "backup", f"alpha:{large}", "--to", "device:disk", "--wait")
    with mesh.freeze("alpha", disk.path):
        disk.fails("all hang")
    with disk.failing("all hang"):
        [row] = mesh.jobs()
        mesh.ok("alpha", "job", "cancel", row["job"])
        assert quickly(mesh, "status")["running"] == 1
        add_device(mesh, "other", tmp_path / "other")
        second = back_up(mesh, tmp_path, "good")  # a source that the device itself lies in
        assert second["state"] == "succeeded"
        restored = mesh.folder / "restored"
        mesh.ok("alpha", "restore", second["set"], str(small), "--to", f"alpha:{restored}", "--wait")
        assert_equal(small, restored / str(small).lstrip("/"))
        wait_for(lambda: "does not answer" in warnings(mesh), 30.0, what="the device is told to hang", every_s=0.2)
        waits = mesh.begin("alpha", "backup", f"alpha:{small}", "--to", "device:disk", "--wait")
        canceled = begun.end()
        assert canceled.document["state"] == "canceled", str(canceled)

        def told() -> bool:
            return any("does not answer" in row["text"] for row in quickly(mesh, "alert", "list")["alerts"])

        wait_for(told, what="an alert says so, too")
        assert waits.process.poll() is None
    assert waits.end().document["state"] == "succeeded"
    assert len(list(disk.real.glob("sets/*/*"))) == 2, "the canceled one published nothing"
    comes_back(mesh, first["set"], small)
    comes_back(mesh, back_up(mesh, large, "disk")["set"], large)


@pytest.mark.long
def test_a_source_that_hangs_can_be_killed_and_other_sources_go_on(faulty, process_mesh, tmp_path):
    tree = make_tree(tmp_path / "tree", files=30)
    source: Faulty = faulty(tmp_path / "source")
    make_tree(source.path / "data", files=30)
    mesh = process_mesh(1)
    add_device(mesh, "disk", tmp_path / "disk")
    add_device(mesh, "good", tmp_path / "good")
    with source.failing("read hang"):
        begun = mesh.begin("alpha", "backup", f"alpha:{source.path}", "--to", "device:disk", "--wait")
        [worker] = wait_for(lambda: mesh.workers("alpha"), 30.0, what="a worker runs")
        assert back_up(mesh, tree, "good")["state"] == "succeeded"
        assert quickly(mesh, "status")["running"] == 1
        assert [worker] == mesh.workers("alpha")
        [row] = mesh.jobs()
        mesh.ok("alpha", "job", "cancel", row["job"])
        assert begun.end().document["state"] == "canceled"
    comes_back(mesh, back_up(mesh, source.path, "disk")["set"], source.path)


def test_files_that_cannot_be_read_are_named_and_short_reads_are_continued(faulty, process_mesh, tmp_path):
    source: Faulty = faulty(tmp_path / "source")
    make_tree(source.path / "data", files=30)
    for name in ("bad-sector", "large-bad-sector"):
        (source.path / name).write_bytes(bytes(range(256)) * (4 if name == "bad-sector" else 40_000))
    mesh = process_mesh(1)
    add_device(mesh, "disk", tmp_path / "disk")
    source.fails("read EIO bad-sector", "read short")
    answer = mesh.cli("alpha", "backup", f"alpha:{source.path}", "--to", "device:disk", "--wait")
    assert (answer.status, answer.document["state"]) == (7, "succeeded-with-exceptions"), str(answer)
    found = {row["path"]: row["reason"] for row in answer.document["exceptions"]}
    assert sorted(found) == [str(source.path / "bad-sector"), str(source.path / "large-bad-sector")]
    assert all("Input/output error" in reason for reason in found.values()), found
    source.fails()
    back = mesh.folder / "back"
    mesh.ok("alpha", "restore", answer.document["set"], "--to", f"alpha:{back}", "--strip", "--wait")
    assert sorted(path.name for path in back.iterdir()) == ["data"]
    assert_equal(source.path / "data", back / "data")


def test_a_device_that_fails_to_write_loses_nothing_and_short_writes_are_continued(faulty, process_mesh, tmp_path):
    small, large = make_tree(tmp_path / "small", files=30), make_large_tree(tmp_path / "large", megabytes=40)
    disk: Faulty = faulty(tmp_path / "disk")
    mesh = process_mesh(1)
    add_device(mesh, "disk", disk.path)
    first = back_up(mesh, small, "disk")
    objects = set(disk.real.glob("*/*/*"))
    for fault in ("write EIO", "fsync EIO", "fsyncdir EIO packs"):
        disk.fails(fault)
        answer = mesh.cli("alpha", "backup", f"alpha:{large}", "--to", "device:disk", "--wait")
        assert answer.document["state"] == "failed", (fault, str(answer))
        assert answer.document["error"]["code"] == "device-error", str(answer)
        assert "Input/output error" in answer.document["error"]["message"]
        assert answer.document["set"] is None
    assert objects <= set(disk.real.glob("*/*/*"))
    disk.fails("write short")
    second = back_up(mesh, large, "disk")
    disk.fails("read short")
    comes_back(mesh, second["set"], large)
    disk.fails()
    comes_back(mesh, first["set"], small)
    for made in (first, second):
        assert mesh.ok("alpha", "verify", made["set"], "--wait")["state"] == "succeeded"
