"""The spine, with real daemons and the real command line: a mesh forms, the administrator delegates backups of real files to a
pool, they are restored, and nothing is lost when processes are killed in the middle."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

import pytest
from mesh.process import ProcessMesh
from mesh.trees import assert_equal, count_files, make_large_tree, make_tree
from waiting import wait_for


def with_pool(mesh: ProcessMesh, *servers: str, pool: str = "vaults") -> None:
    """A device on each of ``servers``, and a pool of them."""
    for server in servers:
        folder = mesh.folder / f"disk-{server}"
        folder.mkdir()
        view = mesh.ok("alpha", "device", "add", f"disk-{server}", "--server", server, "--path", str(folder))
        assert view["servers"] == [server]
    members = [word for server in servers for word in ("--server", server)]
    assert mesh.ok("alpha", "pool", "create", pool, *members)["servers"] == list(servers)


def disk(mesh: ProcessMesh, server: str) -> pathlib.Path:
    return mesh.folder / f"disk-{server}"


def restored(mesh: ProcessMesh, set_id: str, server: str, tree: pathlib.Path, *paths: str) -> pathlib.Path:
    """Restores a set to ``server`` and gives the place where ``tree`` lies now."""
    base = mesh.folder / f"back-{server}-{time.monotonic_ns()}"
    result = mesh.ok("alpha", "restore", set_id, *paths, "--to", f"{server}:{base}", "--wait")
    assert result["state"] == "succeeded", result
    return base / str(tree).lstrip("/")


def attempts_of(mesh: ProcessMesh, run: str) -> list[dict]:
    """The attempts of a run, in their order."""
    runs = mesh.ok("alpha", "job", "show", run)["runs"]
    return next(row for row in runs if row["run"] == run)["attempts"]


def running_at(mesh: ProcessMesh, *names: str, at: str = "alpha", timeout_s: float = 60.0) -> str:
    """The server at which a run is ``running``, once it is at one of ``names``."""

    def found():
        return next(
            (row["server"] for row in mesh.jobs(at) if row["state"] == "running" and row["server"] in names), None
        )

    return wait_for(found, timeout_s, what=f"a run is running at one of {names}", every_s=0.1)


def test_the_tour_by_hand_from_the_first_server_to_a_restore_on_another(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "alpha" / "data")
    mesh = process_mesh(0)
    mesh.cold = True  # each as a person starts it
    mesh.init("alpha")
    mesh.run("alpha")
    # it listens before it is in office
    status = wait_for(lambda: (found := mesh.ok("alpha", "status"))["admin"] and found, what="alpha is in office")
    assert (status["mesh"], status["server"], status["admin"], status["servers"]) == ("meadow", "alpha", "alpha", 1)
    for name in ("beta", "gamma"):
        mesh.join(name)
        mesh.run(name)
    mesh.wait_connected("alpha", "beta", "gamma")
    servers = {row["name"]: row for row in mesh.ok("beta", "server", "list")["servers"]}
    assert {name for name, row in servers.items() if row["admin"]} == {"alpha"}
    assert {row["state"] for row in servers.values()} == {"enabled"}
    with_pool(mesh, "beta", "gamma")

    first = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")
    assert (first["state"], first["type"]) == ("succeeded", "full"), first
    assert first["server"] in {"beta", "gamma"}
    assert first["device"] == f"disk-{first['server']}"
    assert first["files"] >= 1500
    assert first["attempt"] == f"{first['run']}#1"
    assert first["sets"] == [{"source": "alpha", "set": first["set"], "state": "succeeded"}]
    assert first["bytes_stored"] > 0

    changed = tree / "odd" / "empty"
    changed.write_bytes(b"no longer empty")
    second = mesh.ok(
        *("alpha", "backup", f"alpha:{tree}", "--to", f"device:{first['device']}", "--type", "incremental", "--wait")
    )
    assert (second["state"], second["type"]) == ("succeeded", "incremental"), second
    assert second["bytes_read"] < first["bytes_read"] / 10
    assert second["bytes_stored"] < first["bytes_stored"] / 10

    sets = mesh.sets("gamma")  # asked at any server
    assert {row["id"] for row in sets} == {first["set"], second["set"]}
    for row in sets:
        assert (row["source"], row["server"], row["device"]) == ("alpha", first["server"], first["device"])
        assert row["medium"].startswith(first["server"].upper() + "-")
        assert row["media_set"] == "keep-4-weeks"
        assert row["expires"] and row["protected_until"]
        assert row["locked"] is False
    entries = mesh.ok("alpha", "catalog", "ls", second["set"], str(tree / "odd"))["entries"]
    by_path = {row["path"]: row for row in entries}
    assert by_path[str(changed)]["size"] == len(b"no longer empty")
    assert f"{tree}/odd/not utf-8 \\xff\\xfe" in by_path
    assert f"{tree}/odd/line\\x0abreak \\x5c and ümläut" in by_path
    assert len(entries) == len(list((tree / "odd").iterdir()))
    found = mesh.ok("alpha", "catalog", "find", "file-7.txt")["matches"]
    assert [(row["server"], row["path"].rpartition("/")[2]) for row in found] == [("alpha", "file-7.txt")]
    versions = mesh.ok("alpha", "catalog", "versions", f"alpha:{changed}")["versions"]
    assert sorted(row["size"] for row in versions) == [0, len(b"no longer empty")]
    steady = mesh.ok("alpha", "catalog", "versions", f"alpha:{tree}/odd/large")["versions"]
    assert [(row["sets"], row["first_set"], row["last_set"]) for row in steady] == [(2, first["set"], second["set"])]

    other = "gamma" if first["server"] == "beta" else "beta"
    for server in (first["server"], other, "alpha"):
        back = restored(mesh, second["set"], server, tree)
        assert_equal(tree, back)
    assert subprocess.run(["diff", "-r", "--no-dereference", tree / "doc", back / "doc"], check=False).returncode in (
        (0,) if (tree / "doc").exists() else (2,)
    )
    one = restored(mesh, second["set"], other, tree, str(changed))
    assert (one / "odd" / "empty").read_bytes() == b"no longer empty"
    assert count_files(one) == 1
    old = restored(mesh, first["set"], "alpha", tree, str(changed))
    assert (old / "odd" / "empty").read_bytes() == b""

    verified = mesh.ok("alpha", "verify", second["set"], "--wait")
    assert verified["state"] == "succeeded"
    log = mesh.ok("alpha", "job", "log", first["run"])["attempts"]
    assert [each["attempt"] for each in log] == [first["attempt"]]
    assert log[0]["lines"]
    done = {"token.create", "pool.create", "device.add", "backup", "restore"}
    mesh.audited(enough=lambda entries: done <= {entry["what"] for entry in entries})
    alerts = mesh.ok("alpha", "alert", "list")["alerts"]
    assert [row for row in alerts if row["category"].startswith(("job-", "device-", "server-", "catalog-"))] == []


def test_a_restore_to_where_it_came_from_brings_back_what_was_lost(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")
    lost, kept = tree / "odd" / "hard", tree / "odd" / "large"
    content, before = lost.read_bytes(), kept.read_bytes()
    kept.write_bytes(b"newer")
    for overwrite, expected in (("never", b"newer"), ("older", b"newer"), ("always", before)):
        lost.unlink(missing_ok=True)
        result = mesh.ok("alpha", "restore", made["set"], "--overwrite", overwrite, "--wait")
        assert result["state"] in {"succeeded", "succeeded-with-exceptions"}
        assert lost.read_bytes() == content, overwrite
        assert kept.read_bytes() == expected, overwrite
    assert_equal(tree, restored(mesh, made["set"], "beta", tree))


def test_two_backups_run_on_two_servers_at_once_and_a_third_waits_and_says_why(process_mesh, tmp_path):
    trees = [make_large_tree(tmp_path / f"data-{n}", seed=n) for n in range(3)]
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    mesh.ok("alpha", "settings", "set", "source-concurrency", "8")
    begun = [mesh.begin("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait") for tree in trees[:2]]
    with mesh.freeze("beta", disk(mesh, "beta")), mesh.freeze("gamma", disk(mesh, "gamma")):
        begun.append(mesh.begin("alpha", "backup", f"alpha:{trees[2]}", "--to", "pool:vaults", "--wait"))

        def two_and_one():
            rows = mesh.jobs()
            running = {row["server"] for row in rows if row["state"] == "running"}
            waiting = [row for row in rows if row["state"] == "ready"]
            # why is known once it was planned
            return waiting[0] if running == {"beta", "gamma"} and len(waiting) == 1 and waiting[0]["reason"] else None

        waiting = wait_for(two_and_one, 30.0, what="two run, one waits", every_s=0.1)
        assert waiting["reason"] == "no-idle-device"
        assert sorted(waiting["reason_fields"]["devices"]) == ["disk-beta", "disk-gamma"]
        text = mesh.cli("alpha", "job", "list", json_output=False).stdout
        assert "all devices of the target are busy" in text
        devices = {row["name"]: row["running"] for row in mesh.ok("alpha", "device", "list")["devices"]}
        assert devices == {"disk-beta": 1, "disk-gamma": 1}
    results = [each.end() for each in begun]
    assert [answer.status for answer in results] == [0, 0, 0], results
    assert {answer.document["server"] for answer in results[:2]} == {"beta", "gamma"}
    assert len(mesh.sets()) == 3


@pytest.mark.long
def test_a_scheduled_backup_fires_by_itself(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    made = mesh.ok(
        "alpha",
        *("backup", f"alpha:{tree}", "--to", "pool:vaults", "--schedule", "* * * * *", "--zone", "Europe/Berlin"),
        *("--name", "every-minute"),
    )
    assert made["run"] is None
    assert made["next_due"]
    due = mesh.jobs()
    assert [(row["name"], row["state"], row["reason"]) for row in due] == [("every-minute", "scheduled", "not-yet-due")]
    wait_for(mesh.sets, 90.0, what="the scheduled backup has made a set", every_s=1.0)
    assert mesh.sets()[0]["job"] == made["job"]


def killed_in_the_middle(mesh: ProcessMesh, tree: pathlib.Path) -> tuple[str, str, object]:
    """A backup to the pool whose media server was killed in the middle: run, server, and the command that waits."""
    begun = mesh.begin("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")
    wait_for(lambda: mesh.workers("beta") or mesh.workers("gamma"), 30.0, what="a worker runs", every_s=0.005)
    server = "beta" if mesh.workers("beta") else "gamma"
    with mesh.freeze(server, disk(mesh, server)):
        assert running_at(mesh, "beta", "gamma") == server
        run = mesh.jobs()[0]["run"]
        mesh.kill(server)
    assert mesh.sets() == []
    return run, server, begun


def test_a_media_server_killed_in_the_middle_and_restarted_is_interrupted_and_the_next_attempt_begins(
    process_mesh, tmp_path
):
    tree = make_large_tree(tmp_path / "data")
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    run, server, begun = killed_in_the_middle(mesh, tree)
    mesh.run(server)
    answer = begun.end()
    assert answer.status == 0, str(answer)
    states = [(row["attempt"], row["state"]) for row in attempts_of(mesh, run)]
    assert states == [(f"{run}#1", "interrupted"), (f"{run}#2", "succeeded")]
    assert [row["id"] for row in mesh.sets()] == [answer.document["set"]]
    assert_equal(tree, restored(mesh, answer.document["set"], "gamma", tree))


def test_a_media_server_that_stays_dead_is_recovered_from_by_another_of_the_pool(process_mesh, tmp_path):
    tree = make_large_tree(tmp_path / "data")
    mesh = process_mesh(3)
    with_pool(mesh, "beta", "gamma")
    run, dead, begun = killed_in_the_middle(mesh, tree)
    # of this one alone: the others may be slow, too
    mesh.ok("alpha", "settings", "set", "stalled-after-s", "2s", "--server", dead)
    mesh.ok("alpha", "settings", "set", "no-communication-after-s", "1s", "--server", dead)
    other = "gamma" if dead == "beta" else "beta"
    answer = begun.end()
    assert answer.status == 0, str(answer)
    assert answer.document["server"] == other
    rows = attempts_of(mesh, run)
    assert [(row["state"], row["server"]) for row in rows] == [("recovered", dead), ("succeeded", other)]
    servers = {row["name"]: row["state"] for row in mesh.ok("alpha", "server", "list")["servers"]}
    assert servers == {"alpha": "enabled", dead: "no-communication", other: "enabled"}
    assert_equal(tree, restored(mesh, answer.document["set"], other, tree))
    assert mesh.told("job-recovered")

    mesh.run(dead)
    mesh.wait_connected(dead)
    wait_for(lambda: not mesh.jobs(), what="nothing is left open", every_s=0.1)
    assert [row["id"] for row in mesh.sets()] == [answer.document["set"]]


def test_the_administrator_killed_in_the_middle_has_the_result_once_after_its_restart(process_mesh, tmp_path):
    tree = make_large_tree(tmp_path / "data")
    mesh = process_mesh(3)
    with_pool(mesh, "gamma")
    run = mesh.ok("alpha", "backup", f"beta:{tree}", "--to", "pool:vaults")["run"]
    with mesh.freeze("gamma", disk(mesh, "gamma")):
        running_at(mesh, "gamma")
        mesh.kill("alpha")
    wait_for(lambda: not mesh.workers("gamma"), 30.0, what="the backup ends without the administrator")
    status = mesh.ok("gamma", "status")
    assert status["admin"] is None, "a remembered administrator is shown"
    mesh.run("alpha")
    result = mesh.ok("alpha", "job", "watch", run)
    assert result["state"] == "succeeded", result
    assert [(row["attempt"], row["state"]) for row in attempts_of(mesh, run)] == [(f"{run}#1", "succeeded")]
    assert [row["id"] for row in mesh.sets()] == [result["set"]]
    assert_equal(tree, restored(mesh, result["set"], "alpha", tree))


def test_daemons_that_are_stopped_and_started_go_on_where_they_were(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=50)
    mesh = process_mesh(2)
    with_pool(mesh, "beta")
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")
    for name in ("beta", "alpha"):
        assert mesh.terminate(name) == 0
        assert not (mesh.state(name) / "run" / "endpoint").exists()
    for name in ("alpha", "beta"):
        mesh.run(name)
    mesh.wait_connected("alpha", "beta")
    assert [row["id"] for row in mesh.sets()] == [made["set"]]
    again = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--type", "incremental", "--wait")
    assert (again["type"], again["state"]) == ("incremental", "succeeded")
    assert_equal(tree, restored(mesh, again["set"], "alpha", tree))


def test_nobody_but_its_owner_can_read_a_state_folder(process_mesh):
    mesh = process_mesh(2)
    for name in mesh.names:
        for folder, _, files in os.walk(mesh.state(name)):
            for path in (pathlib.Path(folder), *(pathlib.Path(folder) / file for file in files)):
                assert path.lstat().st_mode & 0o077 == 0, path
