"""A server's own journal: facts are appended durably, read in order, never changed."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from msgspec import Struct

from caso_mesh.database import Database, put_aside, read_damaged
from caso_mesh.journal import compare, mending, replica
from caso_mesh.journal.record import Head, Record, first_hash, hash_of, record_hash
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import Misuse, StateDamaged, StateNotEmpty
from caso_mesh.model.ids import IdSource

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The tables are those of the replica, with one server in them.
MIGRATIONS = [
    replica.MIGRATION,
    replica.FLOORS,
    """
    CREATE TABLE journal_held (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX journal_held_by_key ON journal_held (key, number);
    """,
    mending.GAPS,
    mending.NOTES,
]
#: Records that are read at once, and about how many bytes of them.
_RECORDS, _RECORD_BYTES = 512, 1 << 20
#: What a row takes beside its data.
_ROW_BYTES = 100


class Mended(Struct, frozen=True):
    """What was wrong, where the damaged file lies now (``None``: it is the one in use), and how many records are lost (``None``:
    nobody can tell)."""

    detail: str
    aside: str | None
    lost: int | None


class Journal:
    """The open journal of one server. Use ``Journal.open``."""

    def __init__(self, database: Database, server: str, clock: Clock, new_id: IdSource) -> None:
        self._mended: asyncio.Queue[Mended] = asyncio.Queue()
        self._database = database
        self._server = server
        self._clock = clock
        self._new_id = new_id

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: str | os.PathLike[str], server: str, *, clock: Clock, new_id: IdSource, same_thread: bool = False
    ) -> AsyncIterator[Journal]:
        """Open or create the journal of the server with the id ``server``. A new one begins its first incarnation. Of one that
        is damaged what is as it was written goes on, see ``next_mended``.

        Raises ``StateNotEmpty`` (another server's journal), and what ``Database.open`` raises.
        """
        async with AsyncExitStack() as stack:
            try:
                journal = await cls._opened(stack, path, server, clock, new_id, same_thread)
            except StateDamaged as error:
                log.error("the journal of this server is damaged: %s", error)
                await stack.aclose()
                aside = put_aside(path)
                salvaged = read_damaged(aside, mending.salvage)
                database = await stack.enter_async_context(
                    Database.open(path, MIGRATIONS, durable=True, same_thread=same_thread)
                )
                journal = cls(database, server, clock, new_id)
                lost = await journal._put_back(salvaged)
                journal._mended.put_nowait(Mended(str(error.fields["detail"]), os.fspath(aside), lost))
            yield journal

    @classmethod
    async def _opened(
        cls,
        stack: AsyncExitStack,
        path: str | os.PathLike[str],
        server: str,
        clock: Clock,
        new_id: IdSource,
        same_thread: bool,
    ) -> Journal:
        database = await stack.enter_async_context(
            Database.open(path, MIGRATIONS, durable=True, same_thread=same_thread)
        )
        journal = cls(database, server, clock, new_id)
        mended = await database.write(journal._begin_or_check)
        if mended is not None:
            journal._mended.put_nowait(mended)
        return journal

    async def _put_back(self, salvaged: mending.Salvaged | None) -> int | None:
        """Fills a new journal with what could be read of a damaged one; how many records are lost, ``None`` if nobody knows."""

        def fn(conn: sqlite3.Connection) -> int | None:
            lost = None
            if salvaged is not None and salvaged.incarnations:
                if any(row[1] != self._server for row in salvaged.incarnations):
                    raise StateNotEmpty(
                        state=os.path.dirname(self._database.path) or ".", server=salvaged.incarnations[0][1]
                    )
                mending.put_back(conn, salvaged)
                lost = mending.mend(conn, self._server)
            # whatever is written from now on is not taken for what was lost
            _begin(conn, self._server, self._new_id())
            return lost

        return await self._database.write(fn)

    @property
    def path(self) -> str:
        return self._database.path

    async def next_mended(self) -> Mended:
        """Waits for damage of which something was done."""
        return await self._mended.get()

    async def _mending(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` finds, also when records turn out not to be what was written: they are left out then."""
        try:
            return await self._database.read(read)
        except StateDamaged as error:
            log.error("a record of this server's journal is damaged: %s", error)
            lost = await self._database.write(self._mend)
            self._mended.put_nowait(Mended(str(error.fields["detail"]), None, lost))
            return await self._database.read(read)

    def _mend(self, conn: sqlite3.Connection) -> int:
        head = self._newest(conn)[1]
        lost = mending.mend(conn, self._server)
        if self._newest(conn)[1] != head:
            _begin(conn, self._server, self._new_id())  # the numbers that are lost may be known elsewhere
        return lost

    async def append(
        self,
        facts: Sequence[tuple[str, bytes]],
        *,
        release: Sequence[str] = (),
        notes: Mapping[str, bytes | None] | None = None,
    ) -> Head:
        """Append (kind, data) pairs, all or none; the new head once they are durable. Concurrent calls share one
        commit and keep the order of the calls. What was held back under the keys in ``release`` is appended before, with
        its own times. ``notes`` lie beside the journal from the same moment on, by key; ``None``: no more. Raises
        ``StateFull``."""
        at_ns = self._clock.now_ns()
        facts, noted = list(facts), dict(notes or {})

        def fn(conn: sqlite3.Connection) -> Head:
            number, head = self._newest(conn)
            rows = [row for key in release for row in _held(conn, key)]
            conn.executemany("DELETE FROM journal_held WHERE key = ?", [(key,) for key in release])
            rows += [(at_ns, kind, data) for kind, data in facts]
            conn.executemany("DELETE FROM journal_note WHERE key = ?", [(key,) for key in noted])
            kept = [(key, data) for key, data in noted.items() if data is not None]
            conn.executemany("INSERT INTO journal_note VALUES (?, ?)", kept)
            return _append(conn, number, head, rows) if rows else head

        return await self._database.write(fn)

    async def notes(self) -> dict[str, bytes]:
        """What lies beside the journal, by key."""
        query = "SELECT key, data FROM journal_note ORDER BY key"
        return await self._database.read(lambda conn: dict(conn.execute(query)))

    # --- what is held back: not in the journal, and told to nobody, until it is released ---

    async def hold(self, facts: Sequence[tuple[str, str, bytes]]) -> None:
        """Keeps (key, kind, data), durably, beside the journal. Raises ``StateFull``."""
        at_ns = self._clock.now_ns()
        rows = [(key, at_ns, kind, data) for key, kind, data in facts]

        def fn(conn: sqlite3.Connection) -> None:
            conn.executemany("INSERT INTO journal_held (key, at_ns, kind, data) VALUES (?, ?, ?, ?)", rows)

        await self._database.write(fn)

    async def held(self, key: str) -> list[tuple[int, str, bytes]]:
        """Time, kind and data of what is held back under a key, in the order in which it came."""
        return await self._database.read(lambda conn: _held(conn, key))

    async def held_keys(self) -> list[str]:
        """The keys under which something is held back."""
        query = "SELECT DISTINCT key FROM journal_held ORDER BY key"
        return await self._database.read(lambda conn: [key for (key,) in conn.execute(query)])

    async def forget_held(self, before_ns: int) -> int:
        """Forgets what is held back under keys of which nothing came since ``before_ns``; how many keys."""

        def fn(conn: sqlite3.Connection) -> int:
            query = "SELECT key FROM journal_held GROUP BY key HAVING max(at_ns) < ?"
            keys = conn.execute(query, (before_ns,)).fetchall()
            conn.executemany("DELETE FROM journal_held WHERE key = ?", keys)
            return len(keys)

        return await self._database.write(fn)

    async def held_sizes(self) -> dict[str, int]:
        """About how many bytes are held back under each key, in the order in which they began."""
        query = f"SELECT key, sum(length(data) + {_ROW_BYTES}) FROM journal_held GROUP BY key ORDER BY min(number)"
        return await self._database.read(lambda conn: dict(conn.execute(query)))

    async def hold_instead(self, key: str, facts: Sequence[tuple[int, str, bytes]]) -> None:
        """What is held back under a key is (time, kind, data) from now on."""

        def fn(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM journal_held WHERE key = ?", (key,))
            conn.executemany(
                "INSERT INTO journal_held (key, at_ns, kind, data) VALUES (?, ?, ?, ?)",
                [(key, *fact) for fact in facts],
            )

        await self._database.write(fn)

    async def waiting_bytes(self, taken: Mapping[str, int]) -> int:
        """About how many bytes there are behind the numbers in ``taken`` (by incarnation): of the pages in use as many as their
        part of the records, since to look at each one would take seconds."""

        def fn(conn: sqlite3.Connection) -> int:
            pages, free, size = (
                conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            kept = waiting = 0
            for incarnation, seq, floor in conn.execute("SELECT incarnation, seq, floor FROM journal_incarnation"):
                kept += seq - floor
                waiting += max(0, seq - max(floor, taken.get(incarnation, 0)))
            return int((pages - free) * size * waiting // kept) if kept else 0

        return await self._database.read(fn)

    # --- looking at it ---

    async def head(self) -> Head:
        """The newest incarnation's."""
        return await self._database.read(lambda conn: self._newest(conn)[1])

    async def hash_at(self, incarnation: str, seq: int) -> bytes | None:
        """The hash of a record, ``None`` if there is none; at 0 the first hash of a known incarnation."""
        return await self._database.read(lambda conn: self._hash_at(conn, incarnation, seq))

    async def records(
        self, incarnation: str, after: int, *, limit: int = _RECORDS, max_bytes: int = _RECORD_BYTES
    ) -> list[Record]:
        """The records beyond ``after``, up to ``limit`` and about ``max_bytes``; at least one if there is one. Of those that are
        not what was written none. Raises ``StateDamaged`` if the file cannot be read."""
        return await self._mending(lambda conn: self._records(conn, incarnation, after, limit, max_bytes))

    async def incarnations(self) -> list[Head]:
        """All, oldest first, each with its last record's number and hash."""
        return await self._database.read(lambda conn: replica.cursors(conn, self._server))

    async def begin_incarnation(self, *, moving: tuple[str, int] | None = None) -> Head:
        """From now on append to a new incarnation; returns its head.

        ``moving`` (incarnation, seq) takes the records beyond ``seq`` over into the new one, with their times, in the
        same transaction: they were written after the disk had been put back, under numbers that the administrator
        knows as other facts, and would never reach it where they are.

        Without ``moving`` only while no disk was put back unnoticed: ``compare.plan`` looks for that in the newest
        incarnation alone.
        """
        incarnation = self._new_id()

        def fn(conn: sqlite3.Connection) -> Head:
            number = _begin(conn, self._server, incarnation)
            head = replica.cursor(conn, self._server, incarnation)
            return self._move(conn, moving, number, head) if moving else head

        return await self._database.write(fn)

    async def plan(self, cursors: Sequence[Head]) -> compare.Plan:
        """``compare.plan`` of the administrator's ``cursors`` with this journal as it is at one moment."""

        def fn(conn: sqlite3.Connection) -> compare.Plan:
            return self._plan(conn, cursors)

        return await self._database.read(fn)

    async def survey(self, cursors: Sequence[Head]) -> tuple[Head, compare.Plan, list[Record]]:
        """Head, plan and the first records to send, as of one moment: ``head``, ``plan`` and ``records`` in one."""

        def fn(conn: sqlite3.Connection) -> tuple[Head, compare.Plan, list[Record]]:
            plan = self._plan(conn, cursors)
            records: list[Record] = []
            if plan.send and plan.rolled_back is None:
                records = self._records(conn, plan.send[0].incarnation, plan.send[0].after, _RECORDS, _RECORD_BYTES)
            return self._newest(conn)[1], plan, records

        found = await self._mending(fn)
        if found[1].rolled_back is None:
            return found
        # what looks like an old copy may be one record that is damaged
        lost = await self._database.write(self._mend)
        if lost:
            self._mended.put_nowait(Mended("records are not what was written", None, lost))
        return await self._mending(fn)

    async def floors(self) -> dict[str, int]:
        """Incarnation -> the number of its last record that was pruned."""
        return await self._database.read(self._floors)

    async def prune(self, upto: Mapping[str, int], *, before_ns: int, trace_since_ns: int) -> int:
        """Forgets records up to the numbers in ``upto`` (by incarnation) that were written before ``before_ns``; how many.
        Their hashes stay, but for those of before ``trace_since_ns``."""

        def fn(conn: sqlite3.Connection) -> int:
            gone = 0
            for incarnation, seq in upto.items():
                (old,) = conn.execute(
                    "SELECT max(r.seq) FROM journal_incarnation i JOIN journal_record r ON r.incarnation = i.number"
                    " WHERE i.incarnation = ? AND r.seq <= ? AND r.at_ns < ?",
                    (incarnation, seq, before_ns),
                ).fetchone()
                if old is not None:
                    gone += replica.prune(conn, self._server, incarnation, old, trace_since_ns)
            return gone

        return await self._database.prune(fn)

    async def wait_beyond(self, head: Head) -> None:
        """Wait until there is a record after ``head``: in its incarnation or a later one. ``Misuse`` if this journal
        has no such incarnation, or is closed meanwhile."""
        while True:
            generation = self._database.generation
            if await self._database.read(lambda conn: self._is_beyond(conn, head)):
                return
            await self._database.wait_for_commit(generation)

    def _begin_or_check(self, conn: sqlite3.Connection) -> Mended | None:
        row = conn.execute("SELECT server FROM journal_incarnation WHERE server <> ?", (self._server,)).fetchone()
        if row:
            raise StateNotEmpty(state=os.path.dirname(self._database.path) or ".", server=row[0])
        heads = replica.cursors(conn, self._server)
        if not heads:
            _begin(conn, self._server, self._new_id())
        try:
            for head in heads:
                if self._hash_at(conn, head.incarnation, head.seq) != head.hash:
                    raise self._damaged(head.incarnation, head.seq)
                if head.seq > replica.floor(conn, self._server, head.incarnation):
                    self._records(conn, head.incarnation, max(head.seq - 1, 0), 1, 0)
            (beyond,) = conn.execute(
                "SELECT count(*) FROM journal_incarnation i JOIN journal_record r ON r.incarnation = i.number"
                " WHERE r.seq = i.seq + 1"
            ).fetchone()
            if beyond:
                raise self._damaged(heads[-1].incarnation, heads[-1].seq)
        except StateDamaged as error:
            log.error("the end of this server's journal is damaged: %s", error)
            return Mended(str(error.fields["detail"]), None, self._mend(conn))
        return None

    def _floors(self, conn: sqlite3.Connection) -> dict[str, int]:
        return {incarnation: floor for _, incarnation, floor in replica.floors(conn, self._server)}

    def _plan(self, conn: sqlite3.Connection, cursors: Sequence[Head]) -> compare.Plan:
        own = replica.cursors(conn, self._server)
        floors = self._floors(conn)
        gaps = [(gap.incarnation, gap.first, gap.upto) for gap in mending.gaps(conn)]
        return compare.plan(cursors, own, lambda incarnation, seq: self._hash_at(conn, incarnation, seq), floors, gaps)

    def _newest(self, conn: sqlite3.Connection) -> tuple[int, Head]:
        number, *head = conn.execute(
            "SELECT number, incarnation, seq, hash FROM journal_incarnation ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return number, Head(*head)

    def _hash_at(self, conn: sqlite3.Connection, incarnation: str, seq: int) -> bytes | None:
        known = conn.execute("SELECT 1 FROM journal_incarnation WHERE incarnation = ?", (incarnation,)).fetchone()
        return replica.hash_at(conn, self._server, incarnation, seq) if known else None

    def _records(
        self, conn: sqlite3.Connection, incarnation: str, after: int, limit: int, max_bytes: int
    ) -> list[Record]:
        after = mending.behind(conn, incarnation, after)
        found = replica.replica_records(conn, self._server, incarnation, after, limit, max_bytes)
        previous = self._hash_at(conn, incarnation, after) if found else None
        for number, record in enumerate(found, after + 1):
            if record.seq != number and number > after + 1 and mending.behind(conn, incarnation, number - 1) >= number:
                return found[: number - after - 1]  # those before a gap
            if previous is None or record.seq != number or record.hash != hash_of(record, previous):
                raise self._damaged(incarnation, number)
            previous = record.hash
        return found

    def _is_beyond(self, conn: sqlite3.Connection, head: Head) -> bool:
        heads = replica.cursors(conn, self._server)
        places = [own.incarnation for own in heads]
        if head.incarnation not in places:
            raise Misuse(f"this journal has no incarnation {head.incarnation}")
        place = places.index(head.incarnation)
        return heads[place].seq > head.seq or any(own.seq for own in heads[place + 1 :])

    def _move(self, conn: sqlite3.Connection, moving: tuple[str, int], number: int, head: Head) -> Head:
        old, fork = moving
        fork = max(fork, replica.floor(conn, self._server, old))  # what was pruned is known to the administrator
        kept = self._hash_at(conn, old, fork)
        if kept is None:
            raise Misuse(f"this journal has no record {fork} of {old}")
        after = fork
        while found := self._records(conn, old, after, 512, 1 << 20):
            head = _append(conn, number, head, ((r.at_ns, r.kind, r.data) for r in found))
            after = found[-1].seq
        (old_number,) = conn.execute(
            "UPDATE journal_incarnation SET seq = ?, hash = ? WHERE incarnation = ? RETURNING number", (fork, kept, old)
        ).fetchone()
        conn.execute("DELETE FROM journal_record WHERE incarnation = ? AND seq > ?", (old_number, fork))
        return head

    def _damaged(self, incarnation: str, seq: int) -> StateDamaged:
        return StateDamaged(path=self._database.path, detail=f"record {seq} of {incarnation} is not what was written")


def _held(conn: sqlite3.Connection, key: str) -> list[tuple[int, str, bytes]]:
    return conn.execute("SELECT at_ns, kind, data FROM journal_held WHERE key = ? ORDER BY number", (key,)).fetchall()


def _begin(conn: sqlite3.Connection, server: str, incarnation: str) -> int:
    (number,) = conn.execute(
        "INSERT INTO journal_incarnation (server, incarnation, seq, hash) VALUES (?, ?, 0, ?) RETURNING number",
        (server, incarnation, first_hash(server, incarnation)),
    ).fetchone()
    return int(number)


def _append(conn: sqlite3.Connection, number: int, head: Head, facts: Iterable[tuple[int, str, bytes]]) -> Head:
    """Append (at_ns, kind, data) to the incarnation with that row number; the new head."""
    seq, digest = head.seq, head.hash
    rows: list[tuple[int, int, int, str, bytes, bytes]] = []
    for at_ns, kind, data in facts:
        seq += 1
        digest = record_hash(digest, head.incarnation, seq, at_ns, kind, data)
        rows.append((number, seq, at_ns, kind, data, digest))
    conn.executemany("INSERT INTO journal_record VALUES (?, ?, ?, ?, ?, ?)", rows)
    conn.execute("UPDATE journal_incarnation SET seq = ?, hash = ? WHERE number = ?", (seq, digest, number))
    return Head(head.incarnation, seq, digest)
