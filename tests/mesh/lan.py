"""Real daemons on the machines of a site of network namespaces, driven by the command line."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import netns

_PROGRAM = [sys.executable, "-m", "caso_mesh"]


class Lan:
    """Machine ``i`` of a site with its own state folder. ``cli`` runs a command there and reads its JSON."""

    def __init__(self, site: netns.Site, folder: pathlib.Path) -> None:
        self._site = site
        self._folder = folder

    def state(self, i: int) -> str:
        return str(self._folder / f"state{i}")

    def log(self, i: int) -> str:
        return (self._folder / f"log{i}").read_text("utf-8")

    def run(self, i: int, *more: str) -> subprocess.Popen[Any]:
        log = (self._folder / f"log{i}").open("ab")
        with log:
            return self._site.run(i, [*_PROGRAM, "run", "--state", self.state(i), *more], stdout=log, stderr=log)

    def cli(self, i: int, *argv: str) -> tuple[int, Any]:
        process = self._site.run(
            i,
            [*_PROGRAM, *argv, "--state", self.state(i), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        out = process.communicate(timeout=90)[0]
        return process.returncode, json.loads(out) if out.strip() else None

    def ok(self, i: int, *argv: str) -> Any:
        status, document = self.cli(i, *argv)
        assert status == 0, (argv, document)
        return document
