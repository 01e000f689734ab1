"""Most voters are lost, or the administrator is taken for lost: by hand, in a new lineage, and nobody enrols again."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable
from typing import Any

import netns
import pytest
from mesh.process import ProcessMesh
from mesh.site import SiteMesh
from mesh.test_cut import refused, site_mesh
from mesh.test_failover import Boss, followed, voting_mesh
from mesh.test_recovery import execute, passphrase
from mesh.trees import assert_equal
from waiting import wait_for

__all__ = ["passphrase", "site_mesh"]


def all_connected(boss: Boss) -> bool:
    return all(row["connected"] for row in boss.ok("server", "list")["servers"])


def agree(mesh: ProcessMesh, *servers: str) -> bool:
    """Whether they all know the same administrator."""
    return len(found := {mesh.ok(name, "status")["admin"] for name in servers}) == 1 and None not in found


def a_set(mesh: ProcessMesh, boss: Boss, server: str) -> tuple[str, pathlib.Path, pathlib.Path]:
    """A set of a server's folder on a disk of its own: its id, the folder, the disk."""
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    (data / "file").write_text("content")
    boss.ok("device", "add", "disk", "--server", server, "--path", str(disk))
    return str(boss.ok("backup", f"{server}:{data}", "--to", "device:disk", "--wait")["set"]), data, disk


def told_once(boss: Boss) -> None:
    """No condition is listed twice, whoever was in office when it began."""
    rows = boss.ok("alert", "list")["alerts"]
    counts = collections.Counter((row["category"], row["object"]) for row in rows)
    assert max(counts.values()) == 1, counts


def restored(mesh: ProcessMesh, boss: Boss, set_id: str, server: str, data: pathlib.Path) -> None:
    back = mesh.folder / f"back-{server}"
    done = boss.ok("restore", set_id, "--to", f"{server}:{back}", "--strip", "--wait", timeout="60s")
    assert done["state"] == "succeeded"
    assert_equal(data, back)


def test_one_voter_of_three_goes_on_by_hand_and_a_majority_of_the_old_ones_that_returns_is_told(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 4)
    set_id, data, _ = a_set(mesh, boss, "delta")
    wait_for(lambda: boss.ok("alert", "list")["alerts"], 30.0, what="there is no recovery kit, which is told")
    followed(mesh, "alpha", "beta", "gamma")
    old = boss.admin()
    left, *lost = sorted({"alpha", "beta", "gamma"}, key=lambda name: name == old)
    for name in lost:
        mesh.kill(name)

    def nobody_decides() -> bool:
        status, answer = boss.ask("pool", "create", "nobody", "--server", "delta", timeout="3s")
        assert status == 3, answer
        return bool(answer["error"]["code"] == "no-admin")

    wait_for(nobody_decides, 60.0, what="nobody is in office")
    assert mesh.terminate(left) == 0
    assert mesh.ok(left, "admin", "takeover", "--yes") == {"server": left, "lineage": 2}
    mesh.run(left)
    boss.ok("pool", "create", "after", "--server", "delta")
    assert boss.admin() == left
    # two of the three old voters: they elect one of them, in a lineage that is over
    for name in lost:
        mesh.run(name)
    wait_for(lambda: all_connected(boss), 60.0, what="all are connected")
    wait_for(lambda: len(boss.ok("status")["voters"]) == 3, 60.0, what="they vote again, in the new lineage")
    # (who it is may change by an election, of a machine that stands still: it is one and the same to all)
    wait_for(lambda: agree(mesh, *lost, left, "delta"), 60.0, what="all follow the same one")
    assert [row["name"] for row in boss.ok("pool", "list")["pools"]] == ["after"]
    assert [row["id"] for row in boss.ok("set", "list")["sets"]] == [set_id]
    told_once(boss)
    restored(mesh, boss, set_id, lost[0], data)
    mesh.kill(left)
    boss.ok("pool", "create", "again", "--server", "delta")
    assert boss.admin() in {*lost, "delta"}


