"""Opening a node's share in the replicated log, or laying down a new one."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from caso_mesh.consensus import store
from caso_mesh.consensus.driver import Driver
from caso_mesh.consensus.membership import Membership
from caso_mesh.consensus.outbox import Transport, nobody
from caso_mesh.consensus.port import Position, Replicated, Snapshot
from caso_mesh.database import Database
from caso_mesh.model.errors import NotFound
from caso_mesh.model.presets import Timing


async def elected(consensus: Replicated) -> None:
    """Returns when this node is in office; somebody runs it meanwhile."""
    async for leadership in consensus.leadership_changes():
        if leadership.in_office:
            return


@asynccontextmanager
async def open_replicated(
    path: str | os.PathLike[str],
    node: str,
    *,
    lineage: int = 1,
    preset: str | None = None,
    joins: tuple[str, ...] = (),
    start: Snapshot | None = None,
    transport: Transport = nobody,
    jitter: random.Random | None = None,
    timing: Timing | None = None,
    same_thread: bool = False,
    anew: bool = True,
) -> AsyncIterator[Replicated]:
    """Open or create this node's log. Whoever enters the context runs ``run``.

    A new log is that of a mesh whose only voter is ``node``; with ``joins``, the voters at the beginning of the log (see
    ``Replicated.founders``), it is empty and waits to be sent everything, also where ``node`` was one of them.
    ``lineage``, ``preset`` (a name in ``TIMINGS``) and ``start`` (what a new log continues from) are stored with a new
    log; an existing one ignores them. ``timing`` is for tests. Raises ``StateDamaged``, ``StateNotEmpty`` (the log of
    another node), ``NotFound`` where there is none and none is to be begun ``anew``, and what ``Database.open`` raises.
    """
    async with Database.open(path, store.MIGRATIONS, durable=True, same_thread=same_thread) as database:
        if not anew and not await database.read(lambda conn: store.is_laid(conn, database.path)):
            raise NotFound(kind="log", name=database.path)
        first = Position(start.term, start.index) if start else Position(0, 0)
        base = store.Base(first.index, first.term, Membership(joins or (node,)))
        await database.write(
            lambda conn: store.found(
                conn,
                database.path,
                node,
                lineage=lineage,
                preset=preset or "lan",
                base=base,
                start=start,
                joins=bool(joins),
            )
        )
        held = await database.read(lambda conn: store.load(conn, database.path))
        driver = Driver(database, held, transport, jitter or random.Random(), timing)
        try:
            yield driver
        finally:
            driver.close()
