"""Backup and restore where the files and the device are on one server, with real worker processes."""

from __future__ import annotations

import os

import pytest
from job_site import Site, run

from caso_mesh.jobs.nursery_runner import NurseryRunner
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
async def runner(tmp_path):
    async with NurseryRunner(lock_path=tmp_path / "run" / "workers.lock") as runner:
        yield runner


def make_tree(folder):
    folder.mkdir()
    (folder / "a").mkdir()
    (folder / "a" / "small").write_bytes(b"small")
    (folder / "a" / "empty").write_bytes(b"")
    (folder / "large").write_bytes(os.urandom(70 << 20))
    with (folder / "sparse").open("wb") as file:
        file.seek(9 << 20)
        file.write(b"data behind a hole")
        file.truncate(20 << 20)
    (folder / "link").symlink_to("nowhere")
    os.link(folder / "a" / "small", folder / "second-name")
    for number in range(700):
        (folder / "a" / f"f{number:04}").write_bytes(b"%d" % number * number)
    return folder


async def test_a_tree_comes_back_as_it_was(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree")
    heard = await run(runner, site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert heard.set.type is BackupType.FULL
    assert [each.id for each in site.sets()] == [heard.set.id]
    out = tmp_path / "out"
    back = await run(runner, site.task(site.restore_spec(heard.set.id, out)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []
