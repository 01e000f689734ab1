"""Files that change while they are read, sparse files, and the root folder of the machine."""

from __future__ import annotations

import os

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
    """Does ``changes[name](path)`` between the walk and the opening of a file, once."""
    real = Walked.open
    left = dict(changes)

    def opened(walked):
        change = left.pop(os.path.basename(walked.entry.path).decode(), None)
        if change is not None:
            change(b"/" + walked.entry.path)
        return real(walked)

    monkeypatch.setattr(Walked, "open", opened)


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


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
    monkeypatch.undo()
    again = await run(threads, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert again.ended.state is AttemptState.SUCCEEDED
    await run(threads, site.task(site.restore_spec(again.set.id, tmp_path / "later", strip=True)))
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "later"))) == []


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
