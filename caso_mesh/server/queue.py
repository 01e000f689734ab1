"""What a server keeps on disk for itself, in ``queue.db``: its orders, its attempts, its media, its writer ids, its
static peers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from caso_mesh.database import Database
from caso_mesh.model.errors import StateDamaged
from caso_mesh.model.facts import SetDeleted
from caso_mesh.model.orders import AttemptOrder, Orders
from caso_mesh.model.storage import Medium
from caso_mesh.planning.media import after_write

T = TypeVar("T")

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE orders (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL) STRICT;
    CREATE TABLE attempts (id TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
    CREATE TABLE media (label TEXT PRIMARY KEY, device TEXT NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE writers (vault TEXT PRIMARY KEY, writer TEXT NOT NULL) STRICT;
    CREATE TABLE peers (address TEXT PRIMARY KEY) STRICT;
    """,
    """
    CREATE TABLE counted (set_id TEXT PRIMARY KEY) STRICT;
    CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT;
    """,
)
#: How notes of deletions begin.
_DELETION = "deletion/"
#: After a rolled-back disk: how many labels of media are left out, since they may have been given already.
_LABEL_GAP = 1000


class LocalAttempt(Struct, frozen=True):
    """An attempt as this server holds it.

    ``began_at_ns``: a worker may have been started for it since, and ``mark`` is where the journal was then;
    ``publishing``: its set may be in the vault; ``ended``: it is over, and its end is in the journal.
    """

    order: AttemptOrder
    session: str
    set: str
    began_at_ns: int | None = None
    mark: tuple[str, int] | None = None
    publishing: bool = False
    ended: bool = False


