"""A server dies with its machine, and a new one takes its place: its jobs go on where they were, its old disk is refused."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from mesh.process import ProcessMesh
from waiting import wait_for


def last_set(mesh: ProcessMesh, job: str, count: int) -> dict[str, Any]:
    """The newest of ``count`` sets of a job."""

    def there() -> list[dict[str, Any]]:
        return [row for row in mesh.sets() if row["job"] == job]

    wait_for(lambda: len(there()) == count, 60.0, what=f"{count} sets of {job}", every_s=0.2)
    return there()[0]


def audit(mesh: ProcessMesh, **fields: str) -> list[dict[str, Any]]:
    rows = mesh.ok("alpha", "audit", "list")["entries"]
    return [row for row in rows if all(row[key] == value for key, value in fields.items())]


def test_a_new_machine_goes_on_where_the_lost_one_was_and_the_lost_one_is_refused(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    mesh = process_mesh(3)
    files, shared = tmp_path / "files", tmp_path / "shared"
    for folder in (files, shared):
        folder.mkdir()
    for number in range(20):
        (files / f"{number}.bin").write_bytes(bytes([number]) * 100_000)
    # the lost machine wrote it as well as others: somebody else opens it for the new one
    mesh.ok("alpha", "device", "add", "shared", "--kind", "shared", "--on", f"beta={shared}", "--on", f"gamma={shared}")
    mesh.ok("alpha", "pool", "create", "west", "--server", "beta", "--server", "gamma")
    mesh.ok("alpha", "settings", "set", "source-concurrency", "3", "--server", "beta")
    made = mesh.ok(
        "alpha", "backup", f"beta:{files}", "--to", "server:gamma", "--schedule", "0 3 1 1 *", "--zone", "UTC",
        "--name", "yearly",
    )  # fmt: skip
    mesh.ok("alpha", "job", "run", "yearly")
    first = last_set(mesh, made["job"], 1)
    assert first["type"] == "full"

    refused = mesh.cli("beta2", "join", mesh.link(), "--replaces", "beta", "--listen", "127.0.0.1:0")
    assert (refused.status, refused.error_code) == (6, "conflict"), refused  # it is there
    mesh.kill("beta")
    gone = {row["name"]: row for row in mesh.ok("alpha", "server", "list")["servers"]}
    wait_for(
        lambda: not {r["name"]: r for r in mesh.ok("alpha", "server", "list")["servers"]}["beta"]["connected"], 60.0,
        what="the link with beta has ended",
    )  # fmt: skip
    mesh.ok(
        "beta2",
        "join",
        mesh.link(),
        "--replaces",
        "beta",
        "--listen",
        "127.0.0.1:0",
        "--never-admin",
        json_output=False,
    )
    mesh._only_loopback("beta2")
    mesh.run("beta2")
    mesh.wait_connected("beta")
    now = {row["name"]: row for row in mesh.ok("alpha", "server", "list")["servers"]}
    assert set(now) == {"alpha", "beta", "gamma"}
    assert now["beta"]["id"] != gone["beta"]["id"]
    assert now["beta"]["pools"] == ["west"]
    assert mesh.ok("alpha", "device", "list")["devices"][0]["paths"] == {"beta": str(shared), "gamma": str(shared)}
    settings = mesh.ok("alpha", "settings", "list", "--server", "beta")["settings"]
    assert next(row["value"] for row in settings if row["name"] == "source-concurrency") == 3

    # what the lost machine left behind is found under the name of the new one
    assert [row["id"] for row in mesh.ok("alpha", "set", "list", "--server", "beta")["sets"]] == [first["id"]]
    wait_for(
        lambda: len(mesh.ok("alpha", "catalog", "ls", first["id"], str(files))["entries"]) == 20,
        what="its catalog is there",
    )
    # its job goes on on top of its last set
    (files / "20.bin").write_bytes(b"new" * 1000)
    mesh.ok("alpha", "job", "run", "yearly")
    second = last_set(mesh, made["job"], 2)
    assert (second["type"], second["source"]) == ("incremental", "beta")
    assert second["bytes_stored"] < first["bytes_stored"]
    wait_for(
        lambda: len(mesh.ok("alpha", "catalog", "find", "*.bin", "--server", "beta")["matches"]) == 21,
        what="the detail of the second set is in the catalog",
    )
    versions = mesh.ok("alpha", "catalog", "versions", f"beta:{files}/3.bin")["versions"]
    assert {row["first_set"] for row in versions} == {first["id"]}
    (files / "3.bin").write_bytes(b"lost")
    back = mesh.ok("alpha", "restore", first["id"], f"{files}/3.bin", "--wait")
    assert (back["state"], (files / "3.bin").read_bytes()) == ("succeeded", bytes([3]) * 100_000)
    # the content keys of the shared device were wrapped to it: it writes there itself
    wait_for(
        lambda: mesh.ok("alpha", "backup", f"beta:{files}", "--to", "server:beta", "--wait")["state"] == "succeeded",
        30.0, what="the new machine writes to the device that it took over", every_s=1.0,
    )  # fmt: skip

    # the old disk is started again
    mesh.run("beta")
    entry = wait_for(lambda: audit(mesh, outcome="removed-from-mesh"), 30.0, what="its refusal is in the audit log")[0]
    assert (entry["who"], entry["what"], entry["category"]) == ("beta", "link", "security")
    assert entry["source"].startswith("127.0.0.1:")
    assert mesh.cli("beta", "token", "create").status != 0
    assert mesh.cli("beta2", "status").status == 0
    assert audit(mesh, what="enrol.join", outcome="done")[0]["fields"] == {"replaces": "beta"}
