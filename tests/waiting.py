"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

#: How long a test waits for what is so at once: a machine may be ten times slower for seconds at a time.
PATIENCE_S = 30.0


def _said(what: str, predicate: Callable[..., Any], timeout_s: float, last: object, error: Exception | None) -> str:
    if not what:
        try:
            what = inspect.getsource(predicate).strip()
        except (OSError, TypeError):
            what = repr(predicate)
    seen = f"it raised {error!r}" if error is not None else f"its last value was {last!r}"
    return f"not so within {timeout_s:g} s: {what}\n{seen}"


def wait_for(predicate: Callable[[], T], timeout_s: float = PATIENCE_S, *, what: str = "", every_s: float = 0.02) -> T:
    """Calls ``predicate`` until it gives something true, and returns that. An ``AssertionError`` it raises counts as
    "not yet". Raises ``AssertionError`` with ``what`` (default: its source) and its last value after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while True:
        value, error = None, None
        try:
            value = predicate()
        except AssertionError as raised:
            error = raised
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(_said(what, predicate, timeout_s, value, error))
        time.sleep(every_s)


async def wait_for_async(
    predicate: Callable[[], T | Awaitable[T]], timeout_s: float = PATIENCE_S, *, what: str = "", every_s: float = 0.02
) -> T:
    """``wait_for`` inside of an event loop, by the loop's own time; ``predicate`` may be a coroutine function."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while True:
        value, error = None, None
        try:
            found = predicate()
            value = await found if inspect.isawaitable(found) else found
        except AssertionError as raised:
            error = raised
        if value:
            return value
        if loop.time() >= end:
            raise AssertionError(_said(what, predicate, timeout_s, value, error))
        await asyncio.sleep(every_s)


def one_of_three(attempt: Callable[[], None]) -> None:
    """For what is about real seconds: ``attempt`` must succeed once in three times, since one may fall into a moment at
    which this machine stands still. Raises what the last one raised."""
    for left in (2, 1, 0):
        try:
            attempt()
            return
        except (Exception, pytest.fail.Exception):
            if not left:
                raise


async def in_one_of_three(attempt: Callable[[], Awaitable[None]]) -> None:
    """``one_of_three`` inside of an event loop."""
    for left in (2, 1, 0):
        try:
            await attempt()
            return
        except (Exception, pytest.fail.Exception):
            if not left:
                raise
