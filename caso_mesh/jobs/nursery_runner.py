"""Workers as processes: the daemon's side of the nursery."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from caso_mesh.jobs import framing
from caso_mesh.jobs.messages import Ended, FromWorker, ToWorker
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import Misuse, PeerFault, Unavailable, WorkerDied, WorkersLeft
from caso_mesh.model.jobs import Counts, Failure
from caso_mesh.model.states import AttemptState

log = logging.getLogger(__name__)

#: How long the workers of a daemon that was killed may take to be gone.
LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.02
#: From starting the nursery (it imports everything) to its first word, and from a request to the fork.
_START_S = 60.0
_FORK_S = 10.0
#: A worker that was killed and is still there after this hangs in the kernel, in a file system that does not answer.
_HANGS_S = 5.0
_MODULE = "caso_mesh.jobs.nursery"


class ProcessWorker:
    """One worker process. See ``runner.Worker``."""

    def __init__(self, attempt: str, messages: socket.socket, bulk: socket.socket, life: int) -> None:
        """``life``: what can be read once every process of the attempt has gone (``kin``)."""
        self.attempt = attempt
        self._messages = messages
        self._bulk: socket.socket | None = bulk
        self._pidfd = -1
        self._life = life
        self._gone = asyncio.Event()
        self._began_s = asyncio.get_running_loop().time()
        self._sending = asyncio.Lock()
        self._counts = Counts()
        self._hangs = False
        self.pid = 0

    @property
    def bulk_channel(self) -> socket.socket | None:
        return self._bulk

    def started(self, pid: int) -> None:
        """The nursery has forked it."""
        self.pid = pid
        asyncio.get_running_loop().add_reader(self._life, self._exited)
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._life)
        os.close(self._life)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._life = self._pidfd = -1
        self._gone.set()

    async def gone(self) -> None:
        """See ``runner.Worker``."""
        await self._gone.wait()

    async def give(self, task: Task) -> None:
        """Hands over the task. A worker that is dead already is found out by ``messages``."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._messages, framing.encode(task))

    async def messages(self) -> AsyncIterator[FromWorker]:
        """See ``runner.Worker``; for one reader."""
        detail = "its process ended"
        ended: Ended | None = None
        try:
            while ended is None:
                body = await self._receive()
                if body is None:
                    break
                message = framing.decode_from_worker(body)
                if isinstance(message, Ended):
                    ended = message
                else:
                    progress = getattr(message, "progress", None)
                    self._counts = self._counts if progress is None else progress.counts
                    yield message
        except PeerFault as fault:
            detail = fault.message
        await self.kill(graceful=ended is not None)
        if self._hangs:
            detail = "it was killed while it waited for a file system that does not answer"
        if ended is None:
            error = WorkerDied(attempt=self.attempt, detail=detail)
            ended = Ended(
                state=AttemptState.INTERRUPTED,
                counts=self._counts,
                seconds=asyncio.get_running_loop().time() - self._began_s,
                failure=Failure(code=error.code, fields=error.fields),
            )
        yield ended

    async def send(self, message: ToWorker) -> None:
        """See ``runner.Worker``."""
        async with self._sending:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(self._messages, framing.encode(message))

    async def kill(self, *, graceful: bool = False) -> None:
        """See ``runner.Worker``. ``graceful``: it said its last word and is given a moment to end by itself."""
        if graceful:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._gone.wait()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if not self._hangs:
            try:
                async with asyncio.timeout(_HANGS_S):
                    await self._gone.wait()
            except TimeoutError:
                # It runs no line of ours any more, whenever it wakes up, but what it is at may still be done then: whoever
                # is to do the same again waits for that.
                self._hangs = True
                log.warning("process %d of %s was killed, but hangs in a file system", self.pid, self.attempt)
                with contextlib.suppress(OSError):
                    self._messages.shutdown(socket.SHUT_RDWR)  # whoever listens to it hears its end
                return
        self.close()

    def close(self) -> None:
        """Gives the sockets back; the worker ends by itself if it still runs."""
        if self._bulk is not None:
            self._bulk.close()
            self._bulk = None
        self._messages.close()

    def forget(self) -> None:
        """As ``close``, at the end of everything."""
        if self._life >= 0:
            self._exited()
        self._gone.set()
        self.close()

    async def _receive(self) -> bytes | None:
        head = await self._exactly(framing.HEAD)
        if head is None:
            return None
        return await self._exactly(framing.body_length(head, "a worker"))

    async def _exactly(self, size: int) -> bytes | None:
        loop = asyncio.get_running_loop()
        pieces: list[bytes] = []
        while size:
            try:
                piece = await loop.sock_recv(self._messages, min(size, 1 << 18))
            except OSError:
                return None
            if not piece:
                return None
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class _Nursery:
    """One nursery process and the conversation with it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = control
        self.forks: dict[int, asyncio.Future[int]] = {}
        self.ready = asyncio.get_running_loop().create_future()
        self.listening: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Takes in what it says, until it ends."""
        loop = asyncio.get_running_loop()
        try:
            while text := await loop.sock_recv(self.control, 256):
                self._heard(*text.decode().split())
        except OSError:
            pass  # the same as its end
        finally:
            for waiting in (self.ready, *self.forks.values()):
                if not waiting.done():
                    waiting.set_exception(Unavailable(what="the parent of workers"))
                    waiting.exception()

    def _heard(self, word: str, *rest: str) -> None:
        if word == "ready" and not self.ready.done():
            self.ready.set_result(None)
        elif word == "started":
            waiting = self.forks.pop(int(rest[0]), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(int(rest[1]))
        elif word == "ended" and rest[2] != "0":
            log.info("worker %s (process %s) ended with status %s", *rest)

    @property
    def alive(self) -> bool:
        return self.listening is not None and not self.listening.done() and self.process.poll() is None


class NurseryRunner:
    """Starts workers as processes, forked by a nursery; an async context manager. See ``runner.Runner``.

    ``lock_path`` is a file whose lock all workers hold while they live: entering waits until those of a daemon that
    was killed are gone. Raises ``WorkersLeft`` if they are not within ``LOCK_WAIT_S``. Leaving ends all workers.
    """

    def __init__(self, *, lock_path: Path | str) -> None:
        self._lock_path = os.fspath(lock_path)
        self._lock_fd = -1
        self._nursery: _Nursery | None = None
        self._starting = asyncio.Lock()
        self._numbers = 0
        self._workers: set[ProcessWorker] = set()

    async def __aenter__(self) -> Self:
        self._lock_fd = await self._lock()
        try:
            await self._ensure()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def start(self, task: Task) -> ProcessWorker:
        """Raises ``Unavailable`` if no process can be started."""
        if self._lock_fd < 0:
            raise Misuse("start() outside of the context")
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        bulk_mine, bulk_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (mine, bulk_mine):
            each.setblocking(False)
        life, life_theirs = os.pipe()
        worker = ProcessWorker(task.order.attempt, mine, bulk_mine, life)
        try:
            try:
                worker.started(await self._fork(theirs.fileno(), bulk_theirs.fileno(), life_theirs))
            finally:
                theirs.close()
                bulk_theirs.close()
                os.close(life_theirs)
        except BaseException:
            worker.forget()
            raise
        self._workers = {each for each in self._workers if not each._gone.is_set()}
        self._workers.add(worker)
        await worker.give(task)
        return worker

    async def _fork(self, *descriptors: int) -> int:
        for attempt in (0, 1):
            nursery = await self._ensure()
            self._numbers += 1
            number = self._numbers
            answer = nursery.forks[number] = asyncio.get_running_loop().create_future()
            try:
                socket.send_fds(nursery.control, [str(number).encode()], descriptors)
                async with asyncio.timeout(_FORK_S):
                    return await answer
            except (OSError, Unavailable, TimeoutError) as error:
                nursery.forks.pop(number, None)
                if attempt:
                    raise Unavailable(what="the parent of workers") from error
                await self._end_nursery()
        raise AssertionError

    async def _ensure(self) -> _Nursery:
        """The nursery; a new one if it has died."""
        async with self._starting:
            if self._nursery is not None and self._nursery.alive:
                return self._nursery
            if self._nursery is not None:
                log.warning("the parent of workers died; another is started")
                await self._end_nursery()
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            mine.setblocking(False)
            with theirs:
                process = await asyncio.to_thread(self._spawn, theirs.fileno())
            nursery = self._nursery = _Nursery(process, mine)
            nursery.listening = asyncio.create_task(nursery.listen(), name="nursery")
            try:
                async with asyncio.timeout(_START_S):
                    await nursery.ready
            except TimeoutError:
                raise Unavailable(what="the parent of workers") from None
            return nursery

    def _spawn(self, control: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(control), str(self._lock_fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(control, self._lock_fd),
            start_new_session=True,
        )

    async def _end_nursery(self) -> None:
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            return
        if nursery.listening is not None:
            nursery.listening.cancel()
            await asyncio.gather(nursery.listening, return_exceptions=True)
        nursery.control.close()
        await asyncio.to_thread(_wait_end, nursery.process)

    async def _leave(self) -> None:
        for worker in list(self._workers):
            await worker.kill()
            worker.forget()
        self._workers.clear()
        await self._end_nursery()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    async def _lock(self) -> int:
        os.makedirs(os.path.dirname(self._lock_path) or ".", mode=0o700, exist_ok=True)
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = asyncio.get_running_loop().time() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if asyncio.get_running_loop().time() >= deadline:
                    os.close(fd)
                    raise WorkersLeft(lock=self._lock_path) from None
            except BaseException:
                os.close(fd)
                raise
            await asyncio.sleep(_LOCK_POLL_S)


def _wait_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
