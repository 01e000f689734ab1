"""``caso-mesh report``: what is asked for, and what is printed or written in each form."""

from __future__ import annotations

import csv
import io
import json

import pytest
from cli_world import FakeDaemon, Shell

from caso_mesh.model import reports as r

COLUMNS = (r.Column("job", "Job"), r.Column("state", "State", r.Kind.STATE), r.Column("size", "Size", r.Kind.BYTES))
JOBS = r.Table("jobs", "Jobs", COLUMNS, (("home", "failed", 1_500_000), ("=evil\x1b[2J", "succeeded", None)), more=3)
KINDS = r.Table("kinds", "Kinds", (r.Column("kind", "Kind"),), (), empty="Nothing ended.")
REPORT = r.Report(
    name="jobs-summary", title="Jobs summary", answers="What ran?", mesh="home", made="2026-01-16T06:00:00Z",
    begins="2026-01-15T06:00:00Z", until="2026-01-16T06:00:00Z", zone="Europe/Berlin", verdict="2 runs ended.", good=False,
    needs=(r.Need("home failed", "caso-mesh why home@1"),), figures=(r.Figure("runs", "Runs", 2),), tables=(JOBS, KINDS),
    notes=("A remark.",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def answers(daemon: FakeDaemon) -> None:
    daemon.answers["report.show"] = REPORT


async def test_a_report_is_asked_for_with_its_time_and_its_limits(daemon: FakeDaemon, shell: Shell) -> None:
    line = "report show failed-jobs --days 3 --until 2026-01-16T07:00+01:00 --server beta --pool west --list home"
    await shell(*line.split(), "--zone", "Europe/Berlin", "--limit", "5")
    (received,) = daemon.received
    until_ns = 1_768_543_200 * 1_000_000_000
    assert received.request == r.ReportShow(
        "failed-jobs", 3.0, None, until_ns, "beta", "west", "home", "Europe/Berlin", 5
    )
    assert received.timeout_s > 200, "a large mesh takes a while"


async def test_as_text_the_answer_comes_first(shell: Shell) -> None:
    shown = (await shell("report", "show", "jobs-summary")).out
    assert shown.index("2 runs ended.") < shown.index("caso-mesh why home@1") < shown.index("1.5 MB")
    assert "Nothing ended." in shown
    assert "\x1b" not in shown


async def test_as_csv_there_is_one_table_and_the_others_are_named(shell: Shell) -> None:
    result = await shell("report", "show", "jobs-summary", "--format", "csv")
    rows = list(csv.reader(io.StringIO(result.out)))
    assert rows == [["job", "state", "size"], ["home", "failed", "1500000"], ["'=evil\x1b[2J", "succeeded", ""]]
    assert "--table: kinds" in result.err
    other = await shell("report", "show", "jobs-summary", "--format", "csv", "--table", "kinds")
    assert other.out.strip() == "kind"
    wrong = await shell("report", "show", "jobs-summary", "--format", "csv", "--table", "nothing")
    assert (wrong.status, wrong.out) == (2, "")
    assert "jobs, kinds" in wrong.err


async def test_as_json_each_row_is_an_object(shell: Shell) -> None:
    for form in (("--json",), ("--format", "json")):
        document = (await shell("report", "show", "jobs-summary", *form)).document
        assert (document["format"], document["verdict"]) == (1, "2 runs ended.")
        assert document["tables"][0]["rows"][0] == {"job": "home", "state": "failed", "size": 1_500_000}


async def test_it_is_written_to_files(shell: Shell) -> None:
    folder = shell.state.parent
    page = await shell("report", "show", "jobs-summary", "--format", "html", "--output", str(folder / "r.html"))
    assert page.status == 0
    assert (folder / "r.html").read_text().startswith("<!doctype html>")
    await shell("report", "show", "jobs-summary", "--format", "csv", "--output", str(folder / "r.csv"))
    assert (folder / "r-jobs.csv").read_bytes().startswith(b"job,state,size\r\n")
    assert (folder / "r-kinds.csv").read_bytes() == b"kind\r\n"
    await shell("report", "show", "jobs-summary", "--format", "json", "--output", str(folder / "r.json"))
    assert json.loads((folder / "r.json").read_text())["name"] == "jobs-summary"
    nowhere = await shell("report", "show", "jobs-summary", "--output", str(folder / "not" / "there"))
    assert nowhere.status == 2
    assert "cannot be written" in nowhere.err


async def test_what_contradicts_itself_is_refused_before_anybody_is_asked(daemon: FakeDaemon, shell: Shell) -> None:
    time = ("--days", "1", "--since", "2026-01-01", "--until", "2026-01-02")
    for line in (time, ("--json", "--format", "html"), ("--format", "pdf")):
        assert (await shell("report", "show", "jobs-summary", *line)).status == 2
    assert daemon.received == []
