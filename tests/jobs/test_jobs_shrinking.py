"""A backup that finds over 90 % less than the last one of the same paths fails unless that was allowed."""

from __future__ import annotations

import pytest
from job_site import run, run_pair
from msgspec import structs

from caso_mesh.jobs.shrinking import has_shrunk
from caso_mesh.model.states import AttemptState, BackupType


def fill(tree, count, size=10):
    tree.mkdir(exist_ok=True)
    for path in tree.iterdir():
        path.unlink()
    for number in range(count):
        (tree / f"{number}").write_bytes(bytes([number % 256]) * size)


@pytest.mark.parametrize(
    ("files", "size", "last_files", "last_size", "shrunk"),
    [
        (1, 10, 10, 100, False), (1, 10, 11, 110, True), (9, 10, 91, 110, True), (10, 10, 100, 100, False),
        (1, 99_999, 1, 1_000_000, True), (1, 100_000, 1, 1_000_000, False), (1, 1, 1, 999_999, False),
        (0, 0, 0, 0, False),
    ],
)  # fmt: skip
async def test_over_ninety_percent_less_in_files_or_bytes_is_too_little(
    site, runner, tmp_path, files, size, last_files, last_size, shrunk
):
    fill(tmp_path / "tree", 1)
    made = (await run(runner, site.task(site.backup_spec(tmp_path / "tree")))).set
    assert has_shrunk(files, size, structs.replace(made, files=last_files, bytes=last_size)) is shrunk


async def test_it_fails_before_anything_is_published_and_goes_once_it_is_allowed(site, runner, tmp_path):
    tree = tmp_path / "tree"
    fill(tree, 30)
    first = await run(runner, site.task(site.backup_spec(tree)))
    fill(tree, 2)
    for type_ in BackupType:
        heard = await run(runner, site.task(site.backup_spec(tree, type_=type_)))
        assert (heard.ended.state, heard.ended.failure.code) == (AttemptState.FAILED, "contains-no-data"), type_
        assert any(
            f"over 90 % less than last time: 30 files of 300 B in the set {first.set.id}" in line
            for line in heard.lines
        )
    assert [each.id for each in site.sets()] == [first.set.id]
    other = await run(runner, site.task(site.backup_spec(tree, excludes=("*.o",))))
    assert other.ended.state is AttemptState.SUCCEEDED, "other filters are another selection"
    allowed = await run(runner, site.task(site.backup_spec(tree, allow_shrink=True)))
    assert allowed.ended.state is AttemptState.SUCCEEDED
    assert any("over 90 % less" in line for line in allowed.lines)
    again = await run(runner, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert again.ended.state is AttemptState.SUCCEEDED


async def test_a_far_source_that_shrank_fails_at_both_ends(site, runners, tmp_path):
    tree = tmp_path / "tree"
    fill(tree, 1, 2_000_000)
    await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    fill(tree, 1, 100)
    device, source = await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    assert device.ended.failure.code == source.ended.failure.code == "contains-no-data"
    assert len(site.sets()) == 1
