"""Restore drills, on one server and between two, with real worker processes."""

from __future__ import annotations

import os

import pytest
from job_site import listen, run, run_pair
from job_trees import make_tree
from msgspec import structs
from waiting import in_one_of_three

from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.drilling import DrillTarget, scratch
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.errors import TargetInvalid
from caso_mesh.model.jobs import DrillSpec
from caso_mesh.model.states import AttemptState
from caso_mesh.sources import linux
from caso_mesh.sources.removal import remove_tree


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


async def backed_up(site, runner, tree) -> str:
    heard = await run(runner, site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    return heard.set.id


def drill_task(site, set_id, tmp_path, **fields):
    spec = DrillSpec(set_id, site.alpha.id, **fields)
    return site.task(spec, scratch=str(tmp_path / "scratch" / "one"))


async def test_a_sample_is_restored_compared_with_the_set_and_the_source_and_removed(site, runner, tree, tmp_path):
    set_id = await backed_up(site, runner, tree)
    heard = await run(runner, drill_task(site, set_id, tmp_path, entries=None, percent=100.0))
    assert heard.ended.state is AttemptState.SUCCEEDED, (heard.lines, heard.exceptions)
    files = sum(len(names) for _, _, names in os.walk(tree))
    assert heard.ended.counts.entries == files
    assert heard.ended.counts.bytes_read > 0
    assert any("has not changed since: no differences" in line for line in heard.lines)
    assert os.listdir(tmp_path / "scratch") == []


async def test_the_sample_has_the_size_that_was_asked_for_and_is_another_for_another_run(site, runner, tree, tmp_path):
    set_id = await backed_up(site, runner, tree)
    drawn = set()
    for _ in range(3):
        heard = await run(runner, drill_task(site, set_id, tmp_path, entries=3))
        assert heard.ended.counts.entries == 3
        drawn.add(heard.ended.counts.bytes)
    assert len(drawn) > 1
    heard = await run(runner, drill_task(site, set_id, tmp_path, entries=None, percent=100.0, max_bytes=100))
    assert heard.ended.counts.bytes <= 100
    assert any("more were drawn and are left out" in line for line in heard.lines)


async def test_what_differs_from_the_promise_or_from_the_unchanged_source_is_told(site, runner, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(4):
        (tree / f"f{number}").write_bytes(bytes([number + 1]) * 5000)
    set_id = await backed_up(site, runner, tree)
    with site.opened() as vault:
        entries = [entry for entry in vault.tree(vault.load_set(set_id).root).entries() if entry.type == "file"]
    f0, f1, f2, f3 = entries
    told = []
    task = drill_task(site, set_id, tmp_path)
    desk = Desk("a", told.append, SystemClock())
    with scratch(task, desk) as drill:
        # as if the source had lost bits of f2 without a trace since it was backed up
        drill.take(site.alpha.id, [f0, f1, structs.replace(f2, chunks=f3.chunks), f3])
        target = DrillTarget(drill)
        assert target.begin([(b"", entry) for entry in (f0, f1, f3)]) == [True] * 3
        target.write(f0.path, 0, b"\x01" * 4999 + b"!")
        target.write(f1.path, 0, b"\x02" * 5000)
        target.write(f3.path, 0, b"\x04" * 5000)
        for entry in (f0, structs.replace(f1, mode=0o611), f3):
            target.finish(entry)
        target.finished = True
        target.close()
    desk.flush()
    found = [each for message in told if isinstance(message, say.Excepted) for each in message.exceptions]
    assert [(each.path, each.reason) for each in found] == [
        (f0.path, "differs"), (f1.path, "differs"), (f2.path, "not-restored"), (f2.path, "differs-from-source")
    ]  # fmt: skip
    assert "content: another one between bytes 0 and 5000" in found[0].detail
    assert "mode" in found[1].detail


async def test_a_sample_that_does_not_fit_fails_before_anything_is_restored(site, runner, tree, tmp_path):
    set_id = await backed_up(site, runner, tree)
    with site.opened() as vault:
        entries = [entry for entry in vault.tree(vault.load_set(set_id).root).entries() if entry.type == "file"]
    task = drill_task(site, set_id, tmp_path)
    with scratch(task, Desk("a", lambda message: None, SystemClock())) as drill, pytest.raises(TargetInvalid):
        drill.take(site.alpha.id, [structs.replace(entries[0], size=1 << 60)])


async def test_damage_in_the_device_is_told_once_for_each_file(site, runner, tree, tmp_path):
    set_id = await backed_up(site, runner, tree)
    for pack in (site.device / "packs" / "d").glob("*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
    heard = await run(runner, drill_task(site, set_id, tmp_path, entries=None, percent=100.0))
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    assert {each.reason for each in heard.exceptions} == {"damaged"}
    assert len({each.path for each in heard.exceptions}) == len(heard.exceptions)
    assert os.listdir(tmp_path / "scratch") == []


async def test_far_away_the_sample_is_compared_where_it_was_restored(site, runners, tree, tmp_path):
    spec = site.backup_spec(tree, source=site.beta)
    stored = await run_pair(site, runners, spec)
    set_id = stored[0].set.id
    drill = DrillSpec(set_id, site.beta.id, entries=None, percent=100.0)

    def change(device, source):
        return device, structs.replace(source, scratch=str(tmp_path / "scratch" / "far"))

    device, source = await run_pair(site, runners, drill, change=change)
    assert device.ended.state is AttemptState.SUCCEEDED, (device.lines, source.lines, device.exceptions)
    assert source.ended.state is AttemptState.SUCCEEDED
    assert any("compared" in line and "of their source" in line for line in source.lines), source.lines
    assert device.ended.counts.entries == sum(len(names) for _, _, names in os.walk(tree))
    assert os.listdir(tmp_path / "scratch") == []


async def test_a_worker_that_is_killed_leaves_only_its_scratch_folder(site, runner, tree, tmp_path):
    set_id = await backed_up(site, runner, make_tree(tmp_path / "large", large=60 << 20))
    task = drill_task(site, set_id, tmp_path, entries=None, percent=100.0)

    async def attempt():
        worker = await runner.start(task)

        async def kill(message):
            if isinstance(message, say.Began):
                await worker.kill()

        heard = await listen(worker, on=kill)
        assert heard.ended.state is AttemptState.INTERRUPTED, "it was done before it could be killed"

    await in_one_of_three(attempt)
    remove_tree(task.scratch)
    assert not os.path.exists(task.scratch)
    remove_tree(task.scratch)


@pytest.mark.skipif(os.geteuid() != 0, reason="flags need root")
def test_a_folder_is_removed_whatever_its_depth_and_flags(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 20, dir_fd=at)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    fd = os.open("fixed", os.O_CREAT | os.O_RDWR, 0o600, dir_fd=at)
    os.close(at)
    try:
        linux.set_flags(fd, linux.IMMUTABLE, linux.IMMUTABLE)
    except OSError:
        pytest.skip("this file system has no flags")
    finally:
        os.close(fd)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (top / "link").symlink_to(outside)
    remove_tree(str(top))
    assert not top.exists()
    assert (outside / "kept").exists()
