"""What aiohttp does before a connection is a link. What a peer does wrong there is one line of the log: a traceback is for what is
our own fault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

log = logging.getLogger(__name__)

#: A peer that goes away, and one that does not speak HTTP.
_OF_PEERS = (OSError, HttpProcessingError)
_LONGEST = 200


class _HttpLog(logging.LoggerAdapter[logging.Logger]):
    """What it is handed may be under a peer's control: one line of bounded length, without control characters."""

    def log(self, level: int, msg: object, *args: object, **named: Any) -> None:
        error = named.get("exc_info")
        if isinstance(error, _OF_PEERS):
            text = str(msg) % args if args else str(msg)
            why = error.message if isinstance(error, HttpProcessingError) else str(error)
            line = " ".join(f"{text}: {why or type(error).__name__}".split())
            super().log(min(level, logging.INFO), "%s", line.encode("ascii", "backslashreplace").decode()[:_LONGEST])
        else:
            super().log(level, msg, *args, **named)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


#: For ``web.AppRunner(..., logger=HTTP_LOG)``.
HTTP_LOG = _HttpLog(log, {})


def runner_of(app: web.Application, close_timeout_s: float) -> web.AppRunner:
    """For connections of which each is for one link; whatever else is asked on one is its last question, and is not read to
    its end."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=HTTP_LOG,
        shutdown_timeout=close_timeout_s,
        keepalive_timeout=0,
        lingering_time=0,
    )


class Opening(asyncio.Protocol):
    """Stands before aiohttp's protocol until there is a link: a connection that is lost before is one that nobody waits for."""

    def __init__(self, http: asyncio.Protocol, opened: asyncio.Future[OSError | None]) -> None:
        self.http = http
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.http.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.http.data_received(data)

    def eof_received(self) -> bool | None:
        return self.http.eof_received()

    def pause_writing(self) -> None:
        self.http.pause_writing()

    def resume_writing(self) -> None:
        self.http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_result(
                exc if isinstance(exc, OSError) else ConnectionResetError("closed before it said hello")
            )
        self.http.connection_lost(exc)
