"""Running the commands that a server's own file allows: under a guardian, with a time limit, their words in the job log."""

from __future__ import annotations

import json
import os
import pwd
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from caso_mesh.jobs import guardian, kin
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import CleansUp
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import CommandFailed, CommandNotAllowed, Misuse
from caso_mesh.model.host_commands import CommandKind, HostCommand
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.units import escape_path

#: Lines of one command that go to the job log, and the length of one.
MOST_LINES, LONGEST_LINE = 1000, 2000
_POLL_S = 0.25
_HIDDEN = b"***"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Direction = Literal["in", "out", "none"]


def command_of(commands: Mapping[str, HostCommand], server: str, name: str, kind: CommandKind) -> HostCommand:
    """The entry of this server's file. Raises ``CommandNotAllowed``."""
    command = commands.get(name)
    if command is None or command.kind is not kind:
        raise CommandNotAllowed(server=server, name=name, kind=kind.value)
    return command


class Running:
    """A command at work; a context manager that leaves nothing of it behind.

    ``stream``: ``out``, its output is read here; ``in``, its input is written here; ``none``. What else it says goes
    to the job log. ``check`` is asked four times a second while it is waited for, and raises to end it.
    """

    def __init__(
        self,
        desk: Desk,
        server: str,
        name: str,
        command: HostCommand,
        *,
        stream: Direction,
        check: Callable[[], None],
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._desk = desk
        self._server = server
        self._command = command
        self._stream_way = stream
        self._check = check
        self._more = more or {}
        self._checked_s = 0.0
        self._life: socket.socket | None = None
        self._stream = -1
        self._words: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        words_reader, words_writer = os.pipe()
        given = [words_writer]
        held: int | None = None
        stdin: int = subprocess.DEVNULL
        stdout = words_writer
        if self._stream_way != "none":
            reader, writer = os.pipe()
            if self._stream_way == "out":
                self._stream, stdout = reader, writer
            else:
                self._stream, stdin, held = writer, reader, writer
            given.append(writer if self._stream_way == "out" else reader)
            os.set_blocking(self._stream, False)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guardian.__file__, str(theirs.fileno())],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=words_writer,
                    pass_fds=(theirs.fileno(), *([] if held is None else [held]), *kin.kept()),
                    start_new_session=True,
                )
        except BaseException:
            mine.close()
            os.close(words_reader)
            self.close_stream()
            raise
        finally:
            for descriptor in given:
                os.close(descriptor)
        self._life = mine
        self._words = threading.Thread(
            target=self._listen, args=(words_reader,), name=f"words of {self.name}", daemon=True
        )
        self._words.start()
        wanted = {
            "argv": list(self._command.argv),
            "environment": self._environment(),
            "user": self._command.user,
            "limit_s": self._command.time_limit_s,
            "hold": held,
            "kept": kin.kept(),
        }
        mine.sendall(json.dumps(wanted).encode() + b"\n")
        self._desk.log("info", f"{self._command.kind} command {self.name} begins")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(b"x")  # a moment to end by itself; nothing if it has
        if self._stream_way == "out":
            self.close_stream()  # it may wait for somebody who reads
        if self._process is not None:
            self._process.wait()
        self.close_stream()  # only now: it must not take a failure for the end of its input
        if self._words is not None:
            self._words.join()
        if self._life is not None:
            self._life.close()

    def _tell(self, what: bytes) -> None:
        if self._life is not None:
            try:
                self._life.send(what, socket.MSG_NOSIGNAL)
            except OSError:
                pass  # the guardian has ended, and the command with it

    def _environment(self) -> dict[str, str]:
        try:
            user = pwd.getpwnam(self._command.user) if self._command.user else pwd.getpwuid(os.geteuid())
            own = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
        except KeyError:
            own = {"HOME": "/"}
        given, names = self._command.logon, self._command.variables
        logon = {} if given is None else {names.user: given.user, names.secret: given.secret}
        return {"PATH": _PATH, "LANG": "C.UTF-8", **own, **self._command.environment, **logon, **self._more}

    # --- its stream ---

    def read_into(self, view: memoryview) -> int:
        """Fills ``view`` from its output; fewer bytes only at the end."""
        done = 0
        while done < len(view):
            self._wait_for(self._stream, select.POLLIN)
            try:
                count = os.readv(self._stream, [view[done:]])
            except BlockingIOError:
                continue
            if not count:
                break
            done += count
        return done

    def write(self, data: bytes | memoryview) -> None:
        """Gives it input. Raises ``CommandFailed`` if it takes no more."""
        view = memoryview(data)
        while view:
            self._wait_for(self._stream, select.POLLOUT)
            try:
                view = view[os.write(self._stream, view[: 1 << 20]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self.finish()
                raise CommandFailed(
                    server=self._server, name=self.name, detail="it ended before it had read everything"
                ) from None

    def close_stream(self) -> None:
        """Nothing more is read or given."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1

    def _wait_for(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            ready = poll.poll(_POLL_S * 1000)
            now_s = time.monotonic()
            if now_s - self._checked_s >= _POLL_S:
                self._checked_s = now_s
                self._check()
            if ready:
                return

    # --- its end ---

    def finish(self) -> None:
        """Waits for its end. Raises ``CommandFailed`` unless it succeeded."""
        if self._life is None:
            raise Misuse("the command was not started")
        self._tell(b"e")
        self.close_stream()
        answer = b""
        while not answer.endswith(b"\n"):
            self._wait_for(self._life.fileno(), select.POLLIN)
            piece = self._life.recv(1 << 16)
            if not piece:
                break
            answer += piece
        result: dict[str, Any] = json.loads(answer) if answer.endswith(b"\n") else {}
        detail = self._problem(result)
        if detail:
            raise CommandFailed(server=self._server, name=self.name, detail=detail)
        self._desk.log("info", f"{self._command.kind} command {self.name} succeeded")

    def _problem(self, result: dict[str, Any]) -> str:
        if "not_started" in result:
            return f"it could not be started ({result['not_started']})"
        if "timed_out" in result:
            return f"it took longer than its time limit of {self._command.time_limit_s:g} s"
        if "exit" not in result:
            return "it was ended"
        status = int(result["exit"])
        if not status:
            return ""
        return f"signal {-status} ended it" if status < 0 else f"exit status {status}"

    def _listen(self, reader: int) -> None:
        """What it says, line by line, to the job log."""
        told = left_out = 0
        secret = b"" if self._command.logon is None else self._command.logon.secret.encode()
        with open(reader, "rb") as words:
            for line in without_secret(iter(lambda: words.readline(LONGEST_LINE), b""), secret):
                text = escape_path(line.rstrip(b"\r\n").replace(b"\t", b"    "))
                if told < MOST_LINES:
                    told += 1
                    self._desk.log("info", f"{self.name}: {text}")
                else:
                    left_out += 1
        if left_out:
            self._desk.log("info", f"{self.name}: {left_out} more lines are left out")


def without_secret(pieces: Iterable[bytes], secret: bytes) -> Iterator[bytes]:
    """What a command says, piece by piece, without the secret that it was given, also where that lies in two pieces of
    one long line."""
    if not secret:
        yield from pieces
        return
    held = b""
    for piece in pieces:
        text = (held + piece).replace(secret, _HIDDEN)
        # of a line that goes on the end is held back, which may be the beginning of the secret
        keep = len(secret) - 1 if len(piece) >= LONGEST_LINE and not piece.endswith(b"\n") else 0
        cut = max(0, len(text) - keep)
        text, held = text[:cut], text[cut:]
        if text:
            yield text
    if held:
        yield held


def run_command(
    desk: Desk,
    task: Task,
    name: str,
    kind: CommandKind,
    *,
    check: Callable[[], None],
    more: Mapping[str, str] | None = None,
) -> None:
    """Runs a ``pre`` or ``post`` command to its end. Raises ``CommandNotAllowed``, ``CommandFailed``."""
    command = command_of(task.commands, task.server_name, name, kind)
    with Running(desk, task.server_name, name, command, stream="none", check=check, more=more) as running:
        running.finish()


@contextmanager
def around(task: Task, desk: Desk, on_pause: Callable[[], None]) -> Iterator[None]:
    """Runs the commands of a backup before and after what is inside: before it is read, and once all was read.

    A ``pre`` command that fails ends the backup with ``CommandFailed``, a ``post`` command that fails is an exception;
    with ``ignore_exit_codes`` both are warnings. After a failure (or a cancel) ``post`` runs with ``post_always``. Nothing
    but force ends a ``post`` command that has begun: it leaves the source as it was, and the next attempt waits for it.
    """
    spec = task.order.spec
    assert isinstance(spec, BackupSpec)

    def check() -> None:
        desk.check()
        on_pause()

    try:
        if spec.pre:
            try:
                run_command(desk, task, spec.pre, CommandKind.PRE, check=check)
            except CommandFailed as error:
                if not spec.ignore_exit_codes:
                    raise
                desk.log("warning", error.message)
        yield
    except Exception:
        if spec.post and spec.post_always:
            # a backup that was canceled has to leave the source as it was, too
            _post(task, desk, spec, "failed", check=lambda: None)
        raise
    if spec.post:
        problems: list[Exception] = []

        def later() -> None:
            try:
                on_pause()
            except Exception as error:
                problems.append(error)

        _post(task, desk, spec, "succeeded", check=later)
        desk.check()
        if problems:
            raise problems[0]


def _post(task: Task, desk: Desk, spec: BackupSpec, result: str, *, check: Callable[[], None]) -> None:
    name = spec.post
    assert name is not None
    if name in task.commands:
        desk.say(CleansUp(task.commands[name].time_limit_s))
    try:
        run_command(desk, task, name, CommandKind.POST, check=check, more={"CASO_MESH_RESULT": result})
    except CommandFailed as error:
        if spec.ignore_exit_codes or result == "failed":
            desk.log("warning", error.message)
        else:
            desk.exception(SourceException(b"@post/" + name.encode(), "command-failed", error.message))
