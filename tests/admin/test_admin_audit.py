"""The audit log at the administrator: filters, pages, trimming that stays in it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from msgspec import structs

from caso_mesh.admin import audit_chain, audit_rows
from caso_mesh.admin.audit_rows import Wanted
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.telling import prune_tables
from caso_mesh.control.state import ControlState
from caso_mesh.database import Database
from caso_mesh.journal import Record
from caso_mesh.model import audit, facts
from caso_mesh.model import requests as q
from caso_mesh.model.audit_chain import AuditVerify
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
        + audit_chain.MIGRATION
    )
    return c


def entry(what: str = "pool.create", who: str = "ann", **fields: object) -> facts.Audit:
    outcome = str(fields.pop("outcome", "done"))
    return facts.Audit(who, what, audit.category_of(what), outcome, "192.0.2.1:5", dict(fields))


def write(c: sqlite3.Connection, server: str, at_ns: int, fact: facts.Audit) -> None:
    """As the next record of the server's journal."""
    seq = c.execute("SELECT coalesce(max(seq), 0) + 1 FROM audit_chain WHERE server = ?", (server,)).fetchone()[0]
    audit_rows.write(c, server, Record("inc", seq, at_ns, *facts.encode(fact), b""), fact)


def found(c: sqlite3.Connection, limit: int = 100, **wanted: object) -> list[int]:
    return [row.at_ns for row in audit_rows.find(c, Wanted(**wanted), limit)[0]]


def test_entries_are_found_by_each_of_their_parts(rows):
    write(rows, "node-a", 1, entry("pool.create", name="west"))
    write(rows, "node-a", 2, entry("set.delete", who="bob", set="abc"))
    write(rows, "node-b", 3, entry("set.lock", outcome="protected", set="abd"))
    change = audit.Change("setting runs-kept", "", 1, 2)
    write(rows, "node-b", 4, facts.Audit("eve", "settings.set", "settings", changed=(change,)))
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
        write(rows, "node", at_ns, entry(number=number))
    for oldest_first in (False, True):
        seen, after, more = list[int](), None, True
        while more:
            page, more = audit_rows.find(rows, Wanted(after_ns=after, oldest_first=oldest_first), 2)
            seen += [row.fields["number"] for row in page]
            after = page[-1].at_ns
        assert seen == sorted(seen, reverse=not oldest_first) == sorted(range(len(instants)), reverse=not oldest_first)


def test_a_trim_outlives_all_trims_and_late_entries_of_before_it_do_not_come_back(rows):
    for at_ns in (10, 20, 30):
        write(rows, "node", at_ns, entry())
    write(rows, "node", 31, entry("audit.trim", before_ns=25))
    assert audit_rows.trim(rows, 31, facts.AuditTrimmed(25, "ann")) is None
    assert found(rows) == [31, 30]
    write(rows, "away", 24, entry(who="late"))
    write(rows, "away", 12, entry("audit.trim", who="late"))
    assert found(rows) == [31, 30, 12]
    assert audit_rows.trim(rows, 100, facts.AuditTrimmed(99, "ann")) is None
    assert found(rows) == [31, 12]
    assert audit_rows.trim(rows, 100, facts.AuditTrimmed(101, "ann")) is not None
    # an older trim that comes later does not lower what is trimmed
    assert audit_rows.trim(rows, 40, facts.AuditTrimmed(5, "bob")) is None
    write(rows, "away", 98, entry())
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


# --- whether it is what was written ---


def looked(c: sqlite3.Connection, kept_ns: int = 0) -> audit_chain.Found:
    found = audit_chain.Found()
    for chain in audit_chain.chains(c):
        look = audit_chain.Look(chain, found, kept_ns)
        while look.step(c, audit_rows.floor_ns(c)):
            pass
    found.problems += audit_chain.strays(c)
    return found


