"""The administrator's copy of a journal, and how the two sides agree after pushes went wrong or a disk was put back."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.database import Database
from caso_mesh.journal import Head, Journal, Plan, Record, RolledBack, Send, compare, find_fork, replica
from caso_mesh.journal.record import first_hash, hash_of
from caso_mesh.model.errors import JournalChainBroken, JournalGap

SERVER = "alpha"


class StillClock:
    def now_ns(self) -> int:
        return 5

    def monotonic_s(self) -> float:
        return 0.0


@contextmanager
def fresh_replica() -> Iterator[sqlite3.Connection]:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    try:
        conn.execute("PRAGMA foreign_keys=ON")
        for migration in replica.MIGRATIONS:
            conn.executescript(migration)
        yield conn
    finally:
        conn.close()


@pytest.fixture
def conn():
    with fresh_replica() as connection:
        yield connection


def chain(incarnation: str, count: int, salt: str = "", after: Record | None = None) -> list[Record]:
    previous = after.hash if after else first_hash(SERVER, incarnation)
    records = []
    for seq in range(after.seq + 1 if after else 1, count + 1):
        record = Record(incarnation, seq, seq, "fact", f"{salt}{incarnation}{seq}".encode(), b"")
        previous = hash_of(record, previous)
        records.append(msgspec.structs.replace(record, hash=previous))
    return records


def held(conn: sqlite3.Connection, incarnation: str) -> list[Record]:
    return replica.replica_records(conn, SERVER, incarnation, 0, 10_000, 1 << 30)


def test_what_a_copy_lacks_and_nobody_holds_is_skipped_by_number_and_hash(conn):
    facts = chain("inc", 9)
    replica.accept(conn, SERVER, facts[:2])
    lost = Head(facts[5].incarnation, 6, facts[5].hash)
    assert replica.skip(conn, SERVER, lost, 5) == 4
    assert replica.skip(conn, SERVER, lost, 5) == 0
    assert replica.accept(conn, SERVER, facts[6:]) == facts[6:]
    assert replica.accept(conn, SERVER, facts[2:6]) == []  # too late, and it could not be compared
    assert replica.floors(conn) == [(SERVER, facts[0].incarnation, 6)]
    assert replica.place_behind(conn, [(SERVER, facts[0].incarnation, 5)]).pruned
    assert not replica.place_behind(conn, [(SERVER, facts[0].incarnation, 6)]).pruned


# --- accept ----------------------------------------------------------------------------------------------------------


def test_nothing_is_known_of_a_new_server(conn):
    assert replica.cursors(conn, SERVER) == []
    assert replica.cursor(conn, SERVER, "inc") == Head("inc", 0, first_hash(SERVER, "inc"))


def test_new_records_are_stored_and_duplicates_dropped(conn):
    records = chain("inc", 6)
    assert replica.accept(conn, SERVER, records[:3]) == records[:3]
    assert replica.accept(conn, SERVER, records[:3]) == []
    assert replica.accept(conn, SERVER, records[1:5]) == records[3:5]
    assert replica.accept(conn, SERVER, [*records[4:], *records[2:]]) == records[5:]
    assert held(conn, "inc") == records
    assert replica.cursor(conn, SERVER, "inc") == Head("inc", 6, records[5].hash)


def test_cursors_are_in_the_order_of_arrival_and_apart_by_server(conn):
    later, earlier = chain("a", 2), chain("z", 3)
    replica.accept(conn, SERVER, [*earlier, *later])
    assert [(head.incarnation, head.seq) for head in replica.cursors(conn, SERVER)] == [("z", 3), ("a", 2)]
    assert replica.cursors(conn, "beta") == []


def test_another_servers_records_do_not_fit(conn):
    with pytest.raises(JournalChainBroken):
        replica.accept(conn, "beta", chain("inc", 1))


def test_a_gap_stores_nothing_and_says_what_comes_next(conn):
    records = chain("inc", 6)
    replica.accept(conn, SERVER, records[:2])
    with pytest.raises(JournalGap) as caught:
        replica.accept(conn, SERVER, [records[2], records[4]])
    assert (caught.value.fields["expected"], caught.value.fields["found"]) == (4, 5)
    assert held(conn, "inc") == records[:2]


@pytest.mark.parametrize(
    "change", [{"data": b"other"}, {"kind": "other"}, {"at_ns": 99}, {"hash": bytes(32)}, {"incarnation": "other"}]
)
@pytest.mark.parametrize("known", [0, 1, 2, 3, 6])
def test_a_changed_record_is_refused_whether_it_is_new_or_held(conn, change, known):
    records = chain("inc", 6)
    replica.accept(conn, SERVER, records[:known])
    push = [records[2], *records[3:]] if known >= 2 else list(records)
    place = push.index(records[2])
    push[place] = msgspec.structs.replace(push[place], **change)
    with pytest.raises((JournalChainBroken, JournalGap)) as caught:
        replica.accept(conn, SERVER, push)
    assert isinstance(caught.value, JournalGap) == ("incarnation" in change)
    assert held(conn, "inc") == records[:known]


def test_a_record_of_number_zero_is_refused(conn):
    record = chain("inc", 1)[0]
    with pytest.raises(JournalChainBroken):
        replica.accept(conn, SERVER, [msgspec.structs.replace(record, seq=0)])
    with pytest.raises(JournalChainBroken):
        replica.accept(conn, SERVER, [msgspec.structs.replace(record, seq=-1)])


def test_a_fork_pushed_inside_one_push_is_refused(conn):
    records = chain("inc", 4)
    fork = chain("inc", 4, "other", after=records[1])
    with pytest.raises(JournalChainBroken):
        replica.accept(conn, SERVER, [*records, *fork])
    assert held(conn, "inc") == []


async def test_facts_and_their_meaning_are_stored_together_or_not_at_all(tmp_path):
    records = chain("inc", 2)

    def interpret(conn: sqlite3.Connection) -> None:
        replica.accept(conn, SERVER, records)
        raise ZeroDivisionError

    async with Database.open(tmp_path / "admin.db", replica.MIGRATIONS, durable=False, same_thread=True) as db:
        with pytest.raises(ZeroDivisionError):
            await db.write(interpret)
        assert await db.read(lambda conn: replica.cursors(conn, SERVER)) == []
        assert await db.write(lambda conn: replica.accept(conn, SERVER, records)) == records


# --- plan ------------------------------------------------------------------------------------------------------------


def plan_for(theirs: list[list[Record]], ours: list[list[Record]]) -> Plan:
    """Of incarnations as lists of records; an empty own one is called "empty"."""

    def head(records: list[Record]) -> Head:
        if not records:
            return Head("empty", 0, first_hash(SERVER, "empty"))
        return Head(records[-1].incarnation, records[-1].seq, records[-1].hash)

    hashes = {(r.incarnation, r.seq): r.hash for records in ours for r in records}
    for records in ours:
        hashes[head(records).incarnation, 0] = first_hash(SERVER, head(records).incarnation)
    return compare.plan([head(r) for r in theirs], [head(r) for r in ours], lambda *place: hashes.get(place))


A, B, C = chain("a", 9), chain("b", 5), chain("c", 3)
FORKED = [*A[:6], *chain("a", 8, "forked", after=A[5])]


@pytest.mark.parametrize(
    ("theirs", "ours", "send"),
    [
        ([], [A], [Send("a", 0)]),
        ([], [[]], []),
        ([A], [A], []),
        ([A[:4]], [A], [Send("a", 4)]),
        ([A[:4]], [A, B, C], [Send("a", 4), Send("b", 0), Send("c", 0)]),
        ([A, B[:2]], [A, B, []], [Send("b", 2)]),
        # After the disk was put back and a new incarnation begun, the older ones need no more.
        ([A], [A[:6], B], [Send("b", 0)]),
        ([A, B], [A[:6], C], [Send("c", 0)]),
        ([A, B, C[:1]], [A[:6], C], [Send("c", 1)]),
        # A fork left in an older incarnation stays there; it fits nowhere.
        ([A], [FORKED, B], [Send("b", 0)]),
        # The journal was lost altogether.
        ([A], [[]], []),
        ([A], [B], [Send("b", 0)]),
    ],
)
def test_what_is_missing_is_sent_oldest_first(theirs, ours, send):
    assert plan_for(theirs, ours) == Plan(tuple(send))


@pytest.mark.parametrize(
    ("theirs", "ours", "common_at_most", "unknown"),
    [
        ([A], [A[:6]], 6, []),  # ahead of us
        ([A], [FORKED], 8, []),  # ahead, and we wrote on
        ([A[:7]], [FORKED], 7, []),  # we overtook
        ([A[:6], B], [A[:6]], 6, ["b"]),  # equal, but then came an incarnation we lost
        ([A[:6], B, C], [A[:7]], 6, ["b", "c"]),
        ([A], [[], A[:2]], 2, []),
    ],
)
def test_a_disk_that_was_put_back_is_noticed(theirs, ours, common_at_most, unknown):
    plan = plan_for(theirs, ours)
    assert plan.send == ()
    assert isinstance(plan.rolled_back, RolledBack)
    assert plan.rolled_back.common_at_most == common_at_most
    assert plan.rolled_back.head.incarnation == plan.rolled_back.cursor.incarnation == "a"
    assert [head.incarnation for head in plan.rolled_back.unknown] == unknown


@given(common=st.integers(0, 40), more_ours=st.integers(0, 40), more_theirs=st.integers(0, 40))
def test_the_fork_is_found_in_few_questions(common, more_ours, more_theirs):
    shared = chain("a", common)
    last = shared[-1] if shared else None
    ours = [*shared, *chain("a", common + more_ours, "ours", after=last)]
    theirs = [*shared, *chain("a", common + more_theirs, "theirs", after=last)]
    questions = []

    async def ours_at(seq: int) -> bytes | None:
        return ours[seq - 1].hash if seq <= len(ours) else None

    async def theirs_at(seq: int) -> bytes | None:
        questions.append(seq)
        return theirs[seq - 1].hash if seq <= len(theirs) else None

    bound = min(len(ours), len(theirs))
    assert asyncio.run(find_fork(bound, ours_at, theirs_at)) == common
    assert len(questions) <= bound.bit_length()


# --- both sides together ---------------------------------------------------------------------------------------------

PUSHES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=25)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3), pushes=PUSHES)
def test_duplicated_reordered_and_cut_pushes_end_in_equality(sizes, pushes):
    """Each push is some stretch of the journal, in any order, as often as it likes; those that do not fit are refused
    and change nothing. Sending from the cursors then completes it."""
    journal = {f"inc{n}": chain(f"inc{n}", size) for n, size in enumerate(sizes)}
    everything = [record for records in journal.values() for record in records]
    accepted: list[Record] = []
    with fresh_replica() as conn:
        for start, size in pushes:
            try:
                accepted += replica.accept(conn, SERVER, everything[start : start + size])
            except JournalGap:
                continue
        for incarnation, records in journal.items():
            known = held(conn, incarnation)
            assert known == records[: len(known)]
        for incarnation, records in journal.items():
            after = replica.cursor(conn, SERVER, incarnation).seq
            accepted += replica.accept(conn, SERVER, records[after:])
        assert {name: held(conn, name) for name in journal} == journal
        assert sorted(accepted, key=everything.index) == everything
        assert len(replica.cursors(conn, SERVER)) == len(journal)


class Mesh:
    """One server whose disk may be copied and put back, and the administrator's copy of its journal."""

    def __init__(self, folder: str, conn: sqlite3.Connection) -> None:
        self.path = os.path.join(folder, "journal.db")
        self.saved = os.path.join(folder, "saved.db")
        self.conn = conn
        self.numbers = itertools.count(1)
        self.facts = itertools.count(1)
        self.on_disk: list[bytes] = []  # what the server's disk must hold or have handed over
        self.saved_facts: list[bytes] = []
        self.delivered: set[bytes] = set()
        self.folded: list[bytes] = []  # of what was pruned at the administrator only the meaning is left
        self.alerts = 0
        self.restores = 0
        self.restored_unlinked = False

    def journal(self):
        ids = self.numbers
        return Journal.open(
            self.path, SERVER, clock=StillClock(), new_id=lambda: f"inc{next(ids):03}", same_thread=True
        )

    async def append(self, count: int) -> None:
        facts = [b"fact%d" % next(self.facts) for _ in range(count)]
        async with self.journal() as journal:
            await journal.append([("fact", fact) for fact in facts])
        self.on_disk += facts

    async def begin(self) -> None:
        if self.restored_unlinked:
            return  # contract: whoever begins by himself has no fork behind him
        async with self.journal() as journal:
            await journal.begin_incarnation()

    def save(self) -> None:
        shutil.copy(self.path, self.saved)
        self.saved_facts = list(self.on_disk)

    def put_back(self) -> None:
        if os.path.exists(self.saved):
            shutil.copy(self.saved, self.path)
            self.on_disk = list(self.saved_facts)
            self.restores += 1
            self.restored_unlinked = True

    async def theirs_at(self, incarnation: str, seq: int) -> bytes | None:
        return replica.hash_at(self.conn, SERVER, incarnation, seq)

    async def link(self, at_most: int) -> None:
        """What a server does on linking: compare, perhaps begin anew, push; the link breaks after ``at_most``."""
        async with self.journal() as journal:
            plan = await journal.plan(replica.cursors(self.conn, SERVER))
            if plan.rolled_back is not None:
                self.alerts += 1
                name = plan.rolled_back.head.incarnation

                async def ours_at(seq: int) -> bytes | None:
                    return await journal.hash_at(name, seq)

                async def theirs_at(seq: int) -> bytes | None:
                    return await self.theirs_at(name, seq)

                fork = await find_fork(plan.rolled_back.common_at_most, ours_at, theirs_at)
                await journal.begin_incarnation(moving=(name, fork))
                plan = await journal.plan(replica.cursors(self.conn, SERVER))
                assert plan.rolled_back is None
            self.restored_unlinked = False
            for send in plan.send:
                after = send.after
                while at_most and (records := await journal.records(send.incarnation, after, limit=min(at_most, 3))):
                    for record in replica.accept(self.conn, SERVER, records):
                        self.delivered.add(record.data)
                    after = records[-1].seq
                    at_most -= len(records)

    async def prune_here(self, kept: int) -> None:
        """As after a comparison: what the administrator holds goes from the server's disk."""
        if self.restored_unlinked:
            return
        async with self.journal() as journal:
            upto = {head.incarnation: head.seq - kept for head in replica.cursors(self.conn, SERVER)}
            await journal.prune(upto, before_ns=10, trace_since_ns=0)

    def prune_there(self, kept: int) -> None:
        for head in replica.cursors(self.conn, SERVER):
            gone = [r.data for r in held(self.conn, head.incarnation) if r.seq <= head.seq - kept]
            assert replica.prune(self.conn, SERVER, head.incarnation, head.seq - kept, 0) == len(gone)
            self.folded += gone

    def replicated(self) -> list[bytes]:
        return self.folded + [
            r.data for head in replica.cursors(self.conn, SERVER) for r in held(self.conn, head.incarnation)
        ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("link"), st.integers(0, 9)),
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("put back"), st.just(0)),
        st.tuples(st.just("prune here"), st.integers(0, 3)),
        st.tuples(st.just("prune there"), st.integers(0, 3)),
    ),
    max_size=20,
)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_a_disk_put_back_loses_nothing_that_either_side_still_had(steps):
    """Whatever is on the server's disk when it links for good ends at the administrator, beside all that the
    administrator ever accepted; each fact once, unless a copy made in the meantime was put back a second time. Also when
    either side prunes what both had."""

    async def play(mesh: Mesh) -> None:
        await mesh.append(1)
        for step, size in steps:
            if step == "append":
                await mesh.append(size)
            elif step == "link":
                await mesh.link(size)
            elif step == "begin":
                await mesh.begin()
            elif step == "save":
                mesh.save()
            elif step == "prune here":
                await mesh.prune_here(size)
            elif step == "prune there":
                mesh.prune_there(size)
            else:
                mesh.put_back()
            assert mesh.delivered <= set(mesh.replicated())
        await mesh.link(1000)
        replicated = mesh.replicated()
        assert set(replicated) == set(mesh.on_disk) | mesh.delivered
        if mesh.restores <= 1:
            assert len(replicated) == len(set(replicated))
        alerts = mesh.alerts
        await mesh.link(1000)
        assert (mesh.alerts, mesh.replicated()) == (alerts, replicated)

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        with fresh_replica() as conn:
            asyncio.run(play(Mesh(folder, conn)))


async def test_a_restored_old_copy_raises_one_alert_and_its_new_facts_arrive(tmp_path, conn):
    mesh = Mesh(str(tmp_path), conn)
    await mesh.append(6)
    mesh.save()
    await mesh.append(4)
    await mesh.link(1000)
    mesh.put_back()
    await mesh.append(7)  # under numbers the administrator knows as other facts, and beyond them
    await mesh.link(1000)
    await mesh.link(1000)
    assert mesh.alerts == 1
    assert mesh.replicated() == [b"fact%d" % n for n in range(1, 18)]
    assert [(head.incarnation, head.seq) for head in replica.cursors(conn, SERVER)] == [("inc001", 10), ("inc002", 7)]
    mesh.put_back()
    await mesh.link(1000)
    assert mesh.alerts == 2
    assert len(mesh.replicated()) == 17
