"""What incremental, differential and copy read and build on; what is left out; what a backup without data says."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from job_site import listen, run, run_pair, verify_spec
from job_trees import make_tree
from msgspec import structs

from caso_mesh.catalog.segment import Removal, SegmentReader
from caso_mesh.devices.memory import MemoryBackend
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.backup import SETTLE_NS
from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import DeviceFull
from caso_mesh.model.states import AttemptState, BackupType, Overwrite
from caso_mesh.sources.compare import differences
from caso_mesh.sources.reasons import Unreadable
from caso_mesh.sources.walked import Walked
from caso_mesh.vault.names import FORMAT


def settled(*files):
    """Waits until the clock is past the last change by as much as a backup wants to trust it."""
    last = max(os.lstat(file).st_ctime_ns for file in files)
    while time.time_ns() <= last + SETTLE_NS:
        time.sleep(0.002)


@pytest.fixture
def backend(site):
    """The device in memory; each worker opens it anew."""
    backend = MemoryBackend(site.backend_objects)
    site.make_vault(backend)
    return backend


@pytest.fixture
def threads(site, backend):
    return ThreadRunner(
        clock=SystemClock(), backend_for=lambda access: MemoryBackend(site.backend_objects), started_ns={}
    )


async def test_an_incremental_reads_only_what_changed(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=20)
    settled(*tree.rglob("*"))
    first = await run(threads, site.task(site.backup_spec(tree)))
    (tree / "a" / "f0003").write_bytes(b"changed")
    (tree / "a" / "new").write_bytes(b"new file")
    (tree / "a" / "f0004").unlink()
    settled(*tree.rglob("*"))
    second = await run(threads, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert second.ended.state is AttemptState.SUCCEEDED, second.lines
    assert second.all(say.Began)[0].type is BackupType.INCREMENTAL
    assert second.set.parent == first.set.id
    assert second.set.bytes_read == len(b"changed") + len(b"new file")
    assert second.set.bytes > 3 << 20
    third = await run(threads, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert third.set.parent == second.set.id
    assert third.set.bytes_read == 0
    assert third.set.root == second.set.root
    out = tmp_path / "out"
    await run(threads, site.task(site.restore_spec(third.set.id, out)))
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree))) == []


async def test_the_catalog_detail_of_a_later_set_only_says_what_changed(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=20)
    first_task = site.task(site.backup_spec(tree))
    first = await run(threads, first_task)
    full = SegmentReader(first_task.segment_path)
    assert full.header.base is None
    assert full.header.entries == first.set.entries
    (tree / "gone").mkdir()
    (tree / "gone" / "below").write_bytes(b"")
    await run(threads, site.task(site.backup_spec(tree)))
    (tree / "gone" / "below").unlink()
    (tree / "gone").rmdir()
    (tree / "a" / "new").write_bytes(b"new")
    task = site.task(site.backup_spec(tree))
    heard = await run(threads, task)
    reader = SegmentReader(task.segment_path)
    assert reader.header.set == heard.set.id
    prefix = os.fsencode(tree)[1:]
    records = {(isinstance(each, Removal), each.path[len(prefix) :]) for each in reader}
    assert records == {(True, b"/gone"), (False, b"/a/new"), (False, b"/a"), (False, b"")}
    (published,) = heard.all(say.Published)
    assert published.segment_size == os.path.getsize(task.segment_path)


async def test_a_differential_builds_on_the_last_full_and_a_copy_is_no_base(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    settled(*tree.rglob("*"))

    async def backup(type_, **rest):
        return (await run(threads, site.task(site.backup_spec(tree, type_=type_, **rest)))).set

    full = await backup(BackupType.FULL)
    incremental = await backup(BackupType.INCREMENTAL)
    copy = await backup(BackupType.COPY)
    assert (copy.type, copy.parent) == (BackupType.COPY, None)
    assert copy.bytes_read >= 3 << 20
    differential = await backup(BackupType.DIFFERENTIAL)
    assert differential.parent == full.id
    assert incremental.parent == full.id
    assert (await backup(BackupType.INCREMENTAL)).parent == differential.id


async def test_without_something_to_build_on_an_incremental_is_a_full_and_says_so(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    heard = await run(threads, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert heard.set.type is heard.ended.type is BackupType.FULL
    assert any("everything is read" in line for line in heard.lines)
    # other filters: what was left out last time would never come in
    other = await run(threads, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL, excludes=("*.tmp",))))
    assert other.set.type is BackupType.FULL


async def test_a_set_to_avoid_is_never_a_base(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    first = await run(threads, site.task(site.backup_spec(tree)))
    second = await run(threads, site.task(site.backup_spec(tree)))
    task = site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL))
    task = structs.replace(task, order=structs.replace(task.order, avoid=(second.set.id,)))
    assert (await run(threads, task)).set.parent == first.set.id


async def test_nothing_found_is_a_failure(site, threads, backend, tmp_path):
    heard = await run(threads, site.task(site.backup_spec(tmp_path / "nowhere")))
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == "contains-no-data"
    assert site.sets(backend) == []


async def test_one_missing_root_of_several_is_an_exception(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    heard = await run(threads, site.task(site.backup_spec(tmp_path / "nowhere", tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    assert [(each.path, each.reason) for each in heard.exceptions] == [
        (os.fsencode(tmp_path)[1:] + b"/nowhere", "missing")
    ]
    assert heard.set.exceptions == heard.ended.counts.exceptions == 1


async def test_own_state_is_left_out_with_a_warning(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    (tree / "state").mkdir()
    (tree / "state" / "secret").write_bytes(b"key")
    own = os.fsencode(tree / "state")
    heard = await run(threads, site.task(site.backup_spec(tree), own_paths=(own,)))
    assert heard.ended.state is AttemptState.SUCCEEDED
    assert any("state is left out" in line for line in heard.lines)
    with site.opened(backend) as vault:
        paths = {entry.path for entry in vault.tree(heard.set.root).entries()}
    assert own[1:] not in paths
    assert own[1:] + b"/secret" not in paths


async def test_an_unreadable_file_is_an_exception_and_its_other_names_as_well(
    site, threads, backend, tmp_path, monkeypatch
):
    tree = make_tree(tmp_path / "tree", small=5)
    real = Walked.open

    def broken(walked):
        if walked.entry.path.endswith((b"/a/small", b"/large")):
            raise Unreadable(SourceException(walked.entry.path, "read-error", "bad sector"))
        return real(walked)

    monkeypatch.setattr(Walked, "open", broken)
    monkeypatch.setattr(Walked, "read_into", lambda walked, view: False)
    heard = await run(threads, site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    reasons = {each.path.rpartition(b"/")[2]: each.reason for each in heard.exceptions}
    assert reasons == {b"small": "read-error", b"large": "read-error", b"second-name": "hard-link-not-kept"}
    out = tmp_path / "out"
    back = await run(threads, site.task(site.restore_spec(heard.set.id, out)))
    assert back.ended.state is AttemptState.SUCCEEDED


async def test_a_full_device_is_told_and_nothing_is_published(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)

    def full(access):
        backend = MemoryBackend(site.backend_objects)
        backend.fail("packs/*", DeviceFull(device="disk"), operation="put")
        return backend

    heard = await run(ThreadRunner(clock=SystemClock(), backend_for=full), site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == "device-full"
    assert site.sets(backend) == []
    again = await run(threads, site.task(site.backup_spec(tree)))
    assert again.ended.state is AttemptState.SUCCEEDED


async def test_what_an_interrupted_attempt_stored_is_taken_over(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)

    def dies_late(access):
        backend = MemoryBackend(site.backend_objects)
        backend.fail("sets/*", DeviceFull(device="disk"), operation="put")
        return backend

    first = await run(ThreadRunner(clock=SystemClock(), backend_for=dies_late), site.task(site.backup_spec(tree)))
    assert first.ended.state is AttemptState.FAILED
    heard = await run(threads, site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED
    assert heard.set.bytes_stored < 1 << 20
    with site.opened(backend) as vault:
        assert list(vault.open_sessions()) == []


async def test_a_verified_backup_says_verifying_and_damage_is_found(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    heard = await run(threads, site.task(site.backup_spec(tree, verify=True)))
    assert heard.all(say.Verifying)
    assert heard.ended.state is AttemptState.SUCCEEDED
    good = await run(threads, site.task(verify_spec(heard.set.id)))
    assert good.ended.state is AttemptState.SUCCEEDED
    name = max(
        (name for name in site.backend_objects if name.startswith("packs/d/")),
        key=lambda name: len(site.backend_objects[name]),
    )
    content = bytearray(site.backend_objects[name])
    content[len(content) // 2] ^= 1
    site.backend_objects[name] = bytes(content)
    bad = await run(threads, site.task(verify_spec(heard.set.id)))
    assert bad.ended.state is AttemptState.FAILED
    assert bad.ended.failure.code == "data-damaged"
    assert os.fsencode(tree / "large")[1:] in {each.path for each in bad.exceptions}
    out = tmp_path / "out"
    back = await run(threads, site.task(site.restore_spec(heard.set.id, out)))
    assert back.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    lost = {each.path for each in back.exceptions if each.reason == "damaged"}
    assert os.fsencode(tree / "large")[1:] in lost
    there = {os.fsencode(path)[len(os.fsencode(out)) + 1 :] for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there.isdisjoint(lost)
    assert os.fsencode(tree / "sparse")[1:] in there


async def test_both_ends_meet_in_one_process(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=20)
    settled(*tree.rglob("*"))
    runners = (threads, threads)
    device, source = await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    assert device.ended.state is source.ended.state is AttemptState.SUCCEEDED, device.lines + source.lines
    spec = site.backup_spec(tree, source=site.beta, type_=BackupType.INCREMENTAL)
    (tree / "a" / "f0002").write_bytes(b"other")
    device, _ = await run_pair(site, runners, spec)
    assert device.set.type is BackupType.INCREMENTAL
    assert device.set.bytes_read == len(b"other")
    assert (device.set.files, device.set.bytes) == (26, device.ended.counts.bytes)
    spec = site.restore_spec(device.set.id, tmp_path / "out", server=site.beta)
    device, target = await run_pair(site, runners, spec)
    assert device.ended.state is target.ended.state is AttemptState.SUCCEEDED, device.lines + target.lines
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out") + os.fsencode(tree))) == []


async def test_a_virtual_clock_may_jump_only_while_nothing_is_under_way(site, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    loop, quiet, lock, sums = asyncio.get_running_loop(), asyncio.Semaphore(0), threading.Lock(), [0]

    def busy(change):
        with lock:
            sums.append(sums[-1] + change)
            if sums[-1] == 0:
                loop.call_soon_threadsafe(quiet.release)

    threads = ThreadRunner(
        clock=SystemClock(), busy=busy, backend_for=lambda access: MemoryBackend(site.backend_objects)
    )
    worker = await threads.start(site.task(site.backup_spec(tree)))
    heard = []
    async for message in worker.messages():
        heard.append(message)
        if isinstance(message, say.MayPublish):
            await quiet.acquire()  # it waits for us
            await worker.send(say.Publish())
            assert sums[-1] == 1 or sums[-2:] == [1, 0]  # busy again before anybody could have jumped
    await quiet.acquire()
    assert min(sums) == 0
    assert heard[-1].state is AttemptState.SUCCEEDED


async def test_cancel_ends_without_a_set(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    worker = await threads.start(site.task(site.backup_spec(tree)))

    async def cancel(message):
        if isinstance(message, say.MayPublish):
            await worker.send(say.Cancel())

    heard = await listen(worker, publish=False, on=cancel)
    assert heard.ended.state is AttemptState.CANCELED
    assert site.sets(backend) == []


async def test_kill_before_leave_to_publish_publishes_nothing(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    worker = await threads.start(site.task(site.backup_spec(tree)))

    async def kill(message):
        if isinstance(message, say.MayPublish):
            await worker.kill()
            await worker.send(say.Publish())

    heard = await listen(worker, publish=False, on=kill)
    assert heard.ended.state is AttemptState.INTERRUPTED
    assert heard.ended.failure.code == "worker-died"
    assert site.sets(backend) == []


# --- restoring ---


@pytest.fixture
async def backed_up(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    return tree, (await run(threads, site.task(site.backup_spec(tree)))).set


async def test_one_file_and_one_folder_come_back_below_another_base(site, threads, backed_up, tmp_path):
    tree, backup = backed_up
    out = tmp_path / "out"
    back = await run(threads, site.task(site.restore_spec(backup.id, out, tree / "a", tree / "link")))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    place = tmp_path / "out" / str(tree)[1:]
    assert sorted(os.listdir(place)) == ["a", "link"]
    assert sorted(os.listdir(place / "a")) == sorted(os.listdir(tree / "a"))


async def test_with_strip_it_comes_straight_into_the_base(site, threads, backed_up, tmp_path):
    tree, backup = backed_up
    out = tmp_path / "out"
    back = await run(threads, site.task(site.restore_spec(backup.id, out, strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert list(differences(os.fsencode(tree), os.fsencode(out))) == []


async def test_a_root_that_is_a_file_keeps_its_name_with_strip(site, threads, backend, tmp_path):
    (tmp_path / "one.txt").write_bytes(b"one")
    backup = (await run(threads, site.task(site.backup_spec(tmp_path / "one.txt")))).set
    back = await run(threads, site.task(site.restore_spec(backup.id, tmp_path / "out", strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert (tmp_path / "out" / "one.txt").read_bytes() == b"one"


async def test_a_hard_link_without_its_first_name_has_the_content(site, threads, backed_up, tmp_path):
    tree, backup = backed_up
    out = tmp_path / "out"
    back = await run(threads, site.task(site.restore_spec(backup.id, out, tree / "second-name")))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert (tmp_path / "out" / str(tree)[1:] / "second-name").read_bytes() == b"small"


async def test_a_path_that_is_not_in_the_set_restores_nothing(site, threads, backed_up, tmp_path):
    tree, backup = backed_up
    out = tmp_path / "out"
    back = await run(threads, site.task(site.restore_spec(backup.id, out, tree / "a", tree / "nothing")))
    assert back.ended.failure.code == "path-not-in-set"
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("rule", "older", "expected"),
    [
        (Overwrite.NEVER, True, b"mine"),
        (Overwrite.OLDER, True, b"small"),
        (Overwrite.OLDER, False, b"mine"),
        (Overwrite.ALWAYS, False, b"small"),
    ],
)
async def test_what_exists_is_overwritten_by_rule(site, threads, backed_up, rule, older, expected):
    tree, backup = backed_up
    file = tree / "a" / "small"
    file.unlink()
    file.write_bytes(b"mine")
    if older:
        os.utime(file, (1, 1))
    back = await run(threads, site.task(site.restore_spec(backup.id, None, file, overwrite=rule)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert file.read_bytes() == expected


async def test_own_state_is_never_written(site, threads, backed_up, tmp_path):
    tree, backup = backed_up
    out = tmp_path / "out"
    own = os.fsencode(out) + os.fsencode(tree) + b"/a"
    back = await run(threads, site.task(site.restore_spec(backup.id, out), own_paths=(own,)))
    assert back.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    assert {each.reason for each in back.exceptions} >= {"not-allowed-here"}
    assert not os.path.exists(own)


async def test_only_folders_that_may_be_written_are(site, threads, backed_up, tmp_path):
    _, backup = backed_up
    out = tmp_path / "out"
    back = await run(
        threads, site.task(site.restore_spec(backup.id, out), may_write=(os.fsencode(tmp_path / "other"),))
    )
    assert {each.reason for each in back.exceptions} == {"not-allowed-here"}
    assert not out.exists()


async def test_a_symlink_in_the_way_leads_no_write_elsewhere(site, threads, backed_up, tmp_path):
    tree, backup = backed_up
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / "out" / str(tree)[1:]
    place.mkdir(parents=True)
    (place / "a").symlink_to(elsewhere)
    back = await run(threads, site.task(site.restore_spec(backup.id, out, overwrite=Overwrite.NEVER)))
    assert back.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    assert os.listdir(elsewhere) == []


async def test_a_device_that_vanished_is_not_an_empty_one(site, threads, backend, tmp_path):
    tree = make_tree(tmp_path / "tree", small=5)
    del site.backend_objects[FORMAT]
    heard = await run(threads, site.task(site.backup_spec(tree)))
    assert heard.ended.failure.code == "device-vanished"
