"""A throw-away mesh of three servers on this machine, driven as a person would drive it.

Three daemons on the loopback interface, each with its own state folder; files of the first go to a pool of the other
two and come back on the third. It uses what everybody uses: the command line and the client behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import DemoFailed, UsageError
from caso_mesh.model.states import BackupType, Overwrite
from caso_mesh.model.units import format_duration, format_size
from caso_mesh.sources.compare import differences
from caso_mesh.sources.filters import Filters
from caso_mesh.sources.walk import Walker

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

SERVERS = ("alpha", "beta", "gamma")
POOL = "store"
#: Compiled files come and go while Python programs run, as this one does.
PYTHON_CACHES = "__pycache__/"
_STEP_TIMEOUT = "60s"
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.1
_SHOWN_DIFFERENCES = 20
_SHOWN_LOG_LINES = 12


class Caller(Protocol):
    """A connection to a daemon."""

    async def call(self, name: str, request: Struct, reply: type[S]) -> S: ...


class Face(Protocol):
    """The command line, as the demo uses it."""

    def connect(self, state: Path, timeout: str) -> AbstractAsyncContextManager[Caller]:
        """A connection to the daemon of a state folder, which may still be starting."""
        ...

    async def follow(self, client: Caller, run: str) -> o.RunResult:
        """Shows how far a run is, until its end."""
        ...

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        ...


class Sources(Struct, frozen=True):
    """What is backed up: absolute folders, and patterns of what is left out."""

    roots: tuple[bytes, ...]
    excludes: tuple[str, ...]

    @property
    def filters(self) -> Filters:
        return Filters(excludes=self.excludes)


def choose_sources(given: Path | None) -> Sources:
    """``given``, or the interpreter's library and the packages of the running environment. Raises ``UsageError``."""
    if given is not None:
        if not given.is_dir():
            raise UsageError(detail=f"{given} is no folder")
        return Sources((os.fsencode(os.path.realpath(given)),), (PYTHON_CACHES,))
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    packages = os.path.realpath(sysconfig.get_path("purelib"))
    if packages.startswith(library + "/"):
        return Sources((os.fsencode(library),), (PYTHON_CACHES,))
    # packages of other environments than the running one, which may be huge
    others = tuple(f"{library}/{name}/" for name in ("site-packages", "dist-packages"))
    return Sources((os.fsencode(library), os.fsencode(packages)), (PYTHON_CACHES, *others))


