"""The audit log on the command line: page after page into a list, a file, a table."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path

from cli_world import FakeDaemon, Shell
from msgspec.structs import replace

from caso_mesh.model.audit import AuditList, AuditListRequest, AuditTrim, AuditTrimmed, AuditView, Change
from caso_mesh.model.audit_chain import AuditMark, AuditProblem, AuditVerified, AuditVerify, AuditVoter
from caso_mesh.model.errors import StateDamaged
from caso_mesh.model.units import parse_instant_ns

ENTRY = AuditView(
    "2025-01-01T00:00:00Z", "root@alpha", "pool.set", "pool", "done", "alpha", "127.0.0.1:5", {"name": "west"},
    (Change("pool west", "servers", ["alpha"], ["alpha", "beta"]), Change("pool east", "", None, {"name": "east"})),
)  # fmt: skip


def pages(request: AuditListRequest) -> AuditList:
    """Three entries, one to a page."""
    number = int(request.after or 0)
    return AuditList((replace(ENTRY, who=f"=who{number}"),), str(number + 1) if number < 2 else None)


async def test_a_list_shows_what_became_what_and_asks_page_by_page(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["audit.list"] = pages
    words = [
        "--category",
        "pool",
        "--who",
        "ann",
        "--what",
        "pool.",
        "--outcome",
        "not-done",
        "--text",
        "w",
        "--server",
        "beta",
    ]
    shown = await shell("audit", "list", *words, "--since", "2025-01-01T00:00:00Z", "--limit", "2")
    assert shown.status == 0
    assert 'pool west, servers: ["alpha"] -> ["alpha","beta"]; pool east is new' in shown.out
    assert "--after 2" in shown.err
    asked = [each.request for each in daemon.received]
    first = AuditListRequest(
        2, "pool", "ann", "pool.", "beta", None, "not-done", "w", parse_instant_ns("2025-01-01T00:00:00Z")
    )
    assert asked == [first, replace(first, limit=1, after="1")]
    document = (await shell("audit", "list", "--json")).document
    assert [each["who"] for each in document["entries"]] == ["=who0", "=who1", "=who2"]
    assert document["next"] is None


async def test_an_export_is_whole_private_and_no_formula(daemon: FakeDaemon, shell: Shell, tmp_path: Path) -> None:
    daemon.answers["audit.list"] = pages
    lines, table = tmp_path / "audit.jsonl", tmp_path / "audit.csv"
    assert (await shell("audit", "export", "--output", str(lines))).status == 0
    assert [json.loads(line)["who"] for line in lines.read_text().splitlines()] == ["=who0", "=who1", "=who2"]
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600
    assert daemon.received[0].request.oldest_first
    assert (await shell("audit", "export", "--format", "csv", "--output", str(table))).status == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["who"] for row in rows] == ["'=who0", "'=who1", "'=who2"]
    assert json.loads(rows[0]["changed"])[0]["what"] == "pool west"
    assert (await shell("audit", "export", "--output", str(table))).status == 6
    printed = await shell("audit", "export")
    assert len(printed.out.splitlines()) == 3
    assert sorted(tmp_path.glob("audit*")) == [table, lines]


async def test_an_export_that_fails_in_the_middle_leaves_no_file(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    daemon.answers["audit.list"] = [AuditList((ENTRY,), "1"), StateDamaged(path="x", detail="y")]
    assert (await shell("audit", "export", "--output", str(tmp_path / "audit.jsonl"))).status == 1
    assert not list(tmp_path.glob("audit*"))
    nowhere = await shell("audit", "export", "--output", str(tmp_path / "no" / "audit.jsonl"))
    assert (nowhere.status, "cannot be written" in nowhere.err) == (4, True)


async def test_a_trim_says_what_is_gone(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["audit.trim"] = AuditTrimmed(7, "2025-01-01T00:00:00Z")
    done = await shell("audit", "trim", "--before", "2025-01-01T00:00:00Z")
    assert done.out == "7 entries are gone; the oldest one left is of 2025-01-01T00:00:00Z\n"
    assert daemon.received[0].request == AuditTrim(parse_instant_ns("2025-01-01T00:00:00Z"))


async def test_what_is_wrong_with_it_is_named_and_the_status_says_so_and_what_was_noted_is_sent_along(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    marks = (AuditMark("node", "inc", 7, "00ff"),)
    same, away = AuditVoter("beta", "same", "all"), AuditVoter("gamma", "away", "not connected")
    good = AuditVerified(True, 9, 0, 0, 0, "2025-01-02", "2025-02-01", None, (), (same,), 0, marks)
    daemon.answers["audit.verify"] = good
    noted = tmp_path / "noted.json"
    noted.write_text((await shell("audit", "verify", "--json")).out)
    daemon.answers["audit.verify"] = replace(good, voters=(same, away), compared=1)
    shown = await shell("audit", "verify", "--against", str(noted))
    assert (shown.status, daemon.received[-1].request) == (7, AuditVerify(marks))
    assert "gamma: away, not connected" in shown.out and "1 of 1 marks" in shown.out
    problem = AuditProblem("beta", "2025-01-03", "the entry is not what was written")
    daemon.answers["audit.verify"] = replace(good, whole=False, problems=(problem,))
    shown = await shell("audit", "verify")
    assert shown.status == 1 and "not what was written down" in shown.out
    assert "beta, 2025-01-03: the entry is not what was written" in shown.err
    noted.write_text("{}")
    shown = await shell("audit", "verify", "--against", str(noted))
    assert shown.status == 2 and "audit verify --json" in shown.err
