"""The administrator dies: another voter takes the office, with all that was known, and what ran goes on."""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from mesh.process import ProcessMesh
from mesh.test_keeping import MEANING
from mesh.trees import assert_equal
from waiting import one_of_three, wait_for

from caso_mesh.identity.store import IdentityStore, write_context


class Boss:
    """The operator of the first server, with the key on a machine of its own: it asks at ``via``, whoever is in office."""

    def __init__(self, mesh: ProcessMesh, via: str) -> None:
        self.mesh, self.via = mesh, via
        identity = IdentityStore(mesh.state("alpha") / "identity")
        operator = identity.load_operator()
        self.folder = mesh.folder / "home" / ".config" / "caso-mesh" / "contexts" / "boss"
        write_context(
            self.folder,
            endpoints=(mesh.endpoint(via),),
            mesh=identity.load_mesh_id(),
            anchors=identity.load_anchors(),
            key=operator.key,
            chain=operator.chain,
        )

    def ask(self, *words: str, timeout: str = "60s") -> tuple[int, Any]:
        # as a context does it by itself once an hour
        os.utime(self.folder / "anchors.pem", (1, 1))
        argv = (*words, "--context", "boss", "--json", "--timeout", timeout)
        answer = self.mesh.execute([*self.mesh.program_at(self.via), *argv], argv, json_output=True, at=self.via)
        return answer.status, answer.document

    def ok(self, *words: str, timeout: str = "60s") -> Any:
        status, document = self.ask(*words, timeout=timeout)
        assert status == 0, (words, document)
        return document

    def admin(self) -> str | None:
        found: str | None = self.ok("status")["admin"]
        return found


def voting_mesh(mesh: ProcessMesh, count: int) -> Boss:
    """Three voters and members, and an operator that asks at the last one."""
    mesh.start(count, voters=True)
    boss = Boss(mesh, mesh.names[-1])
    wait_for(lambda: len(boss.ok("status")["voters"]) == 3, 30.0, what="three servers vote")
    return boss