class Daemon:
    """One server of the mesh: its state folder, its log, its process."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.state = folder / name / "state"
        self.device = folder / name / "device"
        self.device.mkdir(parents=True)
        self.log = folder / name / "daemon.log"
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts ``caso-mesh run``; it is up when its endpoint answers."""
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_program("run", "--state", os.fspath(self.state)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    async def while_alive(self, work: Awaitable[T]) -> T:
        """``work``, unless the daemon ends before it. Raises ``DemoFailed``."""
        assert self._process is not None  # started before
        ended, done = asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(work)
        try:
            await asyncio.wait((ended, done), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise DemoFailed(detail=f"the daemon of {self.name} ended: {self.last_words().rstrip('.')}")
            return await done
        finally:
            for each in (ended, done):
                each.cancel()
            await asyncio.wait((ended, done))

    async def stop(self) -> None:
        """Ends the process: asks first."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"


class Demo:
    """The story, step by step."""

    def __init__(self, folder: Path, sources: Sources, face: Face) -> None:
        self._folder = folder
        self._sources = sources
        self._face = face
        self._say = face.say
        # what is backed up shall not change meanwhile
        self._environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self._daemons = {name: Daemon(name, folder, self._environment) for name in SERVERS}

    async def run(self) -> list[str]:
        """Differences between what was backed up and what was restored: none if all is well. Raises ``DemoFailed``."""
        began = time.monotonic()
        try:
            async with self._mesh() as client:
                self._say(f"  the mesh is up after {format_duration(time.monotonic() - began)}")
                found = await self._store_and_restore(client)
        finally:
            async with asyncio.TaskGroup() as group:
                for daemon in self._daemons.values():
                    group.create_task(daemon.stop())
        self._say(f"All daemons are stopped; everything took {format_duration(time.monotonic() - began)}.")
        return found

    @contextlib.asynccontextmanager
    async def _mesh(self) -> AsyncIterator[Caller]:
        """Three servers, two devices, one pool."""
        alpha = self._daemons["alpha"]
        await self._command("init", "--mesh", "demo", "--server", "alpha", "--state", os.fspath(alpha.state), *_NETWORK)
        await self._start(alpha)
        async with self._face.connect(alpha.state, _STEP_TIMEOUT) as client:
            await alpha.while_alive(client.call("status", q.Nothing(), v.StatusView))
            for name in SERVERS[1:]:
                self._say("$ caso-mesh token create")
                token = await client.call("token.create", q.TokenCreate(), v.TokenView)
                state = os.fspath(self._daemons[name].state)
                await self._command("join", token.link, "--server", name, "--state", state, *_NETWORK)
                await self._start(self._daemons[name])
            await alpha.while_alive(self._all_connected(client))
            for name in SERVERS[1:]:
                await self._add_device(client, name)
            self._say(f"$ caso-mesh pool create {POOL} --server beta --server gamma")
            await client.call("pool.create", q.PoolEdit(POOL, SERVERS[1:]), v.PoolView)
            yield client

    async def _start(self, daemon: Daemon) -> None:
        self._say(f"$ caso-mesh run --state {daemon.state} &")
        await daemon.start()

    async def _all_connected(self, client: Caller) -> None:
        while True:
            servers = (await client.call("server.list", q.ServerListRequest(), v.ServerList)).servers
            if sum(server.connected for server in servers) == len(SERVERS):
                return
            for name in SERVERS[1:]:
                await self._daemons[name].while_alive(asyncio.sleep(_POLL_S))

    async def _add_device(self, client: Caller, name: str) -> None:
        path = os.fspath(self._daemons[name].device)
        self._say(f"$ caso-mesh device add disk-{name} --server {name} --path {path}")
        await client.call("device.add", q.DeviceAdd(f"disk-{name}", "disk", {name: path}), v.DeviceView)

    async def _store_and_restore(self, client: Caller) -> list[str]:
        first = await self._backup(client, BackupType.FULL)
        second = await self._backup(client, BackupType.INCREMENTAL)
        share = 100.0 * second.bytes_stored / max(1, first.bytes_stored)
        self._say(
            f"  nothing had changed: the second set took {format_size(second.bytes_stored)}, "
            f"{share:.2f} % of the {format_size(first.bytes_stored)} of the first"
        )
        scratch = self._folder / "restored"
        await self._restore(client, first, scratch)
        await self._log(client, first)
        began = time.monotonic()
        found = await asyncio.to_thread(lambda: list(compare(self._sources, os.fsencode(scratch))))
        self._say(f"compared names, content and metadata in {format_duration(time.monotonic() - began)}")
        return found

    async def _backup(self, client: Caller, type_: BackupType) -> o.RunResult:
        places = " ".join(f"alpha:{os.fsdecode(root)}" for root in self._sources.roots)
        self._say(f"$ caso-mesh backup {places} --to pool:{POOL} --type {type_.value} --wait")
        request = q.BackupRequest(
            tuple(("alpha", root) for root in self._sources.roots),
            f"pool:{POOL}",
            type_,
            excludes=self._sources.excludes,
        )
        result = await self._waited(client, "backup", request)
        self._say(
            f"  {result.files} files, {format_size(result.bytes)}, from alpha to {result.device} of {result.server} in "
            f"{format_duration(result.seconds)}: {format_size(result.bytes_stored)} stored"
        )
        return result

    async def _restore(self, client: Caller, result: o.RunResult, scratch: Path) -> None:
        ownership = os.geteuid() == 0
        more = "" if ownership else " --no-ownership"
        self._say(f"$ caso-mesh restore {result.set} --to gamma:{scratch}{more} --wait")
        request = q.RestoreRequest(
            result.set or "",
            to=("gamma", os.fsencode(scratch)),
            overwrite=Overwrite.ALWAYS,
            ownership=ownership,
        )
        done = await self._waited(client, "restore", request)
        self._say(
            f"  {done.files} files, {format_size(done.bytes)}, from {result.device} to gamma in "
            f"{format_duration(done.seconds)}"
        )

    async def _waited(self, client: Caller, call: str, request: Struct) -> o.RunResult:
        submitted = await client.call(call, request, o.Submitted)
        if submitted.run is None:
            raise DemoFailed(detail=f"the {call} has no run")
        result = await self._face.follow(client, submitted.run)
        if result.state != "succeeded":
            reasons = [f"{each.path}: {each.reason}" for each in result.exceptions[:3]]
            reasons += [str(result.error["message"]).rstrip(".")] if result.error else []
            raise DemoFailed(detail=f"the {call} {result.run} ended as {result.state} ({'; '.join(reasons)})")
        return result

    async def _log(self, client: Caller, result: o.RunResult) -> None:
        self._say(f"$ caso-mesh job log {result.run}")
        log = await client.call("job.log", q.JobLogRequest(result.run), o.JobLogView)
        lines = [line for attempt in log.attempts for line in attempt.lines]
        for line in lines[:_SHOWN_LOG_LINES]:
            self._say(f"  {line.at}  {line.level}  {line.text}")
        if not lines:
            self._say("  (empty: there was nothing to tell)")
        if len(lines) > _SHOWN_LOG_LINES:
            self._say(f"  ... and {len(lines) - _SHOWN_LOG_LINES} lines more")

    async def _command(self, *words: str) -> None:
        shown = ["LINK" if word.startswith("caso-mesh:") else word for word in words]
        self._say(f"$ caso-mesh {' '.join(shown)}")
        process = await asyncio.create_subprocess_exec(
            *_program(*words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        _, said = await process.communicate()
        if process.returncode:
            raise DemoFailed(detail=f"caso-mesh {words[0]} says: {said.decode(errors='replace').strip().rstrip('.')}")


_NETWORK = ("--listen", "127.0.0.1:0", "--preset", "local")


def _program(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "caso_mesh", *words)


def compare(sources: Sources, scratch: bytes) -> Iterator[str]:
    """How the restored trees differ from the sources. Owners: of all files as root, of own files otherwise."""
    as_root = os.geteuid() == 0
    for root in sources.roots:
        for line in differences(root, scratch + root, filters=sources.filters):
            if as_root or not line.startswith("owner of ") or _owned_by(line, os.geteuid()):
                yield line


def _owned_by(line: str, uid: int) -> bool:
    """Whether a line ``owner of 'x': UID:GID, UID:GID`` is about another user than it was, not just another group."""
    before, after = (pair.split(":")[0] for pair in line.rpartition(": ")[2].split(", "))
    return before == str(uid) and after != before


def count(sources: Sources) -> tuple[int, int]:
    """Files and bytes of the sources."""
    files = size = 0
    for walked in Walker(list(sources.roots), sources.filters, on_exception=lambda _: None, on_note=lambda _: None):
        if walked.entry.type.value == "file":
            files, size = files + 1, size + walked.entry.size
    return files, size


async def show(face: Face, *, source: Path | None, keep: bool, least_files: int = 2000) -> int:
    """Runs the demo and tells what happens. The exit status: 0 if all came back as it was. A signal to stop is obeyed
    after cleaning up. Raises ``DemoFailed``, ``UsageError``."""
    telling = asyncio.ensure_future(_tell(face, source, keep, least_files))
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            telling.cancel()

    loop, signals = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop, number)
    try:
        return 0 if await telling else 1
    except asyncio.CancelledError:
        if not stopped:
            raise
        return 128 + stopped[0]
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _tell(face: Face, source: Path | None, keep: bool, least_files: int) -> bool:
    sources = choose_sources(source)
    files, size = await asyncio.to_thread(count, sources)
    if source is None and files < least_files:
        raise DemoFailed(detail=f"this Python has only {files} files of its own; name a folder with --source")
    folder = Path(tempfile.mkdtemp(prefix="caso-mesh-demo-"))
    try:
        free = shutil.disk_usage(folder).free
        if free < 2 * size:
            raise UsageError(
                detail=f"The demo needs {format_size(2 * size)} in {folder.parent}, where {format_size(free)} are free; "
                "set TMPDIR, or name a smaller --source"
            )
        face.say(f"Three servers of one mesh, alpha, beta and gamma, on 127.0.0.1, in {folder}")
        found = await Demo(folder, sources, face).run()
    finally:
        if keep:
            face.say(f"Kept: {folder}")
        else:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    for line in islice(found, _SHOWN_DIFFERENCES):
        face.say(f"DIFFERENT {line}")
    if len(found) > _SHOWN_DIFFERENCES:
        face.say(f"... and {len(found) - _SHOWN_DIFFERENCES} differences more")
    if found:
        return False
    owners = "" if os.geteuid() == 0 else " (owners of own files)"
    face.say(f"OK: {files} files, {format_size(size)}, backed up, restored and compared: no difference{owners}.")
    return True
