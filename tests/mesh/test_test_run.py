"""Test runs over real daemons and the real command line."""

from __future__ import annotations

import os

from mesh.mounts import MEBIBYTE
from mesh.trees import make_tree


def stored_in(disk) -> list[str]:
    """What jobs have written to a device; copies of the mesh come by themselves."""
    return sorted(
        f"{kind}/{name}"
        for kind in ("packs", "sets", "sessions", "index")
        for _, _, names in os.walk(disk / kind)
        for name in names
    )


def test_a_test_run_predicts_a_backup_and_moves_nothing(process_mesh, tmp_path):
    mesh = process_mesh(2)
    tree = make_tree(tmp_path / "tree", files=200)
    disk = mesh.folder / "disk"
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    backup = ("backup", f"beta:{tree}", "--to", "any", "--type", "incremental", "--wait")

    first = mesh.ok("alpha", *backup, "--test-run")
    assert (first["state"], first["type"], first["set"], first["server"]) == ("succeeded", "full", None, "alpha"), first
    assert first["predicted"]["seconds"] is None
    assert stored_in(disk) == []
    assert mesh.sets() == []
    (attempt,) = mesh.ok("alpha", "job", "show", first["job"])["runs"][0]["attempts"]
    assert attempt["predicted"] == first["predicted"]
    (row,) = mesh.jobs("alpha", "--state", "ended")
    assert (row["kind"], row["source"], row["bytes_read"], row["bytes_stored"]) == ("test-run", "beta", 0, 0)

    done = mesh.cli("alpha", *backup).document
    assert done["predicted"] is None
    assert (first["predicted"]["files"], first["predicted"]["bytes"]) == (done["files"], done["bytes"])
    mesh.cli("alpha", *backup)
    (tree / "new").write_bytes(os.urandom(300_000))
    before = stored_in(disk)
    second = mesh.cli("alpha", *backup, "--test-run").document["predicted"]
    assert (second["files"], second["bytes_new"]) == (done["files"] + 1, 300_000)
    assert 0 < second["seconds"] < 600
    assert stored_in(disk) == before
    shown = mesh.cli("alpha", *backup, "--test-run", json_output=False).stdout
    assert f"{second['files']} files of" in shown, shown


def test_whatever_keeps_a_backup_from_working_is_named(mount, process_mesh, tmp_path):
    mesh = process_mesh(2)
    tree = make_tree(tmp_path / "tree", files=20)
    (tree / "large").write_bytes(os.urandom(20 * MEBIBYTE))
    config = mesh.state("beta") / "config.toml"
    text = config.read_text("utf-8")
    allowed = text.replace('\nread = ["/"]', f'\nread = ["{tree}"]')
    assert allowed != text
    config.write_text(allowed, "utf-8")
    mesh.restart("beta")
    mesh.wait_connected("alpha", "beta")

    def trial(*argv: str, source: str = f"beta:{tree}", to: str = "device:small"):
        return mesh.cli("alpha", "backup", source, "--to", to, "--test-run", "--wait", *argv)

    assert trial(to="any").document["error"]["code"] == "not-ready"
    small = mount("tmpfs", mesh.folder / "small", size=8 * MEBIBYTE)
    mesh.ok("alpha", "device", "add", "small", "--server", "alpha", "--path", str(small), "--low-space", "1MB")
    full = trial().document
    assert (full["state"], full["error"]["code"]) == ("failed", "device-full"), full
    assert full["predicted"]["bytes_new"] > 20 * MEBIBYTE
    assert trial("--exclude", "large").document["error"] is None
    assert stored_in(small) == []

    assert trial(source=f"beta:{tmp_path}").error_code == "not-allowed-here"
    assert trial(source=f"beta:{tree}/nothing").error_code == "source-path-missing"
    for argv, words in (
        (("device", "set", "small", "--low-space", "1GB"), "low on space: small"),
        (("device", "pause", "small"), "paused: small"),
    ):
        mesh.ok("alpha", *argv)
        error = trial().document["error"]
        assert error["code"] == "not-ready"
        assert words in error["message"]
    mesh.kill("beta")
    assert trial("--timeout", "2").error_code in {"server-not-linked", "unavailable"}
    assert mesh.sets() == []
