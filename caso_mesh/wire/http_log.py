"""Where aiohttp logs to: what a peer does wrong is one line, a traceback is for what is our own fault."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

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
