"""The mesh on one screen: fits it, whatever there is to say; and again every second, until q."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import pytest
from cli_world import FakeDaemon, Shell
from msgspec.structs import replace
from waiting import wait_for

from caso_mesh.cli.screen import SORTS, bar, cut, status_lines, top_lines
from caso_mesh.model import outcomes as o
from caso_mesh.model import views as v
from caso_mesh.model.errors import StateDamaged, UnknownCall
from caso_mesh.model.overview import AwayServer, DueJob, Overview, OverviewRequest

STATUS = v.StatusView("tests", "alpha", "alpha", 3, ("alpha", "beta"), 9, 2, 1, "0.1.0")
JOB = o.JobView(
    "job1", "nightly", "backup", "job1@1", "job1@1#1", "running", "full", "medium", "alpha", "beta", "disk1", None, {}, None,
    42.0, 3, 4, 5000, 6, 7_000_000.0, "/srv/a\x1b[2J", None, None, None, None,
)  # fmt: skip
WAITS = replace(
    JOB, state="ready", reason="no-idle-device", reason_text="all devices of the target are busy: " + "d" * 200
)
ALERT = v.AlertView(
    "al1", "error", "device-full", "beta", "disk1", "disk1 is full", "2025-01-01T00:00:00Z", None, None, None, None
)
CALM = Overview(
    "2025-01-01T10:20:30Z", {"enabled": 9}, 9, (), 0, (), 0.0, 0, (), {}, 0, (), "2024-12-31T10:20:30Z", {}, (), ()
)
STORM = Overview(
    "2025-01-01T10:20:30Z",
    {"enabled": 900, "no-communication": 60, "stalled": 40},
    900,
    tuple(AwayServer(f"s{number}", "stalled", "2025-01-01T10:00:00Z") for number in range(100)),
    100,
    tuple(replace(JOB, name=f"j{number:02}", rate=float(number), percent=99.0 - number) for number in range(60)),
    1e9,
    10_000,
    (WAITS,) * 100,
    {f"reason-{number}": 100 - number for number in range(20)},
    500,
    (ALERT,) * 100,
    "2024-12-31T10:20:30Z",
    {"succeeded": 800, "failed": 3, "missed": 1},
    tuple(f"bad{number}" for number in range(50)),
    tuple(DueJob("2025-01-02T00:00:00Z", f"due{number}") for number in range(10)),
)


def text(line: object) -> str:
    return "".join(piece for piece, _ in line)


def test_the_status_fits_80_by_24_in_calm_and_storm():
    for seen in (None, CALM, STORM):
        lines = [text(cut(line, 80)) for line in status_lines(STATUS, seen)]
        assert len(lines) <= 23
        assert max(map(len, lines)) <= 80
    shown = "\n".join(text(line) for line in status_lines(STATUS, STORM))
    for said in (
        "alpha (term 3)", "60 no-communication", "s0: stalled since 2025-01-01 10:00 UTC", "100, 1.0 GB/s", "j00",
        "100 reason-0", "device-full: disk1 is full", "3 failed, 1 missed (bad0, bad1, bad2 ...), 800 succeeded", "due0",
    ):  # fmt: skip
        assert said in shown
    assert "none in office" in text(status_lines(replace(STATUS, admin=None), None)[2])


@pytest.mark.parametrize("width", [10, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 8, 24, 60])
def test_the_top_fits_every_terminal_and_shows_what_runs_first(width: int, height: int):
    for seen in (CALM, STORM):
        lines = [text(cut(line, width)) for line in top_lines(STATUS, seen, height, "server")]
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert all(line.isprintable() for line in lines)
    if height >= 24:
        assert sum("alpha -> disk1" in text(line) for line in top_lines(STATUS, STORM, height, "name")) >= 5


def test_what_runs_is_sorted_as_asked():
    def first(sort: str) -> str:
        return next(text(line) for line in top_lines(STATUS, STORM, 40, sort) if "alpha -> disk1" in text(line))

    assert ["j00" in first(sort) for sort in SORTS] == [True, False, True, True]
    assert "j59" in first("rate")


def test_bars_are_of_letters_that_every_terminal_has():
    assert bar(50.0) == "[######......] 50%"
    assert bar(0.0).startswith("[....") and bar(100.0).endswith("100%")
    assert len(bar(None)) == len(bar(3.0)) == 18


async def test_in_a_pipe_it_is_plain_and_json_is_as_it_was(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers |= {"status": STATUS, "overview": STORM}
    shown = await shell("status")
    assert (shown.status, "\x1b" in shown.out, "administrator  alpha (term 3)" in shown.out) == (0, False, True)
    document = (await shell("status", "--json")).document
    assert list(document) == ["mesh", "server", "admin", "term", "voters", "servers", "running", "alerts", "version"]
    assert [each.call for each in daemon.received] == ["status", "overview", "status"]
    daemon.answers["overview"] = UnknownCall(peer="alpha", call="overview", detail="unknown call")
    shown = await shell("status")
    assert (shown.status, "There is no more to be seen" in shown.err, "alerts         1" in shown.out) == (
        0,
        True,
        True,
    )
    daemon.answers["status"] = replace(STATUS, admin=None)
    assert "none in office" in (await shell("status")).out


async def test_without_a_terminal_top_is_one_picture(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers |= {"status": STATUS, "overview": STORM}
    shown = await shell("top")
    assert shown.status == 0
    assert "q quit" not in shown.out and "\x1b" not in shown.out
    assert (await shell("top", "--json")).document["waiting_total"] == 10_000
    assert daemon.received[-1].request == OverviewRequest(100)


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, state: Path, **env: str) -> None:
        self.shown = b""
        self.parent, child = pty.openpty()
        self.size(24, 80)
        self.before = termios.tcgetattr(child)
        self.child = child
        argv = [sys.executable, "-m", "caso_mesh", "top", "--state", str(state)]
        keep = {"PATH": os.environ["PATH"], "HOME": str(state), "TERM": "xterm", "PYTHONDONTWRITEBYTECODE": "1"}
        self.pid = os.posix_spawn(
            sys.executable, argv, {**keep, **env},
            file_actions=[(os.POSIX_SPAWN_DUP2, child, fd) for fd in (0, 1, 2)], setsid=True,
        )  # fmt: skip
        os.set_blocking(self.parent, False)

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.parent, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def says(self, wanted: bytes) -> None:
        def there() -> bool:
            with contextlib.suppress(BlockingIOError):
                self.shown += os.read(self.parent, 1 << 16)
            return wanted in self.shown

        wait_for(there, 30.0, what=f"the screen shows {wanted!r}", every_s=0.02)
        # what came behind it may be what is waited for next
        self.shown = self.shown.partition(wanted)[2]

    def press(self, key: bytes) -> None:
        os.write(self.parent, key)

    def ended(self) -> int:
        def over() -> bool:
            with contextlib.suppress(BlockingIOError):
                self.shown += os.read(self.parent, 1 << 16)
            self.status = os.waitpid(self.pid, os.WNOHANG)
            return self.status[0] != 0

        wait_for(over, 30.0, what="it ends", every_s=0.02)
        status = os.waitstatus_to_exitcode(self.status[1])
        assert termios.tcgetattr(self.child) == self.before
        os.close(self.parent)
        os.close(self.child)
        return status


async def test_on_a_terminal_top_hears_keys_survives_a_failed_answer_and_leaves_the_terminal_as_it_was(
    daemon: FakeDaemon,
) -> None:
    daemon.answers |= {"status": STATUS, "overview": [STORM, STORM, StateDamaged(path="x", detail="y"), STORM]}

    def person() -> int:
        terminal = Terminal(daemon.state, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        terminal.says(b"by server")
        terminal.press(b"s")
        terminal.says(b"by rate")
        terminal.says(b"no answer: state-damaged")
        terminal.shown = b""
        terminal.size(10, 40)
        terminal.press(b"x")
        terminal.says(b"by rate")
        terminal.press(b"q")
        return terminal.ended()

    assert await asyncio.to_thread(person) == 0
