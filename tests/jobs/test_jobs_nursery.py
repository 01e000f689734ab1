"""The nursery has imported what its workers need: what they import themselves, each of them pays for anew."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from job_site import Site, run, run_pair, verify_spec
from job_trees import make_tree

from caso_mesh.jobs import nursery, nursery_runner
from caso_mesh.jobs.nursery_runner import NurseryRunner
from caso_mesh.jobs.task import Task
from caso_mesh.model.orders import AttemptOrder
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.records import SessionRecord


def test_the_records_that_workers_read_are_worked_out_before_they_are_forked() -> None:
    known = nursery.rehearse()
    assert {Task, AttemptOrder, BackupSet, SessionRecord} <= set(known)
    assert len(known) > 100


async def test_workers_import_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy.unique imported numpy.ma in each worker, which took longer than a small job."""
    said = tmp_path / "imports"
    said.touch()
    here = os.fspath(Path(__file__).parent)
    monkeypatch.setattr(nursery_runner, "_MODULE", "nursery_spy")
    monkeypatch.setenv("NURSERY_SPY", os.fspath(said))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    tree = make_tree(tmp_path / "tree")
    async with AsyncExitStack() as stack:
        runners = [
            await stack.enter_async_context(NurseryRunner(lock_path=tmp_path / name / "workers.lock"))
            for name in ("alpha-run", "beta-run")
        ]
        heard = []
        for type_ in (BackupType.FULL, BackupType.INCREMENTAL):
            heard.append(await run(runners[0], site.task(site.backup_spec(tree, type_=type_))))
            assert heard[-1].ended.state is AttemptState.SUCCEEDED, heard[-1].lines
        set_id = heard[-1].set.id
        for spec in (verify_spec(set_id), site.restore_spec(set_id, tmp_path / "out")):
            heard.append(await run(runners[0], site.task(spec)))
            assert heard[-1].ended.state is AttemptState.SUCCEEDED, heard[-1].lines
        for spec in (site.backup_spec(tree, source=site.beta),):
            device, source = await run_pair(site, runners, spec)
            assert device.ended.state is source.ended.state is AttemptState.SUCCEEDED, (device.lines, source.lines)
        restore = site.restore_spec(device.set.id, tmp_path / "there", server=site.beta)
        device, target = await run_pair(site, runners, restore)
        assert device.ended.state is target.ended.state is AttemptState.SUCCEEDED, (device.lines, target.lines)
    lines = said.read_text("utf-8").splitlines()
    assert not {line.split()[1] for line in lines if line.startswith("True")}
