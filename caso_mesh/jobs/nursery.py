"""The nursery: a warm parent of workers. ``python -m caso_mesh.jobs.nursery CONTROL-FD [KEEP-FD ...]``

It imports everything, opens nothing and has one thread, so that a fork is cheap and safe. Each request over the control
socket (AF_UNIX, SOCK_SEQPACKET) is a worker's number and brings three descriptors: the worker's end of its message
channel, that of its bulk handoff, and what it only keeps open (``kin``). It answers ``started NUMBER PID`` and ``ended NUMBER PID STATUS``. When the control
socket ends, so does it, and with it all workers. ``KEEP-FD``s stay open in every worker: the lock that tells the next
daemon when the last of them has gone.
"""

from __future__ import annotations

import os

# before anything imports numpy: its threads would not survive the fork
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import ctypes
import gc
import importlib
import random
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from caso_mesh.jobs import kin, rehearsal, worker
from caso_mesh.jobs.memory import keep_freed_memory
from caso_mesh.model.errors import Misuse

#: Exit status of a worker that failed where nothing could be reported any more.
CRASHED = 5
_REQUEST_BYTES = 256
_DESCRIPTORS = 3
_PACKAGE = "caso_mesh"
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
#: What libraries load when they first need it: with numpy.unique, with keys in PEM, with names of hosts. By then each
#: worker would do it for itself, which takes longer than a small job.
_LATE = ("numpy.ma", "cryptography.hazmat.backends.openssl.backend", "encodings.idna")
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Serves until the control socket ends."""
    control_fd, *kept = map(int, arguments)
    _alone()
    _name("caso-nursery")
    keep_freed_memory()
    control = socket.socket(fileno=control_fd)
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's business
    for name in _LATE:
        importlib.import_module(name)
    rehearse()
    rehearsal.rehearse_vault()
    rehearsal.rehearse_links()
    _alone()
    gc.collect()
    gc.freeze()
    children: dict[int, int] = {}
    control.send(b"ready")
    while True:
        ready, _, _ = select.select([control_fd, wake_reader], [], [])
        if wake_reader in ready:
            os.read(wake_reader, 4096)
            _reap(control, children)
        if control_fd in ready and not _serve(control, children, kept):
            return 0


def _alone() -> None:
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise Misuse(f"the nursery has {threads} threads; a fork would lose all but one")


def rehearse() -> list[type[msgspec.Struct]]:
    """Has msgspec work out every record, which it would do in each worker for each that it meets; all of them."""
    # commands are not loaded where workers are made, and name types that only checkers see
    rooms = [each for each in _below(msgspec.Struct) if each.__module__.startswith(f"{_PACKAGE}.")]
    records = [each for each in rooms if not each.__module__.startswith(f"{_PACKAGE}.cli.")]
    for record in records:
        msgspec.msgpack.Decoder(record)
    return records


def _below(record: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for each in record.__subclasses__():
        yield each
        yield from _below(each)


def _serve(control: socket.socket, children: dict[int, int], kept: list[int]) -> bool:
    """One request; False at the end."""
    try:
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES, _DESCRIPTORS)
    except ConnectionError:
        return False
    if not request or len(descriptors) != _DESCRIPTORS:
        return False
    number = int(request)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _worker(descriptors, kept, parent)
    for descriptor in descriptors:
        os.close(descriptor)
    children[pid] = number
    return _tell(control, f"started {number} {pid}")


def _reap(control: socket.socket, children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        number = children.pop(pid)
        _tell(control, f"ended {number} {pid} {os.waitstatus_to_exitcode(status)}")


def _tell(control: socket.socket, text: str) -> bool:
    try:
        control.send(text.encode())
    except OSError:
        return False  # the daemon has gone; reading the socket will say so
    return True


def _worker(descriptors: list[int], kept: list[int], parent: int) -> NoReturn:
    status = CRASHED
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(CRASHED)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but({0, 1, 2, *descriptors, *kept})
        _name("caso-worker")
        random.seed()
        messages, bulk = (socket.socket(fileno=descriptor) for descriptor in descriptors[:2])
        kin.keep((*descriptors[2:], *kept))
        status = worker.main(messages, bulk)
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    # no destructors of what was inherited: the parent still uses it
    os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the handle that listed them


def _name(name: str) -> None:
    """What ``ps`` shows."""
    _LIBC.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
