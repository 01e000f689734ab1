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
from caso_mesh.model import requests as q
from caso_mesh.model.commands import SetSetting
from caso_mesh.model.errors import Unavailable
from caso_mesh.model.states import AlertKind

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


async def test_a_server_that_tells_without_end_is_named_its_log_lines_come_to_nothing_and_others_are_heard(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await w.submit(SetSetting("journal-limit-mb", 1.0, node("beta"), None))
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        text, told = "x" * 900, 0

        def lines(level: str, count: int = 20) -> list[facts.Fact]:
            return [facts.JobLog(attempt.id, (facts.LogLine(1, level, text),))] * count

        async def kept(level: str) -> int:
            query = "SELECT count(*) FROM log_line WHERE level = ?"
            return int((await w.tables._rows(query, (level,)))[0][0])

        waits = 0
        while not waits:
            last = w.records("beta", *lines("info"), *lines("warning", 5))
            try:
                await w.push("beta", last)
                told += 20
            except Unavailable:
                waits += 1
            await w.report("gamma", facts.Audit("bob", f"now-{told}", "jobs"))
        (alert,) = w.facts.alerts("server-floods")
        assert (alert.object, alert.alert) == ("beta", AlertKind.WARNING)
        # two MB may be told: half of it in details, a half of the rest in what is more than that
        info, warnings = await kept("info"), await kept("warning")
        assert 600 < info < 700 and info < told * 0.6
        assert info / 4 < warnings < told / 4 * 0.85
        assert len(await w.tables._rows("SELECT 1 FROM audit WHERE what LIKE 'now-%'")) == told // 20 + 1
        assert not [fact for fact in w.facts.audits("journal.push") if fact.outcome == "refused"]
        # what counts is heard, as soon as it may tell something again, and the chain of its journal is whole
        await asyncio.sleep(3600.0)
        made = w.made_set(attempt)
        await w.push("beta", last)
        await w.report("beta", *w.success(attempt, made))
        assert await w.tables.set(made.id) == made
        assert not [fact for fact in w.facts.all if isinstance(fact, facts.AlertCleared)], "for a day it is limited"


async def test_alerts_of_one_category_beyond_a_hundred_in_an_hour_are_not_listed(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for number in range(150):
            own = facts.AlertRaised(f"a{number}", AlertKind.ERROR, "catalog-error", f"{number}", object="beta")
            await w.report("beta", own)
        await w.report("beta", facts.AlertRaised("other", AlertKind.ERROR, "device-error", "gone", object="beta"))
        listed = (await w.ask("alert.list", q.AlertListRequest(server="beta"))).alerts
        assert [row.category for row in listed].count("catalog-error") == 100
        assert {"device-error", "server-floods"} <= {row.category for row in listed}
        await asyncio.sleep(3600.0)
        await w.report("beta", facts.AlertRaised("later", AlertKind.ERROR, "catalog-error", "new", object="beta"))
        listed = (await w.ask("alert.list", q.AlertListRequest(server="beta"))).alerts
        assert listed[0].text == "new" and "server-floods" not in {row.category for row in listed}


async def test_a_server_that_does_not_wait_for_answers_is_told_to_come_again(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        accept, opened = Tables.accept, asyncio.Event()

        async def slow(tables: Tables, server: str, records: list[Record], refused: Any = None) -> Any:
            await opened.wait()
            return await accept(tables, server, records, refused)

        with mock.patch.object(Tables, "accept", slow):
            records = pile(w, "beta", 10)
            pushes = [asyncio.create_task(w.push("beta", records)) for _ in range(50)]
            await asyncio.sleep(1.0)
            assert sum(push.done() for push in pushes) == 47
            opened.set()
            outcomes = await asyncio.gather(*pushes, return_exceptions=True)
        assert sum(isinstance(each, Unavailable) for each in outcomes) == 47
        assert [head.seq for head in await w.tables.cursors(node("beta"))] == [10]
