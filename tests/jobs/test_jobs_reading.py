"""Files that change while they are read, sparse files, and the root folder of the machine."""

from __future__ import annotations

import itertools
import os
import resource

import pytest
from job_site import run
from job_trees import make_tree
from msgspec import structs

from caso_mesh.devices.memory import MemoryBackend
from caso_mesh.jobs import reading
from caso_mesh.jobs.perform import Tools
from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences
from caso_mesh.sources.walked import Walked

MIB = 1 << 20


@pytest.fixture
def backend(site):
    backend = MemoryBackend(site.backend_objects)
    site.make_vault(backend)
    return backend


@pytest.fixture
def threads(site, backend):
    return ThreadRunner(clock=SystemClock(), backend_for=lambda access: MemoryBackend(site.backend_objects))


def interfere(monkeypatch, changes):
    """Does ``changes[name](path)`` between the walk and the reading of a file, once."""
    left = dict(changes)

    def before(real):
        def instead(walked, *rest):
            change = left.pop(os.path.basename(walked.entry.path).decode(), None)
            if change is not None:
                change(b"/" + walked.entry.path)
            return real(walked, *rest)

        return instead

    for way in ("open", "read_into"):
        monkeypatch.setattr(Walked, way, before(getattr(Walked, way)))


_TURNS = itertools.cycle((True, False, False, True, True))
#: Small files are read by the thread that walks, by the pool, or by whom it happens to be.
WHO_READS = {
    "the walk": lambda gatherer: True,
    "the pool": lambda gatherer: False,
    "either": lambda gatherer: next(_TURNS),
}


@pytest.fixture(params=WHO_READS)
def who_reads(request, monkeypatch):
    monkeypatch.setattr(reading.Gatherer, "pays", WHO_READS[request.param])


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.usefixtures("who_reads")
async def test_what_changes_while_it_is_read_is_kept_as_far_as_it_goes_and_reported(
    site, threads, backend, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "REGION_BYTES", MIB)
    tree = tmp_path / "tree"
    tree.mkdir()
    content = os.urandom(5 * MIB)
    for name, size in (
        ("big-grows", 3 * MIB),
        ("big-shrinks", 5 * MIB),
        ("grows", 1000),
        ("shrinks", 1000),
        ("gone", 9),
    ):
        (tree / name).write_bytes(content[:size])
    interfere(
        monkeypatch,
        {
            "big-grows": append,
            "big-shrinks": lambda path: os.truncate(path, 2 * MIB + 17),
            "grows": append,
            "shrinks": lambda path: os.truncate(path, 100),
            "gone": os.unlink,
        },
    )
    heard = await run(threads, site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    found = {os.path.basename(each.path): each.reason for each in heard.exceptions}
    assert found == {
        b"big-grows": "changed-while-read",
        b"big-shrinks": "changed-while-read",
        b"grows": "changed-while-read",
        b"shrinks": "changed-while-read",
        b"gone": "vanished",
    }
    back = await run(threads, site.task(site.restore_spec(heard.set.id, tmp_path / "out", strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.exceptions
    sizes = {path.name: len(path.read_bytes()) for path in (tmp_path / "out").iterdir()}
    assert sizes == {"big-grows": 3 * MIB, "big-shrinks": 2 * MIB + 17, "grows": 1000, "shrinks": 100}
    for name, size in sizes.items():
        assert (tmp_path / "out" / name).read_bytes() == content[:size]
    monkeypatch.setattr(Walked, "read_into", lambda walked, view: False)
    again = await run(threads, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert again.ended.state is AttemptState.SUCCEEDED
    await run(threads, site.task(site.restore_spec(again.set.id, tmp_path / "later", strip=True)))
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "later"))) == []


@pytest.mark.usefixtures("who_reads")
async def test_a_file_is_the_same_however_many_threads_read_it(site, threads, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "REGION_BYTES", 3 * MIB)
    tree = make_tree(tmp_path / "tree", large=20 * MIB)
    with (tree / "islands").open("wb") as file:
        for number in range(40):
            file.seek(number * MIB)
            file.write(os.urandom(300_000))
        file.truncate(50 * MIB)
    one = await run(threads, site.task(site.backup_spec(tree)))
    monkeypatch.setattr(
        "caso_mesh.jobs.thread_runner.Tools",
        lambda **fields: Tools(**(fields | {"threads": 4})),
    )
    many = await run(threads, site.task(site.backup_spec(tree)))
    with site.opened(backend) as vault:
        trees = [
            [structs.replace(entry, accessed=None) for entry in vault.tree(heard.set.root).entries()]
            for heard in (one, many)
        ]
    assert trees[0] == trees[1]
    assert one.set.bytes_read == many.set.bytes_read < one.set.bytes
    back = await run(threads, site.task(site.restore_spec(many.set.id, tmp_path / "out", strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"), holes=True)) == []


async def test_the_root_of_the_machine_can_be_backed_up(site, threads, backend, tmp_path):
    kept = "etc"
    excludes = (*(f"/{name}" for name in os.listdir("/") if name != kept), "/etc/*/")
    heard = await run(threads, site.task(site.backup_spec("/", excludes=excludes)))
    # a plain user may not read all of it
    assert heard.ended.state in {AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS}, heard.lines
    with site.opened(backend) as vault:
        assert next(vault.tree(heard.set.root).entries()).path == kept.encode()


async def test_files_that_come_off_a_disk_are_read_by_several_threads(site, threads, backend, tmp_path, monkeypatch):
    tree = make_tree(tmp_path / "tree", small=800)
    read = []
    real = reading.BatchJob.run
    monkeypatch.setattr(reading.BatchJob, "run", lambda job, own: read.append(len(job.walked)) or real(job, own))
    warm = await run(threads, site.task(site.backup_spec(tree)))
    assert not read
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(path.read_bytes() + os.urandom(20_000))
            with path.open("rb+") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                cold = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
                file.read(1)
                disk = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock > cold
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if not disk:
        pytest.skip("files lie in memory here")
    heard = await run(threads, site.task(site.backup_spec(tree)))
    assert read
    assert heard.set.files == warm.set.files
    back = await run(threads, site.task(site.restore_spec(heard.set.id, tmp_path / "out", strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"))) == []
