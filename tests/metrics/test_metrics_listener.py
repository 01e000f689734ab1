"""The listener by itself: who may ask for what, how much, and what happens while it cannot listen."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from waiting import in_one_of_three, wait_for_async

from caso_mesh.config import MetricsConfig
from caso_mesh.metrics import listener as listening
from caso_mesh.metrics.listener import MetricsListener
from caso_mesh.model import facts
from caso_mesh.model.errors import StateFull
from caso_mesh.model.metrics import Exposition
from caso_mesh.model.states import AlertKind
from caso_mesh.server.own_alerts import OwnAlerts

ANY = MetricsConfig("127.0.0.1:0")


class Meter:
    delay_s = 0.25

    def __init__(self) -> None:
        self.fails: Exception | None = None

    async def take(self) -> Exposition:
        if self.fails is not None:
            raise self.fails
        return Exposition("figures 1\n", mesh=False)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Readiness:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    async def problems(self) -> dict[str, str]:
        return self.found


class Journal:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.kept = OwnAlerts("node")

    async def alert(self, kind: AlertKind, category: str, text: str, *, object: str = "") -> str:
        await self.append(facts.AlertRaised("an-alert/node", kind, category, text, object=object))
        return "an-alert/node"

    async def append(self, *new: facts.Fact) -> None:
        self.told += new
        for fact in new:
            after = self.kept.after(fact, 1, ())
            self.kept.put(self.kept.notes([after] if after else []))

    async def alerts(self) -> OwnAlerts:
        return self.kept


class Desk:
    def __init__(self, config: MetricsConfig) -> None:
        self.meter, self.readiness, self.journal = Meter(), Readiness(), Journal()
        made: Any = (config, self.meter, self.readiness, self.journal, "alpha")
        self.listener = MetricsListener(*made)
        self.scheme = "https" if config.certificate else "http"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.listener.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def up(self) -> str:
        return await wait_for_async(self._address, 30.0, what="it listens", every_s=0.01)

    async def _address(self) -> str | None:
        return self.listener.address

    async def get(self, path: str, *, method: str = "GET", tls: Any = True, **more: Any) -> tuple[int, str]:
        url = f"{self.scheme}://{await self.up()}{path}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, force_close=True)) as session:
            async with session.request(method, url, **more) as answer:
                return answer.status, await answer.text()


async def test_it_answers_three_paths_by_get_and_refuses_the_rest():
    desk = Desk(ANY)
    async with desk.running():
        assert await desk.get("/metrics") == (200, "figures 1\n")
        assert await desk.get("/healthz") == (200, '{"status": "alive", "event_loop_delay_s": 0.25}')
        assert await desk.get("/readyz") == (200, '{"status": "ready"}')
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            assert (await desk.get("/metrics", method=method))[0] == 405
        assert (await desk.get("/"))[0] == (await desk.get("/metrics/../secret"))[0] == 404
        assert (await desk.get("/metrics", headers={"X": "x" * 10_000}))[0] == 400


async def test_what_is_not_ready_says_why_and_figures_that_cannot_be_had_are_no_200():
    desk = Desk(ANY)
    desk.readiness.found = {"administrator": "nobody"}
    desk.meter.fails = StateFull(state="x")
    async with desk.running():
        assert await desk.get("/readyz") == (503, '{"status": "not-ready", "problems": {"administrator": "nobody"}}')
        status, text = await desk.get("/metrics")
        assert (status, '"state-full"' in text) == (503, True)
        assert (await desk.get("/healthz"))[0] == 200


async def test_connections_that_say_nothing_are_few_and_end(monkeypatch):
    monkeypatch.setattr(listening, "_CONNECTION_S", 0.3)
    desk = Desk(ANY)
    idle = []
    async with desk.running():
        host, port = (await desk.up()).split(":")

        async def attempt() -> None:
            idle.extend([await asyncio.open_connection(host, int(port)) for _ in range(40)])
            with pytest.raises(aiohttp.ClientError):
                await desk.get("/healthz")

        await in_one_of_three(attempt)

        async def serves() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                return (await desk.get("/healthz"))[0] == 200
            return False

        await wait_for_async(serves, 30.0, what="it serves again", every_s=0.05)
        for reader, writer in idle:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()


async def test_a_port_that_is_taken_is_an_alert_which_is_over_when_it_is_free(monkeypatch):
    monkeypatch.setattr(listening, "_AGAIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        desk = Desk(MetricsConfig(f"127.0.0.1:{taken.getsockname()[1]}"))
        async with desk.running():
            await wait_for_async(lambda: _true(desk.journal.told), 30.0, what="an alert", every_s=0.01)
            await asyncio.sleep(0.2)
            assert [each.category for each in desk.journal.told] == ["metrics-unavailable"]
            # another daemon finds it standing: it tells nothing again, and ends it
            again = Desk(desk.listener._config)
            again.journal = desk.journal
            again.listener._facts = desk.journal  # type: ignore[assignment]
        async with again.running():
            await asyncio.sleep(0.2)
            assert len(desk.journal.told) == 1
            taken.close()
            assert (await again.get("/healthz"))[0] == 200
            await wait_for_async(lambda: _true(desk.journal.told[1:]), 30.0, what="the alert is over")
            assert desk.journal.told[1:] == [facts.AlertCleared("an-alert/node")]


async def _true(value: object) -> bool:
    return bool(value)


@pytest.fixture
def certificate(tmp_path: Path) -> MetricsConfig:
    return MetricsConfig("127.0.0.1:0", *make_certificate(tmp_path))


def make_certificate(folder: Path) -> tuple[str, str]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"openssl made no certificate: {made.stderr.decode()}")
    return str(certificate), str(key)


async def test_with_a_certificate_it_speaks_https_and_takes_up_a_renewed_one(certificate, tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "_LOOK_EACH_S", 0.05)
    desk = Desk(certificate)
    async with desk.running():
        first = ssl.create_default_context(cafile=certificate.certificate)
        assert (await desk.get("/metrics", tls=first))[0] == 200
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            async with aiohttp.ClientSession() as session, session.get(f"http://{await desk.up()}/metrics"):
                pass
        make_certificate(tmp_path)

        async def renewed() -> bool:
            second = ssl.create_default_context(cafile=certificate.certificate)
            with contextlib.suppress(aiohttp.ClientError):
                return (await desk.get("/metrics", tls=second))[0] == 200
            return False

        await wait_for_async(renewed, 30.0, what="the new certificate", every_s=0.05)


async def test_a_key_that_does_not_fit_is_an_alert_and_no_end(tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    desk = Desk(MetricsConfig("127.0.0.1:0", str(tmp_path / "key.pem"), str(tmp_path / "key.pem")))
    async with desk.running():
        await wait_for_async(lambda: _true(desk.journal.told), 30.0, what="an alert", every_s=0.01)
        assert "the certificate" in desk.journal.told[0].text
