"""Inventories of real devices: a set that is gone is told of, marked, and known again when it is back."""

from __future__ import annotations

from pathlib import Path

from mesh.process import ProcessMesh
from waiting import wait_for


def test_an_inventory_tells_what_lies_in_a_device_and_what_should_and_does_not(process_mesh, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("content")
    mesh: ProcessMesh = process_mesh(1)
    (tmp_path / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(tmp_path / "disk"))
    words = ("backup", f"alpha:{tmp_path / 'files'}", "--to", "device:disk", "--wait")
    first = str(mesh.ok("alpha", *words)["set"])
    (lost,) = [path for path in (tmp_path / "disk" / "sets").rglob("*") if path.is_file()]
    second = str(mesh.ok("alpha", *words)["set"])
    whole = mesh.ok("alpha", "device", "inventory", "disk", "--wait")
    assert (whole["state"], whole["device"], whole["server"]) == ("succeeded", "disk", "alpha")
    (found,) = whole["inventories"]
    assert (found["sets"], found["missing"], found["added"], found["unreadable"], found["sessions"]) == (2, 0, 0, 0, 0)

    lost.rename(tmp_path / "aside")
    answer = mesh.cli("alpha", "device", "inventory", "--all", "--wait")
    assert answer.status == 7
    assert answer.document["exceptions"][0]["path"] == f"/sets/{first}"
    marked = {row["id"]: row["missing"] for row in mesh.ok("alpha", "set", "list")["sets"]}
    assert marked == {first: True, second: False}
    wait_for(lambda: "sets-missing" in alerts(mesh), 30, what="the alert")
    assert any(line.startswith("1 sets, 0 deleted ones") for line in log(mesh, answer.document["run"]))
    told = mesh.ok("alpha", "history", "--kind", "inventory")["entries"]
    assert [row["run"] for row in told] == [answer.document["run"], whole["run"]]

    (tmp_path / "aside").rename(lost)
    mesh.ok("alpha", "device", "inventory", "disk", "--wait")
    assert not any(row["missing"] for row in mesh.ok("alpha", "set", "list")["sets"])
    wait_for(lambda: "sets-missing" not in alerts(mesh), 30, what="the end of the alert")


def alerts(mesh: ProcessMesh) -> set[str]:
    return {row["category"] for row in mesh.ok("alpha", "alert", "list")["alerts"]}


def log(mesh: ProcessMesh, attempt: str) -> list[str]:
    return [line["text"] for each in mesh.ok("alpha", "job", "log", attempt)["attempts"] for line in each["lines"]]
