"""The scenarios of an independent project, if they are there: CASO_MESH_CONFORMANCE names their folder."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
from conformance.cluster import SetAside
from conformance.raft import main, run_file

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_FOLDER = os.environ.get("CASO_MESH_CONFORMANCE")
_SCENARIOS = sorted(pathlib.Path(_FOLDER, "raft").rglob("*.txt")) if _FOLDER else []

#: In the format of the scenarios, made here: a lone voter elects itself and commits.
_LONE = """
# A comment.
add-nodes 1 voters=(1) index=2
----
INFO whatever

campaign 1
----
INFO whatever

stabilize
----
> 1 handling Ready
  Ready MustSync=true:
  Lead:0 State:StateCandidate
  HardState Term:1 Vote:1 Commit:2
> 1 handling Ready
  Ready MustSync=true:
  Lead:1 State:StateLeader
  Entries:
  1/3 EntryNormal ""
> 1 handling Ready
  Ready MustSync=false:
  HardState Term:1 Vote:1 Commit:3
  CommittedEntries:
  1/3 EntryNormal ""

propose 1 x
----
ok

raft-state
----
1: StateLeader (Voter) Term:1 Lead:1
"""


@pytest.mark.skipif(not _FOLDER, reason="CASO_MESH_CONFORMANCE does not name a folder with the scenarios")
def test_there_are_scenarios_where_they_should_be():
    assert _SCENARIOS


@pytest.mark.parametrize("path", _SCENARIOS, ids=lambda path: path.stem)
def test_the_core_does_what_the_scenario_says(path):
    try:
        problem = run_file(path)
    except SetAside as reason:
        pytest.skip(f"set aside by design: {reason}")
    assert problem is None, problem


def test_a_folder_passes_only_if_all_in_it_do(tmp_path, capsys):
    (tmp_path / "lone.txt").write_text(_LONE)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["passed  lone.txt", "1 passed, 0 failed"]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "wrong.txt").write_text(_LONE.replace("Commit:3", "Commit:4"))
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"FAILED  below/wrong.txt: line \d+: stabilize", out)
    assert "- " in out
    assert "Commit:4" in out
    assert out.splitlines()[-1] == "1 passed, 1 failed"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1: StateLeader", "1: StateFollower"),
        ('1/3 EntryNormal ""', '1/3 EntryNormal "x"'),
        ("MustSync=false", "MustSync=true"),
        ("propose 1 x\n----\nok", "propose 1 x\n----\nraft proposal dropped"),
        ("propose 1 x", "unheard-of 1 x"),
    ],
)
def test_whatever_differs_is_a_failure(tmp_path, old, new):
    assert old in _LONE
    (tmp_path / "wrong.txt").write_text(_LONE.replace(old, new))
    assert main([str(tmp_path)]) == 1


def test_what_is_left_out_by_design_is_named_and_not_counted(tmp_path, capsys):
    (tmp_path / "joint.txt").write_text("propose-conf-change 1 transition=explicit\nv2\n----\nok\n")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == ["aside   joint.txt: joint configurations", "0 passed, 0 failed"]


def test_it_runs_as_a_program(tmp_path):
    (tmp_path / "lone.txt").write_text(_LONE)
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.raft", str(tmp_path)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 passed, 0 failed\n")