def look(path: pathlib.Path, sql: str) -> list[Any]:
    """Rows of a database of a daemon that runs; ``AssertionError`` if it is not there yet. A look does not make it."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as conn:
            return conn.execute(sql).fetchall()
    except sqlite3.OperationalError as error:
        raise AssertionError(f"{path}: {error}") from error


def tables_equal(mesh: ProcessMesh, *voters: str) -> bool:
    found = []
    for name in voters:
        path = mesh.state(name) / "tables" / "tables.db"
        found.append([sorted(map(repr, look(path, f"SELECT * FROM {table}"))) for table in MEANING])
    return all(each == found[0] for each in found)


def logs_equal(mesh: ProcessMesh, *voters: str) -> bool:
    """Whether their logs go as far."""
    far = 'SELECT max("index") FROM entry'
    found = {row for name in voters for row in look(mesh.state(name) / "consensus.db", far)}
    return len(found) == 1 and found != {(None,)}


def followed(mesh: ProcessMesh, *voters: str) -> None:
    """Until the voters hold what the administrator has decided and heard."""
    for same in (logs_equal, tables_equal):
        wait_for(lambda same=same: same(mesh, *voters), 60.0, what=f"{', '.join(voters)} hold the same")


def test_the_office_passes_on_with_history_catalog_and_schedule_also_when_the_dead_ones_disk_is_gone(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 4)
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    (data / "first").write_text("first")
    boss.ok("device", "add", "disk", "--server", "delta", "--path", str(disk))
    done = boss.ok("backup", f"alpha:{data}", "--to", "device:disk", "--wait")

    def audited() -> list[dict[str, Any]]:
        """What was noted comes a moment later."""
        found = [row for row in boss.ok("audit", "list")["entries"] if row["what"] in {"device.add", "backup"}]
        assert {row["what"] for row in found} == {"device.add", "backup"}
        return found

    before = {
        "sets": boss.ok("set", "list"),
        "found": boss.ok("catalog", "find", "first"),
        "log": [line for each in boss.ok("job", "log", done["run"])["attempts"] for line in each["lines"]],
        "audit": wait_for(audited, what="both are in the audit log"),
        "alerts": {row["category"] for row in boss.ok("alert", "list")["alerts"]},
    }
    assert before["found"]["matches"]
    followed(mesh, "alpha", "beta", "gamma")
    mesh.kill("alpha")
    mesh.wipe("alpha")
    boss.ok("pool", "create", "after", "--server", "delta")
    assert boss.admin() in {"beta", "gamma"}
    wait_for(lambda: boss.ok("catalog", "find", "first") == before["found"], 30.0, what="the catalog is there")
    assert boss.ok("set", "list") == before["sets"]
    # the last of what the source's server said may have come between
    lines = [line for attempt in boss.ok("job", "log", done["run"])["attempts"] for line in attempt["lines"]]
    assert before["log"] and all(line in lines for line in before["log"])
    assert audited() == before["audit"]

    def told() -> bool:
        return before["alerts"] <= {row["category"] for row in boss.ok("alert", "list")["alerts"]}

    wait_for(told, 30.0, what="the alerts are there")
    back = mesh.folder / "back"
    restored = boss.ok("restore", done["set"], "--to", f"beta:{back}", "--strip", "--wait", timeout="60s")
    assert restored["state"] == "succeeded"
    assert_equal(data, back)


def test_work_that_runs_is_not_disturbed_and_closed_once(process_mesh: Callable[..., ProcessMesh]) -> None:
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 4)
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    for number in range(40):
        (data / f"{number}").write_bytes(number.to_bytes(2, "big") * 2_000_000)
    boss.ok("device", "add", "disk", "--server", "delta", "--path", str(disk))
    run = boss.ok("backup", f"delta:{data}", "--to", "device:disk")["run"]
    mesh.kill("alpha")
    closed = {"succeeded", "failed", "canceled", "succeeded-with-exceptions"}

    def state() -> str:
        rows = boss.ok("job", "show", run)["runs"]
        return next(row["state"] for row in rows if row["run"] == run)

    wait_for(lambda: state() in closed, 60.0, what="the run is closed", every_s=0.2)
    assert state() == "succeeded"
    shown = next(row for row in boss.ok("job", "show", run)["runs"] if row["run"] == run)
    assert [attempt["state"] for attempt in shown["attempts"]] == ["succeeded"]
    assert len(boss.ok("set", "list")["sets"]) == 1
    # the old one comes back as a voter among others
    mesh.run("alpha")
    wait_for(
        lambda: all(row["connected"] for row in boss.ok("server", "list")["servers"]), 30.0, what="all are connected"
    )
    assert "alpha" in boss.ok("status")["voters"]


def test_a_stopped_administrator_is_deposed_and_believed_by_nobody_when_it_wakes(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    def attempt() -> None:
        mesh = process_mesh(0)
        try:
            stopped_and_woken(mesh)
        finally:
            mesh.stop()

    # a machine that stands still has its voters elect somebody for no better reason
    one_of_three(attempt)


def stopped_and_woken(mesh: ProcessMesh) -> None:
    boss = voting_mesh(mesh, 4)
    mesh.signal("alpha", signal.SIGSTOP)
    boss.ok("pool", "create", "meanwhile", "--server", "delta")
    new = boss.admin()
    assert new in {"beta", "gamma"}
    mesh.signal("alpha", signal.SIGCONT)
    wait_for(
        lambda: all(row["connected"] for row in boss.ok("server", "list")["servers"]), 30.0, what="all are connected"
    )
    assert boss.admin() == new
    assert [row["name"] for row in boss.ok("pool", "list")["pools"]] == ["meanwhile"]
    assert mesh.ok("alpha", "status")["admin"] == new


def test_the_office_is_handed_over_and_voters_come_and_go(process_mesh: Callable[..., ProcessMesh]) -> None:
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 5)
    boss.ok("admin", "transfer", "--to", "gamma")
    wait_for(lambda: boss.admin() == "gamma", 30.0, what="gamma is in office")
    status, refused = boss.ask("voter", "remove", "gamma")
    assert (status, refused["error"]["code"]) == (6, "conflict")
    boss.ok("voter", "remove", "alpha")
    # two would be worse than one: the next one that may takes the place
    wait_for(
        lambda: sorted(boss.ok("status")["voters"]) == ["beta", "delta", "gamma"], 30.0, what="delta votes instead"
    )
    wait_for(lambda: not (mesh.state("alpha") / "consensus.db").exists(), what="alpha has left its seat")
    # and its certificate is believed still
    mesh.terminate("alpha")
    mesh.run("alpha")
    wait_for(lambda: all(row["connected"] for row in boss.ok("server", "list")["servers"]), 30.0, what="alpha is back")
    mesh.kill("gamma")
    boss.ok("pool", "create", "after", "--server", "epsilon")
    assert boss.admin() in {"beta", "delta"}


def witnessed(mesh: ProcessMesh, voter: str, *others: str) -> bool:
    """Whether a voter holds the whole log, and the others have that on their disks."""
    last = 'SELECT max("index") FROM entry'
    ((node, held),) = look(mesh.state(voter) / "consensus.db", f"SELECT node, ({last}) FROM standing")
    seen = f"SELECT \"index\", ({last}) FROM witness WHERE node = '{node}'"
    return all(look(mesh.state(other) / "consensus.db", seen) == [(held, held)] for other in others)


def test_a_voter_whose_disk_was_put_back_goes_on_as_a_member_and_votes_when_it_was_removed_and_added(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    """Its daemon ended with the log once; and added anew at once, it was taken for an old copy of itself again."""
    mesh = process_mesh(0)
    mesh.start(3, voters=True)

    def three_vote() -> bool:
        return len(mesh.ok("alpha", "status")["voters"]) == 3

    wait_for(three_vote, 30.0, what="three servers vote")
    assert mesh.terminate("gamma") == 0
    old = {path: path.read_bytes() for path in mesh.state("gamma").glob("consensus.db*")}
    mesh.run("gamma")
    mesh.wait_connected("gamma")
    for number in range(5):
        mesh.ok("alpha", "pool", "create", f"pool-{number}", "--server", "beta")
    wait_for(lambda: witnessed(mesh, "gamma", "alpha", "beta"), 60.0, what="the others have seen what gamma confirmed")
    mesh.kill("gamma")
    for path in mesh.state("gamma").glob("consensus.db*"):
        path.unlink()
    for path, data in old.items():
        path.write_bytes(data)
    mesh.run("gamma")

    def told() -> bool:
        return any(row["category"] == "voter-lost" for row in mesh.ok("alpha", "alert", "list")["alerts"])

    wait_for(told, 30.0, what="gamma tells that it votes no more")
    for _ in range(3):
        mesh.ok("alpha", "voter", "remove", "gamma")
        mesh.ok("alpha", "voter", "add", "gamma")
        wait_for(three_vote, 30.0, what="three servers vote again")
    assert mesh.is_running("gamma")
    assert [row["name"] for row in mesh.ok("gamma", "pool", "list")["pools"]] == [f"pool-{n}" for n in range(5)]


def test_of_two_servers_the_second_takes_over_by_hand_and_the_first_becomes_a_member(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    mesh = process_mesh(0)
    mesh.start(2, voters=True)
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    (data / "file").write_text("content")
    mesh.ok("alpha", "device", "add", "disk", "--server", "beta", "--path", str(disk))
    done = mesh.ok("alpha", "backup", f"alpha:{data}", "--to", "device:disk", "--wait")
    wait_for((mesh.state("beta") / "consensus.db").exists, 30.0, what="beta has a seat")
    followed(mesh, "alpha", "beta")
    mesh.kill("alpha")
    refused = mesh.cli("beta", "admin", "takeover", "--yes")
    assert refused.error_code == "state-locked", refused
    assert mesh.terminate("beta") == 0
    taken = mesh.ok("beta", "admin", "takeover", "--yes")
    assert taken == {"server": "beta", "lineage": 2}
    mesh.run("beta")
    wait_for(lambda: mesh.ok("beta", "status")["admin"] == "beta", 30.0, what="beta is in office")
    assert [row["id"] for row in mesh.ok("beta", "set", "list")["sets"]] == [done["set"]]
    assert mesh.told("admin-taken-over", at="beta")
    mesh.run("alpha")
    wait_for(lambda: mesh.ok("alpha", "status")["admin"] == "beta", 30.0, what="alpha follows beta")
    back = mesh.folder / "back"
    restored = mesh.ok("beta", "restore", done["set"], "--to", f"alpha:{back}", "--strip", "--wait", "--timeout", "60s")
    assert restored["state"] == "succeeded"
    assert_equal(data, back)


def test_what_a_rebuild_has_found_is_known_to_whoever_is_in_office_next(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    """It went into the tables of the administrator alone, and was forgotten with its office."""
    mesh = process_mesh(0)
    boss = voting_mesh(mesh, 4)
    data, disk = mesh.folder / "data", mesh.folder / "disk"
    data.mkdir()
    disk.mkdir()
    boss.ok("device", "add", "disk", "--server", "delta", "--path", str(disk))
    for text in ("first", "second"):
        (data / text).write_text(text)
        done = boss.ok("backup", f"delta:{data}", "--to", "device:disk", "--wait")
    boss.ok("set", "lock", done["set"])

    def seen() -> dict[str, Any]:
        # how long a set is protected by its medium is told by the journal that is lost
        rows = boss.ok("set", "list")["sets"]
        sets = [{key: value for key, value in row.items() if key not in {"protected_until", "expires"}} for row in rows]
        return {"sets": sets, "found": boss.ok("catalog", "find", "second")["matches"]}

    wait_for(lambda: any(row["locked"] for row in seen()["sets"]), 30.0, what="the lock is told of")
    before = seen()
    assert len(before["sets"]) == 2
    assert before["found"]
    for name in mesh.names:
        assert mesh.terminate(name) == 0
        for path in (*mesh.state(name).glob("tables/*"), *mesh.state(name).glob("catalog/catalog.db*")):
            path.unlink()
    for path in mesh.state("delta").glob("journal.db*"):
        path.unlink()
    for name in mesh.names:
        mesh.run(name)
    wait_for(lambda: all(row["connected"] for row in boss.ok("server", "list")["servers"]), 30.0, what="all are back")
    assert boss.ok("set", "list")["sets"] == []
    (rebuilt,) = boss.ok("catalog", "rebuild", "disk", timeout="30s")["catalogs"]
    assert (rebuilt["added"], rebuilt["lacked"], rebuilt["made"]) == (2, 2, 2)
    wait_for(lambda: seen() == before, 60.0, what="what was found is what was known")
    (again,) = boss.ok("catalog", "rebuild", "disk", timeout="30s")["catalogs"]
    assert (again["added"], again["lacked"]) == (0, 0)
    followed(mesh, "alpha", "beta", "gamma")
    first = boss.admin()
    assert first is not None
    mesh.kill(first)
    mesh.wipe(first)
    wait_for(lambda: seen() == before, 30.0, what="the next administrator knows the same")
    assert boss.admin() != first
