"""Queues on hold, error-handling rules and ending by force, as a person does it at real daemons."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from mesh.process import ProcessMesh
from waiting import wait_for


def row(mesh: ProcessMesh, run: str) -> Any:
    return next(each for each in mesh.ok("alpha", "job", "list", "--state", "all")["jobs"] if each["run"] == run)


def test_a_person_holds_queues_has_failures_tried_again_and_ends_what_hangs(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    mesh, source = process_mesh(2), tmp_path / "source"
    mesh.wait_connected("beta")
    source.mkdir()
    (source / "file").write_bytes(b"some bytes\n" * 1000)
    (tmp_path / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "beta", "--path", str(tmp_path / "disk"))
    backup = ("backup", f"alpha:{source}", "--to", "server:beta", "--name", "nightly", "--schedule", "0 3 1 1 *")
    mesh.ok("alpha", *backup)

    # what a held queue would start waits, and says until when
    mesh.ok("alpha", "server", "hold-queue", "--all")
    run = mesh.ok("alpha", "job", "run", "nightly")["run"]
    wait_for(lambda: row(mesh, run)["reason"] == "queue-on-hold")
    assert row(mesh, run)["reason_ends"].endswith("caso-mesh server release-queue NAME: beta")
    mesh.ok("alpha", "job", "set", run, "--priority", "highest")
    assert row(mesh, run)["priority"] == "highest"
    mesh.ok("alpha", "server", "release-queue", "beta")
    wait_for(lambda: row(mesh, run)["state"] == "succeeded")
    mesh.ok("alpha", "server", "release-queue", "--all")

    # a failure that a rule is for is tried again, then the job is held, and its release tries the run once more
    rule = ("--error", "source-path-missing", "--retries", "1", "--every", "1s", "--then", "hold")
    mesh.ok("alpha", "error-rule", "create", "gone", *rule)
    shutil.move(source, tmp_path / "away")
    run = mesh.ok("alpha", "job", "run", "nightly")["run"]
    wait_for(lambda: row(mesh, run)["reason"] == "on-hold", timeout_s=30)
    attempts = mesh.ok("alpha", "job", "show", "nightly")["runs"][0]["attempts"]
    assert [each["state"] for each in attempts] == ["failed", "failed"]
    assert mesh.told("job-held", "caso-mesh job release nightly")
    shutil.move(tmp_path / "away", source)
    mesh.ok("alpha", "job", "release", "nightly")
    wait_for(lambda: row(mesh, run)["state"] == "succeeded", timeout_s=30)

    # a run whose server is gone ends by force, and not before
    mesh.kill("beta")
    run = mesh.ok("alpha", "job", "run", "nightly")["run"]
    mesh.ok("alpha", "job", "cancel", run, "--force")
    wait_for(lambda: row(mesh, run)["state"] == "canceled")
