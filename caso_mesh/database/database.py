"""One SQLite file: consistent reads beside one writer that commits in groups."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, Generic, TypeVar, cast

from caso_mesh.database.aside import is_whole
from caso_mesh.database.connection import open_plain, open_reader, open_writer
from caso_mesh.database.failure import explain, explained
from caso_mesh.database.migration import Migration, migrate
from caso_mesh.database.runner import InPlaceRunner, Runner, ThreadRunner, to_the_end
from caso_mesh.database.shrinking import copied, give_back
from caso_mesh.model.errors import Misuse, StateDamaged

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Steps of giving pages back, at once.
_STEPS = 16
#: Writes that share one commit at most, so that the first of a long queue does not wait for the last.
_GROUP = 256


class _Work(Generic[T]):
    """One function to call, and how it ended."""

    __slots__ = ("abandoned", "done", "error", "fn", "value")

    def __init__(self, fn: Callable[[sqlite3.Connection], T]) -> None:
        self.fn = fn
        self.done = False
        self.abandoned = False
        self.value: T | None = None
        self.error: BaseException | None = None

    def call(self, connection: sqlite3.Connection) -> None:
        try:
            self.value, self.error = self.fn(connection), None
        except BaseException as error:
            self.value, self.error = None, error

    def result(self, path: str) -> T:
        if self.error is not None:
            known = isinstance(self.error, (sqlite3.Error, OverflowError))
            found = explain(self.error, path) if known else None
            if found is None:
                raise self.error
            raise found from self.error
        return cast("T", self.value)


class Database:
    """An open SQLite database. Use ``Database.open``.

    In the threaded form each connection has its own thread; in the same-thread form everything happens in the event
    loop's thread, in an order that depends on nothing but the order of the calls.
    """

    def __init__(self, path: str, *, same_thread: bool, readers: int) -> None:
        make: Callable[[], Runner] = InPlaceRunner if same_thread else ThreadRunner
        self._path = path
        self.same_thread = same_thread
        self._writer = make()
        self._readers = [make() for _ in range(readers)]
        self._reading = [0] * readers
        self._queue: deque[_Work[Any]] = deque()
        self._open = False
        self._generation = 0
        self._bell = asyncio.Event()
        self._damage: StateDamaged | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | os.PathLike[str],
        migrations: Sequence[Migration],
        *,
        durable: bool,
        same_thread: bool = False,
        readers: int = 1,
    ) -> AsyncIterator[Database]:
        """Open or create the database and bring its schema to the newest version.

        ``durable``: a write that has returned survives a loss of power (``synchronous=FULL``); otherwise it survives
        only the end of the process. ``same_thread``: no thread, for simulation. ``readers``: how many reads may go on
        at once (threaded form). Raises ``StateTooNew``, ``StateDamaged``, ``StateFull``, ``StateDiskFailed``,
        ``StateLocked`` (another process holds it).
        """
        database = cls(os.fspath(path), same_thread=same_thread, readers=readers)
        try:
            await to_the_end(database._start(migrations, durable=durable))
            yield database
        finally:
            await to_the_end(database._stop())

    @property
    def path(self) -> str:
        return self._path

    @property
    def generation(self) -> int:
        """Rises with each group that was committed; for ``wait_for_commit``."""
        return self._generation

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``fn``, which sees one consistent state and may not write.

        It sees every write that had returned before. ``fn`` must have fetched all it wants when it returns. A cancelled
        caller does not end ``fn``. Raises what ``fn`` raises; SQLite's failures as in ``open``.
        """
        self._must_be_open()
        work = _Work(fn)
        number = self._reading.index(min(self._reading))
        self._reading[number] += 1
        try:
            await self._readers[number].run(lambda connection: _read(connection, work))
        finally:
            self._reading[number] -= 1
        if _is_write_by_reader(work.error):
            raise Misuse("a read function tried to write") from work.error
        return self._result(work)

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``fn`` when its changes are committed; durably so if the database was opened ``durable``.

        Writes are executed in the order of the calls. Those that wait share one transaction, each in its own
        savepoint: when ``fn`` raises, only its own changes are undone, and only its caller sees the error. ``fn`` may
        be called again if a neighbour's failure undid the whole transaction (SQLite does so when the disk is full), so
        all it does is to change the database. It neither begins nor ends transactions.

        A cancelled caller's write is left out if it has not begun, and is otherwise committed as a whole.
        """
        self._must_be_open()
        work = _Work(fn)
        self._queue.append(work)
        try:
            await self._writer.run(self._drain)
        except asyncio.CancelledError:
            work.abandoned = True
            raise
        return self._result(work)

    async def settle(self) -> None:
        """What was written before survives a loss of power from now on, also in a database that is not ``durable``."""
        self._must_be_open()
        # the log is synced before anything of it is copied into the file; sqlite.org/pragma.html#pragma_synchronous
        await self._writer.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    async def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Writes this database, as of one moment, into a new file that no process has open."""

        def copy(connection: sqlite3.Connection) -> None:
            with explained(os.fspath(path)), closing(open_plain(os.fspath(path))) as target:
                connection.backup(target)

        await self.read(copy)

    async def write_from(self, path: str | os.PathLike[str], fn: Callable[[sqlite3.Connection], T]) -> T:
        """As ``write``, with the database in the file ``path`` attached as ``copy``."""
        self._must_be_open()
        work = _Work(fn)

        def run(connection: sqlite3.Connection) -> None:
            connection.execute("ATTACH ? AS copy", (os.fspath(path),))
            try:
                _commit(connection, [work])
            finally:
                connection.execute("DETACH copy")
            if work.error is None:
                self._writer.tell(self._on_commit)

        await self._writer.run(run)
        return work.result(self._path)

    async def prune(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """As ``write``; of what ``fn`` has deleted some is given back (``give_back``)."""
        found = await self.write(fn)
        await self.give_back()
        return found

    async def give_back(self) -> int:
        """Gives back to the file system what the file holds and needs no more, in small steps between the writes of others, and
        not all of it at once; how many pages. To be called after much was deleted."""
        given = 0
        for _ in range(_STEPS):
            step = await self.write(give_back)
            given += step
            if not step:
                break
        return given

    async def wait_for_commit(self, generation: int, *, unless: Callable[[], bool] = lambda: False) -> int:
        """Wait until ``self.generation`` is beyond ``generation``; return it. When the database is closed meanwhile:
        returns if ``unless()`` holds, else raises ``Misuse``.

        Nothing committed is missed when the generation is taken before the read.
        """
        while self._generation <= generation and not unless():
            self._must_be_open()
            await self._bell.wait()
        return self._generation

    @property
    def damage(self) -> StateDamaged | None:
        """How it was first noticed that the file is damaged."""
        return self._damage

    async def wait_for_damage(self) -> StateDamaged:
        """Returns when the file turns out to be damaged. ``Misuse`` when it is closed before."""
        while self._damage is None:
            self._must_be_open()
            await self._bell.wait()
        return self._damage

    async def check(self) -> None:
        """Looks at the pages of the whole file, which takes as long as reading it. Raises ``StateDamaged``."""
        self._must_be_open()
        found = is_whole(self._path) if self.same_thread else await asyncio.to_thread(is_whole, self._path)
        if found is not None:
            self._damage = self._damage or StateDamaged(path=self._path, detail=found)
            self._ring()
            raise self._damage

    def _result(self, work: _Work[T]) -> T:
        try:
            return work.result(self._path)
        except StateDamaged as error:
            if isinstance(work.error, sqlite3.Error):
                self._damage = self._damage or error
                self._ring()
            raise

    async def _start(self, migrations: Sequence[Migration], *, durable: bool) -> None:
        def connect() -> sqlite3.Connection:
            connection = open_writer(self._path, durable=durable)
            try:
                migrate(connection, self._path, migrations)
                if self._shrunk(connection):
                    connection = open_writer(self._path, durable=durable)
            except BaseException:
                connection.close()
                raise
            return connection

        await self._writer.start(connect)
        for reader in self._readers:
            await reader.start(lambda: open_reader(self._path))
        self._open = True

    def _shrunk(self, connection: sqlite3.Connection) -> bool:
        try:
            return copied(connection, self._path)
        except (OSError, sqlite3.Error) as error:
            log.warning("%s keeps what it does not need: %s", self._path, error)
            return False

    async def _stop(self) -> None:
        self._open = False
        self._ring()
        # The writer goes last: SQLite folds the log into the file when the last connection closes.
        for runner in (*self._readers, self._writer):
            await runner.stop()

    def _must_be_open(self) -> None:
        if not self._open:
            raise Misuse(f"the database {self._path} is closed")

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    def _on_commit(self) -> None:
        self._generation += 1
        self._ring()

    def _drain(self, connection: sqlite3.Connection) -> None:
        """Commit what waits. Called once for each write, so mostly there is nothing left: an earlier call took it.

        A group that is full leaves the rest to the calls that follow. The work of the call itself is always at or
        before the head of the queue, hence done afterwards.
        """
        group: list[_Work[Any]] = []
        while self._queue and len(group) < _GROUP:
            work = self._queue.popleft()
            if not work.abandoned:
                group.append(work)
        if not group:
            return
        if not _commit(connection, group) and len(group) > 1:
            # The whole transaction was lost. Those who are not to blame get one each.
            for work in group:
                if not work.done:
                    _commit(connection, [work])
        if any(work.error is None for work in group):
            self._writer.tell(self._on_commit)


def _commit(connection: sqlite3.Connection, group: list[_Work[Any]]) -> bool:
    """Execute a group in one transaction. ``False``: it was undone, and work that is not ``done`` is to be repeated.

    Work is ``done`` when its outcome is final. A group of one always ends done.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        for work in group:  # another process holds the file: waiting again for each would only take longer
            work.error, work.done = error, True
        return True
    try:
        for work in group:
            connection.execute("SAVEPOINT work")
            work.call(connection)
            work.done = work.error is not None
            if not connection.in_transaction:
                if work.error is None:
                    work.error, work.done = Misuse("a write function ended the transaction it was called in"), True
                return False
            if work.error is not None:
                connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
        connection.execute("COMMIT")
    except BaseException as error:
        if len(group) == 1:
            group[0].error, group[0].done = group[0].error or error, True
        return False
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    for work in group:
        work.done = True
    return True


def _read(connection: sqlite3.Connection, work: _Work[Any]) -> None:
    connection.execute("BEGIN")
    try:
        work.call(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_write_by_reader(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY
