"""Databases of a state folder that are damaged: put aside, made again, told of; nothing else stops."""

from __future__ import annotations

import pathlib
import sqlite3
from contextlib import closing

import pytest
from mesh.inside import MemoryMesh
from mesh.test_keeping import jobs, meaning, tables, three_voters
from waiting import wait_for_async

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError

#: Tables of which the rows are the same at every voter. (Alerts and what is audited go on.)
SAME = ("attempt", "log_line", "backup_set", "medium", "run_wait")


async def alerts(mesh: MemoryMesh, category: str, at: str = "alpha") -> list[str]:
    found = (await mesh.call(at, "alert.list", q.AlertListRequest(all=True), v.AlertList)).alerts
    return [row.server for row in found if row.category == category]


async def told_of(mesh: MemoryMesh, category: str, servers: list[str], at: str = "alpha") -> None:
    async def told() -> bool:
        return await alerts(mesh, category, at) == servers

    await wait_for_async(told, 120.0, what=f"the alert {category} is there", every_s=0.5)


async def equal(mesh: MemoryMesh, names: tuple[str, ...]) -> None:
    async def same() -> bool:
        found = [meaning(mesh, name) for name in names]
        return all(each[table] == found[0][table] for each in found for table in SAME)

    await wait_for_async(same, 120.0, what=f"the tables of {names} are equal", every_s=1.0)


async def listed_again(mesh: MemoryMesh, sets: list[str], at: str = "alpha") -> None:
    """Whoever asks at once is told of the damage; a moment later all is there."""

    async def all_there() -> bool:
        try:
            return [row.id for row in await mesh.sets(at)] == sets
        except CasoError:
            return False

    await wait_for_async(all_there, 120.0, what="the sets are listed again", every_s=0.5)


def lose_a_table(path: pathlib.Path) -> None:
    """While it is in use: whoever looks next finds nonsense."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA writable_schema = ON")
        conn.execute("UPDATE sqlite_master SET rootpage = 999999 WHERE tbl_name = 'backup_set' AND rootpage > 0")
        (version,) = conn.execute("PRAGMA schema_version").fetchone()
        conn.execute(f"PRAGMA schema_version = {version + 1}")  # or nobody would look again
        conn.commit()


@pytest.mark.jumping
async def test_a_voter_whose_tables_are_damaged_takes_over_those_of_another_one(memory_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    mesh = await memory_mesh(4, voters=True)
    await three_voters(mesh)
    await mesh.add_device("delta")
    await jobs(mesh, 2, tree)
    # found at the start
    await mesh.stop("gamma")
    path = tables(mesh, "gamma")
    path.write_bytes(b"no database" + path.read_bytes()[11:])
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    await told_of(mesh, "tables-damaged", ["gamma"])
    await jobs(mesh, 1, tree)
    await equal(mesh, ("alpha", "beta", "gamma"))
    assert (path.parent / "tables.db.damaged").exists()
    # found while it works: the one in office
    listed = [row.id for row in await mesh.sets()]
    lose_a_table(tables(mesh, "alpha"))
    await listed_again(mesh, listed, "delta")
    await told_of(mesh, "tables-damaged", ["alpha", "gamma"], at="delta")
    await jobs(mesh, 1, tree, at="delta")
    await equal(mesh, ("alpha", "beta", "gamma"))


@pytest.mark.jumping
async def test_one_voter_makes_damaged_tables_again_out_of_the_journals_and_says_what_is_lost(memory_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    (tree / "file").write_text("content")
    mesh = await memory_mesh(3)
    for name in ("beta", "gamma"):
        await mesh.add_device(name)
    for name in ("beta", "gamma", "beta"):
        request = q.BackupRequest(sources=((name, bytes(tree)),), target=f"device:disk-{name}")
        run = (await mesh.call("alpha", "backup", request, o.Submitted)).run
        assert run is not None
        assert (await mesh.result(run)).state == "succeeded"
    sets, before = await mesh.sets(), meaning(mesh, "alpha")
    listed, of_beta = [row.id for row in sets], [row.id for row in sets if row.source == "beta"]
    assert (len(listed), len(of_beta)) == (3, 2)
    lose_a_table(tables(mesh, "alpha"))
    await listed_again(mesh, listed)
    await told_of(mesh, "tables-damaged", ["alpha"])
    after = meaning(mesh, "alpha")
    assert [after[table] for table in SAME] == [before[table] for table in SAME]
    # once more, and what a server has forgotten is gone
    await mesh.stop("gamma")
    with closing(sqlite3.connect(mesh.state("gamma") / "journal.db")) as conn:
        (last,) = conn.execute("SELECT max(seq) FROM journal_record WHERE kind = 'set-published'").fetchone()
        conn.execute(
            "INSERT INTO journal_trace SELECT incarnation, seq, at_ns, hash, rowid FROM journal_record WHERE seq <= ?",
            (last,),
        )
        conn.execute("DELETE FROM journal_record WHERE seq <= ?", (last,))
        conn.execute("UPDATE journal_incarnation SET floor = ?", (last,))
        conn.commit()
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    lose_a_table(tables(mesh, "alpha"))
    await listed_again(mesh, of_beta)
    await told_of(mesh, "facts-lost", ["alpha"])


@pytest.mark.jumping
async def test_a_journal_that_is_damaged_goes_on_without_what_is_lost_and_nothing_else_stops(memory_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    mesh = await memory_mesh(4)
    await mesh.add_device("delta")
    await jobs(mesh, 1, tree)
    listed = [row.id for row in await mesh.sets()]
    for number, sql in enumerate(("UPDATE journal_record SET data = x'00' WHERE seq = 7", None)):
        await mesh.stop("delta")
        path = mesh.state("delta") / "journal.db"
        if sql is None:
            path.write_bytes(path.read_bytes()[:5000])
        else:
            with closing(sqlite3.connect(path)) as conn:
                conn.execute(sql)
                conn.commit()
            lose_a_table(tables(mesh, "alpha"))  # it has to be told everything again
        await mesh.run("delta")
        await mesh.wait_connected("delta")
        await jobs(mesh, 1, tree)
        await told_of(mesh, "journal-damaged", ["delta"] * (number + 1))
        assert set(listed) <= {row.id for row in await mesh.sets()}
        assert len(await mesh.sets()) == 2 + number
