"""This server as a peer of itself: whoever is in office on it talks to it as to all others."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from caso_mesh.identity.roster import Peer
from caso_mesh.model.errors import CasoError, InternalError, TimedOut
from caso_mesh.wire.link import Handler

log = logging.getLogger(__name__)


class OwnLink:
    """This server talking to itself, by the same calls and the same encoding as over a link."""

    def __init__(self, peer: Peer, handler: Handler) -> None:
        self.peer = peer
        self.remote_address = "own"
        self.dialled = True
        self.session = "own"
        self.closed = False
        self._handler = handler

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._handler.call(self, method, params)  # type: ignore[arg-type]
        except TimeoutError:
            raise TimedOut(what=method, seconds=timeout_s) from None
        except CasoError:
            raise
        except Exception as error:
            # as over a link: a bug in a handler is its caller's error, never the end of the daemon
            log.exception("handler of %s failed", method)
            raise InternalError(detail=f"{type(error).__name__} in {method}") from error

    async def notify(self, method: str, params: Any = None) -> None:
        try:
            await self._handler.notify(self, method, params)  # type: ignore[arg-type]
        except CasoError as error:
            log.warning("notification %s: %s", method, error)
        except Exception:
            # as above: nobody waits for an answer
            log.exception("handler of %s failed", method)
