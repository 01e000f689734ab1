"""Reports of real daemons, asked for at a server that is not in office."""

from __future__ import annotations

from waiting import wait_for


def test_reports_of_a_mesh_in_which_one_backup_succeeded_and_one_failed(process_mesh, tmp_path):
    mesh = process_mesh(2)
    good, gone, vault = tmp_path / "good <b>", tmp_path / "gone", tmp_path / "vault"
    for folder in (good, gone, vault):
        folder.mkdir()
        (folder / "file").write_text("content" * 1000)
    (vault / "file").unlink()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(vault))
    mesh.ok("alpha", "backup", f"alpha:{good}", "--to", "device:disk", "--wait")
    job = mesh.ok(
        "alpha", "backup", f"beta:{gone}", "--to", "device:disk", "--schedule", "0 2 1 1 *", "--name", "nightly"
    )
    (gone / "file").unlink()
    gone.rmdir()
    assert mesh.cli("alpha", "job", "run", job["job"], "--wait").status == 1
    summary = mesh.ok("beta", "report", "show", "overnight-summary")
    assert (summary["good"], summary["verdict"][:1].isdigit()) == (False, True)
    assert "1 of 2 backups ended well" in summary["verdict"]
    page = tmp_path / "resource.html"
    mesh.ok(
        "beta",
        "report",
        "show",
        "backup-size-by-resource",
        "--format",
        "html",
        "--output",
        str(page),
        json_output=False,
    )
    shown = page.read_text("utf-8")
    assert "good &lt;b&gt;" in shown
    assert "good <b>" not in shown

    def told() -> set[str]:
        protection = mesh.ok("beta", "report", "show", "resource-protection")
        return {row["server"] for row in protection["tables"][0]["rows"] if row["path"] is not None}

    wait_for(lambda: told() == {"alpha", "beta"}, what="each has told of its own disks")
