"""The text that Prometheus reads: every figure of the table is in it, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from caso_mesh import docs
from caso_mesh.admin.measures import DeviceReading, LastBackup, MediaSetReading, MeshReadings
from caso_mesh.admin.totals import AttemptTotal
from caso_mesh.metrics.exposition import Seat, exposition
from caso_mesh.model.metrics import METRICS
from caso_mesh.server.measures import NodeReadings

NODE = NodeReadings("meadow", 'al"pha\n', "1.2", None, 7, 40, 2, 100, 3, 2, 1, 10, 5, takes_work=True)
SEAT = Seat(in_office=True, voter=True, term=9, index=41)
MESH = MeshReadings(
    servers={"enabled": 3},
    connected=2,
    runs={"ready": 1},
    waiting={"no-idle-device": 1},
    queued=1,
    active={"running": 1},
    alerts={"error": 2},
    last=(
        LastBackup("files", "alpha", 60.0, 5.0, 3600.0, overdue=False),
        LastBackup("files", "beta", None, None, 3600.0, overdue=True),
        LastBackup("mail", "beta", 7.0, 1.0, None, overdue=False),
    ),
    devices=(DeviceReading("d1", "online", 3, 400, 1000, 1), DeviceReading("d2", "offline", 0, 0, None, 0)),
    media_sets=(MediaSetReading("keep", 3, 1000, 400), MediaSetReading("other", 1, 200, 200)),
    attempts=(
        AttemptTotal("backup", "full", "succeeded", 3, 1000, 400, 9.0),
        AttemptTotal("backup", "full", "failed", 1, 10, 4, 1.0),
        AttemptTotal("restore", "", "succeeded", 1, 5, 0, 1.0),
    ),
    jobs=4,
    left_out=0,
)


def samples(text: str) -> dict[str, float]:
    """By name and labels as they are written."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def promtool(*argv: str, text: str = "") -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool (of Debian's prometheus) is not installed")
    done = subprocess.run([program, *argv], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_every_metric_of_the_table_is_told_with_its_labels_and_no_other():
    text = exposition(NODE, SEAT, 0.002, MESH)
    told: dict[str, set[str]] = {}
    for sample in samples(text):
        name, _, labels = sample.partition("{")
        told.setdefault(name, set(re.findall(r'(\w+)="', labels)))
    own = {name: labels for name, labels in told.items() if not name.startswith("process_")}
    assert own == {metric.name: set(metric.labels) for metric in METRICS}
    assert "process_open_fds" in told


def test_what_attempts_moved_is_summed_over_their_ends():
    found = samples(exposition(NODE, SEAT, 0.002, MESH))
    moved = {
        what: {
            name.partition("{")[2]: value
            for name, value in found.items()
            if name.startswith(f"caso_mesh_attempt_{what}")
        }
        for what in ("read_bytes_total", "stored_bytes_total", "duration_seconds_total")
    }
    full, restore = 'kind="backup",type="full"}', 'kind="restore",type=""}'
    assert moved == {
        "read_bytes_total": {full: 1010, restore: 5},
        "stored_bytes_total": {full: 404, restore: 0},
        "duration_seconds_total": {full: 10.0, restore: 1.0},
    }


def test_a_server_that_is_not_in_office_tells_of_itself_alone():
    found = samples(exposition(NODE, Seat(in_office=False, voter=False, term=None, index=None), 0.0, None))
    names = {name.partition("{")[0] for name in found if not name.startswith("process_")}
    assert names == {metric.name for metric in METRICS if metric.of == "node"}
    assert found["caso_mesh_admin_linked"] == 0
    assert (found["caso_mesh_term"], found["caso_mesh_applied_index"]) == (7, 40)


def test_what_was_never_backed_up_is_infinitely_old_and_ratios_are_over_all_sets():
    found = samples(exposition(NODE, SEAT, 0.0, MESH))
    age = 'caso_mesh_last_good_backup_age_seconds{selection="files",source="%s"}'
    assert found[age % "alpha"] == 60.0
    assert found[age % "beta"] == float("inf")
    assert found['caso_mesh_backup_overdue{selection="files",source="beta"}'] == 1
    assert not any('caso_mesh_backup_overdue{selection="mail"' in name for name in found)
    assert found["caso_mesh_dedup_ratio"] == 2.0
    assert found['caso_mesh_attempts_total{kind="backup",state="failed",type="full"}'] == 1
    assert found['caso_mesh_attempt_read_bytes_total{kind="backup",type="full"}'] == 1010
    assert 'caso_mesh_device_free_bytes{device="d2"}' not in found


def test_promtool_accepts_the_figures():
    promtool("check", "metrics", text=exposition(NODE, SEAT, 0.0, MESH))


def test_promtool_accepts_the_scrape_config_and_the_rules_of_the_manual(tmp_path):
    scrape, rules = re.findall(r"```yaml\n(.*?)```", docs.page("metrics"), re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(f"rule_files: [rules.yml]\n{scrape}")
    (tmp_path / "rules.yml").write_text(rules)
    promtool("check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml"))
    known = {metric.name for metric in METRICS}
    assert set(re.findall(r"caso_mesh_\w+", scrape + rules)) <= known
