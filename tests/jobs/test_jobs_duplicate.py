"""Copies of sets on other devices, with real vaults in folders: by one worker, and by two over the network."""

from __future__ import annotations

import os
import time

import pytest
from job_site import ANY, Second, run, run_pair
from job_trees import make_tree
from msgspec import structs
from waiting import wait_for

from caso_mesh.jobs.backup import SETTLE_NS
from caso_mesh.model.jobs import DuplicateSpec
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences


@pytest.fixture
def second(site):
    return Second(site)


def copy_spec(site, set_id: str, **rest) -> DuplicateSpec:
    return DuplicateSpec((site.alpha.id,), ANY, (set_id,), **rest)


def copied_here(site, second, set_id: str, **rest):
    """The task of alpha, which reaches both devices."""
    task = site.task(copy_spec(site, set_id, **rest))
    order = structs.replace(task.order, reader=site.alpha.id, from_device="dev1", device="dev2")
    here = structs.replace(second.access, writer=site.alpha.writer)
    return structs.replace(task, order=order, device=here, reads=site.access)


def both_ends(site, second):
    """What makes of the tasks of a pair those of a copy: alpha reads the set, beta stores it."""

    def change(device, source):
        base = structs.replace(
            device.order, source=site.alpha.id, media=site.beta.id, reader=site.alpha.id, from_device="dev1",
            device="dev2",
        )  # fmt: skip
        ticket = site.ticket(base)
        base = structs.replace(base, ticket=ticket)
        reading = structs.replace(
            device, order=structs.replace(base, end="source"), device=None, reads=site.access, source_name="alpha"
        )
        storing = structs.replace(source, order=base, device=second.access, source_name="alpha")
        return reading, storing

    return change


async def copy_far(site, runners, second, set_id: str, **rest):
    """What beta (which stores) and alpha (which reads) said."""
    options = {key: rest.pop(key) for key in ("on", "addresses") if key in rest}
    reading, storing = await run_pair(
        site, runners, copy_spec(site, set_id, **rest), change=both_ends(site, second), **options
    )
    return storing, reading


async def restored_from(site, runner, second, set_id: str, out):
    """A restore out of the second device, at beta."""
    task = site.task(site.restore_spec(set_id, out))
    task = structs.replace(
        task, device=second.access, server=site.beta.id, server_name="beta", identity_folder=str(site.beta.folder)
    )
    return await run(runner, task)


async def test_a_copy_by_one_worker_restores_alone_and_keeps_source_times_and_type(site, runner, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    first = (await run(runner, site.task(site.backup_spec(tree)))).set
    heard = await run(runner, copied_here(site, second, first.id, verify=True))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    copy = heard.set
    assert copy.id != first.id
    assert copy.copy_of == first.id
    assert (copy.device, copy.vault) == ("dev2", second.vault)
    for field in ("source", "root", "filters", "started_at_ns", "ended_at_ns", "type", "files", "entries", "bytes"):
        assert getattr(copy, field) == getattr(first, field), field
    assert second.sets() == [copy]
    (site.device / "packs").rename(tmp_path / "gone")
    out = tmp_path / "out"
    heard = await restored_from(site, runner, second, copy.id, out)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []


async def test_a_copy_on_another_server_restores_when_the_first_device_is_destroyed(site, runners, second, tmp_path):
    tree = make_tree(tmp_path / "tree")
    (tree / "large").write_bytes(os.urandom(40_000_000))
    first = (await run(runners[0], site.task(site.backup_spec(tree)))).set
    storing, reading = await copy_far(site, runners, second, first.id, verify=True)
    assert storing.ended.state is AttemptState.SUCCEEDED, (storing.lines, reading.lines)
    assert reading.ended.state is AttemptState.SUCCEEDED, reading.lines
    assert (storing.set.server, storing.set.copy_of) == (site.beta.id, first.id)
    site.device.rename(tmp_path / "gone")
    out = tmp_path / "out"
    heard = await restored_from(site, runners[1], second, storing.set.id, out)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []


async def test_the_second_copy_reads_and_stores_only_what_is_new(site, runners, second, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"{number}").write_bytes(os.urandom(1_000_000))
    first = (await run(runners[0], site.task(site.backup_spec(tree)))).set
    storing, _ = await copy_far(site, runners, second, first.id)
    assert storing.ended.counts.bytes_stored > 20_000_000
    (tree / "new").write_bytes(os.urandom(2_000_000))
    later = (await run(runners[0], site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))).set
    storing, reading = await copy_far(site, runners, second, later.id)
    assert storing.ended.state is AttemptState.SUCCEEDED, (storing.lines, reading.lines)
    assert 2_000_000 <= reading.ended.counts.bytes_read < 2_100_000
    assert 2_000_000 <= storing.ended.counts.bytes_stored < 2_100_000
    assert storing.set.bytes == 22_000_000
    assert storing.set.files == 21
    storing, reading = await copy_far(site, runners, second, later.id)
    assert storing.ended.state is AttemptState.SUCCEEDED, (storing.lines, reading.lines)
    assert reading.ended.counts.bytes_read == 0
    assert storing.set.files == 21
    assert [each.copy_of for each in second.sets()] == [first.id, later.id, later.id]


async def test_a_damaged_first_set_is_not_copied_and_the_file_is_named(site, runners, second, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3):
        (tree / f"{number}").write_bytes(os.urandom(5_000_000))
    first = (await run(runners[0], site.task(site.backup_spec(tree)))).set
    packs = [path for path in (site.device / "packs" / "d").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"garbage")
    storing, reading = await copy_far(site, runners, second, first.id)
    assert storing.ended.state is AttemptState.FAILED, (storing.lines, reading.lines)
    assert storing.ended.failure.code == "data-damaged", storing.lines
    assert str(tree) in storing.ended.failure.fields["detail"]
    assert second.sets() == []


async def test_the_end_that_stores_takes_no_set_of_another_server_than_the_order_names(site, runners, second, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "secret").write_bytes(b"x" * 1000)
    first = (await run(runners[0], site.task(site.backup_spec(tree)))).set

    def change(device, source):
        reading, storing = both_ends(site, second)(device, source)
        return reading, structs.replace(storing, order=structs.replace(storing.order, origin=site.beta.id))

    reading, storing = await run_pair(site, runners, copy_spec(site, first.id), change=change)
    assert storing.ended.state is AttemptState.FAILED, (storing.lines, reading.lines)
    assert storing.ended.failure.code == "peer-fault", storing.lines
    assert second.sets() == []


async def test_an_incremental_builds_on_a_copy(site, runner, second, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(5):
        (tree / f"{number}").write_bytes(os.urandom(100_000))
    last = max(path.stat().st_ctime_ns for path in tree.iterdir())
    wait_for(lambda: time.time_ns() > last + 2 * SETTLE_NS, what="nothing of it is too new to be trusted")
    first = (await run(runner, site.task(site.backup_spec(tree)))).set
    copy = (await run(runner, copied_here(site, second, first.id))).set
    (tree / "new").write_bytes(b"new")
    task = site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL))
    heard = await run(runner, structs.replace(task, device=structs.replace(second.access, writer=site.alpha.writer)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert heard.set.parent == copy.id
    assert heard.ended.counts.bytes_read < 1000
