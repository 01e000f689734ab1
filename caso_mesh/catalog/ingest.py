"""Taking in the detail of a set: what changed against the latest set of its chain becomes versions.

A segment against the latest set costs what it names. One against an older set first takes back what changed since, in
the folders that were touched. A full listing is compared with what is current, folder by folder, in path order.

All of it goes in *slices*, each one transaction of the caller, so that others are served in between. Until the last one
the new set has no place (``backup_set.seq``), and whatever begins at its place is in no set that can be seen; ending a
version just before it changes nothing for sets before. A slice that was not the last is undone by ``abandon``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import cast

from msgspec import Struct

from caso_mesh.catalog import blocks, sets
from caso_mesh.catalog.changes import Changes
from caso_mesh.catalog.removal import abandon
from caso_mesh.catalog.schema import Row
from caso_mesh.catalog.segment import SegmentReader
from caso_mesh.catalog.walk import Walk
from caso_mesh.model.errors import CatalogBaseMissing, DataDamaged


class IngestResult(Struct, frozen=True):
    """``appeared`` versions begin with the set (``first_seen`` of them have names never seen there before), ``ended``
    ones were in the chain's set before and are not in this one, changed entries are in both. ``repeated``: the detail
    was there already, nothing was done."""

    set: str
    appeared: int = 0
    ended: int = 0
    first_seen: int = 0
    repeated: bool = False


class SliceLost(Exception):
    """A slice was undone after it had returned (a neighbour's failure took the transaction with it). Begin anew."""


class Ingest:
    """One taking-in. Call ``step`` in one transaction after the other until it returns the result.

    ``step`` raises ``NotFound`` (the set has no record), ``CatalogBaseMissing``, ``DataDamaged``, ``SliceLost``; then
    ``abandon`` takes back what earlier slices did.
    """

    def __init__(self, segment: SegmentReader) -> None:
        self._segment = segment
        self._slices = 0
        self._work: Iterator[None] | None = None
        self._changes = Changes(0, 0)

    def step(self, conn: sqlite3.Connection) -> IngestResult | None:
        """One slice; the result after the last."""
        header = self._segment.header
        if self._work is None:
            if not self._begin(conn):
                return IngestResult(header.set, repeated=True)
        else:
            row = conn.execute(
                "SELECT 1 FROM pending WHERE chain = ? AND seq = ? AND slice = ?",
                (self._changes.chain, self._changes.seq, self._slices),
            ).fetchone()
            if row is None:
                raise SliceLost
        work, changes = cast("Iterator[None]", self._work), self._changes
        self._slices += 1
        for _ in work:
            changes.flush(conn)
            conn.execute("UPDATE pending SET slice = ? WHERE chain = ?", (self._slices, self._changes.chain))
            return None
        changes.flush(conn)
        conn.execute("DELETE FROM pending WHERE chain = ?", (self._changes.chain,))
        conn.execute("UPDATE backup_set SET seq = ? WHERE set_id = ?", (self._changes.seq, header.set))
        return IngestResult(header.set, changes.appeared, changes.ended, changes.first_seen)

    def _begin(self, conn: sqlite3.Connection) -> bool:
        header = self._segment.header
        place = sets.place(conn, header.set)
        if place.seq is not None:
            return False
        if conn.execute("SELECT chain FROM chain WHERE id = ?", (place.chain,)).fetchone()[0] != header.chain:
            raise _damaged("it is of another chain than its set")
        abandon(conn, place.chain)
        base = None
        if header.base is not None:
            found = conn.execute(
                "SELECT seq FROM backup_set WHERE set_id = ? AND chain = ?", (header.base, place.chain)
            ).fetchone()
            if found is None or found[0] is None:
                raise CatalogBaseMissing(set=header.set, base=header.base)
            base = int(found[0])
        seq = int(conn.execute("SELECT next_seq FROM chain WHERE id = ?", (place.chain,)).fetchone()[0])
        conn.execute("UPDATE chain SET next_seq = next_seq + 1 WHERE id = ?", (place.chain,))
        conn.execute("INSERT INTO pending (chain, seq, slice) VALUES (?, ?, 0)", (place.chain, seq))
        self._changes = Changes(place.chain, seq)
        self._work = self._all(conn, place, base)
        return True

    def _all(self, conn: sqlite3.Connection, place: sets.Place, base: int | None) -> Iterator[None]:
        changes = self._changes
        latest = sets.latest_seq(conn, place.chain)
        walk = Walk(conn, changes, place, full=base is None, compare=base is None and latest > 0)
        if base is not None and base != latest:
            yield from self._take_back(conn, base, latest)
            changes.flush(conn)
        for block in self._segment.blocks():
            yield from walk.through(block)
        yield from walk.finish()

    def _take_back(self, conn: sqlite3.Connection, base: int, latest: int) -> Iterator[None]:
        """Make the current versions those of the set at ``base``."""
        changes = self._changes
        touched = conn.execute(
            "SELECT DISTINCT folder FROM touched WHERE chain = ? AND seq > ? AND seq <= ?",
            (self._changes.chain, base, latest),
        ).fetchall()
        for (folder,) in touched:
            wanted = self._listing(conn, folder, base)
            current = self._listing(conn, folder, latest)
            said: dict[bytes, Row | None] = {}
            for name, (first, row) in current.items():
                if name not in wanted:
                    changes.count_end(first)
                    said[name] = None
                elif wanted[name][1] != row:
                    changes.count_end(first)
            for name, (_first, row) in wanted.items():
                if name not in current or current[name][1] != row:
                    changes.appeared += 1
                    said[name] = row
            if said:
                order = sorted(said)
                changes.put(folder, order, [said[name] for name in order])
            changes.work_done(2 + len(wanted))
            if changes.is_slice_full():
                yield

    def _listing(self, conn: sqlite3.Connection, folder: int, at: int) -> dict[bytes, tuple[int, Row]]:
        return {name: (first, row) for name, first, row in blocks.listing(conn, self._changes.chain, folder, at)}


def ingest(conn: sqlite3.Connection, segment: SegmentReader) -> IngestResult:
    """Take in the detail of a set, whole or not at all; repeated, it does nothing.

    Raises ``NotFound`` if the set has no record (``add_set``), ``CatalogBaseMissing`` if the set that the segment builds
    on has no detail here: ask for a full listing; ``DataDamaged``.
    """
    conn.execute("SAVEPOINT catalog_ingest")
    try:
        work = Ingest(segment)
        result = None
        while result is None:
            result = work.step(conn)
    except BaseException:
        if not conn.in_transaction:
            raise
        conn.execute("ROLLBACK TO catalog_ingest")
        conn.execute("RELEASE catalog_ingest")
        raise
    conn.execute("RELEASE catalog_ingest")
    return result


def _damaged(detail: str) -> DataDamaged:
    return DataDamaged(object="the catalog segment", detail=detail)
