"""Consensus of one voter: it leads from its start, and committed means durable on its own disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from caso_mesh.consensus import store
from caso_mesh.consensus.port import MAX_COMMAND, Consensus, Entry, Leadership, Position, Snapshot
from caso_mesh.database import Database
from caso_mesh.model.errors import LogUnavailable, Misuse, StateDamaged


@asynccontextmanager
async def open_single_voter(
    path: str | os.PathLike[str],
    node: str,
    *,
    lineage: int = 1,
    same_thread: bool = False,
    start: Snapshot | None = None,
) -> AsyncIterator[Consensus]:
    """Open or create the log of a mesh whose only voter is ``node``.

    Each start is a new term, opened by a no-op. ``lineage`` is stored at first; later the higher of the stored and the
    given one holds. ``start`` is what a new log continues from (a recovered mesh); an existing log ignores it.
    Raises ``StateDamaged``, ``StateNotEmpty`` (the log of another node), and what ``Database.open`` raises.
    """
    async with Database.open(path, store.MIGRATIONS, durable=True, same_thread=same_thread) as database:
        await database.write(lambda conn: store.found(conn, database.path, node, lineage, start))
        await _check_all(database)
        mark = await database.write(lambda conn: store.begin_term(conn, database.path, lineage))
        voter = SingleVoter(database, Leadership(mark.lineage, mark.term, node, in_office=True, voters=(node,)))
        try:
            yield voter
        finally:
            await voter.close()


async def _check_all(database: Database) -> None:
    """Find damage before anything is built on it. Raises ``StateDamaged``."""
    path = database.path
    after = await database.read(lambda conn: store.check_shape(conn, path))
    while entries := await database.read(partial(store.load, path=path, after=after)):
        after = entries[-1].index


class SingleVoter:
    """``Consensus`` of one voter; see there. Use ``open_single_voter``."""

    def __init__(self, database: Database, leadership: Leadership) -> None:
        self._database = database
        self._leadership = leadership
        self._closed = asyncio.Event()

    async def propose(self, data: bytes) -> Position:
        if len(data) > MAX_COMMAND:
            raise Misuse(f"a command of {len(data)} bytes; {MAX_COMMAND} are allowed")
        self._must_be_open()
        term = self._leadership.term
        index = await self._database.write(lambda conn: store.append(conn, term, "command", data))
        return Position(term, index)

    async def read_index(self) -> int:
        self._must_be_open()
        return await self._database.read(store.last_index)

    async def committed(self, after: int) -> AsyncIterator[Entry | Snapshot]:
        path = self._database.path

        def load(conn: sqlite3.Connection) -> list[Entry] | Snapshot:
            last = store.last_index(conn)
            if after > last:
                raise StateDamaged(path=path, detail=f"it ends at {last}, but the state made from it is at {after}")
            if after + 1 < store.first_index(conn):
                return store.snapshot(conn, path)
            return store.load(conn, path, after)

        while not self._closed.is_set():
            generation = self._database.generation
            found = await self._database.read(load)
            if isinstance(found, Snapshot):
                yield found
                after = found.index
                continue
            for entry in found:
                yield entry
                after = entry.index
            if not found:
                await self._database.wait_for_commit(generation, unless=self._closed.is_set)

    async def compact(self, snapshot: Snapshot) -> None:
        self._must_be_open()
        path = self._database.path
        await self._database.write(lambda conn: store.compact(conn, path, snapshot))

    def leadership(self) -> Leadership:
        return self._leadership

    async def leadership_changes(self) -> AsyncIterator[Leadership]:
        if not self._closed.is_set():
            yield self._leadership
            await self._closed.wait()

    async def close(self) -> None:
        """Refuse new commands; iterators end with the database. ``open_single_voter`` calls it."""
        self._closed.set()

    def _must_be_open(self) -> None:
        if self._closed.is_set():
            raise LogUnavailable(what="The replicated log", detail="it is being closed")
