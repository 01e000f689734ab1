"""A database of what can be made again: a file that turns out damaged is set aside, and an empty one takes its place."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

from caso_mesh.database.aside import put_aside
from caso_mesh.database.database import Database
from caso_mesh.database.migration import Migration
from caso_mesh.model.errors import Misuse, StateDamaged, Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


class MendingDatabase:
    """Use ``MendingDatabase.open``. Its methods are those of ``Database``; when the file turns out damaged ``read``, ``write``
    and ``settle`` raise ``Unavailable``, and the next call finds an empty database."""

    def __init__(
        self, path: Path, migrations: Sequence[Migration], *, what: str, same_thread: bool, readers: int
    ) -> None:
        self._path = path
        self._migrations = migrations
        self._what = what
        self._same_thread = same_thread
        self._readers = readers
        self._stack = AsyncExitStack()
        self._database: Database
        self._mending = asyncio.Lock()
        self._down = True
        #: How often that happened since it was opened, and what was found last.
        self.mended = 0
        self.damage: str | None = None
        #: Called whenever it happens.
        self.on_mended: list[Callable[[], None]] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | os.PathLike[str],
        migrations: Sequence[Migration],
        *,
        what: str,
        same_thread: bool = False,
        readers: int = 1,
        prepare: Callable[[sqlite3.Connection], None] = lambda conn: None,
    ) -> AsyncIterator[Self]:
        """``what`` it is, for people; ``prepare`` is done first. Not durable but by ``settle``. Raises what
        ``Database.open`` raises, but for ``StateDamaged``."""
        mending = cls(Path(path), migrations, what=what, same_thread=same_thread, readers=readers)
        mending._prepare = prepare
        try:
            try:
                await mending._begin()
            except StateDamaged as error:
                await mending._set_aside(error)
            except (sqlite3.OperationalError, UnicodeDecodeError) as error:
                # a database of something else: the migrations do not find what they know, or words that are none
                await mending._set_aside(StateDamaged(path=mending._path, detail=error))
            yield mending
        finally:
            await mending._stack.aclose()

    _prepare: Callable[[sqlite3.Connection], None]

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._try(lambda database: database.read(fn))

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._try(lambda database: database.write(fn))

    async def give_back(self) -> int:
        return await self._try(lambda database: database.give_back())

    async def settle(self) -> None:
        await self._try(lambda database: database.settle())

    @property
    def generation(self) -> int:
        return self._database.generation

    async def wait_for_commit(self, generation: int) -> int:
        return await self._database.wait_for_commit(generation)

    async def _try(self, call: Callable[[Database], Awaitable[T]]) -> T:
        if self._down:
            async with self._mending:
                if self._down:
                    await self._begin()  # the disk refused the new file, and may not any more
        database = self._database
        try:
            return await call(database)
        except StateDamaged as error:
            async with self._mending:
                if self._database is database:
                    await self._set_aside(error)
            raise Unavailable(what=self._what) from error
        except Misuse as error:
            if self._database is database:
                raise
            raise Unavailable(what=self._what) from error  # closed under it by another one that found the damage

    async def _begin(self) -> None:
        async with AsyncExitStack() as stack:
            self._database = await stack.enter_async_context(
                Database.open(
                    self._path, self._migrations, durable=False, same_thread=self._same_thread, readers=self._readers
                )
            )
            await self._database.write(self._prepare)
            self._stack = stack.pop_all()
        self._down = False

    async def _set_aside(self, error: StateDamaged) -> None:
        self._down = True
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
        aside = await asyncio.to_thread(put_aside, self._path)
        log.error("%s is damaged, and begins anew: %s; the old file is %s", self._what, error, aside)
        self.mended += 1
        self.damage = f"{error.message.rstrip('.')}; it was set aside as {aside.name}"
        for told in self.on_mended:
            told()
        await self._begin()
