"""What a server keeps on disk for itself, in ``queue.db``: its orders, its attempts, its media, its writer ids, its
static peers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from caso_mesh.database import Database
from caso_mesh.model.orders import AttemptOrder, Orders
from caso_mesh.model.storage import Medium

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE orders (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL) STRICT;
    CREATE TABLE attempts (id TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
    CREATE TABLE media (label TEXT PRIMARY KEY, device TEXT NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE writers (vault TEXT PRIMARY KEY, writer TEXT NOT NULL) STRICT;
    CREATE TABLE peers (address TEXT PRIMARY KEY) STRICT;
    """,
)


class LocalAttempt(Struct, frozen=True):
    """An attempt as this server holds it. ``began``: a worker was started for it; ``ended``: its end is in the
    journal. ``publishing``: its set may be in the vault."""

    order: AttemptOrder
    session: str
    set: str
    medium: Medium | None = None
    began_at_ns: int | None = None
    publishing: bool = False
    ended: bool = False


class Queue:
    """Typed access to ``queue.db``. Everything is durable when a method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_orders(self) -> Orders | None:
        row = await self._database.read(lambda c: c.execute("SELECT data FROM orders").fetchone())
        return None if row is None else msgspec.msgpack.decode(row[0], type=Orders)

    async def save_orders(self, orders: Orders) -> None:
        data = msgspec.msgpack.encode(orders)

        def save(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR REPLACE INTO orders (one, data) VALUES (1, ?)", (data,))

        await self._database.write(save)

    async def attempts(self) -> dict[str, LocalAttempt]:
        rows = await self._database.read(lambda c: c.execute("SELECT id, data FROM attempts ORDER BY id").fetchall())
        return {id_: msgspec.msgpack.decode(data, type=LocalAttempt) for id_, data in rows}

    async def save_attempt(self, attempt: LocalAttempt) -> None:
        data = msgspec.msgpack.encode(attempt)

        def save(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR REPLACE INTO attempts (id, data) VALUES (?, ?)", (attempt.order.attempt, data))

        await self._database.write(save)

    async def forget_attempt(self, attempt: str) -> None:
        def forget(c: sqlite3.Connection) -> None:
            c.execute("DELETE FROM attempts WHERE id = ?", (attempt,))

        await self._database.write(forget)

    async def media(self, device: str) -> list[Medium]:
        rows = await self._database.read(
            lambda c: c.execute("SELECT data FROM media WHERE device = ? ORDER BY label", (device,)).fetchall()
        )
        return [msgspec.msgpack.decode(row[0], type=Medium) for row in rows]

    async def all_media(self) -> list[Medium]:
        rows = await self._database.read(lambda c: c.execute("SELECT data FROM media ORDER BY label").fetchall())
        return [msgspec.msgpack.decode(row[0], type=Medium) for row in rows]

    async def save_medium(self, medium: Medium) -> None:
        data = msgspec.msgpack.encode(medium)

        def save(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT OR REPLACE INTO media (label, device, data) VALUES (?, ?, ?)",
                (medium.label, medium.device, data),
            )

        await self._database.write(save)

    async def writer(self, vault: str, fresh: str) -> str:
        """This server's writer id in a vault: ``fresh`` if it has none yet."""

        def take(c: sqlite3.Connection) -> str:
            c.execute("INSERT OR IGNORE INTO writers (vault, writer) VALUES (?, ?)", (vault, fresh))
            return str(c.execute("SELECT writer FROM writers WHERE vault = ?", (vault,)).fetchone()[0])

        return await self._database.write(take)

    async def new_writer(self, vault: str, fresh: str) -> None:
        """Another writer id from now on: after the state folder was rolled back, the old one may not go on."""

        def put(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR REPLACE INTO writers (vault, writer) VALUES (?, ?)", (vault, fresh))

        await self._database.write(put)

    async def peers(self) -> list[str]:
        rows = await self._database.read(lambda c: c.execute("SELECT address FROM peers ORDER BY address").fetchall())
        return [row[0] for row in rows]

    async def add_peer(self, address: str) -> None:
        def add(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR IGNORE INTO peers (address) VALUES (?)", (address,))

        await self._database.write(add)
