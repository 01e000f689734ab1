"""What the kinds of snapshots have in common: a plan that is known before anything is done, and programs to do it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from caso_mesh.sources.mounts import Mount

#: How the names of all snapshots begin.
PREFIX = "caso-mesh-snap."
#: How long one program may take: it waits for what is being written.
_LIMIT_S = 300.0


class Unsuitable(Exception):
    """There can be no snapshot of this: why."""


class ToolFailed(Exception):
    """A program failed: what it said."""


class Plan(Struct, frozen=True):
    """A snapshot that is to be taken, or was. ``what`` is its name for the programs that make and remove it, ``of`` that of
    its origin. ``top`` is the folder that it is of, ``at`` where that folder is read in it. ``mounted``: where it is mounted
    for that (empty: it is reached without), as ``file_system``."""

    kind: str
    name: str
    what: str
    of: str
    top: bytes
    at: bytes
    mounted: bytes = b""
    file_system: str = ""


class Run(Protocol):
    """Runs a program; its output. ``hold``: a descriptor that stays open until it has ended. Raises ``ToolFailed``."""

    def __call__(self, argv: Sequence[str], *, hold: int | None = None) -> str: ...


class Kind(Protocol):
    """One kind of snapshots."""

    name: str

    def plan(self, path: bytes, mount: Mount, name: str, folder: bytes) -> Plan:
        """A snapshot of what ``path`` (real, absolute) lies on. ``folder``: where it may be mounted. Raises ``Unsuitable``,
        ``ToolFailed``."""
        ...

    def create(self, plan: Plan, hold: int) -> None:
        """Takes it, and makes it readable at ``plan.at``. Raises ``ToolFailed``."""
        ...

    def check(self, plan: Plan) -> None:
        """Raises ``ToolFailed`` if it did not stay what it was while it was read."""
        ...

    def remove(self, plan: Plan, hold: int) -> None:
        """Removes it, however much of it is there. Raises ``ToolFailed``."""
        ...

    def leftovers(self, prefix: str, mounts: Sequence[Mount]) -> list[Plan]:
        """Snapshots that are there and whose names begin so. Raises ``ToolFailed``."""
        ...


def run_program(argv: Sequence[str], *, hold: int | None = None) -> str:
    """See ``Run``."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    program = shutil.which(argv[0], path=environment["PATH"])
    if program is None:
        raise ToolFailed(f'the program "{argv[0]}" is not installed')
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=() if hold is None else (hold,),
            start_new_session=True,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise ToolFailed(f'"{argv[0]} {argv[1]}" did not end within {_LIMIT_S:g} s') from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"status {done.returncode}"]
        raise ToolFailed(f'"{argv[0]} {argv[1]}": {words[-1].strip()}')
    return done.stdout.decode("utf-8", "surrogateescape")


def inside(path: bytes, top: bytes, at: bytes) -> bytes:
    """Where ``path``, which lies in ``top``, is when ``top`` is read at ``at``."""
    below = os.path.relpath(path, top)
    return at if below == b"." else os.path.join(at, below)