def test_what_was_written_trimmed_and_whose_time_is_over_is_told_apart(rows, monkeypatch):
    monkeypatch.setattr(audit_chain, "_STEP", 3)
    for at_ns in range(10, 30):
        write(rows, f"node-{at_ns % 2}", at_ns, entry(number=at_ns))
    whole = looked(rows)
    assert (whole.entries, whole.trimmed, whole.aged, whole.problems) == (20, 0, 0, [])
    assert (whole.since_ns, whole.until_ns) == (10, 29)
    write(rows, "node-0", 31, entry("audit.trim", before_ns=15))
    assert audit_rows.trim(rows, 31, facts.AuditTrimmed(15, "ann")) is None
    write(rows, "node-1", 14, entry(who="late"))
    trimmed = looked(rows)
    assert (trimmed.entries, trimmed.trimmed, trimmed.aged, trimmed.problems) == (16, 6, 0, [])
    assert audit_rows.tells_of_trim(rows, 15) and not audit_rows.tells_of_trim(rows, 16)
    audit_rows.forget(rows, 20)
    aged = looked(rows, 20)
    assert (aged.entries, aged.problems, aged.since_ns, aged.until_ns) == (11, [], 14, 31)


HARM = {
    "DELETE FROM audit WHERE at_ns = 20": "the entry is missing, and was not trimmed",
    "UPDATE audit SET who = 'eve' WHERE at_ns = 20": "the entry is not what was written",
    "UPDATE audit SET at_ns = 21 WHERE at_ns = 20": "the entry is not what was written",
    "DELETE FROM audit_link WHERE at_ns = 20": "what came before this entry was changed, or is missing",
    "DELETE FROM audit_link WHERE at_ns = 29": "entries at the end of what it told are missing",
    "DELETE FROM audit_chain": "an entry is in no chain that is known",
    "INSERT INTO audit SELECT 25, server, 'eve', what, category, outcome, source, fields, changed, NULL, NULL FROM audit"
    " WHERE at_ns = 20": "an entry was put in that is in no chain",
    "INSERT INTO audit SELECT 25, server, 'eve', what, category, outcome, source, fields, changed, chain, 4 FROM audit"
    " WHERE at_ns = 20": "an entry was put in",
}


@pytest.mark.parametrize("harm", HARM)
def test_an_entry_that_was_changed_taken_away_or_put_in_is_noticed(rows, harm):
    for number, at_ns in enumerate(range(10, 30)):
        fact = entry(number=at_ns)
        audit_rows.write(rows, "node", Record("inc", 10 + 2 * number, at_ns, *facts.encode(fact), b""), fact)
    assert rows.execute(harm).rowcount >= 1
    assert HARM[harm] in {problem.text for problem in looked(rows).problems}


def test_what_begins_in_the_middle_of_a_journal_is_whole_from_there(rows):
    for seq in range(50, 60):
        fact = entry(number=seq)
        audit_rows.write(rows, "node", Record("inc", seq, seq, *facts.encode(fact), b""), fact)
    assert (looked(rows).entries, looked(rows).problems) == (10, [])
    # the same of whoever holds it from elsewhere on, as far as both hold it
    assert audit_chain.span(rows, "node", "inc") == (50, 59)
    before = audit_chain.digest(rows, "node", "inc", 52, 59)
    rows.execute("DELETE FROM audit_link WHERE seq < 52")
    assert audit_chain.digest(rows, "node", "inc", 50, 59) == before


async def test_it_is_verified_by_a_call_also_against_what_was_noted(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.facts.append(entry("pool.create", name="old"))
        first = await w.ask("audit.verify", AuditVerify())
        assert first.whole and first.entries >= 1 and first.marks and first.trimmed_before is None
        await w.facts.append(entry("pool.create", name="new"))
        again = await w.ask("audit.verify", AuditVerify(first.marks))
        assert again.whole and again.compared == len(first.marks) and again.entries > first.entries
        (mark,) = first.marks
        for wrong in (
            structs.replace(mark, link="00"),
            structs.replace(mark, seq=9999),
            structs.replace(mark, server="x"),
        ):
            found = await w.ask("audit.verify", AuditVerify((wrong,)))
            assert not found.whole and len(found.problems) == 1 and found.compared == 0
        # a trim that nobody asked for
        await asyncio.sleep(10.0)
        await w.facts.append(facts.AuditTrimmed(w.clock.now_ns(), "nobody"))
        await asyncio.sleep(10.0)
        found = await w.ask("audit.verify", AuditVerify())
        assert not found.whole and found.trimmed >= 2 and "none tells of that" in found.problems[0].text
