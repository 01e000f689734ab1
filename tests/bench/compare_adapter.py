"""Our product for a harness that compares backup products: ``compare.py --adapter .../tests/bench/compare_adapter.py``.

The harness gives the base class, with ``cmd`` to run a command whose CPU and memory count. With
``CASO_MESH_COMPARE_USER=NAME`` (or ``user=NAME``) the daemon and all commands are of that user; the harness stays root.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

_CLONE = pathlib.Path(__file__).resolve().parents[2]
_PYTHON = _CLONE / ".venv" / "bin" / "python"
sys.path[:0] = [str(_CLONE / "tests"), str(_CLONE)]

from compare import Adapter  # type: ignore[import-not-found]  # noqa: E402 - the harness's own module
from mesh.person import Person  # noqa: E402


class CasoMesh(Adapter):  # type: ignore[misc]
    """One server: source and device on it; jobs through the command line with ``--wait``."""

    name, note = "ours", "caso-mesh: daemon on loopback, command line with --wait; encrypted, deduplicated, zstd"

    def __init__(self, work: str, user: str | None = None) -> None:
        super().__init__(work)
        name = user or os.environ.get("CASO_MESH_COMPARE_USER")
        self._person = Person(name, pathlib.Path(work)) if name else None
        self._give(work)
        #: What the last job listed, as ``{"path", "reason"}``.
        self.exceptions: list[dict[str, str]] = []

    def _give(self, folder: str) -> None:
        if self._person is not None:
            self._person.give(folder)

    def _words(self, *words: str) -> list[str]:
        python = [str(_PYTHON)] if self._person is None else self._person.python()
        return [*python, "-m", "caso_mesh", *words]

    def available(self) -> str | None:
        if not _PYTHON.exists():
            return f"{_PYTHON} is missing: run scripts/quickstart first"
        return None if self._person is None else self._person.absent()

    def version(self) -> str:
        said = subprocess.run(self._words("--version"), capture_output=True, check=False, text=True, cwd=_CLONE)
        return said.stdout.strip()

    def init(self) -> None:
        self._state = pathlib.Path(self.work) / "state"
        self._set = ""
        pathlib.Path(self.repo).mkdir()
        self._give(self.repo)
        options = ("--mesh", "compare", "--server", "alpha", "--listen", "127.0.0.1:0", "--preset", "local")
        self._setup("init", *options)
        config = self._state / "config.toml"
        config.write_text(config.read_text("utf-8").replace("mdns = true", "mdns = false"), "utf-8")
        with (pathlib.Path(self.work) / "daemon.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [*self._words("run"), "--state", str(self._state)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=_CLONE,
            )
        self._setup("device", "add", "disk", "--server", "alpha", "--path", self.repo)

    def _setup(self, *words: str) -> None:
        from waiting import wait_for

        def done() -> bool:
            said = subprocess.run(
                [*self._words(*words), "--state", str(self._state)], capture_output=True, check=False, cwd=_CLONE
            )
            return said.returncode == 0

        wait_for(done, 30.0, what=f"caso-mesh {words[0]} succeeds", every_s=0.2)

    def pids(self) -> list[int]:
        return [self._daemon.pid]

    def stop(self) -> None:
        self._daemon.terminate()
        self._daemon.wait()

    def _job(self, *words: str) -> Any:
        # 1: succeeded with exceptions, which the harness's own comparison judges
        argv = [*self._words(*words), "--wait", "--json", "--state", str(self._state)]
        result = json.loads(self.cmd(argv, cwd=str(_CLONE), ok=(0, 7)))
        self.exceptions = result["exceptions"]
        self.notes.extend(f"{each['path']}: {each['reason']}" for each in self.exceptions[:50])
        return result

    def backup(self, src: str, n: int) -> None:
        kind = "full" if n == 1 else "incremental"
        words = ("backup", f"alpha:{src}", "--to", "device:disk", "--type", kind, "--no-default-excludes")
        self._set = self._job(*words)["set"]

    def restore(self, src: str, dst: str) -> str:
        self._give(dst)
        self._job("restore", self._set, "--to", f"alpha:{dst}", "--strip")
        return dst

    def restore_one(self, src: str, rel: str, dst: str) -> str:
        self._give(dst)
        self._job("restore", self._set, f"{src}/{rel}", "--to", f"alpha:{dst}", "--strip")
        return f"{dst}/{rel}"

    def verify(self) -> None:
        self._job("verify", self._set)

    def repo_paths(self) -> list[str]:
        return [self.repo, str(self._state)]
