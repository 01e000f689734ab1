"""The measurements measure: data sets repeat, meters count, tables compare."""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys

import pytest
from bench import __main__ as command
from bench import datasets, report, rounds
from bench.metering import CommandFailed, Measured, Meter
from bench.products import Copy, Product, Tar


def digest_of(folder: pathlib.Path) -> str:
    found = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = pathlib.Path(parent, name)
            status = path.lstat()
            found.update(f"{path.relative_to(folder)} {status.st_mode} {status.st_mtime_ns} ".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


@pytest.mark.parametrize("kind", ["large", "small", "mixed"])
def test_a_tree_is_the_same_for_the_same_seed_and_another_for_another(kind: str, tmp_path: pathlib.Path) -> None:
    made = datasets.make(kind, tmp_path / "a", scale=0.002)
    assert made == datasets.make(kind, tmp_path / "b", scale=0.002)
    datasets.make(kind, tmp_path / "c", scale=0.002, seed=2)
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b") != digest_of(tmp_path / "c")
    assert made == datasets.count(tmp_path / "a")


def test_churn_changes_what_it_says_and_little_else(tmp_path: pathlib.Path) -> None:
    datasets.make("small", tmp_path / "tree", scale=0.01)
    before = {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    done = datasets.churn(tmp_path / "tree", round=0)
    after = {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert len(after.keys() - before.keys()) == done["create"] + done["rename"]
    assert len(before.keys() - after.keys()) == done["delete"] + done["rename"]
    changed = sum(before[path] != after[path] for path in before.keys() & after.keys())
    assert changed == done["rewrite"] + done["append"]
    assert sum(done.values()) == int(len(before) * 0.02)


def test_churn_of_large_files_keeps_most_of_their_bytes(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3):
        (tree / f"{number}").write_bytes(bytes(range(256)) * 40_000)
    assert datasets.churn(tree, round=0) == {"large-places": 1, "large-insert": 1, "large-append": 1}
    sizes = [(tree / f"{number}").stat().st_size for number in range(3)]
    assert sizes[0] == 10_240_000 < sizes[1] < 10_400_000 and sizes[2] == 10_240_000 * 102 // 100


def test_a_meter_counts_the_cpu_and_memory_of_a_command(tmp_path: pathlib.Path) -> None:
    busy = "import time; kept = bytearray(60_000_000)\nwhile time.process_time() < 0.3: pass\nprint('done')"
    with Meter() as meter:
        assert meter.run([sys.executable, "-c", busy]) == "done\n"
    assert 0.28 < meter.measured.cpu_s < 5
    assert meter.measured.wall_s > 0.25
    assert meter.measured.peak_bytes > 50_000_000


def test_a_meter_counts_daemons_only_while_it_measures() -> None:
    with Meter([os.getpid()], sample_memory=False) as meter:
        sum(range(8_000_000))
    assert 0.01 < meter.measured.cpu_s < 5
    with Meter([os.getpid()], sample_memory=False) as meter:
        pass
    assert meter.measured.cpu_s < 0.2


def test_a_command_that_fails_is_no_measurement() -> None:
    with Meter(sample_memory=False) as meter, pytest.raises(CommandFailed, match="broken pipe organ"):
        meter.run([sys.executable, "-c", "raise SystemExit('broken pipe organ')"])


@pytest.mark.skipif(any(product.absent() for product in (Copy, Tar)), reason="cp, tar or zstd is not on PATH")
def test_rounds_give_each_product_every_phase_it_has(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    products: list[type[Product]] = [Copy, Tar]
    made, series = rounds.measure("small", products, tmp_path, scale=0.002, rounds=2, tell=said.append)
    assert made.files == 120
    assert {name: set(each.measured) for name, each in series.items()} == {
        "cp": {"first", "restore", "one-file"},
        "tar+zstd": {"first", "restore", "one-file", "verify"},
    }
    assert all(len(found) == 2 for each in series.values() for found in each.measured.values())
    assert not any(each.problems for each in series.values())
    text = report.tables("small", series, rounds.PHASES)
    assert "| cp |" in text and "unchanged" not in text


def test_what_comes_back_different_is_told(tmp_path: pathlib.Path) -> None:
    source, restored = tmp_path / "source", tmp_path / "restored"
    for folder in (source, restored):
        folder.mkdir()
        for name in ("a", "b", "c"):
            (folder / name).write_bytes(name.encode())
            os.utime(folder / name, ns=(1, 1))
    assert rounds.differences(source, "", restored) == []
    (restored / "a").unlink()
    (restored / "b").write_bytes(b"x")
    os.utime(restored / "b", ns=(1, 1))
    (restored / "c").chmod(0o600)
    (restored / "d").touch()
    told = rounds.differences(source, "", restored)
    assert told == ["a is missing", "d was not there", "bytes of b", "mode or time of c"]
    assert rounds.differences(source, "b", restored / "b") == ["b came back different"]


def test_a_table_compares_with_the_better_of_restic_and_borg() -> None:
    series = {name: rounds.Series() for name in ("caso-mesh", "restic", "borg")}
    for name, walls in (("caso-mesh", (2, 1, 3)), ("restic", (8, 8, 8)), ("borg", (4, 4, 5))):
        for wall in walls:
            series[name].add("first", Measured(wall, wall / 2, 50_000_000))
        series[name].stored["first"] = [10_000_000]
    text = report.tables("large", series, rounds.PHASES)
    assert "| caso-mesh | 2.00 (0.50) |" in text
    assert "| restic | 8.00 (2.00) |" in text
    assert "first 3.00" in text
    assert "| caso-mesh | 10 (1.00) |" in text


def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["vault", "--products", "caso-mesh,floppy"]) == 2
    assert "floppy" in capsys.readouterr().out
