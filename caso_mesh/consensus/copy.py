"""What the log of a stopped member holds, for whoever takes over by hand."""

from __future__ import annotations

import os

from msgspec import Struct

from caso_mesh.consensus import store
from caso_mesh.consensus.port import Entry, Snapshot
from caso_mesh.database import Database


class Copy(Struct, frozen=True):
    """What a stopped member's disk holds: everything up to the last entry, whether it is known to be committed or not."""

    lineage: int
    preset: str
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]


async def read_log(path: str | os.PathLike[str]) -> Copy:
    """What the log of a stopped member holds. Raises ``StateDamaged``, and what ``Database.open`` raises."""
    async with Database.open(path, store.MIGRATIONS, durable=True) as database:
        held = await database.read(lambda conn: store.load(conn, database.path))
    return Copy(held.standing.lineage, held.standing.preset, held.snapshot, held.entries)
