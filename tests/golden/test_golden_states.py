"""State folders as programs of earlier feature levels left them: a later one opens them, and everything is there.

``state-N.json`` holds the databases of a mesh of two servers, ``alpha`` in office and ``beta``: two sets of beta on alpha's
disk, a job, a pool, a setting. Its keys were thrown away.
"""

from __future__ import annotations

import asyncio
import base64
import json
import lzma
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from caso_mesh.admin.schema import MIGRATIONS as TABLES
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.consensus.opening import open_replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.reducer import check_state
from caso_mesh.database import Database
from caso_mesh.journal import Journal
from caso_mesh.machine import SystemClock
from caso_mesh.model import facts
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.orders import Orders
from caso_mesh.server.queue import MIGRATIONS as QUEUE
from caso_mesh.server.queue import Queue

FOLDER = Path(__file__).parent
LEVELS = sorted(int(path.stem.removeprefix("state-")) for path in FOLDER.glob("state-*.json"))


class Golden(Struct):
    """``place``: of a database, as in ``alpha/journal.db``. ``sets``: the ids of the two sets, the older one first."""

    level: int
    place: Callable[[str], Path]
    sets: list[str]

    async def orders(self, server: str) -> Orders:
        async with Database.open(self.place(f"{server}/queue.db"), QUEUE, durable=False, same_thread=True) as database:
            orders = await Queue(database).load_orders()
        assert orders is not None
        return orders


@pytest.fixture(params=LEVELS, ids=[f"level-{level}" for level in LEVELS])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    stored = json.loads((FOLDER / f"state-{request.param}.json").read_text("utf-8"))

    def place(name: str) -> Path:
        path = tmp_path / name.replace("/", "-")
        if not path.exists():
            path.write_bytes(lzma.decompress(base64.b64decode(stored["files"][name])))
        return path

    return Golden(request.param, place, stored["sets"])


async def test_the_replicated_log_is_the_same_mesh(golden: Golden) -> None:
    node = (await golden.orders("alpha")).server.id
    async with open_replicated(golden.place("alpha/consensus.db"), node, same_thread=True) as log:
        keeper = ControlKeeper(log)
        tasks = [asyncio.create_task(log.run()), asyncio.create_task(keeper.run())]
        async with asyncio.timeout(30):
            async for leadership in log.leadership_changes():
                if leadership.in_office:
                    break
            await keeper.barrier()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    state = keeper.state
    check_state(state)
    assert {each.name for each in state.server_list()} == {"alpha", "beta"}
    assert {each.name for each in state.device_list()} == {"disk-alpha", "disk-beta"}
    assert "nightly" in {each.name for each in state.jobs.values()}
    assert state.mesh_settings["stalled-after-s"] == 420.0
    assert state.info().feature_level == golden.level <= FEATURE_LEVEL
    assert ("ann" in state.recipients) == (golden.level >= 3)


@pytest.mark.parametrize("server", ["alpha", "beta"])
async def test_orders_and_what_is_worked_on_are_read(golden: Golden, server: str) -> None:
    orders = await golden.orders(server)
    assert (orders.server.name, {row.name for row in orders.roster.rows if row.kind == "node"}) == (
        server,
        {"alpha", "beta"},
    )
    async with Database.open(golden.place(f"{server}/queue.db"), QUEUE, durable=False, same_thread=True) as database:
        held = await Queue(database).attempts()
    assert held == {}, "nothing was under way"


@pytest.mark.parametrize("server", ["alpha", "beta"])
async def test_journals_go_on_and_every_fact_is_understood(golden: Golden, server: str) -> None:
    node = (await golden.orders(server)).server.id
    path = golden.place(f"{server}/journal.db")
    async with Journal.open(path, node, clock=SystemClock(), new_id=lambda: "fresh", same_thread=True) as journal:
        before = await journal.head()
        found = [facts.decode(each.kind, each.data) for each in await journal.records(before.incarnation, 0)]
        assert found
        assert not any(isinstance(each, facts.UnknownFact) for each in found)
        await journal.append([facts.encode(facts.ServerStarted(version="later"))])
        after = await journal.head()
    assert (after.incarnation, after.seq) == (before.incarnation, before.seq + 1)


async def test_a_voters_tables_and_catalog_tell_the_same_sets(golden: Golden) -> None:
    async with Database.open(
        golden.place("alpha/tables/tables.db"), TABLES, durable=False, same_thread=True
    ) as database:
        tables = Tables(database)
        sets = [await tables.set(id_) for id_ in golden.sets]
    assert [(each.source_name, each.device_name, each.type.value) for each in sets if each is not None] == [
        ("beta", "disk-alpha", "full"),
        ("beta", "disk-alpha", "incremental"),
    ]
    async with Catalog.open(golden.place("alpha/catalog/catalog.db"), same_thread=True) as catalog:
        assert catalog.damage is None
        for backup in sets:
            assert backup is not None
            (root,) = backup.roots
            listed: Any = await catalog.list_folder(backup.id, root)
            assert {each.path.rpartition(b"/")[2] for each in listed} == {b"one", b"two"}


def test_the_newest_level_has_left_its_state() -> None:
    """A level leaves a state that its program wrote (``leave_state``), before the next one comes: that must open it."""
    assert LEVELS[-1] >= FEATURE_LEVEL - 1
