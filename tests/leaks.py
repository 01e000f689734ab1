"""What a test may not leave behind: threads, processes, open sockets, pipes and files.

``Before()`` is taken when a test begins; ``left()`` tells what is there now that was not there then.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import uuid

#: In the environment of everything that this test run starts, so that it is found wherever it went.
MARK = "CASO_MESH_TEST_RUN"
#: Something that is just ending (a thread after its last answer, a killed process) may take this long.
GRACE_S = 20.0
#: Processes of this test run that serve many tests.
SERVES_ALL: set[int] = set()
#: Targets of descriptors that programs keep for good and that hold nothing of a test.
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random")


def mark_environment() -> None:
    """Programs started from now on carry ``MARK``."""
    os.environ[MARK] = uuid.uuid4().hex


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
            found.update(map(int, file.read().split()))
    return found


def _marked(pid: int) -> bool:
    mark = f"{MARK}={os.environ[MARK]}".encode()
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False  # gone, or another user's


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
    return f"{words[:200] or '?'} (state {state})"


def _descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {fd: target for fd, target in found.items() if target not in _HARMLESS}


class Before:
    """What is there before a test."""

    def __init__(self) -> None:
        self._pids = _pids()
        self._threads = set(threading.enumerate())
        self._descriptors = set(_descriptors().values())

    def _left(self) -> list[str]:
        return [
            *(f"process {pid}: {_command(pid)}" for pid in sorted(self._processes())),
            *(f"thread {thread.name}" for thread in threading.enumerate() if self._new(thread)),
            *(f"descriptor {fd}: {name}" for fd, name in _descriptors().items() if name not in self._descriptors),
        ]

    def _processes(self) -> set[int]:
        new = _pids() - self._pids - SERVES_ALL
        return (_children() & new) | {pid for pid in new if _marked(pid)}

    def _new(self, thread: threading.Thread) -> bool:
        return thread.is_alive() and thread not in self._threads

    def left(self) -> list[str]:
        """A line for each thing left, after at most ``GRACE_S`` seconds; empty if there is nothing."""
        found = self._left()
        if found:
            gc.collect()  # what nobody holds any more is not left; what it should have closed warns, which is an error
            found = self._left()
        end = time.monotonic() + GRACE_S
        while found and time.monotonic() < end:
            time.sleep(0.01)
            found = self._left()
        return found

    def end_processes(self) -> None:
        """Kills the processes that are left, so that the next test does not suffer from them."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in _children() - self._pids - SERVES_ALL:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def can_see() -> bool:
    """Whether this machine shows what is looked for (Linux with /proc)."""
    return sys.platform == "linux" and os.path.isdir("/proc/self/fd")
