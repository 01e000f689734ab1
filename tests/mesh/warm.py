"""A warm parent of daemons and commands: what starts fifty times in a run of tests is imported once.

A fresh interpreter takes half a second of CPU until it is a daemon, and a tenth of one until it is a command: more than
most of them do then. ``python -m mesh.warm FD`` imports the program and forks one for each request over its socket
(AF_UNIX, SOCK_SEQPACKET): words, environment and folder, with the three standard streams and a pipe, over which it says
how that one ended. What it forks is the program from ``caso_mesh.cli.main`` on, a process of its own with its own exit;
it dies with the warm parent, and that with the test run. That the program also starts cold is tried where it is told so
(``ProcessMesh.cold``), and by every test of meshes that live elsewhere: network namespaces, other users.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import leaks
from mesh import delays

from caso_mesh import cli

_REQUEST_BYTES = 100_000
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
#: What the daemon and the commands import when they are called.
_PROGRAM = ("caso_mesh.daemon", "caso_mesh.founding", "asyncio")
#: A warm parent that lives says within this time that it has forked.
_ANSWERS_S = 120.0


class Started:
    """A program that the warm parent has forked; as much of ``subprocess.Popen`` as a mesh needs."""

    def __init__(self, pid: int, status: int, output: tuple[int, int] | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status, self._output = status, output

    def poll(self) -> int | None:
        return self._ended(0)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            ready, _, _ = select.select([self._status], [], [], timeout_s)
            if ready:
                text = os.read(self._status, 20)
                os.close(self._status)
                self.returncode = int(text) if text else -signal.SIGKILL  # the warm parent was killed, and it with that
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(["caso-mesh"], timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What it has written, once it has ended."""
        self.wait(timeout)
        if self._output is None:
            return b"", b""
        found = [os.pread(descriptor, os.fstat(descriptor).st_size, 0) for descriptor in self._output]
        for descriptor in self._output:
            os.close(descriptor)
        self._output = None
        return found[0], found[1]


class Warm:
    """The warm parent, as the tests see it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # numpy would begin threads when it is imported, which a fork loses
        more = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mesh.warm", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env={**environment, **more},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.settimeout(_ANSWERS_S)
        leaks.SERVES_ALL.add(self._process.pid)
        self._socket, self._turn = ours, threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        output: int | None = None,
        network: str | None = None,
    ) -> Started:
        """Forks ``caso-mesh ARGV``, which writes to the descriptor ``output``; without one ``communicate`` has it.
        ``network``: the file of the network namespace that it lives in."""
        kept = None if output is not None else (os.memfd_create("stdout"), os.memfd_create("stderr"))
        ended, says_so = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            streams = [nothing, *(kept or (output, output)), says_so]
            request = json.dumps([list(argv), dict(env), cwd, network]).encode()
            with self._turn:
                socket.send_fds(self._socket, [request], streams)
                pid = int(self._socket.recv(20))
        except BaseException:
            for descriptor in (ended, *(kept or ())):
                os.close(descriptor)
            raise
        finally:
            os.close(nothing)
            os.close(says_so)
        return Started(pid, ended, kept)

    def close(self) -> None:
        """Ends it, and all that it started and nobody ended."""
        self._socket.close()
        self._process.wait(_ANSWERS_S)
        leaks.SERVES_ALL.discard(self._process.pid)


#: The one of this test run, if it has one.
parent: Warm | None = None


@contextlib.contextmanager
def warm_parent(environment: Mapping[str, str]) -> Iterator[Warm]:
    """``parent`` is there while the block lasts."""
    global parent
    parent = made = Warm(environment)
    try:
        yield made
    finally:
        parent = None
        made.close()


def _serve(control: socket.socket) -> list[str]:
    """Forks what is asked for, and gives each such process the words of its command. The warm parent ends in here."""
    libc = ctypes.CDLL(None, use_errno=True)
    children: dict[int, int] = {}
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the test run's business
    parent = os.getpid()
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(children)
        if control not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 4)
        if not request:
            os._exit(0)
        pid = os.fork()
        if not pid:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            control.detach()
            return _become(libc, request, descriptors)
        children[pid] = descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(str(pid).encode())


def _reap(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        says_so = children.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody asks any more
            os.write(says_so, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(says_so)


def _become(libc: ctypes.CDLL, request: bytes, descriptors: list[int]) -> list[str]:
    """What a new interpreter would have found."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in range(3):
        os.dup2(descriptors[stream], stream)
    os.closerange(3, max(descriptors) + 1000)
    argv, environment, folder, network = json.loads(request)
    if network is not None:
        namespace = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"entering {network}")
        os.close(namespace)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    gc.enable()
    return list(argv)


def _run(argv: list[str]) -> NoReturn:
    """The program, and its end: as an interpreter ends, but without taking apart what the process does not own alone."""
    sys.argv = ["caso-mesh", *argv]
    status = 1
    try:
        cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def main(control_fd: int) -> NoReturn:
    """Serves until the socket ends."""
    # what it is to have imported; the command line loads each of them when it is asked for
    for name in (*_PROGRAM, *(f"caso_mesh.cli.{each.name}" for each in pkgutil.iter_modules(cli.__path__))):
        importlib.import_module(name)
    delays.inject()
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"the warm parent has {threads} threads; a fork would lose all but one"
    gc.collect()
    gc.freeze()
    _run(_serve(socket.socket(fileno=control_fd)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
