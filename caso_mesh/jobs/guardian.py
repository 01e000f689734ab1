"""The guardian of one command: ``python -I -S guardian.py SOCKET-FD``, standard library only, so that it starts at once.

It reads one line of JSON (``argv``, ``environment``, ``user``, ``limit_s``, ``hold``, ``kept``) from the socket, starts the command
in a session of its own and answers with one line: ``exit`` (negative: the signal), ``timed_out``, ``stopped`` or
``not_started``. ``hold`` is a descriptor of the writing end of the command's input: it is closed when ``e`` comes, so
that the command never takes the death of who feeds it for the end of its input. ``kept`` are descriptors that tell
whether the guardian is there: the command does not get them. ``x`` asks to stop. When the socket ends, whoever asked is gone, by ``kill -9`` or otherwise: the command is killed. Whatever
the command leaves behind is killed too, also what has left its process group: orphans become children of the guardian
(PR_SET_CHILD_SUBREAPER, prctl(2)).
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

#: Between asking a command to end and killing it.
GRACE_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Runs one command to its end."""
    life = socket.socket(fileno=int(arguments[0]))
    life.set_inheritable(False)  # while the command had it too, nobody's end would show
    line = b""
    while b"\n" not in line:
        piece = life.recv(1 << 16)
        if not piece:
            return 1
        line += piece
    line, _, asked = line.partition(b"\n")
    wanted = json.loads(line)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        user = _user(wanted["user"])
    except (KeyError, PermissionError) as error:
        return _answer(life, {"not_started": str(error).strip("'\"")})
    problem_reader, problem_writer = os.pipe()
    hold = wanted["hold"]
    for descriptor in wanted["kept"] if hold is None else (hold, *wanted["kept"]):
        os.set_inheritable(descriptor, False)
    pid = os.fork()
    if pid == 0:
        _command(wanted, user, problem_writer)
    os.close(problem_writer)
    # its output has ended when it has closed it, not when we do
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    problem = os.read(problem_reader, 4096)
    if problem:
        os.waitpid(pid, 0)
        return _answer(life, {"not_started": problem.decode("utf-8", "replace")})
    result = _attend(life, asked, pid, wanted["limit_s"], hold)
    _sweep(pid)
    return _answer(life, result)


def _user(name: str) -> pwd.struct_passwd | None:
    """Whom to become. Raises ``KeyError``, ``PermissionError``."""
    if not name:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise KeyError(f"there is no user {name}") from None
    if os.geteuid() == user.pw_uid:
        return None
    if os.geteuid() != 0:
        raise PermissionError(f"only a daemon that runs as root can run it as {name}")
    return user


def _command(wanted: dict[str, Any], user: pwd.struct_passwd | None, problem: int) -> NoReturn:
    """The child: becomes the command."""
    try:
        parent = os.getppid()
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) is not signal.SIG_DFL:
                try:
                    signal.signal(number, signal.SIG_DFL)
                except (OSError, ValueError):
                    continue  # of the C library's own
        if user is not None:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        # after the change of the user: that would take it away
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.umask(0o077)
        os.chdir("/")
        os.execve(wanted["argv"][0], wanted["argv"], wanted["environment"])  # noqa: S606 - that is what it is for
    except BaseException as error:
        os.write(problem, str(getattr(error, "strerror", None) or error).encode()[:4000])
    os._exit(127)


def _attend(life: socket.socket, asked: bytes, pid: int, limit_s: float, hold: int | None) -> dict[str, Any]:
    """Until the command has ended, was told to, or took too long. ``asked``: what has come from the socket already."""
    pidfd = os.pidfd_open(pid)
    deadline = time.monotonic() + limit_s
    result: dict[str, Any] = {}
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(life, select.POLLIN)
    while True:
        wait_ms = 0 if asked else max(0, int(1000 * (deadline - time.monotonic())) + 1)
        ready = {fd for fd, _ in poll.poll(wait_ms)}
        if pidfd in ready:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return result or {"exit": status}
        if asked or life.fileno() in ready:
            asked = asked or _received(life)
            if b"e" in asked and hold is not None:
                os.close(hold)
                hold = None
            if asked and b"x" not in asked:
                asked = b""
                continue
            poll.unregister(life)
            result = result or {"stopped": True}
            # somebody who is there still waits a moment; after one who is gone nothing may run on
            _signal(pid, signal.SIGTERM if asked else signal.SIGKILL)
            asked = b""
            deadline = time.monotonic() + GRACE_S
        elif time.monotonic() >= deadline:
            _signal(pid, signal.SIGKILL if result else signal.SIGTERM)
            result = result or {"timed_out": True}
            deadline = time.monotonic() + GRACE_S


def _received(life: socket.socket) -> bytes:
    try:
        return life.recv(16)
    except OSError:
        return b""


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass  # it ended just now


def _sweep(group: int) -> None:
    """Kills all that the command left behind, until nothing is."""
    _signal(group, signal.SIGKILL)
    while True:
        for child in _children():
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Processes whose parent is this one (``proc_pid_stat(5)``)."""
    found, own = [], os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == own:
            found.append(int(name))
    return found


def _answer(life: socket.socket, result: dict[str, Any]) -> int:
    try:
        life.sendall(json.dumps(result).encode() + b"\n")
    except OSError:
        return 1  # nobody is there any more
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
