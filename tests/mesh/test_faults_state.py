"""The disk of a state folder fills up: nothing new is begun, what cannot be kept is refused, an alert tells it, and with
room again all goes on, without a restart."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from mesh.mounts import MEBIBYTE, Mounter
from mesh.process import ProcessMesh
from mesh.trees import assert_equal, make_large_tree, make_tree
from waiting import wait_for


@contextlib.contextmanager
def full(folder: pathlib.Path) -> Iterator[None]:
    """To the last byte. (One large write would leave room behind.)"""
    ballast = folder / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
        yield
    finally:
        os.close(fd)
        ballast.unlink()


def small_state(mount: Mounter, mesh: ProcessMesh, name: str) -> pathlib.Path:
    """The state folder of a server that is not there yet, on a small file system."""
    mesh.folder.mkdir(exist_ok=True)
    return mount("tmpfs", mesh.state(name), size=64 * MEBIBYTE)


def with_device(mesh: ProcessMesh, server: str) -> pathlib.Path:
    disk = mesh.folder / f"disk-{server}"
    disk.mkdir()
    mesh.ok("alpha", "device", "add", f"disk-{server}", "--server", server, "--path", str(disk))
    return disk


def alerts(mesh: ProcessMesh) -> list[str]:
    """Servers that tell of a full state folder now."""
    rows = mesh.ok("alpha", "alert", "list")["alerts"]
    return [row["server"] for row in rows if row["category"] == "state-full"]


def comes_back(mesh: ProcessMesh, set_id: str, tree: pathlib.Path) -> None:
    back = mesh.folder / f"back-{set_id}"
    done = mesh.ok("alpha", "restore", set_id, "--to", f"alpha:{back}", "--strip", "--wait")
    assert (done["state"], done["exceptions"]) == ("succeeded", [])
    assert_equal(tree, back)


def test_an_administrator_whose_state_folder_is_full_refuses_and_goes_on_with_room(mount, process_mesh, tmp_path):
    small, large = make_tree(tmp_path / "small", files=30), make_large_tree(tmp_path / "large")
    mesh = process_mesh(0)
    state = small_state(mount, mesh, "alpha")
    mesh.start(1)
    disk = with_device(mesh, "alpha")
    first = mesh.ok("alpha", "backup", f"alpha:{small}", "--to", "device:disk-alpha", "--wait")
    pid = mesh.pid("alpha")
    running = mesh.begin("alpha", "backup", f"alpha:{large}", "--to", "device:disk-alpha", "--wait")
    frozen = mesh.freeze("alpha", disk)
    with full(state):
        frozen.thaw()
        refused = mesh.cli("alpha", "pool", "create", "refused")
        assert (refused.status, refused.error_code) == (1, "state-full"), str(refused)
        # what is there can be seen, and an alert finds its way
        assert [row["id"] for row in mesh.sets()] == [first["set"]]
        wait_for(lambda: alerts(mesh) == ["alpha"], 30.0, what="the alert is there", every_s=0.5)
        wait_for(lambda: not mesh.workers("alpha"), 60.0, what="what ran has ended", every_s=0.1)
        assert running.process.poll() is None, "it waits for room, and has not failed"
        assert len(list(disk.glob("sets/*/*"))) == 1
    # without a restart
    done = running.end()
    assert done.status == 0, str(done)
    assert done.document["state"] == "succeeded"
    attempts = mesh.ok("alpha", "job", "show", done.document["run"])["runs"][0]["attempts"]
    assert [row["state"] for row in attempts] == ["interrupted", "succeeded"]
    comes_back(mesh, done.document["set"], large)
    comes_back(mesh, first["set"], small)
    assert mesh.ok("alpha", "pool", "create", "now")["name"] == "now"
    wait_for(lambda: not alerts(mesh), 30.0, what="the alert is cleared", every_s=0.5)
    assert mesh.pid("alpha") == pid
    assert mesh.is_running("alpha")


def test_work_goes_elsewhere_while_the_state_folder_of_a_media_server_is_full(mount, process_mesh, tmp_path):
    tree = make_tree(tmp_path / "tree", files=30)
    mesh = process_mesh(1)
    state = small_state(mount, mesh, "beta")
    mesh.join("beta")
    mesh.run("beta")
    mesh.wait_connected("beta")
    for server in ("alpha", "beta"):
        with_device(mesh, server)
    mesh.ok("alpha", "pool", "create", "both", "--server", "alpha", "--server", "beta")
    pid = mesh.pid("beta")
    with full(state):
        wait_for(lambda: alerts(mesh) == ["beta"], 30.0, what="the alert is there", every_s=0.5)
        for _ in range(3):
            done = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:both", "--wait")
            assert (done["state"], done["server"]) == ("succeeded", "alpha")
        waits = mesh.begin("alpha", "backup", f"alpha:{tree}", "--to", "device:disk-beta", "--wait")
        wait_for(
            lambda: [row["reason"] for row in mesh.jobs() if row["reason"]] == ["device-offline"],
            30.0,
            what="it waits and says why",
            every_s=0.2,
        )
        [device] = [row for row in mesh.ok("alpha", "device", "list")["devices"] if row["name"] == "disk-beta"]
        assert "state folder" in str(device), device
    done = waits.end().document
    assert (done["state"], done["server"]) == ("succeeded", "beta")
    comes_back(mesh, done["set"], tree)
    wait_for(lambda: not alerts(mesh), 30.0, what="the alert is cleared", every_s=0.5)
    assert mesh.pid("beta") == pid
