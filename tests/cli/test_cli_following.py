"""A job log on the command line: as it grows, and into a file."""

from __future__ import annotations

import json
from pathlib import Path

from cli_world import FakeDaemon, Shell

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.history import LogFollow, LogTail, TailLine


def line(text: str, attempt: str = "j@1#1") -> TailLine:
    return TailLine(attempt, "beta", o.LogLineView("2025-01-01T00:00:00Z", "info", text))


async def test_a_log_is_followed_to_its_end_and_asked_on_from_where_it_was(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["log.follow"] = [
        LogTail("j@1", (line("one"), line("t\x1bwo")), {"a": 2}, ended=False, away=("gamma",)),
        LogTail("j@1", (), {"a": 2}, ended=False, away=("gamma",)),
        LogTail("j@1", (line("three", "j@1#2"),), {"a": 3}, ended=False),
        LogTail("j@1", (), {"a": 3}, ended=True),
    ]
    shown = await shell("job", "log", "j", "--follow")
    assert shown.status == 0
    assert [text.rpartition("  ")[2] for text in shown.out.splitlines()] == [
        "j@1#1:", "beta: one", "beta: t\\x1bwo", "j@1#2:", "beta: three",
    ]  # fmt: skip
    assert shown.err.count("gamma keeps its part") == 1
    asked = [each.request for each in daemon.received]
    assert asked[0] == LogFollow("j", None, {}, 7.5)
    assert [each.seen for each in asked[1:]] == [{"a": 2}, {"a": 2}, {"a": 3}]
    # of a job the run that it was is followed on, though a newer one begins
    assert {each.name for each in asked[1:]} == {"j@1"}
    daemon.answers["log.follow"] = LogTail("j@1", (), {}, ended=True)
    assert (await shell("job", "log", "j@1", "--follow", "--level", "error")).status == 2
    assert (await shell("job", "log", "j@1", "--follow", "--local")).status == 2


async def test_followed_as_records_each_line_is_one(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["log.follow"] = [
        LogTail("j@1", (line("one"), line("two")), {}, ended=False),
        LogTail("j@1", (), {}, ended=True),
    ]
    shown = await shell("job", "log", "j@1", "--follow", "--json")
    assert [json.loads(text)["line"]["text"] for text in shown.out.splitlines()] == ["one", "two"]


async def test_a_log_goes_into_a_new_file_and_one_attempt_by_its_number(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    entries = (o.LogLineView("2025-01-01T00:00:00Z", "info", "a\nb"),)
    daemon.answers["job.log"] = o.JobLogView((o.AttemptLog("j@1#2", entries),))
    path = tmp_path / "night.log"
    assert (await shell("job", "log", "j@1", "--attempt", "2", "--export", str(path))).status == 0
    assert daemon.received[-1].request == q.JobLogRequest("j@1#2")
    assert path.read_text() == "j@1#2  2025-01-01T00:00:00Z  info     a\\x0ab\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await shell("job", "log", "j@1", "--export", str(path))).status == 6
    assert (await shell("job", "log", "j@1", "--export", str(tmp_path / "no" / "x"))).status == 4
