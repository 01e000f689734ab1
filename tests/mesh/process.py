"""A mesh of real daemons, each a process with a state folder of its own, driven by the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mesh import delays, warm
from ports import hold_port
from waiting import wait_for

#: Names of servers, in the order they join; the first makes the mesh and is the administrator.
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
#: A daemon that was told to stop has this long.
STOP_S = 60.0
START_S = 90.0
PROGRAM = ("-m", "caso_mesh")


Process = subprocess.Popen[bytes] | warm.Started


@dataclass(frozen=True)
class Answer:
    """What a command said. ``document`` is its JSON, ``None`` without ``--json``."""

    argv: tuple[str, ...]
    status: int
    document: Any
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"caso-mesh {' '.join(self.argv)}\nexit status {self.status}\n{self.stdout}\n{self.stderr}"

    @property
    def error_code(self) -> str | None:
        """The code of the error it reports, if it does."""
        return self.document.get("error", {}).get("code") if isinstance(self.document, dict) else None


def fresh_environment() -> dict[str, str]:
    """What a program finds that is started by hand, but for its home."""
    keep = {"PATH", "LANG", "TZ", "TMPDIR", "CASO_MESH_TEST_RUN", delays.VARIABLE}
    env = {name: value for name, value in os.environ.items() if name in keep or name.startswith("COVERAGE")}
    return {**env, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": "1"}


class ProcessMesh:
    """``start(n)`` makes a mesh of ``n`` servers. Everything is ended by ``stop``, by process id."""

    #: What a daemon is started as; the environment may say more.
    program: tuple[str, ...] = PROGRAM
    #: Whether each daemon and each command starts in a fresh interpreter, also where a warm parent could fork it.
    cold: bool = False

    def __init__(self, folder: pathlib.Path, *, python: Sequence[str] = (sys.executable,)) -> None:
        self.folder = folder
        #: The words that run a Python with our packages: perhaps as another user.
        self._python = tuple(python)
        self.names: list[str] = []
        self._daemons: dict[str, Process] = {}
        self._begun: list[Begun] = []
        self._ports: list[socket.socket] = []
        #: What else daemons and commands find in their environment.
        self.variables: dict[str, str] = {}
        self._home = folder / "home"
        self._home.mkdir(parents=True)
        (folder / "logs").mkdir()

    # --- where it runs ---

    def on(self, name: str) -> list[str]:
        """The words before a program that put it on the machine of a server."""
        return []

    def network(self, name: str) -> str | None:
        """The file of the network namespace that those words enter, and nothing else with it."""
        return None

    def inside(self, name: str) -> contextlib.AbstractContextManager[None]:
        """This thread opens connections as on the machine of a server while the block lasts."""
        return contextlib.nullcontext()

    def listen(self, name: str) -> str:
        """Where a server that is made now listens: at a port that is nobody else's, also while no daemon is there."""
        self._ports.append(held := hold_port())
        return f"127.0.0.1:{held.getsockname()[1]}"

    # --- making it ---------------------------------------------------------------------------------------------------

    def start(self, count: int, *, preset: str = "local", voters: bool = False) -> None:
        """A mesh of ``count`` servers, all of them connected. With ``voters`` the first three are to become voters; else
        the first stays the only one, whoever else is ended."""
        self.init(NAMES[0], preset=preset)
        self.run(NAMES[0])
        for name in NAMES[1:count]:
            self.join(name, preset=preset, voters=voters)
            if voters:
                self.run(name)  # one after the other: those that are linked first are to vote
        if not voters:
            self.run_all(*NAMES[1:count])
        self.wait_connected(*self.names)

    def init(self, name: str, *, mesh: str = "meadow", preset: str = "local", **more: str) -> None:
        options = [word for key, value in more.items() for word in (f"--{key.replace('_', '-')}", value)]
        argv = ["init", "--mesh", mesh, "--server", name, "--listen", self.listen(name), "--preset", preset, *options]
        self.ok(name, *argv, json_output=False)
        self._only_loopback(name)
        self.names.append(name)

    def join(self, name: str, *, link: str | None = None, preset: str = "local", voters: bool = False) -> None:
        link = link or self.link()
        more = [] if voters else ["--never-admin"]
        argv = ["join", link, "--server", name, "--listen", self.listen(name), "--preset", preset, *more]
        self.ok(name, *argv, json_output=False)
        self._only_loopback(name)
        self.names.append(name)

    def link(self, at: str = NAMES[0], *more: str) -> str:
        """A join link."""
        return str(self.ok(at, "token", "create", *more)["link"])

    def state(self, name: str) -> pathlib.Path:
        """The state folder of a server."""
        return self.folder / f"state-{name}"

    def endpoint(self, name: str) -> str:
        """HOST:PORT of its daemon."""
        return (self.state(name) / "run" / "endpoint").read_text("utf-8").strip()

    def _only_loopback(self, name: str) -> None:
        self._configure(name, "mdns", "false")

    def _configure(self, name: str, key: str, value: str) -> None:
        path = self.state(name) / "config.toml"
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", path.read_text("utf-8"))
        assert count == 1, f"{path} has no line for {key}"
        # at once: the daemon may be reading it
        new = path.with_suffix(".new")
        new.write_text(text, "utf-8")
        was = path.stat()
        new.chmod(was.st_mode)
        os.chown(new, was.st_uid, was.st_gid)
        new.replace(path)

    # --- daemons -----------------------------------------------------------------------------------------------------

    def _fork(self, words: Sequence[str], environment: dict[str, str], at: str | None, **more: int) -> Process | None:
        """``words`` as the warm parent forks them; ``None`` where they must be started otherwise."""
        network = self.network(at) if at is not None else None
        before = [*(self.on(at) if at is not None and network is not None else ()), sys.executable, *PROGRAM]
        if self.cold or warm.parent is None or list(words[: len(before)]) != before:
            return None
        argv, folder = words[len(before) :], str(self.folder)
        return warm.parent.start(argv, env=environment, cwd=folder, network=network, **more)

    def environment(self) -> dict[str, str]:
        """As a fresh machine has it, with the mark by which leaks are found."""
        return {**fresh_environment(), "HOME": str(self._home), **self.variables}

    def spawn(self, name: str, *argv: str) -> None:
        """Starts ``caso-mesh ARGV``, its output in the log of ``name``; ended by ``stop`` if it still runs then."""
        words = [*self.on(name), *self._python, *self.program, *argv]
        # Should this test run die without a word, the daemons go with it.
        bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self.log_path(name).open("ab") as log:
            forked = self._fork(words, self.environment(), name, output=log.fileno())
            self._daemons[name] = forked or subprocess.Popen(
                [*bound, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=self.folder,
            )

    def run(self, name: str, *more: str) -> None:
        """Starts the daemon of ``name`` and waits until it listens."""
        self._begin(name, *more)
        self._wait_listens(name)

    def run_all(self, *names: str) -> None:
        """Starts daemons, all at the same time."""
        for name in names:
            self._begin(name)
        for name in names:
            self._wait_listens(name)

    def _begin(self, name: str, *more: str) -> None:
        (self.state(name) / "run" / "endpoint").unlink(missing_ok=True)  # of a daemon that was killed
        self.spawn(name, "run", "--state", str(self.state(name)), *more)

    def _wait_listens(self, name: str) -> None:
        endpoint, process = self.state(name) / "run" / "endpoint", self._daemons[name]

        def listens() -> bool:
            if process.poll() is not None:
                self._daemons.pop(name, None)
                raise RuntimeError(f"the daemon of {name} ended with {process.returncode}:\n{self.log(name)}")
            found = endpoint.exists() and bool(endpoint.read_text("utf-8").strip())
            return found and '127.0.0.1:0"' not in (self.state(name) / "config.toml").read_text("utf-8")

        wait_for(listens, START_S, what=f"the daemon of {name} listens")

    def pid(self, name: str) -> int:
        return self._daemons[name].pid

    def is_running(self, name: str) -> bool:
        return name in self._daemons and self._daemons[name].poll() is None

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        """Ends the daemon of ``name`` without a word (as ``kill -9`` does) and waits until it is gone."""
        process = self._daemons.pop(name)
        process.send_signal(how)
        process.wait(STOP_S)

    def signal(self, name: str, what: int) -> None:
        """Sends a signal to the daemon of ``name``, which goes on after it or not."""
        self._daemons[name].send_signal(what)

    def wipe(self, name: str) -> None:
        """The disk of a server that is down is gone."""
        assert not self.is_running(name)
        shutil.rmtree(self.state(name))

    def terminate(self, name: str) -> int:
        """Stops the daemon of ``name`` as a service manager does; its exit status."""
        self._daemons[name].send_signal(signal.SIGTERM)
        return self._stopped(name)

    def _stopped(self, name: str) -> int:
        process = self._daemons.pop(name)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
            raise AssertionError(f"the daemon of {name} did not stop within {STOP_S:g} s:\n{self.log(name)}") from None

    def restart(self, name: str) -> None:
        """Starts the daemon of ``name`` again, stopping it first if it runs."""
        if self.is_running(name):
            assert self.terminate(name) == 0
        self.run(name)

    def stop(self) -> None:
        """Ends every daemon. Raises ``AssertionError`` if one does not stop in time or with an exit status."""
        for begun in self._begun:
            begun.give_up()
        for process in self._daemons.values():
            process.send_signal(signal.SIGTERM)
        problems = []
        for name in reversed(list(self._daemons)):
            try:
                status = self._stopped(name)
                if status:
                    problems.append(f"the daemon of {name} ended with {status}")
            except AssertionError as error:
                problems.append(str(error).partition("\n")[0])
        while self._ports:
            self._ports.pop().close()
        assert not problems, "; ".join(problems)

    # --- its workers -------------------------------------------------------------------------------------------------

    def workers(self, name: str) -> list[int]:
        """Process ids of the workers of the daemon of ``name``."""
        parents: dict[int, list[tuple[int, str]]] = {}
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, IndexError):
                if entry.isdigit():
                    text = pathlib.Path(f"/proc/{entry}/stat").read_text("utf-8", "replace")
                    comm, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 1 :].split()
                    if rest[0] != "Z":
                        parents.setdefault(int(rest[1]), []).append((int(entry), comm))
        found, waiting = [], [self.pid(name)]
        while waiting:
            for pid, comm in parents.get(waiting.pop(), []):
                waiting.append(pid)
                if comm == "caso-worker":
                    found.append(pid)
        return sorted(found)

    def freeze(self, name: str, device: pathlib.Path, *, timeout_s: float = 60.0) -> Frozen:
        """Waits until content of a running backup lies in ``device`` (the folder of a device of ``name``) that was not
        there, and stops the workers of ``name`` in their tracks: what happens "in the middle" does so however quick this
        machine is."""
        before = set(device.glob("packs/d/*/*"))

        def writes() -> list[int]:
            return self.workers(name) if set(device.glob("packs/d/*/*")) - before else []

        frozen = Frozen(wait_for(writes, timeout_s, what=f"a backup writes at {name}", every_s=0.005))
        for pid in frozen.pids:
            os.kill(pid, signal.SIGSTOP)
        return frozen

    # --- what it says ------------------------------------------------------------------------------------------------

    def log_path(self, name: str) -> pathlib.Path:
        return self.folder / "logs" / f"{name}.log"

    def log(self, name: str, lines: int = 80) -> str:
        """The last lines of what the daemon of ``name`` said."""
        try:
            text = self.log_path(name).read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def show_logs(self) -> None:
        """Prints the logs; pytest shows them when the test failed."""
        for name in sorted({*self.names, *self._daemons}):
            print(f"--- log of {name} ---\n{self.log(name)}")

    # --- commands ----------------------------------------------------------------------------------------------------

    def command(self, name: str, *argv: str) -> list[str]:
        """The words of a command at the server ``name``."""
        return [*self.program_at(name), *argv, "--state", str(self.state(name))]

    def program_at(self, name: str) -> list[str]:
        """The words before those of a command that is called on the machine of a server."""
        return [*self.on(name), *self._python, *PROGRAM]

    def cli(self, name: str, *argv: str, json_output: bool = True, timeout_s: float = 90.0, **env: str) -> Answer:
        """Runs a command at the server ``name`` to its end. With ``--json``, stdout must be one document."""
        words = [*self.command(name, *argv), *(["--json"] if json_output else [])]
        return self.execute(words, argv, json_output=json_output, timeout_s=timeout_s, at=name, **env)

    def execute(
        self,
        words: list[str],
        argv: tuple[str, ...],
        *,
        json_output: bool,
        timeout_s: float = 90.0,
        at: str | None = None,
        **env: str,
    ) -> Answer:
        """Runs ``program_at`` the server ``at`` with more words, or any other program, to its end."""
        process = self._start(words, {**self.environment(), **env}, at)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        stdout, stderr = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        assert process.returncode is not None
        answer = Answer(argv, process.returncode, None, stdout, stderr)
        if json_output:
            try:
                document = json.loads(stdout)
            except ValueError:
                raise AssertionError(f"stdout is not one JSON document: {answer}") from None
            answer = Answer(argv, process.returncode, document, stdout, stderr)
        assert "Traceback" not in stderr, str(answer)
        return answer

    def ok(self, name: str, *argv: str, json_output: bool = True, timeout_s: float = 90.0) -> Any:
        """``cli`` that must succeed; its document."""
        answer = self.cli(name, *argv, json_output=json_output, timeout_s=timeout_s)
        assert answer.status == 0, str(answer)
        return answer.document

    def begin(self, name: str, *argv: str) -> Begun:
        """Starts a command with ``--json`` that takes its time; ``end()`` gives its answer."""
        process = self._start([*self.command(name, *argv), "--json"], self.environment(), name)
        self._begun.append(Begun(argv, process))
        return self._begun[-1]

    def _start(self, words: list[str], environment: dict[str, str], at: str | None) -> Process:
        if forked := self._fork(words, environment, at):
            return forked
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, cwd=self.folder
        )

    def wait_connected(self, *names: str, at: str = NAMES[0], timeout_s: float = 60.0) -> None:
        """Until ``at`` sees all of ``names`` connected and has had a sign of life of each since."""

        def connected() -> bool:
            servers = {row["name"]: row for row in self.ok(at, "server", "list")["servers"]}
            rows = [servers[name] for name in names if name in servers]
            return len(rows) == len(names) and all(
                row["connected"] and row["state"] != "no-communication" for row in rows
            )

        wait_for(connected, timeout_s, what=f"{at} is linked with {', '.join(names)}", every_s=0.1)

    def jobs(self, at: str = NAMES[0], *more: str) -> list[dict[str, Any]]:
        """The rows of ``job list``."""
        rows: list[dict[str, Any]] = self.ok(at, "job", "list", *more)["jobs"]
        return rows

    def sets(self, at: str = NAMES[0]) -> list[dict[str, Any]]:
        """The rows of ``set list``."""
        rows: list[dict[str, Any]] = self.ok(at, "set", "list", "--limit", "1000000")["sets"]
        return rows

    def told(self, category: str, text: str = "", *, at: str = NAMES[0]) -> list[dict[str, Any]]:
        """The open alerts of ``category`` with ``text`` in theirs, as soon as there is one: what happened is told of a moment
        after it has happened."""

        def rows() -> list[dict[str, Any]]:
            alerts: list[dict[str, Any]] = self.ok(at, "alert", "list")["alerts"]
            return [row for row in alerts if row["category"] == category and text in row["text"]]

        return wait_for(rows, what=f"an alert {category!r} at {at} says {text!r}")

    def audited(
        self, *more: str, enough: Callable[[list[dict[str, Any]]], bool] = bool, at: str = NAMES[0], **fields: str
    ) -> list[dict[str, Any]]:
        """The entries of ``audit list MORE`` with those fields, newest first, as soon as they are ``enough``: what was done is
        noted at once, and comes into the tables a moment later."""
        rows: list[dict[str, Any]] = []

        def found() -> bool:
            entries = self.ok(at, "audit", "list", *more)["entries"]
            rows[:] = [row for row in entries if all(row[key] == value for key, value in fields.items())]
            return enough(rows)

        wait_for(found, what=f"it is in the audit log, as seen at {at}: {fields}")
        return rows

    def logged(self, work: str, *texts: str, at: str = NAMES[0]) -> str:
        """The job log of a run or an attempt, as soon as all ``texts`` are in it: what the source's server says comes by a way
        of its own, also after the end."""
        text = ""

        def found() -> bool:
            nonlocal text
            attempts = self.ok(at, "job", "log", work)["attempts"]
            text = "\n".join(line["text"] for attempt in attempts for line in attempt["lines"])
            return all(each in text for each in texts)

        wait_for(found, what=f"the log of {work} says {texts}")
        return text


