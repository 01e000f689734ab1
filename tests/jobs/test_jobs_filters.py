"""What a backup leaves out by size and by the mark of caches: what a person chose, on either way to the device."""

from __future__ import annotations

import os
import subprocess

import pytest
from job_site import run, run_pair

from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.errors import ContainsNoData
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources import mounts

TAG = b"Signature: 8a477f597d28d172789f06886806bc55"


def tree_of(tmp_path):
    tree = tmp_path / "tree"
    (tree / "cache").mkdir(parents=True)
    (tree / "cache" / "CACHEDIR.TAG").write_bytes(TAG)
    (tree / "cache" / "object").write_bytes(b"o")
    (tree / "large").write_bytes(b"x" * 1001)
    (tree / "small").write_bytes(b"x" * 1000)
    return tree


def names(out):
    return sorted(path.name for path in out.rglob("*") if path.is_file())


async def test_large_files_and_caches_are_left_out_if_asked_and_nothing_else(site, runner, runners, tmp_path):
    tree = tree_of(tmp_path)
    chosen = {"larger_than": 1000, "exclude_caches": True}
    plain = await run(runner, site.task(site.backup_spec(tree)))
    heard = await run(runner, site.task(site.backup_spec(tree, **chosen)))
    far, _ = await run_pair(site, runners, site.backup_spec(tree, source=site.beta, **chosen))
    for each, expected in (
        (plain, ["CACHEDIR.TAG", "large", "object", "small"]),
        (heard, ["small"]),
        (far, ["small"]),
    ):
        assert each.ended.state is AttemptState.SUCCEEDED, each.lines
        out = tmp_path / each.set.id
        back = await run(runner, site.task(site.restore_spec(each.set.id, out)))
        assert back.ended.state is AttemptState.SUCCEEDED and names(out) == expected


async def test_a_set_with_other_filters_is_nothing_to_build_on(site, runner, tmp_path):
    """Else files that were left out before would never be read."""
    tree = tree_of(tmp_path)
    first = await run(runner, site.task(site.backup_spec(tree, larger_than=1000)))
    second = await run(runner, site.task(site.backup_spec(tree, larger_than=2000, type_=BackupType.INCREMENTAL)))
    assert second.set.parent is None and second.set.type is BackupType.FULL
    assert (first.set.files, second.set.files) == (3, 4)


async def test_nothing_but_folders_contains_no_data(site, runner, runners, tmp_path):
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    heard = await run(runner, site.task(site.backup_spec(tree)))
    far, _ = await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    assert heard.ended.failure.code == far.ended.failure.code == ContainsNoData.code
    assert site.sets() == []
    (tree / "a" / "link").symlink_to("b")
    assert (await run(runner, site.task(site.backup_spec(tree)))).ended.state is AttemptState.SUCCEEDED


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_an_empty_file_system_at_a_root_contains_no_data_whatever_else_there_is(site, runner, tmp_path):
    tree, place = tree_of(tmp_path), tmp_path / "place"
    place.mkdir()
    spec = site.backup_spec(tree, place)
    assert (await run(runner, site.task(spec))).ended.state is AttemptState.SUCCEEDED
    done = subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        heard = await run(runner, site.task(spec))
        assert heard.ended.failure.code == ContainsNoData.code and str(place) in str(heard.ended.failure.fields)
        (place / "file").write_bytes(b"x")
        assert (await run(runner, site.task(spec))).ended.state is AttemptState.SUCCEEDED
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_listed_mount_that_is_absent_contains_no_data_whatever_else_there_is(site, tmp_path, monkeypatch):
    """Its folder is there and empty, or has what somebody wrote into it while nothing was mounted."""
    threads = ThreadRunner(clock=SystemClock())
    tree, place = tree_of(tmp_path), tmp_path / "a disk"
    (place / "below").mkdir(parents=True)
    (place / "below" / "stray").write_bytes(b"x")
    spec = site.backup_spec(tree, place / "below")
    assert (await run(threads, site.task(spec))).ended.state is AttemptState.SUCCEEDED
    escaped = str(place).replace(" ", "\\040")
    table = tmp_path / "fstab"
    table.write_text(f"# a comment\nUUID=1 none swap sw 0 0\nUUID=2 {escaped}/ ext4 noauto 0 2\n")
    monkeypatch.setattr(mounts, "FSTAB", str(table))
    heard = await run(threads, site.task(spec))
    assert heard.ended.failure.code == ContainsNoData.code
    assert str(place / "below") in str(heard.ended.failure.fields)
    assert any(f"{place} is to be mounted" in line for line in heard.lines)
    assert (await run(threads, site.task(site.backup_spec(tree)))).ended.state is AttemptState.SUCCEEDED
    assert mounts.points(table.read_bytes()) == {bytes(place)}
