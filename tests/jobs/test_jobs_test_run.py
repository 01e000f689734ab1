"""Test runs: what a backup would come to, with nothing moved and nothing written; on one server and between two."""

from __future__ import annotations

import functools
import os

import pytest
from job_site import run, run_pair
from job_trees import make_tree
from msgspec import structs

from caso_mesh.jobs import predicting
from caso_mesh.model import jobs
from caso_mesh.model.states import AttemptState, BackupType

INCREMENTAL = {"type_": BackupType.INCREMENTAL}


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def in_the_device(site):
    return {
        (os.path.join(folder, name), os.lstat(os.path.join(folder, name)).st_mtime_ns)
        for folder, folders, files in os.walk(site.device)
        for name in (*folders, *files)
    }


def trial(site, *roots, **fields):
    return jobs.TestRunSpec(site.backup_spec(*roots, **fields))


async def test_what_is_predicted_is_what_the_backup_then_comes_to(site, runner, tree):
    before = in_the_device(site)
    heard = await run(runner, site.task(trial(site, tree)))
    first = heard.ended.predicted
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert first.seconds is None
    assert in_the_device(site) == before
    assert (heard.ended.set, heard.ended.counts.bytes_read, heard.ended.counts.bytes_stored) == (None, 0, 0)

    done = (await run(runner, site.task(site.backup_spec(tree)))).set
    assert (first.files, first.bytes) == (done.files, done.bytes)
    assert done.bytes_read <= first.bytes_new <= done.bytes_read + 8192
    await run(runner, site.task(site.backup_spec(tree, **INCREMENTAL)))

    (tree / "a" / "new").write_bytes(os.urandom(70_001))
    before = in_the_device(site)
    second = (await run(runner, site.task(trial(site, tree, **INCREMENTAL)))).ended.predicted
    assert in_the_device(site) == before
    assert (second.files, second.bytes, second.bytes_new) == (first.files + 1, first.bytes + 70_001, 70_001)
    assert 0 < second.seconds < 600
    again = (await run(runner, site.task(site.backup_spec(tree, **INCREMENTAL)))).set
    assert (again.files, again.bytes, again.bytes_read) == (second.files, second.bytes, second.bytes_new)
    await run(runner, site.task(site.backup_spec(tree, **INCREMENTAL)))
    new, full = [(await run(runner, site.task(trial(site, tree, **how)))).ended.predicted for how in (INCREMENTAL, {})]
    assert new.bytes_new == full.bytes_new == 0
    assert full.seconds > new.seconds


async def test_a_far_source_walks_and_tells_counts_alone(site, runners, tree):
    stored = await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    await run_pair(site, runners, site.backup_spec(tree, source=site.beta, **INCREMENTAL))
    (tree / "new").write_bytes(os.urandom(50_000))
    before = in_the_device(site)
    device, source = await run_pair(site, runners, trial(site, tree, source=site.beta, **INCREMENTAL))
    assert device.ended.state is source.ended.state is AttemptState.SUCCEEDED, (device.lines, source.lines)
    found, done = device.ended.predicted, stored[0].set
    assert (found.files, found.bytes, found.bytes_new) == (done.files + 1, done.bytes + 50_000, 50_000)
    assert found.seconds > 0
    assert in_the_device(site) == before


async def test_what_the_backup_would_fail_with_is_found_and_the_prediction_is_kept(site, runners, tmp_path):
    tree = tmp_path / "few"
    tree.mkdir()
    for ends in (False, True):
        spec = trial(site, tree, source=site.beta if ends else site.alpha)
        heard = (await run_pair(site, runners, spec))[0] if ends else await run(runners[0], site.task(spec))
        assert heard.ended.failure.code == "contains-no-data", heard.lines
    for number in range(30):
        (tree / f"{number}").write_bytes(b"data")
    await run(runners[0], site.task(site.backup_spec(tree)))
    for number in range(1, 30):
        (tree / f"{number}").unlink()
    heard = await run(runners[0], site.task(trial(site, tree)))
    assert (heard.ended.state, heard.ended.failure.code) == (AttemptState.FAILED, "contains-no-data")
    assert heard.ended.predicted.files == 1
    heard = await run(runners[0], site.task(trial(site, tree, allow_shrink=True)))
    assert heard.ended.state is AttemptState.SUCCEEDED


