"""Backup and restore where the files and the device are on one server, with real worker processes."""

from __future__ import annotations

import os

from job_site import run
from job_trees import make_tree

from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences


async def test_a_tree_comes_back_as_it_was(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree", large=70 << 20)
    heard = await run(runner, site.task(site.backup_spec(tree)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert heard.set.type is BackupType.FULL
    assert [each.id for each in site.sets()] == [heard.set.id]
    out = tmp_path / "out"
    back = await run(runner, site.task(site.restore_spec(heard.set.id, out)))
    assert back.ended.state is AttemptState.SUCCEEDED, back.lines
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []
