"""The catalog of a daemon: the index behind a database, for many tasks at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

from caso_mesh.catalog import index
from caso_mesh.catalog.export import Export
from caso_mesh.catalog.index import IngestResult, Match, SliceLost, Version
from caso_mesh.catalog.segment import CatalogEntry, Record, SegmentReader, SegmentWriter, chain_of
from caso_mesh.catalog.sets import place
from caso_mesh.database import MendingDatabase
from caso_mesh.model.errors import Unavailable
from caso_mesh.model.requests import CatalogFind
from caso_mesh.model.storage import BackupSet

T = TypeVar("T")

#: How often a taking-in begins anew after the database lost one of its slices.
_TRIES = 3
#: Two, so that one long search does not keep others from listing a folder.
_READERS = 2
#: What the writer keeps of the file in memory, in KiB: taking in goes through it in path order, not in page order.
_CACHE_KIB = 32 * 1024


def _use_more_cache(conn: sqlite3.Connection) -> None:
    conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _prepare(conn: sqlite3.Connection) -> None:
    _use_more_cache(conn)
    index.abandon_all(conn)


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

    def __init__(self, database: MendingDatabase) -> None:
        self._database = database
        # Taking in, removing and rebuilding see several transactions as one.
        self._one_at_a_time = asyncio.Lock()

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
            yield cls(database)

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
        await self._database.write(lambda conn: index.add_set(conn, backup_set))

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
                result = await self._database.write(work.step)
                if result is not None:
                    return result
        except Exception:
            await self._database.write(index.abandon_all)
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
            await self._database.write(lambda conn: index.remove_set(conn, set_id))
            if await self._read(index.names_want_rebuild):
                await self._database.write(index.rebuild_names)

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

    async def folder_size(self, set_id: str, path: bytes) -> tuple[int, int]:
        """As ``index.folder_size``."""
        return await self._read(lambda conn: index.folder_size(conn, set_id, path))

    async def find(
        self,
        glob: str | bytes,
        *,
        source: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        size_min: int | None = None,
        size_max: int | None = None,
        limit: int = 1000,
    ) -> list[Match]:
        """As ``index.find``."""
        return await self._read(
            lambda conn: index.find(
                conn,
                glob,
                source=source,
                since_ns=since_ns,
                until_ns=until_ns,
                size_min=size_min,
                size_max=size_max,
                limit=limit,
            )
        )

    async def matches(self, asked: CatalogFind, sources: Collection[str] | None, limit: int) -> list[Match]:
        """What ``find`` gives for a question of a person about ``sources`` (node ids; ``None`` = all); more than ``limit``
        if there is more."""
        found: list[Match] = []
        # one source after the other, so that the limit counts only what is shown
        for source in [None] if sources is None else sorted(sources):
            found += await self.find(
                asked.glob,
                source=source,
                since_ns=asked.since_ns,
                until_ns=asked.until_ns,
                limit=limit + 1 - len(found),
            )
            if len(found) > limit:
                break
        return found

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
        return await self._database.read(fn)