async def test_a_device_with_another_vault_and_keys_that_are_gone_are_found_before_anything_is_walked(
    site, runners, tree
):
    task = site.task(trial(site, tree))
    other = structs.replace(task, device=structs.replace(task.device, vault="another"))
    assert (await run(runners[0], other)).ended.failure.code == "device-vanished"
    heard = await run(runners[0], structs.replace(task, identity_folder=str(site.folder / "nowhere")))
    assert heard.ended.failure.code == "state-missing"
    assert heard.ended.counts.entries == 0
    device, source = await run_pair(
        site,
        runners,
        trial(site, tree, source=site.beta),
        change=lambda device, source: (structs.replace(device, identity_folder=str(site.folder / "no")), source),
    )
    assert device.ended.failure.code == source.ended.failure.code == "state-missing"


async def test_damage_of_the_last_set_means_that_more_is_new_and_is_not_written_down(site, runner, tree):
    await run(runner, site.task(site.backup_spec(tree)))
    for pack in (site.device / "packs" / "m").glob("*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
    before = in_the_device(site)
    heard = await run(runner, site.task(trial(site, tree, **INCREMENTAL)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert heard.ended.predicted.bytes_new > 3 << 20
    assert any("is damaged, so more is read again" in line for line in heard.lines)
    assert in_the_device(site) == before


async def test_the_rate_is_that_of_the_same_way_before_others_and_of_the_set_that_read_most(site, runner, tree):
    made = (await run(runner, site.task(site.backup_spec(tree)))).set
    second = 1_000_000_000

    def backup(number, server, source, size, seconds):
        start = number * 1000 * second
        return structs.replace(
            made, id=f"s{number}", server=server, source=source, bytes_read=size,
            started_at_ns=start, ended_at_ns=start + seconds * second,
        )  # fmt: skip

    sets = [
        backup(1, "alpha", "beta", 1000, 10),
        backup(2, "alpha", "beta", 10, 10),
        backup(3, "alpha", "gamma", 4000, 10),
        backup(4, "delta", "gamma", 9000, 10),
        backup(5, "alpha", "beta", 0, 10),
        backup(6, "alpha", "beta", 5000, 0),
    ]
    assert predicting.bytes_per_second(sets, "alpha", "beta") == 100
    assert predicting.bytes_per_second(sets, "alpha", "other") == 400
    assert predicting.bytes_per_second(sets, "other", "beta") == 900
    assert predicting.bytes_per_second([], "alpha", "beta") is None
    late = [backup(number, "alpha", "beta", 20, 1) for number in range(10, 30)]
    assert predicting.bytes_per_second(sets + late, "alpha", "beta") == 20


def test_time_is_that_of_the_walk_and_of_what_is_read_and_room_leaves_the_reserve():
    surveyed = predicting.Surveyed(bytes_new=1000, seconds=2.0)
    part, all_ = (functools.partial(predicting.predict, 7, 5000, reads_all=each) for each in (False, True))
    assert part(surveyed, 100.0) == jobs.Predicted(7, 5000, 1000, 12.0)
    assert all_(surveyed, 100.0) == jobs.Predicted(7, 5000, 1000, 52.0)
    assert part(surveyed, None).seconds is all_(surveyed, None).seconds is None
    assert part(structs.replace(surveyed, bytes_new=0), None).seconds == 2.0
    assert predicting.fits(80, 100, 1000)
    assert not predicting.fits(81, 100, 1000)
    assert predicting.fits(10**15, 0, 0)
