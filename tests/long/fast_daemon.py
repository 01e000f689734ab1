"""A daemon of which only the calendar runs fast: ``python fast_daemon.py run --state FOLDER``.

``CASO_MESH_TEST_CALENDAR`` is FACTOR@NANOSECONDS: from that instant on, schedules see the factor of the time that
passes. Everything else of the daemon is as ever, its own clock too. On SIGUSR1 it writes what it holds (tasks, objects,
memory) into ``run/holds.json`` of its state folder; on SIGUSR2 the calendar stands still.

The product has no such switch: whoever starts the daemon hands it another calendar.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import ctypes.util
import gc
import json
import os
import pathlib
import signal
import sys
import threading
import time

from caso_mesh.cli.run import set_up_logging
from caso_mesh.daemon import run_daemon
from caso_mesh.machine import Ports

VARIABLE = "CASO_MESH_TEST_CALENDAR"


class FastCalendar:
    """``factor`` times as fast as the clock since ``origin_ns``."""

    def __init__(self, factor: float, origin_ns: int) -> None:
        self._factor = factor
        self._origin_ns = origin_ns
        self._stopped_ns: int | None = None

    def stop(self) -> None:
        """It is never later than now."""
        self._stopped_ns = self.now_ns()

    def now_ns(self) -> int:
        if self._stopped_ns is not None:
            return self._stopped_ns
        return self._origin_ns + round((time.time_ns() - self._origin_ns) * self._factor)

    def wait_s(self, until_ns: int) -> float:
        return (until_ns - self.now_ns()) / self._factor / 1_000_000_000


def holds() -> dict[str, object]:
    """What this process holds now."""
    gc.collect()
    before = _resident_bytes()
    # what the allocator has kept for later is not held
    ctypes.CDLL(None).malloc_trim(0)
    kinds = collections.Counter(type(each).__name__ for each in gc.get_objects())
    tasks = collections.Counter(str(task.get_coro().__qualname__) for task in asyncio.all_tasks())  # type: ignore[union-attr]
    return {
        "rss_bytes": before,
        "held_bytes": _resident_bytes(),
        "sqlite_bytes": _sqlite_bytes(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": sum(tasks.values()),
        "task_names": tasks,
        "objects": sum(kinds.values()),
        "object_kinds": dict(kinds.most_common(60)),
    }


def _resident_bytes() -> int:
    pages = int(pathlib.Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _sqlite_bytes() -> int:
    """What all databases of this process hold in memory: pages, mostly, up to a bound for each connection."""
    library = ctypes.util.find_library("sqlite3")
    try:
        used = ctypes.CDLL(library).sqlite3_memory_used
    except (OSError, AttributeError):
        return 0
    used.restype = ctypes.c_int64
    return int(used())


async def _run(state: pathlib.Path, calendar: FastCalendar) -> None:
    loop = asyncio.get_running_loop()
    daemon = asyncio.current_task()
    assert daemon is not None
    loop.add_signal_handler(signal.SIGTERM, daemon.cancel)

    def write() -> None:
        new = state / "run" / "holds.new"
        new.write_text(json.dumps(holds()), "utf-8")
        new.replace(state / "run" / "holds.json")

    loop.add_signal_handler(signal.SIGUSR1, write)
    loop.add_signal_handler(signal.SIGUSR2, calendar.stop)
    await run_daemon(state=state, say=lambda text: print(text, flush=True), ports=Ports(calendar=calendar))


def main() -> int:
    """As ``caso-mesh run``."""
    assert sys.argv[1:3] == ["run", "--state"], sys.argv
    factor, _, origin_ns = os.environ[VARIABLE].partition("@")
    set_up_logging("text", "info")
    try:
        asyncio.run(_run(pathlib.Path(sys.argv[3]), FastCalendar(float(factor), int(origin_ns))))
    except asyncio.CancelledError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
