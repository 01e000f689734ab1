"""A headless browser, driven over its pipe by the DevTools protocol: what a page writes to its console and asks of others."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE_S = 20.0


class Opened(NamedTuple):
    """``console``: whatever was complained of; ``asked``: addresses beside the page itself; ``found``: what the expression
    that was evaluated in the page came to."""

    console: list[str]
    asked: list[str]
    found: Any


class Browser:
    """One process for many pages."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self._process = process
        self._write = write
        self._read = read
        self._number = 0
        self._rest = b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str, expression: str, *, dark: bool = False, width: int = 1200) -> Opened:
        """Loads a page to its end and evaluates ``expression`` in it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")
        console, asked = [], []
        for event in self._events:
            params = event.get("params", {})
            match event.get("method"):
                case "Log.entryAdded":
                    console.append(str(params["entry"]["text"]))
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Page.javascriptDialogOpening":
                    console.append(json.dumps(params)[:500])
                case "Network.requestWillBeSent":
                    asked.append(str(params["request"]["url"]))
        return Opened(console, [each for each in asked if each not in {url, "data:,"}], found)

    def _next(self) -> dict[str, Any]:
        ends_s = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._rest:
            left_s = ends_s - time.monotonic()
            assert left_s > 0, "the browser says nothing"
            if select.select([self._read], [], [], left_s)[0]:
                piece = os.read(self._read, 1 << 20)
                assert piece, f"the browser has ended: {self._process.poll()}"
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Its end is waited for."""
    assert CHROMIUM is not None
    theirs, write = os.pipe()
    read, answers = os.pipe()

    def take_pipes() -> None:
        # it reads from 3 and writes to 4; neither end may be in the other's place while they are moved
        high_in, high_out = os.dup(theirs), os.dup(answers)
        os.dup2(high_in, 3)
        os.dup2(high_out, 4)

    with tempfile.TemporaryDirectory(prefix="caso-mesh-browser-") as profile:
        process = subprocess.Popen(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=take_pipes,
        )  # fmt: skip
        os.close(theirs)
        os.close(answers)
        try:
            shown = Browser(process, write, read)
            yield shown
            shown._session = None
            shown.call("Browser.close")
            process.wait(timeout=_PATIENCE_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(write)
            os.close(read)
