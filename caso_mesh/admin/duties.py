"""Keeping duties going: one that fails is told of and begun again, and stops no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from caso_mesh.admin.alarms import Alarms
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError, LogUnavailable
from caso_mesh.model.states import AlertKind

log = logging.getLogger(__name__)

#: A duty that fails is begun again after a pause, which grows while it fails within ``_WELL_S`` of its start.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _WELL_S = 0.5, 30.0, 60.0
_DAY_NS = 86400 * 1_000_000_000

Duty = Callable[[], Awaitable[None]]


async def keep_all(duties: Mapping[str, Duty], *, whose: str, alarms: Alarms, clock: Clock) -> None:
    """Keeps all of them going, by their names, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for name, duty in duties.items():
            group.create_task(_keep(name, duty, whose, alarms, clock))


async def _keep(name: str, duty: Duty, whose: str, alarms: Alarms, clock: Clock) -> None:
    """Keeps one duty going. A failing one is logged and told of, and begun again: a full disk must not stop the
    others, and a mistake of ours in one must not end the backups that run."""
    pause_s = _FIRST_PAUSE_S
    while True:
        began_s = clock.monotonic_s()
        reason = "it ended by itself"
        try:
            await in_own_task(duty)
            log.warning("the duty %s ended by itself", name)
        except* LogUnavailable as failed:
            # the office is being handed over, or lacks its majority: that is told of elsewhere
            log.warning("the duty %s waits: %s", name, "; ".join(str(error) for error in leaves(failed)))
            reason = ""
        except* CasoError as failed:
            reason = "; ".join(str(error) for error in leaves(failed))
            log.error("the duty %s failed: %s", name, reason)
        except* Exception as failed:
            reason = "; ".join(f"{type(error).__name__}: {error}" for error in leaves(failed))
            log.exception("the duty %s failed", name)
        end_if_cancelled()  # a task group whose child fails then forgets that it was to end
        if clock.monotonic_s() - began_s > _WELL_S:
            pause_s = _FIRST_PAUSE_S
        if reason:
            day = clock.now_ns() // _DAY_NS
            text = f"{whose}'s duty {name} failed and is begun again: {reason}"
            occasion = f"{name}/{day}/{reason[:200]}"
            await alarms.attempt(occasion, AlertKind.ERROR, "office-duty-failed", text, object=name)
        await asyncio.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)


async def in_own_task(work: Callable[[], Awaitable[None]]) -> None:
    """Does it in a task of its own, which ends with the caller's; raises what it raises, and ``CancelledError`` only if the
    caller is to end: work that was cancelled from within counts as ended by itself.

    Up to Python 3.12 a task keeps the mark of a cancellation for ever when a child of a task group in it failed
    (python/cpython#116720). Who asks for that mark to see whether it is to end itself must not share a task with the work.
    """
    task = asyncio.ensure_future(work())
    try:
        await task
    except asyncio.CancelledError:
        end_if_cancelled()


def end_if_cancelled() -> None:
    """Raises ``CancelledError`` if the current task is to end, and something on the way swallowed that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    """What really failed."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