class Frozen:
    """Workers that were stopped in their tracks."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids

    def thaw(self) -> None:
        """They go on, those that are still there."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.thaw()


class Begun:
    """A command that runs."""

    def __init__(self, argv: tuple[str, ...], process: Process) -> None:
        self._argv = argv
        self.process = process

    def end(self, timeout_s: float = 90.0) -> Answer:
        """Its answer, once it has ended."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            said = f"{out.decode('utf-8', 'replace')}\n{err.decode('utf-8', 'replace')}"
            raise AssertionError(
                f"caso-mesh {' '.join(self._argv)} did not end within {timeout_s:g} s\n{said}"
            ) from None
        stdout = out.decode("utf-8", "replace")
        answer = Answer(self._argv, self.process.returncode, None, stdout, err.decode("utf-8", "replace"))
        try:
            document = json.loads(stdout)
        except ValueError:
            raise AssertionError(f"stdout is not one JSON document: {answer}") from None
        return Answer(self._argv, self.process.returncode, document, stdout, answer.stderr)

    def give_up(self) -> None:
        """Ends the command if it still runs; what it asked for goes on."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def running_mesh(folder: pathlib.Path, *, python: Sequence[str] = (sys.executable,)) -> Iterator[ProcessMesh]:
    """A mesh that is ended with the block; what its daemons said is printed."""
    mesh = ProcessMesh(folder, python=python)
    try:
        yield mesh
    finally:
        try:
            mesh.stop()
        finally:
            mesh.show_logs()
