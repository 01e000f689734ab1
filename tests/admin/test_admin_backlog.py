"""Servers come back with what has piled up: it is taken bit by bit, and what happens now elsewhere is not late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.admin import intake
from caso_mesh.admin.tables import Tables
from caso_mesh.journal import Record
from caso_mesh.model import facts
from caso_mesh.model.errors import Unavailable

pytestmark = pytest.mark.jumping


def pile(w: World, server: str, count: int = 100) -> list[Record]:
    return w.records(server, *(facts.Audit("ann", f"{server}-{number}", "jobs") for number in range(count)))


async def test_what_happens_now_passes_by_what_has_piled_up_elsewhere_and_nobody_waits_with_too_much(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        accept, opened, inside = Tables.accept, asyncio.Event(), list[str]()

        async def slow(tables: Tables, server: str, records: list[Record], refused: Any = None) -> Any:
            if len(records) > 50:
                inside.append(server)
                await opened.wait()
            return await accept(tables, server, records, refused)

        names = [f"s{number:02d}" for number in range(40)]
        piles = {name: pile(w, name) for name in names}
        room = 32 * max(sum(len(record.data) + 300 for record in pile) for pile in piles.values())
        with mock.patch.object(Tables, "accept", slow), mock.patch.object(intake, "MOST_PILED_BYTES", room):
            pushes = {name: asyncio.create_task(w.push(name, piles[name])) for name in names}
            await asyncio.sleep(1.0)
            assert len(inside) == 2, "few are heard at once"
            await asyncio.wait_for(w.report("beta", facts.Audit("bob", "now", "jobs")), 1.0)
            refused = [name for name, push in pushes.items() if push.done()]
            assert len(refused) == 8, "who would wait for long comes again"
            for name in refused:
                with pytest.raises(Unavailable):
                    await pushes[name]
            opened.set()
            await asyncio.gather(*(pushes[name] for name in names if name not in refused))
            for name in refused:
                await w.push(name, piles[name])
        told = [row[0] for row in await w.tables._rows("SELECT what FROM audit WHERE category = 'jobs'")]
        assert told.count("now") == 1
        assert sorted(set(told) - {"now"}) == sorted(f"{name}-{number}" for name in names for number in range(100))
        assert len(told) == 4001
        assert [head.seq for name in names for head in await w.tables.cursors(node(name))] == [100] * 40