class Queue:
    """Typed access to ``queue.db``. Everything is durable when a method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_orders(self) -> Orders | None:
        row = await self._database.read(lambda c: c.execute("SELECT data FROM orders").fetchone())
        return None if row is None else self._decode(row[0], Orders)

    def _decode(self, data: bytes, type_: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(data, type=type_)
        except msgspec.MsgspecError as error:
            raise StateDamaged(path=self._database.path, detail=error) from None

    async def save_orders(self, orders: Orders) -> None:
        data = msgspec.msgpack.encode(orders)

        def save(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR REPLACE INTO orders (one, data) VALUES (1, ?)", (data,))

        await self._database.write(save)

    async def attempts(self) -> dict[str, LocalAttempt]:
        rows = await self._database.read(lambda c: c.execute("SELECT id, data FROM attempts ORDER BY id").fetchall())
        return {id_: self._decode(data, LocalAttempt) for id_, data in rows}

    async def save_attempt(self, attempt: LocalAttempt) -> None:
        data = msgspec.msgpack.encode(attempt)

        def save(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR REPLACE INTO attempts (id, data) VALUES (?, ?)", (attempt.order.attempt, data))

        await self._database.write(save)

    async def forget_attempt(self, attempt: LocalAttempt) -> None:
        def forget(c: sqlite3.Connection) -> None:
            c.execute("DELETE FROM attempts WHERE id = ?", (attempt.order.attempt,))
            c.execute("DELETE FROM counted WHERE set_id = ?", (attempt.set,))

        await self._database.write(forget)

    async def take_medium(self, choose: Callable[[list[Medium]], Medium]) -> Medium:
        """The medium that ``choose`` takes or makes of all there are; no two callers make the same new one."""

        def take(c: sqlite3.Connection) -> Medium:
            medium = choose(self._media(c))
            _put_medium(c, medium)
            return medium

        return await self._database.write(take)

    async def count_set(self, label: str, set_id: str, bytes_stored: int, ended_at_ns: int) -> Medium | None:
        """The medium with a set more on it; a set counts once, however often it is told. ``None``: no such medium."""

        def count(c: sqlite3.Connection) -> Medium | None:
            row = c.execute("SELECT data FROM media WHERE label = ?", (label,)).fetchone()
            if row is None:
                return None
            medium = self._decode(row[0], Medium)
            if c.execute("INSERT OR IGNORE INTO counted (set_id) VALUES (?)", (set_id,)).rowcount:
                medium = after_write(medium, bytes_stored, ended_at_ns)
                _put_medium(c, medium)
            return medium

        return await self._database.write(count)

    async def all_media(self) -> list[Medium]:
        return await self._database.read(self._media)

    def _media(self, c: sqlite3.Connection) -> list[Medium]:
        return [self._decode(row[0], Medium) for row in c.execute("SELECT data FROM media ORDER BY label")]

    async def writer(self, vault: str, fresh: str) -> str:
        """This server's writer id in a vault: ``fresh`` if it has none yet."""

        def take(c: sqlite3.Connection) -> str:
            c.execute("INSERT OR IGNORE INTO writers (vault, writer) VALUES (?, ?)", (vault, fresh))
            return str(c.execute("SELECT writer FROM writers WHERE vault = ?", (vault,)).fetchone()[0])

        return await self._database.write(take)

    async def note_rolled_back(self, what: str) -> None:
        """Remembers until ``forget_note`` that this folder was put back to an older copy, and makes that harmless in
        the same step: other writer ids from now on, and labels of media that were never given before."""

        def put(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR REPLACE INTO note (name, text) VALUES ('rolled-back', ?)", (what,))
            c.execute("DELETE FROM writers")
            media = self._media(c)
            if media:
                last = max(media, key=lambda medium: medium.label)
                prefix, _, number = last.label.rpartition("-")
                label = f"{prefix}-{int(number) + _LABEL_GAP:06d}"
                # a place holder: of no device, so nothing is ever written to it
                _put_medium(c, msgspec.structs.replace(last, label=label, device="", bytes=0, sets=0))
                for medium in media:
                    c.execute("DELETE FROM media WHERE label = ?", (medium.label,))

        await self._database.write(put)

    async def rolled_back_note(self) -> str | None:
        row = await self._database.read(
            lambda c: c.execute("SELECT text FROM note WHERE name = 'rolled-back'").fetchone()
        )
        return None if row is None else str(row[0])

    async def forget_note(self) -> None:
        def forget(c: sqlite3.Connection) -> None:
            c.execute("DELETE FROM note WHERE name = 'rolled-back'")

        await self._database.write(forget)

    async def note_deletion(self, fact: SetDeleted) -> None:
        """Remembers until ``forget_deletion`` that the tombstone of a set may be in its device."""
        row = (_deletion(fact), msgspec.json.encode(fact).decode())
        await self._database.write(lambda c: c.execute("INSERT OR REPLACE INTO note (name, text) VALUES (?, ?)", row))

    async def forget_deletion(self, fact: SetDeleted) -> None:
        await self._database.write(lambda c: c.execute("DELETE FROM note WHERE name = ?", (_deletion(fact),)))

    async def deletions(self) -> list[SetDeleted]:
        """Those that are remembered."""
        like = f"{_DELETION}*"
        rows = await self._database.read(
            lambda c: c.execute("SELECT text FROM note WHERE name GLOB ? ORDER BY name", (like,)).fetchall()
        )
        try:
            return [msgspec.json.decode(text, type=SetDeleted) for (text,) in rows]
        except msgspec.MsgspecError as error:
            raise StateDamaged(path=self._database.path, detail=error) from None

    async def peers(self) -> list[str]:
        rows = await self._database.read(lambda c: c.execute("SELECT address FROM peers ORDER BY address").fetchall())
        return [row[0] for row in rows]

    async def add_peer(self, address: str) -> None:
        def add(c: sqlite3.Connection) -> None:
            c.execute("INSERT OR IGNORE INTO peers (address) VALUES (?)", (address,))

        await self._database.write(add)


def _deletion(fact: SetDeleted) -> str:
    return f"{_DELETION}{fact.device}/{fact.set}"


def _put_medium(c: sqlite3.Connection, medium: Medium) -> None:
    c.execute(
        "INSERT OR REPLACE INTO media (label, device, data) VALUES (?, ?, ?)",
        (medium.label, medium.device, msgspec.msgpack.encode(medium)),
    )
