"""Wall time, CPU seconds and memory of commands and of the daemons behind them, by /proc alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Between two looks at memory.
_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Measured:
    """``cpu_s``: user and system, of all processes. ``peak_bytes``: the largest sum over them at one moment, of
    proportional set sizes, or the largest a single command ever had."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


class CommandFailed(Exception):
    """A measured command ended with a status that it should not have."""


@dataclass(frozen=True)
class _Process:
    parent: int
    cpu_s: float
    resident: int


def _processes(roots: Iterable[int]) -> dict[int, _Process]:
    """The processes ``roots`` and all below them."""
    found: dict[int, _Process] = {}
    below: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
            # proc(5): 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime, 24 rss; two fields were cut off
            parent, cpu = int(fields[1]), sum(map(int, fields[11:15])) / _TICK
            found[int(name)] = _Process(parent, cpu, int(fields[21]) * _PAGE)
            below[parent].append(int(name))
    todo, tree = [pid for pid in roots if pid in found], {}
    while todo:
        pid = todo.pop()
        if pid not in tree:
            tree[pid] = found[pid]
            todo.extend(below[pid])
    return tree


def cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds that the processes and their descendants have used so far, those that ended included."""
    return sum(process.cpu_s for process in _processes(roots).values())


def memory(roots: Iterable[int]) -> int:
    """Bytes that the processes and their descendants hold, each shared page counted once."""
    total = 0
    for pid, process in _processes(roots).items():
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:")), 0)
        except PermissionError:
            total += process.resident
        except OSError:
            pass  # it has ended meanwhile: what it shared is counted with those that it shared it with
    return total


class Meter:
    """Measures what happens inside the block: commands run by ``run``, and the daemons ``roots``."""

    def __init__(self, roots: Sequence[int] = (), *, sample_memory: bool = True) -> None:
        self._roots = list(roots)
        self._live: set[int] = set()
        self._cpu_s = 0.0
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True) if sample_memory else None
        self._measured: Measured | None = None

    def __enter__(self) -> Self:
        self._before_s = cpu_s(self._roots)
        if self._thread is not None:
            self._thread.start()
        self._began_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall = time.monotonic() - self._began_s
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._measured = Measured(wall, self._cpu_s + cpu_s(self._roots) - self._before_s, self._peak)

    @property
    def commands_cpu_s(self) -> float:
        """CPU seconds of the commands alone, so far."""
        return self._cpu_s

    @property
    def measured(self) -> Measured:
        """After the block."""
        assert self._measured is not None
        return self._measured

    def run(
        self,
        words: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        accepted: Sequence[int] = (0,),
    ) -> str:
        """Runs a command to its end; what it wrote to stdout. Raises ``CommandFailed``."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            self._live.add(process.pid)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            finally:
                self._live.discard(process.pid)
            process.returncode = os.waitstatus_to_exitcode(status)
            self._cpu_s += usage.ru_utime + usage.ru_stime
            out.seek(0)
            err.seek(0)
            said, complained = out.read().decode(errors="replace"), err.read().decode(errors="replace")
        if process.returncode not in accepted:
            raise CommandFailed(
                f"{' '.join(words)}: exit status {process.returncode}\n{said[-2000:]}{complained[-2000:]}"
            )
        return said

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._peak = max(self._peak, memory([*self._roots, *self._live]))
