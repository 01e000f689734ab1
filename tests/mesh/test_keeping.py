"""Journals and their copies stay bounded, and nothing is forgotten that somebody may ask for."""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.daemon import Node
from caso_mesh.model import audit as audit_log
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

#: What is told of the mesh. Rows of the same content may have come in another order.
MEANING = ("attempt", "exception", "log_line", "run_wait", "backup_set", "medium", "alert", "audit", "set_lock")


def rows(path: pathlib.Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(sql).fetchall()


def records(path: pathlib.Path) -> int:
    return int(rows(path, "SELECT count(*) FROM journal_record")[0][0])


def tables(mesh: MemoryMesh, name: str) -> pathlib.Path:
    return mesh.state(name) / "tables" / "tables.db"


def meaning(mesh: MemoryMesh, name: str) -> dict[str, list[str]]:
    return {table: sorted(map(repr, rows(tables(mesh, name), f"SELECT * FROM {table}"))) for table in MEANING}


async def three_voters(mesh: MemoryMesh, at: str = "alpha") -> None:
    async def vote() -> bool:
        return len((await mesh.call(at, "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(vote, 60.0, what="three servers vote", every_s=0.1)


async def jobs(mesh: MemoryMesh, count: int, tree: pathlib.Path, at: str = "alpha") -> list[str]:
    done = []
    for number in range(count):
        (tree / "file").write_bytes(b"%d" % number)
        request = q.BackupRequest(sources=(("delta", bytes(tree)),), target="device:disk-delta")
        run = (await mesh.call(at, "backup", request, o.Submitted)).run
        assert run is not None
        assert (await mesh.result(run, at=at)).state == "succeeded"
        done.append(run)
    return done


async def keep(mesh: MemoryMesh, name: str, value: str) -> None:
    await mesh.call("alpha", "settings.set", q.SettingSet(name, value), v.SettingList)


@pytest.mark.jumping
async def test_facts_go_where_they_happened_when_a_majority_holds_them_and_records_when_all_voters_do(
    memory_mesh, tmp_path
):
    tree = tmp_path / "data"
    tree.mkdir()
    mesh = await memory_mesh(4, voters=True)
    await three_voters(mesh)
    await mesh.add_device("delta")
    await keep(mesh, "journal-keep-s", "0s")
    await keep(mesh, "replica-wait-s", "10m")
    done = await jobs(mesh, 20, tree)
    assert records(mesh.state("delta") / "journal.db") > 100
    await asyncio.sleep(120.0)
    await jobs(mesh, 1, tree)
    # a voter that is away holds records up, but no facts: two of three are a majority
    await mesh.stop("gamma")
    before = records(tables(mesh, "alpha"))
    assert before < 60, "all voters hold what came until a minute ago"
    done += await jobs(mesh, 10, tree)
    await asyncio.sleep(120.0)
    await jobs(mesh, 1, tree)
    await asyncio.sleep(120.0)
    assert records(mesh.state("delta") / "journal.db") < 40
    assert records(tables(mesh, "alpha")) > 80
    # longer than it is waited for
    await asyncio.sleep(700.0)
    await jobs(mesh, 1, tree)
    assert records(tables(mesh, "alpha")) < 40
    listed = [row.id for row in await mesh.sets("alpha")]
    logs = [await mesh.call("alpha", "job.log", q.JobLogRequest(run), o.JobLogView) for run in done]
    # it comes back, and is alone with the one that has no tables any more
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    await asyncio.sleep(60.0)
    assert meaning(mesh, "gamma") == meaning(mesh, "beta") == meaning(mesh, "alpha")
    await mesh.stop("beta")
    for left in tables(mesh, "beta").parent.glob("*"):
        left.unlink()
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    await asyncio.sleep(60.0)
    await mesh.stop("alpha")

    async def again() -> bool:
        return (await mesh.call("delta", "status", q.Nothing(), v.StatusView)).admin in {"beta", "gamma"}

    await wait_for_async(again, 60.0, what="another one is in office")
    assert [row.id for row in await mesh.sets("delta")] == listed
    assert [await mesh.call("delta", "job.log", q.JobLogRequest(run), o.JobLogView) for run in done] == logs
    await asyncio.sleep(60.0)
    assert meaning(mesh, "gamma") == meaning(mesh, "beta")
    audits = await mesh.call("delta", "audit.list", audit_log.AuditListRequest(), audit_log.AuditList)
    assert not [row for row in audits.entries if row.what == "journal.skip"], "nothing was lost"


@pytest.mark.jumping
async def test_with_one_voter_facts_stay_where_they_happened_as_long_as_history_is_kept(memory_mesh, tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    (tree / "file").write_text("content")
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await keep(mesh, "journal-keep-s", "0s")
    request = q.BackupRequest(sources=(("beta", bytes(tree)),), target="device:disk-beta")

    async def backup() -> None:
        run = (await mesh.call("alpha", "backup", request, o.Submitted)).run
        assert run is not None
        assert (await mesh.result(run)).state == "succeeded"

    for _ in range(10):
        await backup()
    await asyncio.sleep(3600.0)
    await backup()
    path = mesh.state("beta") / "journal.db"
    assert records(path) > 60
    assert records(tables(mesh, "alpha")) < 30, "the one voter has taken all of it in"
    # its tables are lost: the journals bring everything back
    listed, before = [row.id for row in await mesh.sets()], meaning(mesh, "alpha")
    await mesh.stop("alpha")
    for left in tables(mesh, "alpha").parent.glob("*"):
        left.unlink()
    node = await mesh.run("alpha")
    await wait_for_async(lambda: _in_office(node), 30.0, what="alpha is in office", every_s=0.05)
    await wait_for_async(lambda: _listed(mesh, len(listed)), 60.0, what="the sets are back")
    await asyncio.sleep(60.0)
    after = meaning(mesh, "alpha")
    for table in ("attempt", "log_line", "backup_set"):
        assert after[table] == before[table]


async def _listed(mesh: MemoryMesh, count: int) -> bool:
    return len(await mesh.sets()) == count


async def _in_office(node: Node) -> bool:
    return node.in_office