def test_of_three_voters_one_disk_and_a_kit_are_enough_and_the_voter_that_is_left_votes_again(
    process_mesh: Callable[..., ProcessMesh], passphrase: str
) -> None:
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 4)
    set_id, data, disk = a_set(mesh, boss, "delta")
    kit = mesh.folder / "kit.txt"
    mesh.ok("alpha", "kit", "create", str(kit), "--passphrase-file", passphrase)
    wait_for(lambda: list((disk / "mesh").glob("*")), 30.0, what="a copy of the mesh lies on the disk")
    followed(mesh, "alpha", "beta", "gamma")
    for name in ("alpha", "gamma"):
        mesh.kill(name)
        mesh.wipe(name)
    words = ("recover", str(disk), "--kit", str(kit), "--passphrase-file", passphrase)
    done = execute(mesh, *words, "--state", str(mesh.state("alpha")))
    assert done.status == 0, done
    assert (done.document["server"], done.document["lineage"]) == ("alpha", 2)
    mesh._only_loopback("alpha")
    mesh.run("alpha")

    def voters() -> list[str]:
        return sorted(mesh.ok("alpha", "status")["voters"])

    wait_for(lambda: voters() == ["alpha", "beta", "delta"], 60.0, what="beta votes again, and delta in gamma's place")
    wait_for(lambda: agree(mesh, "beta", "alpha", "delta"), 60.0, what="all follow the same one")
    assert [row["id"] for row in mesh.ok("alpha", "set", "list")["sets"]] == [set_id]
    back = mesh.folder / "back"
    found = mesh.ok("alpha", "restore", set_id, "--to", f"beta:{back}", "--strip", "--wait", "--timeout", "60s")
    assert found["state"] == "succeeded"
    assert_equal(data, back)
    mesh.kill("alpha")
    wait_for(lambda: mesh.ok("delta", "status")["admin"] in {"beta", "delta"}, 30.0, what="another one is in office")


@pytest.mark.long
@pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable()))
@pytest.mark.skipif(not netns.Site.can_drop(), reason="cuts need nftables")
def test_an_administrator_that_runs_while_another_takes_over_is_told_by_whoever_follows_that_one(
    site_mesh: SiteMesh,
) -> None:
    """It went on deciding, with the same servers, until it reached the other one itself."""
    mesh = site_mesh
    mesh.start(2, voters=True)
    mesh.join("gamma")
    mesh.run("gamma")
    mesh.wait_connected("gamma")
    boss = Boss(mesh, "gamma")
    wait_for((mesh.state("beta") / "consensus.db").exists, 30.0, what="beta has a seat")
    set_id, data, _ = a_set(mesh, boss, "gamma")
    wait_for(lambda: boss.ok("alert", "list")["alerts"], 30.0, what="there is no recovery kit, which is told")
    followed(mesh, "alpha", "beta")
    # alpha and beta do not hear each other; gamma hears both
    mesh.deaf("alpha", "beta")
    mesh.deaf("beta", "alpha")
    assert mesh.terminate("beta") == 0
    assert mesh.ok("beta", "admin", "takeover", "--yes") == {"server": "beta", "lineage": 2}
    assert refused(mesh, "alpha", "still-mine") is None
    mesh.run("beta")

    def follows() -> bool:
        found: dict[str, Any] = mesh.ok("gamma", "status", "--timeout", "2s")
        return bool(found["admin"] == "beta")

    wait_for(follows, 30.0, what="gamma follows beta")

    def decides_nothing() -> bool:
        return "No administrator" in (refused(mesh, "alpha", "lost") or "")

    wait_for(decides_nothing, 30.0, what="alpha decides nothing any more", every_s=0.1)
    assert "took the mesh over by hand" in mesh.log("alpha")
    # also after a restart: the only voter of the old lineage, as it thinks
    assert mesh.terminate("alpha") == 0
    mesh.run("alpha")
    wait_for(lambda: refused(mesh, "alpha", "lost-again") is not None, 30.0, what="alpha is told again", every_s=0.2)
    assert boss.admin() == "beta"
    mesh.heal()
    wait_for(lambda: all_connected(boss), 60.0, what="all are connected")
    assert [row["id"] for row in boss.ok("set", "list")["sets"]] == [set_id]
    told_once(boss)
    restored(mesh, boss, set_id, "alpha", data)
