"""Jobs changed and copied by commands, with a real daemon: the next run does what the job says now."""

from __future__ import annotations

from pathlib import Path

from mesh.process import ProcessMesh


def test_the_next_run_does_what_a_changed_job_says_and_its_copy_what_it_said_before(
    process_mesh, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"file-{name}").write_text(name)
    mesh: ProcessMesh = process_mesh(1)
    (tmp_path / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(tmp_path / "disk"))
    words = (
        "backup",
        f"alpha:{tmp_path / 'one'}",
        "--to",
        "device:disk",
        "--schedule",
        "0 2 1 1 *",
        "--name",
        "yearly",
    )
    mesh.ok("alpha", *words, "--type", "full")
    mesh.ok("alpha", "job", "copy", "yearly", "as-it-was")
    changed = mesh.ok("alpha", "job", "edit", "yearly", "--path", f"alpha:{tmp_path / 'two'}", "--schedule", "none")
    assert (changed["name"], changed["schedule"]) == ("yearly", None)
    for job, name in (("yearly", "two"), ("as-it-was", "one")):
        done = mesh.ok("alpha", "job", "run", job, "--wait")
        listed = mesh.ok("alpha", "catalog", "ls", done["set"], str(tmp_path / name))["entries"]
        assert [Path(row["path"]).name for row in listed] == [f"file-{name}"]
    refused = mesh.cli("alpha", "job", "edit", "yearly", "--path", "alpha:/is/not/there")
    assert (refused.status, refused.document["error"]["code"]) == (5, "source-path-missing")
    told = mesh.audited(what="job.edit", enough=lambda rows: len(rows) >= 2)
    assert [row["outcome"] for row in told] == ["source-path-missing", "done"]
