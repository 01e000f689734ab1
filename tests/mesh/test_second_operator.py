"""Destructive acts that need a second operator: one asks, nothing happens, another one asks for the same."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Callable
from typing import Any

from mesh.process import Answer, ProcessMesh
from mesh.test_operators import as_, enrol
from waiting import wait_for


def waits(answer: Answer) -> bool:
    return answer.status == 4 and answer.error_code == "awaiting-approval"


def unprotected(mesh: ProcessMesh, set_id: str) -> bool:
    """Whether it has been for a second: what is shown is rounded down to one."""
    (row,) = [row for row in mesh.ok("alpha", "set", "list")["sets"] if row["id"] == set_id]
    until = datetime.datetime.fromisoformat(row["protected_until"])
    return until + datetime.timedelta(seconds=1) < datetime.datetime.now(datetime.UTC)


def test_what_cannot_be_taken_back_is_done_when_another_operator_asks_for_the_same_and_once(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("content")
    (tmp_path / "disk").mkdir()
    mesh = process_mesh(1)
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(tmp_path / "disk"))
    mesh.ok("alpha", "mediaset", "create", "brief", "--append", "1s", "--protection", "1s", "--keep", "365d")
    # alone nobody could take it off again
    refused = mesh.cli("alpha", "settings", "set", "second-operator", "1")
    assert refused.error_code == "invalid-value"
    for who in ("anna", "ben"):
        enrol(mesh, who, "admin")
    enrol(mesh, "olga", "operator")

    def made() -> str:
        words = ("backup", f"alpha:{tmp_path / 'files'}", "--to", "device:disk", "--media-set", "brief", "--wait")
        return str(mesh.ok("alpha", *words)["set"])

    def told(count: int, **fields: str) -> list[dict[str, Any]]:
        return mesh.audited(enough=lambda rows: len(rows) == count, **fields)

    first, second = made(), made()
    mesh.ok("alpha", "settings", "set", "second-operator", "1")
    assert waits(as_(mesh, "anna", "set", "delete", first))
    assert waits(as_(mesh, "anna", "set", "delete", first)), "the same person is no second one"
    told(2, what="set.delete", outcome="awaiting-approval", who="anna")
    assert as_(mesh, "olga", "set", "delete", first).error_code == "role-too-low"
    assert {row["id"] for row in mesh.ok("alpha", "set", "list")["sets"]} == {first, second}
    assert mesh.told("awaiting-approval")
    assert waits(as_(mesh, "ben", "set", "delete", second)), "anna asked for another one"
    wait_for(lambda: unprotected(mesh, first), 30.0, what="the set is protected no more")
    assert as_(mesh, "ben", "set", "delete", first).status == 0
    assert {row["id"] for row in mesh.ok("alpha", "set", "list")["sets"]} == {second}
    # nobody takes the rule off alone, nor deletes by a shorter retention
    assert waits(as_(mesh, "anna", "mediaset", "edit", "brief", "--keep", "1s"))
    assert waits(as_(mesh, "anna", "settings", "set", "second-operator", "0"))
    assert waits(as_(mesh, "anna", "operator", "create", "carl", "--role", "admin"))
    assert as_(mesh, "anna", "settings", "set", "server-concurrency", "3").status == 0
    told(1, what="settings.set", outcome="awaiting-approval", who="anna")
    assert as_(mesh, "ben", "settings", "set", "second-operator", "0").status == 0
    assert as_(mesh, "anna", "settings", "set", "second-operator", "1").status == 0
    assert waits(as_(mesh, "ben", "settings", "set", "second-operator", "0")), "anna's word was good for once"


def test_the_alert_of_what_awaits_a_second_operator_is_over_once_that_is_decided_and_says_by_whom(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    """They stayed open for ever, also after the second one had asked for the same."""
    mesh = process_mesh(1)
    for who in ("anna", "ben"):
        enrol(mesh, who, "admin")
    mesh.ok("alpha", "settings", "set", "second-operator", "1")

    def alerts(*more: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = mesh.ok("alpha", "alert", "list", *more)["alerts"]
        return [row for row in rows if row["category"] == "awaiting-approval"]

    def decided(about: str) -> dict[str, Any]:
        def row() -> dict[str, Any] | None:
            return next((row for row in alerts("--all") if row["object"].startswith(about) and row["cleared"]), None)

        return wait_for(row, 30.0, what=f"the alert about {about} is over")

    carl, dora = ("operator", "create", "carl", "--role", "admin"), ("operator", "create", "dora", "--role", "viewer")
    for words in (carl, carl, dora):
        assert waits(as_(mesh, "anna", *words))
    wait_for(lambda: len(alerts()) == 3, 30.0, what="all wait")
    mesh.audited(enough=lambda rows: len(rows) == 3, what="operator.create", outcome="awaiting-approval")
    assert as_(mesh, "ben", *carl).status == 0
    assert (decided("carl")["answered_by"], decided("carl")["response"]) == ("ben", "done")
    (left,) = wait_for(lambda: rows if len(rows := alerts()) == 1 else None, 30.0, what="one is open")
    assert left["object"] == "dora"
    # no is no: what anna asked for counts no more
    assert as_(mesh, "ben", "alert", "answer", left["id"], "no").status == 0
    assert decided("dora")["answered_by"] == "ben"
    assert alerts() == []
    assert waits(as_(mesh, "ben", *dora))
