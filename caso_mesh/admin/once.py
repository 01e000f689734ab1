"""Calls that do something that no command does, once: what each came to is committed under its request id.

A voter of before lacks the command for it. Until none is left, such a call is done again when it is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec import Struct

from caso_mesh.admin.ports import Caller, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model.errors import LogUnavailable
from caso_mesh.model.features import level_of
from caso_mesh.model.remembering import RememberCall
from caso_mesh.wire.codec import from_wire, to_wire

T = TypeVar("T", bound=Struct)


class Remembered:
    """What calls came to, kept in the control state."""

    def __init__(self, *, keeper: ControlKeeper, submit: Submit) -> None:
        self._keeper = keeper
        self._submit = submit

    def of(self, caller: Caller, type_: type[T]) -> T | None:
        """What this very request came to, if it was made before."""
        done = done_before(self._keeper, caller)
        return None if done is None else from_wire(done.result, type_, peer="the replicated log")

    async def keep(self, caller: Caller, result: T) -> T:
        """Commits it. Raises what ``ControlKeeper.submit`` raises."""
        command = RememberCall(to_wire(result))
        if level_of(command) <= self._keeper.state.info().feature_level:
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return result


class Once:
    """A duty of the office: what it is given goes on when whoever asked is cut off, and is joined by who asks again."""

    def __init__(self, remembered: Remembered) -> None:
        self._remembered = remembered
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[str, asyncio.Future[Any]] = {}

    async def run(self) -> None:
        """Never returns."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await asyncio.Event().wait()
        finally:
            self._group = None
            for answer in self._running.values():
                if not answer.done():
                    answer.set_exception(LogUnavailable(detail="this server is not in office any more"))
                    answer.exception()  # somebody may wait for it, or nobody

    async def __call__(self, caller: Caller, work: Callable[[], Awaitable[T]], reply: type[T]) -> T:
        """What ``work`` came to, now or when this request was made before. What it raises is not kept: then it may be tried
        again. Raises ``LogUnavailable`` while the office begins or ends."""
        known = self._remembered.of(caller, reply)
        if known is not None:
            return known
        answer: asyncio.Future[T] | None = self._running.get(caller.request_id)
        if answer is None:
            if self._group is None:
                raise LogUnavailable(detail="this office has just begun")
            answer = self._running[caller.request_id] = asyncio.get_running_loop().create_future()
            self._group.create_task(self._work(caller, work, answer))
        return await asyncio.shield(answer)

    async def _work(self, caller: Caller, work: Callable[[], Awaitable[T]], answer: asyncio.Future[T]) -> None:
        try:
            result = await self._remembered.keep(caller, await work())
            answer.set_result(result)
        except Exception as error:
            answer.set_exception(error)
            answer.exception()  # whoever asked may be gone
        finally:
            if answer.done():
                self._running.pop(caller.request_id, None)
