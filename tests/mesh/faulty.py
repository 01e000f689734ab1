"""Folders that hang, fail to read or write, or write only half, on demand: see ``faulty_folder``."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from waiting import wait_for


class Faulty:
    """``path`` shows what lies in the folder ``real``."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.real = path.with_name(f"{path.name}.real")
        self._faults = path.with_name(f"{path.name}.faults")
        for folder in (path, self.real):
            folder.mkdir(exist_ok=True)
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
            done = subprocess.run(
                ["mount", "-i", "-t", "fuse.faulty", "-o", options, "faulty", str(path)],
                pass_fds=[device], capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            program = pathlib.Path(__file__).with_name("faulty_folder.py")
            argv = [sys.executable, str(program), str(self.real), str(device), str(self._faults)]
            self._server = subprocess.Popen(argv, pass_fds=[device])
        finally:
            os.close(device)
        wait_for(path.is_dir, 30.0, what="the faulty folder answers")

    def fails(self, *faults: str) -> None:
        """From now on: "write EIO", "read EIO packs/d", "fsync hang", "write short", "all hang". None: all is well."""
        new = self._faults.with_suffix(".new")
        new.write_text("\n".join(faults))
        new.replace(self._faults)

    @contextlib.contextmanager
    def failing(self, *faults: str) -> Iterator[None]:
        """As ``fails``, for the block; so that nothing hangs after a test that failed."""
        self.fails(*faults)
        try:
            yield
        finally:
            self.fails()

    def close(self) -> None:
        """Whatever hangs in it comes back with an error."""
        self._faults.unlink(missing_ok=True)
        # forced: what waits for an answer is told that there will be none
        subprocess.run(["umount", "-f", str(self.path)], capture_output=True, check=False)
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)
        try:
            self._server.wait(10.0)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"no FUSE here: {error.strerror}"
    return None


@pytest.fixture
def faulty() -> Iterator[Callable[[pathlib.Path], Faulty]]:
    """``faulty(path)``: a folder that fails on demand. Ask for it before ``process_mesh``, so that the daemons end
    first."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    made: list[Faulty] = []

    def make(path: pathlib.Path) -> Faulty:
        made.append(Faulty(path))
        return made[-1]

    yield make
    for each in made:
        each.close()
