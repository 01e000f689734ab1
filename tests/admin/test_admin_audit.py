"""The audit log at the administrator: filters, pages, trimming that stays in it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node

from caso_mesh.admin import audit_rows
from caso_mesh.admin.audit_rows import Wanted
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import prune_tables
from caso_mesh.control.state import ControlState
from caso_mesh.database import Database
from caso_mesh.model import audit, facts
from caso_mesh.model import requests as q
from caso_mesh.model.commands import SetSetting
from caso_mesh.model.errors import AwaitingApproval, InvalidValue, NotFound

pytestmark = pytest.mark.jumping
DAY_NS = 86400 * 10**9


@pytest.fixture
def rows() -> sqlite3.Connection:
    c = sqlite3.connect(":memory:")
    c.executescript(
        "CREATE TABLE audit (at_ns INTEGER NOT NULL, server TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,"
        " category TEXT NOT NULL, outcome TEXT NOT NULL, source TEXT NOT NULL, fields BLOB NOT NULL) STRICT;"
        + audit_rows.MIGRATION
    )
    return c


def entry(what: str = "pool.create", who: str = "ann", **fields: object) -> facts.Audit:
    outcome = str(fields.pop("outcome", "done"))
    return facts.Audit(who, what, audit.category_of(what), outcome, "192.0.2.1:5", dict(fields))


def found(c: sqlite3.Connection, limit: int = 100, **wanted: object) -> list[int]:
    return [row.at_ns for row in audit_rows.find(c, Wanted(**wanted), limit)[0]]


def test_entries_are_found_by_each_of_their_parts(rows):
    audit_rows.write(rows, "node-a", 1, entry("pool.create", name="west"))
    audit_rows.write(rows, "node-a", 2, entry("set.delete", who="bob", set="abc"))
    audit_rows.write(rows, "node-b", 3, entry("set.lock", outcome="protected", set="abd"))
    change = audit.Change("setting runs-kept", "", 1, 2)
    audit_rows.write(rows, "node-b", 4, facts.Audit("eve", "settings.set", "settings", changed=(change,)))
    assert found(rows) == [4, 3, 2, 1]
    assert found(rows, oldest_first=True) == [1, 2, 3, 4]
    assert found(rows, category="pool") == found(rows, text="west") == [1]
    assert found(rows, who="bob") == found(rows, what="set.delete") == found(rows, text="abc") == [2]
    assert found(rows, what="set.") == found(rows, text="ab") == [3, 2]
    assert found(rows, outcome="not-done") == found(rows, outcome="protected") == [3]
    assert found(rows, servers={"node-b"}, text="runs-kept") == [4]
    assert found(rows, since_ns=2, until_ns=4) == [3, 2]
    assert audit_rows.find(rows, Wanted(who="eve"), 1)[0][0].changed == (change,)


def test_pages_hold_together_what_is_of_one_instant_and_miss_nothing(rows):
    instants = [1, 2, 2, 2, 3, 4, 4, 5]
    for number, at_ns in enumerate(instants):
        audit_rows.write(rows, "node", at_ns, entry(number=number))
    for oldest_first in (False, True):
        seen, after, more = list[int](), None, True
        while more:
            page, more = audit_rows.find(rows, Wanted(after_ns=after, oldest_first=oldest_first), 2)
            seen += [row.fields["number"] for row in page]
            after = page[-1].at_ns
        assert seen == sorted(seen, reverse=not oldest_first) == sorted(range(len(instants)), reverse=not oldest_first)


def test_a_trim_outlives_all_trims_and_late_entries_of_before_it_do_not_come_back(rows):
    for at_ns in (10, 20, 30):
        audit_rows.write(rows, "node", at_ns, entry())
    audit_rows.write(rows, "node", 31, entry("audit.trim", before_ns=25))
    assert audit_rows.trim(rows, 31, facts.AuditTrimmed(25, "ann")) is None
    assert found(rows) == [31, 30]
    audit_rows.write(rows, "away", 24, entry(who="late"))
    audit_rows.write(rows, "away", 12, entry("audit.trim", who="late"))
    assert found(rows) == [31, 30, 12]
    assert audit_rows.trim(rows, 100, facts.AuditTrimmed(99, "ann")) is None
    assert found(rows) == [31, 12]
    assert audit_rows.trim(rows, 100, facts.AuditTrimmed(101, "ann")) is not None
    # an older trim that comes later does not lower what is trimmed
    assert audit_rows.trim(rows, 40, facts.AuditTrimmed(5, "bob")) is None
    audit_rows.write(rows, "away", 98, entry())
    assert found(rows) == [31, 12]


async def test_old_entries_go_by_the_setting_and_a_database_of_before_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tables.db"
    steps = MIGRATIONS.index(audit_rows.MIGRATION)
    async with Database.open(path, MIGRATIONS[:steps], durable=False, same_thread=True) as database:
        insert = "INSERT INTO audit VALUES (?, 'n', 'ann', 'pool.create', 'pool', 'done', '', x'80')"
        await database.write(lambda c: c.executemany(insert, [(DAY_NS,), (800 * DAY_NS,)]))
    async with Database.open(path, MIGRATIONS, durable=False, same_thread=True) as database:
        tables = Tables(database)
        kept = await tables.ask(lambda c: audit_rows.find(c, Wanted(), 10)[0])
        assert [(row.who, row.changed) for row in kept] == [("ann", ()), ("ann", ())]
        await prune_tables(ControlState(), tables, [], 801 * DAY_NS)
        assert [row.at_ns for row in await tables.ask(lambda c: audit_rows.find(c, Wanted(), 10)[0])] == [800 * DAY_NS]


async def test_it_is_asked_for_and_trimmed_by_calls(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.facts.append(entry("pool.create", name="old"))
        await asyncio.sleep(10.0)
        with pytest.raises(InvalidValue):
            await w.ask("audit.list", audit.AuditListRequest(category="pools"))
        with pytest.raises(NotFound):
            await w.ask("audit.list", audit.AuditListRequest(server="nobody"))
        with pytest.raises(InvalidValue):
            await w.ask("audit.list", audit.AuditListRequest(after="x"))
        with pytest.raises(InvalidValue):
            await w.ask("audit.trim", audit.AuditTrim(w.clock.now_ns() + DAY_NS))
        (old,) = (await w.ask("audit.list", audit.AuditListRequest(what="pool."))).entries
        assert (old.who, old.fields) == ("ann", {"name": "old"})
        gone = await w.ask("audit.trim", audit.AuditTrim(w.clock.now_ns()))
        assert gone.removed >= 1
        assert (await w.ask("audit.list", audit.AuditListRequest(what="pool."))).entries == ()


async def test_only_who_is_in_office_can_tell_of_a_trim(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.facts.append(entry("pool.create"))
        await w.report("beta", facts.AuditTrimmed(w.clock.now_ns(), "beta"))
        assert (await w.ask("audit.list", audit.AuditListRequest(what="pool."))).entries
        (refused,) = w.facts.audits("journal.push")
        assert "trimmed" in refused.fields["reasons"][0]
        assert node("beta") in w.state.servers


async def test_where_two_operators_are_needed_a_trim_needs_them_and_so_does_its_time(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.submit(SetSetting("second-operator", 1.0))
        for call, request in (
            ("audit.trim", audit.AuditTrim(w.clock.now_ns() - 1)),
            ("settings.set", q.SettingSet("audit-keep-s", "30d")),
        ):
            with pytest.raises(AwaitingApproval):
                await w.ask(call, request)
