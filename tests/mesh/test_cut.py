"""Both sides of a cut live on: one decides, the other works off what it was given, and in the end all is told once."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import netns
import pytest
from mesh.site import SiteMesh
from mesh.test_failover import Boss, tables_equal, voting_mesh
from mesh.test_keeping import rows
from waiting import wait_for

pytestmark = [
    pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable())),
    pytest.mark.skipif(not netns.Site.can_drop(), reason="cuts need nftables"),
]


@pytest.fixture
def site_mesh(tmp_path: pathlib.Path) -> Iterator[SiteMesh]:
    with netns.Site(5) as site:
        mesh = SiteMesh(tmp_path / "mesh", site)
        try:
            yield mesh
        finally:
            mesh.heal()
            try:
                mesh.stop()
            finally:
                mesh.show_logs()


def disk(mesh: SiteMesh, boss: Boss, server: str) -> pathlib.Path:
    folder = mesh.folder / f"disk-{server}"
    folder.mkdir()
    boss.ok("device", "add", f"disk-{server}", "--server", server, "--path", str(folder))
    return folder


def data(mesh: SiteMesh, name: str) -> pathlib.Path:
    folder = mesh.folder / f"data-{name}"
    folder.mkdir()
    for number in range(8):
        (folder / str(number)).write_bytes(os.urandom(3_000_000))
    return folder


def run_of(boss: Boss, run: str) -> dict[str, Any]:
    return next(row for row in boss.ok("job", "show", run)["runs"] if row["run"] == run)


def refused(mesh: SiteMesh, at: str, name: str) -> str | None:
    """What an operator is told who wants something changed there; ``None`` if it was done."""
    answer = mesh.cli(at, "pool", "create", name, "--server", at, "--timeout", "1s")
    assert answer.status in {0, 3}, answer
    return None if answer.status == 0 else str(answer.document["error"]["message"])


def begun(mesh: SiteMesh, server: str) -> int:
    """Attempts that began at a server, by its own journal."""
    path = mesh.state(server) / "journal.db"
    return len(rows(path, "SELECT 1 FROM journal_record WHERE kind = 'attempt-started'"))


def all_connected(boss: Boss) -> bool:
    return all(row["connected"] for row in boss.ok("server", "list")["servers"])


def test_the_side_without_a_majority_decides_nothing_and_works_on_the_other_elects_and_all_is_told_once(
    site_mesh: SiteMesh,
) -> None:
    mesh = site_mesh
    boss = voting_mesh(mesh, 5)
    near, far = disk(mesh, boss, "delta"), disk(mesh, boss, "epsilon")
    near_data, far_data = data(mesh, "delta"), data(mesh, "epsilon")
    # one runs and two wait for it, on each side
    near_words = ("backup", f"delta:{near_data}", "--to", "device:disk-delta")
    far_words = ("backup", f"epsilon:{far_data}", "--to", "device:disk-epsilon")
    first = mesh.begin("alpha", *near_words)
    with mesh.freeze("delta", near) as near_workers:
        second = mesh.begin("alpha", *far_words)
        with mesh.freeze("epsilon", far) as far_workers:
            runs = [first.end().document["run"], boss.ok(*near_words)["run"], boss.ok(*near_words)["run"]]
            runs += [second.end().document["run"], boss.ok(*far_words)["run"], boss.ok(*far_words)["run"]]
            delegated = begun(mesh, "delta")
            mesh.cut({"alpha", "delta"})
            # a leader that no majority answers steps down after half a second
            wait_for(lambda: "No administrator" in (refused(mesh, "alpha", "lost") or ""), what="alpha refuses")
            boss.ok("pool", "create", "meanwhile", "--server", "epsilon")
            assert boss.admin() in {"beta", "gamma"}
            far_workers.thaw()
        near_workers.thaw()
        # the far side goes on as if nothing had happened; the near one ends what it has begun, and begins nothing
        for run in runs[3:]:
            wait_for(lambda run=run: run_of(boss, run)["state"] == "succeeded", 60.0, what=f"{run} is closed")
        ended = "SELECT 1 FROM journal_record WHERE kind = 'attempt-ended'"
        wait_for(
            lambda: len(rows(mesh.state("delta") / "journal.db", ended)) == delegated,
            60.0,
            what="delta has ended its work",
        )
        assert begun(mesh, "delta") == delegated
        assert refused(mesh, "alpha", "lost-again") is not None
        assert run_of(boss, runs[0])["state"] not in {"succeeded", "failed"}, "nobody can know here"
    admin = boss.admin()
    mesh.heal()
    wait_for(lambda: all_connected(boss), 60.0, what="all are connected")
    for run in runs:
        wait_for(lambda run=run: run_of(boss, run)["state"] == "succeeded", 60.0, what=f"{run} is closed")
        assert [each["state"] for each in run_of(boss, run)["attempts"]] == ["succeeded"]
    assert len(boss.ok("set", "list")["sets"]) == len(runs)
    assert boss.admin() == admin, "whoever was cut off deposes nobody on return"
    assert [row["name"] for row in boss.ok("pool", "list")["pools"]] == ["meanwhile"]
    wait_for(lambda: tables_equal(mesh, "alpha", "beta", "gamma"), 30.0, what="all voters hold the same")


@pytest.mark.long
def test_an_administrator_that_is_heard_and_hears_nobody_hands_the_office_on(site_mesh: SiteMesh) -> None:
    mesh = site_mesh
    boss = voting_mesh(mesh, 5)
    near = disk(mesh, boss, "delta")
    begun_run = mesh.begin("alpha", "backup", f"delta:{data(mesh, 'delta')}", "--to", "device:disk-delta")
    with mesh.freeze("delta", near):
        run = begun_run.end().document["run"]
        mesh.deaf("alpha", "beta", "gamma", "delta", "epsilon")
        boss.ok("pool", "create", "meanwhile", "--server", "epsilon")
        assert boss.admin() in {"beta", "gamma"}
        assert refused(mesh, "alpha", "lost") is not None
    wait_for(lambda: run_of(boss, run)["state"] == "succeeded", 60.0, what="the run is closed")
    mesh.heal()
    wait_for(lambda: all_connected(boss), 60.0, what="all are connected")
    assert [each["state"] for each in run_of(boss, run)["attempts"]] == ["succeeded"]
    assert len(boss.ok("set", "list")["sets"]) == 1
    wait_for(lambda: tables_equal(mesh, "alpha", "beta", "gamma"), 30.0, what="all voters hold the same")
