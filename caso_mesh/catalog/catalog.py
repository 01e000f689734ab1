"""The catalog of a daemon: the index behind a database, for many tasks at once."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from msgspec.structs import replace

from caso_mesh.catalog import index
from caso_mesh.catalog.blocks import LATEST
from caso_mesh.catalog.export import Export
from caso_mesh.catalog.index import FolderUsage, Found, IngestResult, SliceLost, Version, Wanted
from caso_mesh.catalog.schema import Nonsense
from caso_mesh.catalog.search import ANYTHING
from caso_mesh.catalog.segment import CatalogEntry, Record, SegmentReader, SegmentWriter, chain_of
from caso_mesh.catalog.sets import place
from caso_mesh.database import MendingDatabase
from caso_mesh.model.errors import StateDamaged, Unavailable
from caso_mesh.model.listing import CatalogFind
from caso_mesh.model.storage import BackupSet

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds after which a search is cut off: one that the index is of no use for looks at all names.
LONGEST_S = 8.0
#: How often a taking-in begins anew after the database lost one of its slices.
_TRIES = 3

#: Two, so that one long question does not keep others from listing a folder.
_READERS = 2
#: What the writer keeps of the file in memory, in KiB: taking in goes through it in path order, not in page order.
_CACHE_KIB = 32 * 1024
#: Pages of the log (16 MB) after which they are copied into the file: a taking-in changes the same ones again and again.
_LOG_PAGES = 4000


def _use_more_room(conn: sqlite3.Connection) -> None:
    conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    conn.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")


def _prepare(conn: sqlite3.Connection) -> None:
    _use_more_room(conn)
    with _told_as_damage(conn):
        index.check(conn)
        index.abandon_all(conn)


@contextmanager
def _told_as_damage(conn: sqlite3.Connection) -> Iterator[None]:
    """What shows only as nonsense is damage, too: SQLite checks no bytes. Raises ``StateDamaged``; ``Unavailable`` where
    nothing is found to be wrong with the tables, so that it may be a mistake of ours."""
    try:
        yield
    except (Nonsense, sqlite3.OperationalError) as error:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise  # not of the statement, which does not find its tables
        raise StateDamaged(path=_path_of(conn), detail=error) from error
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        try:
            index.check(conn, pages=True)
        except (Nonsense, sqlite3.Error, TypeError, ValueError) as why:
            raise StateDamaged(path=_path_of(conn), detail=why) from error
        log.exception("the catalog has something that cannot be")
        raise Unavailable(what="the catalog") from error


def _path_of(conn: sqlite3.Connection) -> str:
    return str(conn.execute("PRAGMA database_list").fetchone()[2])


def _watched(fn: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    def call(conn: sqlite3.Connection) -> T:
        with _told_as_damage(conn):
            return fn(conn)

    return call


def _within(number: int | None) -> int | None:
    """A bound that somebody gave: beyond what is in any row it is the same as the last that may be."""
    return None if number is None else max(-LATEST, min(LATEST, number))


def _split(instant_ns: int | None) -> tuple[int, int] | None:
    return None if instant_ns is None else divmod(instant_ns, 1_000_000_000)


def _put(segment: SegmentWriter, records: list[Record]) -> None:
    for record in records:
        if isinstance(record, CatalogEntry):
            segment.add(record)
        else:
            segment.remove(record.path)


class Catalog:
    """What was backed up. Use ``Catalog.open``.

    The methods are those of ``index.py``, with the same arguments and errors. Reads see one consistent state and go on
    beside writes. One segment is taken in at a time, in slices between which other writes are served; its set can be
    listed when ``ingest`` has returned, and not before.
    """

    def __init__(self, database: MendingDatabase, *, same_thread: bool = False) -> None:
        self._database = database
        self._same_thread = same_thread
        # Taking in, removing and rebuilding see several transactions as one.
        self._one_at_a_time = asyncio.Lock()
        # All but one reader are left to those who ask little.
        self._long_questions = asyncio.Semaphore(_READERS - 1)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: str | os.PathLike[str], *, same_thread: bool = False) -> AsyncIterator[Catalog]:
        """Open or create the catalog at ``path``. What an earlier process left half taken in is taken back.

        A file that is damaged, now or later, is set aside, and the catalog begins anew: ``mended`` rises, ``damage`` says
        what was found, and the functions in ``on_mended`` are called.

        ``same_thread``: no thread, for simulation. Raises what ``Database.open`` raises, but for ``StateDamaged``.
        """
        async with MendingDatabase.open(
            path, index.MIGRATIONS, what="the catalog", same_thread=same_thread, readers=_READERS, prepare=_prepare
        ) as database:
            yield cls(database, same_thread=same_thread)

    @property
    def mended(self) -> int:
        """How often it had to begin anew since it was opened."""
        return self._database.mended

    @property
    def damage(self) -> str | None:
        """What was found damaged last, and where it lies now."""
        return self._database.damage

    @property
    def on_mended(self) -> list[Callable[[], None]]:
        return self._database.on_mended

    async def add_set(self, backup_set: BackupSet) -> None:
        """As ``index.add_set``."""
        await self._write(lambda conn: index.add_set(conn, backup_set))

    async def ingest(self, segment: SegmentReader | str | os.PathLike[str]) -> IngestResult:
        """As ``index.ingest``; ``segment`` may be a file's path, and must stay as it is meanwhile. Cancelled or failed,
        nothing of it remains visible, and it may be repeated. Raises ``OSError`` if the file cannot be read."""
        if not isinstance(segment, SegmentReader):
            path = segment
            segment = await self._read(lambda _conn: SegmentReader(path))
        async with self._one_at_a_time:
            for _ in range(_TRIES):
                try:
                    return await self._ingest_once(segment)
                except SliceLost:
                    continue
            raise Unavailable(what="the catalog")

    async def _ingest_once(self, segment: SegmentReader) -> IngestResult:
        work = index.Ingest(segment)
        try:
            while True:
                result = await self._write(work.step)
                if result is not None:
                    return result
        except Exception:
            await self._write(index.abandon_all)
            raise

    async def export(self, path: str | os.PathLike[str], set_id: str, base: str | None = None) -> tuple[bytes, int]:
        """Writes the detail of a set into a new file as a segment, against the set ``base`` if that is an earlier one
        of its chain with detail, whole otherwise; its SHA-256 and its size in bytes. Raises ``NotFound``,
        ``CatalogNotHere``, ``StateFull``, ``StateDiskFailed``."""
        work = await self._read(lambda conn: Export(conn, set_id, base))
        record = await self._read(lambda conn: place(conn, set_id).record)
        with SegmentWriter(path, set_id=set_id, chain=chain_of(record), base=work.base) as segment:
            while True:
                records = await self._read(work.step)
                if records is None:
                    break
                await asyncio.to_thread(_put, segment, records)
            return await asyncio.to_thread(segment.finish)

    async def settle(self) -> None:
        """What was taken in survives a loss of power from now on."""
        await self._database.settle()

    async def remove_set(self, set_id: str) -> None:
        """As ``index.remove_set``. Builds the index of names anew when most of its names are gone."""
        async with self._one_at_a_time:
            await self._write(lambda conn: index.remove_set(conn, set_id))
            if await self._read(index.names_want_rebuild):
                await self._write(index.rebuild_names)
            await self._database.give_back()

    async def has_detail(self, set_id: str) -> bool:
        """As ``index.has_detail``."""
        return await self._read(lambda conn: index.has_detail(conn, set_id))

    async def lookup(self, set_id: str, path: bytes) -> CatalogEntry | None:
        """As ``index.lookup``."""
        return await self._read(lambda conn: index.lookup(conn, set_id, path))

    async def list_folder(
        self, set_id: str, path: bytes, *, after: bytes | None = None, limit: int = 10_000
    ) -> list[CatalogEntry]:
        """As ``index.list_folder``."""
        return await self._read(lambda conn: index.list_folder(conn, set_id, path, after=after, limit=limit))

    async def usage(self, set_id: str, path: bytes, *, depth: int = 0) -> list[FolderUsage]:
        """As ``index.usage``."""
        async with self._long_questions:
            return await self._read(lambda conn: index.usage(conn, set_id, path, depth=depth))

    async def find(
        self,
        glob: str | bytes,
        wanted: Wanted = ANYTHING,
        *,
        limit: int = 1000,
        after: tuple[str, bytes] | None = None,
    ) -> Found:
        """As ``index.find``; it is cut off when it has taken ``LONGEST_S``."""

        def ask(conn: sqlite3.Connection) -> Found:
            end_s = time.monotonic() + LONGEST_S
            # in a simulation nothing depends on how fast the machine is
            is_over = (lambda: False) if self._same_thread else lambda: time.monotonic() > end_s
            return index.find(conn, glob, wanted, limit=limit, after=after, is_over=is_over)

        async with self._long_questions:
            return await self._read(ask)

    async def matches(
        self,
        asked: CatalogFind,
        sources: Collection[str] | None,
        limit: int,
        after: tuple[str, bytes] | None = None,
        *,
        in_order: bool = False,
    ) -> Found:
        """What ``find`` gives for a question of a person about ``sources`` (node ids; ``None`` = all; ``in_order``: which come
        in that order); more than ``limit`` if there is more: then it has ``reached`` the last that is within it."""
        wanted = Wanted(
            sources=None if sources is None else frozenset(sources),
            order=tuple(sources) if in_order and sources is not None else None,
            since_ns=_within(asked.since_ns),
            until_ns=_within(asked.until_ns),
            size_min=_within(asked.size_min),
            size_max=_within(asked.size_max),
            modified_since=_split(_within(asked.modified_since_ns)),
            modified_until=_split(_within(asked.modified_until_ns)),
            type=asked.type,
            ignore_case=asked.ignore_case,
        )
        found = await self.find(asked.glob, wanted, limit=limit + 1, after=after)
        if len(found.matches) <= limit:
            return found
        last = found.matches[limit - 1]
        return replace(found, reached=(last.source, last.path))

    async def sources(self) -> list[str]:
        """The nodes of which files there is anything here."""
        return await self._read(index.sources_of)

    async def versions(self, source: str, path: bytes) -> list[Version]:
        """As ``index.versions``."""
        return await self._read(lambda conn: index.versions(conn, source, path))

    async def sets(
        self,
        *,
        source: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        detail: bool | None = None,
        limit: int | None = None,
    ) -> list[BackupSet]:
        """As ``index.sets``."""
        return await self._read(
            lambda conn: index.sets(
                conn, source=source, since_ns=since_ns, until_ns=until_ns, detail=detail, limit=limit
            )
        )

    async def set_as_of(self, source: str, path: bytes, at_ns: int) -> BackupSet | None:
        """As ``index.set_as_of``."""
        return await self._read(lambda conn: index.set_as_of(conn, source, path, at_ns))

    async def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._database.read(_watched(fn))

    async def _write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._database.write(_watched(fn))
