"""The desk of one worker: what it tells its daemon, and what the daemon told it.

The engines below know nothing of sockets or processes: they count, log, except and ask whether they may go on here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from msgspec import structs

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.messages import Answered, Consults
from caso_mesh.jobs.waiting import Busy, Waiting, no_clock
from caso_mesh.model.clock import Clock
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import Canceled, from_wire
from caso_mesh.model.facts import LogLine
from caso_mesh.model.jobs import Counts, Progress
from caso_mesh.model.states import AttemptState

#: Exceptions or log lines in one message.
_BATCH = 500

Level = Literal["debug", "info", "warning", "error"]


class Killed(BaseException):
    """The worker was ended from outside and must not do anything any more. Only where it is no process of its own."""


class Tally:
    """Counts while they grow. Each field is written by one thread only, but for ``bytes_read``, see ``read``."""

    def __init__(self) -> None:
        self.files = 0
        self.entries = 0
        self.bytes = 0
        self.bytes_stored = 0
        self.exceptions = 0
        self._read = 0
        self._lock = threading.Lock()

    @property
    def bytes_read(self) -> int:
        return self._read

    def read(self, count: int) -> None:
        """Adds to ``bytes_read``; from any thread."""
        with self._lock:
            self._read += count

    def counts(self) -> Counts:
        return Counts(
            files=self.files,
            entries=self.entries,
            bytes=self.bytes,
            bytes_read=self._read,
            bytes_stored=self.bytes_stored,
            exceptions=self.exceptions,
        )


class Desk:
    """``send`` takes messages to the daemon from any thread."""

    def __init__(
        self,
        attempt: str,
        send: Callable[[say.FromWorker], None],
        clock: Clock,
        *,
        busy: Busy = no_clock,
    ) -> None:
        self.attempt = attempt
        self.clock = clock
        self.waiting = Waiting(busy)
        self.tally = Tally()
        self.path = b""
        self.total_bytes: int | None = None
        self.total_files: int | None = None
        self.state = AttemptState.RUNNING
        #: The setting in force, once it has changed since the task was made.
        self.bandwidth: str | None = None
        #: Whether the attempt at a second device, beside this one, is over.
        self.alone = False
        #: Why it is to end, if nobody asked for that.
        self.why_over = ""
        #: What admits both ends, once that has changed since the task was made.
        self.term: say.Term | None = None
        #: Ends (node ids) that do not say which version of the bulk dialogue they speak.
        self.untold: set[str] = set()
        #: Where exceptions go instead of the daemon: a source's end tells the device's end.
        self.on_exceptions: Callable[[tuple[SourceException, ...]], None] | None = None
        self._send = send
        self._began_s = clock.monotonic_s()
        self._lock = threading.Lock()
        self._lines: list[LogLine] = []
        self._exceptions: list[SourceException] = []
        self._may_publish = False
        self._answer: Answered | None = None
        self._canceled = False
        self._killed = False

    # --- what the daemon tells ---

    def hear(self, message: say.ToWorker) -> None:
        """Takes in a message of the daemon; ``Watch`` is the reporter's business."""
        match message:
            case say.Publish():
                self._may_publish = True
            case say.Answered():
                self._answer = message
            case say.Cancel(why=why):
                self._canceled, self.why_over = True, why
            case say.Alone():
                self.alone = True
            case say.Pace(bandwidth=bandwidth):
                self.bandwidth = bandwidth
                return
            case say.Term():
                self.term = message
            case say.Watch():
                return
        self.waiting.notify()

    def kill(self) -> None:
        """From now on every ``check`` ends the worker, and nothing is published."""
        self._killed = True
        self.waiting.notify()

    @property
    def interrupted(self) -> bool:
        """Whether ``check`` would raise."""
        return self._canceled or self._killed

    def check(self) -> None:
        """Raises ``Canceled`` once the daemon said so."""
        if self._killed:
            raise Killed
        if self._canceled:
            raise Canceled(who="the administrator")

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Waits until ``predicate`` holds (``waiting.notify`` makes it be asked again); False after ``timeout_s`` by
        the clock of this desk. Raises ``Canceled``."""
        deadline = None if timeout_s is None else self.clock.monotonic_s() + timeout_s
        while True:
            # real time in small pieces: the clock may be one that jumps
            self.waiting.wait_for(lambda: self.interrupted or predicate(), None if deadline is None else 0.05)
            if predicate():
                return True
            self.check()
            if deadline is not None and self.clock.monotonic_s() >= deadline:
                return False

    # --- what the daemon is told ---

    @property
    def seconds(self) -> float:
        return self.clock.monotonic_s() - self._began_s

    def say(self, message: say.FromWorker) -> None:
        """Tells the daemon; all that was logged before goes first."""
        if isinstance(message, say.WithLines):
            with self._lock:
                lines, self._lines = self._lines, []
            message = structs.replace(message, lines=tuple(lines))
        self.flush()
        if not self._killed:
            self._send(message)

    def log(self, level: Level, text: str) -> None:
        """A line of the job log."""
        with self._lock:
            self._lines.append(LogLine(self.clock.now_ns(), level, text))
            full = len(self._lines) >= _BATCH
        if full:
            self.flush()

    def exception(self, found: SourceException) -> None:
        """A path that could not be kept or restored as it is; from any thread."""
        with self._lock:
            self.tally.exceptions += 1
            self._exceptions.append(found)
            full = len(self._exceptions) >= _BATCH
        if full:
            self.flush()

    def flush(self) -> None:
        """Sends lines and exceptions that wait."""
        with self._lock:
            lines, self._lines = self._lines, []
            exceptions, self._exceptions = self._exceptions, []
            if self._killed:
                return
            if lines:
                self._send(say.Logged(tuple(lines)))
        if exceptions:
            (self.on_exceptions or self.tell_exceptions)(tuple(exceptions))

    def tell_exceptions(self, exceptions: tuple[SourceException, ...]) -> None:
        """Sends them to the daemon, wherever others go."""
        for at in range(0, len(exceptions), _BATCH):
            if not self._killed:
                self._send(say.Excepted(exceptions[at : at + _BATCH]))

    def progress(self) -> Progress:
        return Progress(
            attempt=self.attempt,
            state=self.state,
            counts=self.tally.counts(),
            at_ns=self.clock.now_ns(),
            elapsed_s=self.seconds,
            path="/" + self.path.decode("utf-8", "backslashreplace") if self.path else "",
            total_bytes=self.total_bytes,
            total_files=self.total_files,
        )

    def consult(self, question: Consults) -> Answered:
        """What the administrator answers. Raises ``Canceled``, what it refuses with, and ``Unavailable`` if nobody can be
        asked."""
        self.check()
        self._answer = None
        self.say(question)
        self.wait_for(lambda: self._answer is not None)
        answer: say.Answered | None = self._answer
        assert answer is not None
        if answer.failure is not None:
            raise from_wire({"code": answer.failure.code, "fields": answer.failure.fields})
        return answer

    def ask_publish(self, set_id: str) -> None:
        """Waits until the daemon has journalled that the set is about to be published. Raises ``Canceled``."""
        self.check()
        self.say(say.MayPublish(set_id))
        self.wait_for(lambda: self._may_publish)
        self.check()
