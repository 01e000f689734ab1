"""The plain HTTP listener of a server that is monitored: ``/metrics``, ``/healthz``, ``/readyz``, by GET alone.

Anybody who reaches the address may read, nobody can change anything, and nobody can keep the daemon busy: so many connections
at once, one request on each, a few seconds for all of it, and figures that are taken once a second at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from caso_mesh.config import MetricsConfig
from caso_mesh.metrics.meter import Meter
from caso_mesh.metrics.readiness import Readiness
from caso_mesh.model import facts
from caso_mesh.model.errors import CannotListen, CasoError, PortInUse
from caso_mesh.model.states import AlertKind
from caso_mesh.server.facts import FactWriter
from caso_mesh.wire.http import HTTP_LOG
from caso_mesh.wire.network import join_address, split_address

log = logging.getLogger(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CATEGORY = "metrics-unavailable"
_MOST_CONNECTIONS = 32
#: Everything about one connection: handshake, request, answer.
_CONNECTION_S = 15.0
_LONGEST_LINE = 2048
#: How often it is looked whether the certificate was renewed, and when listening is tried again.
_LOOK_EACH_S, _AGAIN_S = 60.0, 30.0


class MetricsListener:
    """While it cannot listen an alert of ``server`` says so, and backups go on."""

    def __init__(
        self, config: MetricsConfig, meter: Meter, readiness: Readiness, facts: FactWriter, server: str
    ) -> None:
        self._config = config
        self._meter = meter
        self._readiness = readiness
        self._facts = facts
        self._server = server
        #: HOST:PORT, while it listens.
        self.address: str | None = None

    async def run(self) -> None:
        """Listens if it was configured; never returns."""
        if not self._config.listen:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._meter.run())
            group.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            try:
                async with self._listening() as tls:
                    await self._tell(None)
                    await self._look_after(tls)
            except (CasoError, OSError) as error:
                log.error("no metrics: %s", error)
                await self._tell(str(error))
            await asyncio.sleep(_AGAIN_S)

    async def _tell(self, problem: str | None) -> None:
        try:
            standing = (await self._facts.alerts()).standing(_CATEGORY, self._server, AlertKind.WARNING)
            if problem is not None and standing is None:
                text = f"{self._server} shows no metrics: {problem}"
                await self._facts.alert(AlertKind.WARNING, _CATEGORY, text, object=self._server)
            elif problem is None and standing is not None:
                await self._facts.append(facts.AlertCleared(standing))
        except CasoError as error:
            log.error("the alert about metrics could not be told: %s", error)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[ssl.SSLContext | None]:
        tls = await asyncio.to_thread(self._context) if self._config.certificate else None
        app = web.Application(client_max_size=0)
        # not ``add_get``: that answers HEAD, too
        app.router.add_route("GET", "/metrics", self._metrics)
        app.router.add_route("GET", "/healthz", self._healthz)
        app.router.add_route("GET", "/readyz", self._readyz)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=HTTP_LOG,
            shutdown_timeout=1.0,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            handler_cancellation=True,
        )
        await runner.setup()
        try:
            server = await self._bind(runner, tls)
            try:
                host, port = server.sockets[0].getsockname()[:2]
                self.address = join_address(host, port)
                log.info("figures are shown at %s://%s/metrics", "https" if tls else "http", self.address)
                yield tls
            finally:
                self.address = None
                server.close()
        finally:
            await runner.cleanup()

    async def _bind(self, runner: web.AppRunner, tls: ssl.SSLContext | None) -> asyncio.Server:
        host, port = split_address(self._config.listen)
        try:
            return await asyncio.get_running_loop().create_server(
                lambda: self._accept(runner), host, port, ssl=tls, ssl_handshake_timeout=5.0 if tls else None
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(address=self._config.listen) from None
            raise CannotListen(address=self._config.listen, detail=error.strerror or error) from None

    def _accept(self, runner: web.AppRunner) -> asyncio.BaseProtocol:
        server = runner.server
        if server is None or len(server.connections) >= _MOST_CONNECTIONS:
            return _Refused()
        protocol = server()
        asyncio.get_running_loop().call_later(_CONNECTION_S, protocol.force_close)
        return protocol

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._config.certificate, self._config.key, password="")
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            detail = f"the certificate {self._config.certificate} with its key: {error}"
            raise CannotListen(address=self._config.listen, detail=detail) from None

    async def _look_after(self, tls: ssl.SSLContext | None) -> None:
        """A certificate that is renewed in its place holds for the next connection; never returns."""
        known = await asyncio.to_thread(self._times)
        while True:
            await asyncio.sleep(_LOOK_EACH_S)
            found = await asyncio.to_thread(self._times)
            if tls is not None and found != known:
                known = found
                try:
                    await asyncio.to_thread(self._load, tls)
                except CannotListen as error:
                    log.error("the certificate in use stays: %s", error)

    def _times(self) -> tuple[int, ...]:
        times = []
        for path in (self._config.certificate, self._config.key):
            with contextlib.suppress(OSError):
                times.append(os.stat(path).st_mtime_ns)
        return tuple(times)

    # --- what is asked ---

    async def _metrics(self, request: web.Request) -> web.Response:
        try:
            found = await self._meter.take()
        except CasoError as error:
            return _answer({"error": error.code, "message": error.message}, status=503)
        return web.Response(body=found.text.encode(), headers={"Content-Type": _CONTENT_TYPE})

    async def _healthz(self, request: web.Request) -> web.Response:
        """Whoever gets an answer knows that the event loop turns; when a part of the daemon fails the process ends."""
        return _answer({"status": "alive", "event_loop_delay_s": round(self._meter.delay_s, 4)})

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = await self._readiness.problems()
        if not problems:
            return _answer({"status": "ready"})
        return _answer({"status": "not-ready", "problems": problems}, status=503)


def _answer(body: dict[str, object], *, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})


class _Refused(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()
