"""Who waits: for a proposal to be applied, for a place to read at."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from caso_mesh.consensus.port import Entry, Position
from caso_mesh.consensus.reads import ReadState
from caso_mesh.model.errors import CasoError, LogUnavailable


class _Proposed(Struct):
    """A proposal that is not applied yet."""

    term: int
    done: asyncio.Future[None]


class Pending:
    """Futures by the place of what they wait for."""

    def __init__(self) -> None:
        self._proposed: dict[int, _Proposed] = {}
        self._reads: dict[int, asyncio.Future[int]] = {}
        self._tokens = 0

    async def applied(self, position: Position) -> Position:
        """Waits until the entry at ``position`` is applied. Raises ``LogUnavailable`` if another one is there then, and
        what ``fail`` is given."""
        proposed = _Proposed(position.term, asyncio.get_running_loop().create_future())
        self._proposed[position.index] = proposed
        try:
            await proposed.done
        finally:
            if self._proposed.get(position.index) is proposed:
                del self._proposed[position.index]
        return position

    def new_read(self) -> int:
        """A token for a read that ``read`` waits for."""
        self._tokens += 1
        self._reads[self._tokens] = asyncio.get_running_loop().create_future()
        return self._tokens

    async def read(self, token: int) -> int:
        """The index to read at. Raises what ``fail`` is given."""
        return await self._reads[token]

    def forget_read(self, token: int) -> None:
        self._reads.pop(token, None)

    def entry(self, entry: Entry) -> None:
        """An entry was applied."""
        proposed = self._proposed.get(entry.index)
        if proposed is None or proposed.done.done():
            return
        if proposed.term == entry.term:
            proposed.done.set_result(None)
        else:
            proposed.done.set_exception(LogUnavailable(detail="another server's command took its place"))

    def answered(self, read: ReadState) -> None:
        future = self._reads.get(read.token)
        if future is not None and not future.done():
            future.set_result(read.index)

    def fail(self, error: CasoError) -> None:
        """Ends all waiting."""
        futures: list[asyncio.Future[None] | asyncio.Future[int]] = [each.done for each in self._proposed.values()]
        futures += self._reads.values()
        for future in futures:
            if not future.done():
                future.set_exception(error)
