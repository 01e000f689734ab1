"""Synthetic fulls: a full set on the device, made of the newest one of a source that is not read for it."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from job_site import Site, run
from job_trees import make_tree
from msgspec import structs
from waiting import wait_for

from caso_mesh.catalog.segment import SegmentReader
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.backup import SETTLE_NS
from caso_mesh.model.jobs import SyntheticSpec
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences


def synthetic_spec(site: Site, set_id: str, **rest) -> SyntheticSpec:
    return SyntheticSpec((site.alpha.id,), (set_id,), **rest)


def settled(tree):
    last = max(path.lstat().st_ctime_ns for path in tree.rglob("*"))
    wait_for(lambda: time.time_ns() > last + 2 * SETTLE_NS, what="nothing of it is too new to be trusted")


async def a_week(site, runner, tree):
    """A full and two incrementals, each of a changed tree."""
    sets = [(await run(runner, site.task(site.backup_spec(tree)))).set]
    for number in range(2):
        (tree / f"new-{number}").write_bytes(os.urandom(100_000))
        settled(tree)
        heard = await run(runner, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
        assert heard.set.type is BackupType.INCREMENTAL, heard.lines
        sets.append(heard.set)
    return sets


async def test_a_synthetic_full_reads_no_source_stores_no_content_and_restores_when_all_others_are_gone(
    site, runner, tmp_path
):
    tree = make_tree(tmp_path / "tree")
    sets = await a_week(site, runner, tree)
    others = [path for path in (site.device / "sets").rglob("*") if path.is_file()]
    moved = tmp_path / "moved"
    tree.rename(moved)
    heard = await run(runner, site.task(synthetic_spec(site, sets[-1].id)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    made = heard.set
    assert (made.type, made.made_of, made.parent, made.copy_of) == (BackupType.FULL, sets[-1].id, None, None)
    assert made.id not in {each.id for each in sets}
    for field in ("source", "root", "roots", "filters", "started_at_ns", "ended_at_ns", "files", "entries", "bytes"):
        assert getattr(made, field) == getattr(sets[-1], field), field
    assert (made.bytes_read, made.bytes_stored) == (0, 0)
    assert heard.all(say.Began)[0].type is BackupType.FULL
    for path in others:
        path.unlink()
    assert site.sets() == [made]
    out = tmp_path / "out"
    heard = await run(runner, site.task(site.restore_spec(made.id, out)))
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert list(differences(os.fsencode(moved), os.fsencode(out) + os.fsencode(tree), holes=True)) == []


async def test_incrementals_and_differentials_build_on_a_synthetic_full(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree")
    sets = await a_week(site, runner, tree)
    made = (await run(runner, site.task(synthetic_spec(site, sets[-1].id)))).set
    (tree / "later").write_bytes(b"later")
    settled(tree)
    for type_ in (BackupType.DIFFERENTIAL, BackupType.INCREMENTAL):
        heard = await run(runner, site.task(site.backup_spec(tree, type_=type_)))
        assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
        assert heard.set.type is type_
        if type_ is BackupType.DIFFERENTIAL:
            # since the synthetic full, not since the real one of the beginning
            assert heard.set.parent == made.id
            assert heard.ended.counts.bytes_read < 1000


async def test_the_catalog_gets_no_row_of_what_a_synthetic_full_has_as_the_set_before(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree")
    sets = await a_week(site, runner, tree)
    task = site.task(synthetic_spec(site, sets[-1].id))
    made = (await run(runner, task)).set
    detail = SegmentReader(task.segment_path)
    assert detail.header.set == made.id
    assert detail.header.base == sets[-1].id
    assert list(detail) == []


async def test_no_synthetic_full_is_made_of_a_set_of_which_a_part_is_lost_and_the_file_is_named(site, runner, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").write_bytes(os.urandom(300_000))
    first = (await run(runner, site.task(site.backup_spec(tree)))).set
    shutil.rmtree(site.device / "packs" / "d")
    heard = await run(runner, site.task(synthetic_spec(site, first.id)))
    assert heard.ended.state is AttemptState.FAILED, heard.lines
    assert heard.ended.failure.code == "data-damaged"
    assert str(tree / "one") in heard.ended.failure.fields["detail"]
    assert [each.reason for each in heard.exceptions] == ["damaged"]
    assert site.sets() == [first]


@pytest.mark.parametrize("verify", [False, True])
async def test_what_only_reading_finds_is_found_when_a_synthetic_full_is_verified(site, runner, tmp_path, verify):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").write_bytes(os.urandom(300_000))
    first = (await run(runner, site.task(site.backup_spec(tree)))).set
    (pack,) = [path for path in (site.device / "packs" / "d").rglob("*") if path.is_file()]
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"garbage")
    heard = await run(runner, site.task(synthetic_spec(site, first.id, verify=verify)))
    assert heard.ended.state is (AttemptState.FAILED if verify else AttemptState.SUCCEEDED), heard.lines
    assert len(site.sets()) == (1 if verify else 2)
    assert bool(heard.all(say.Verifying)) is verify


async def test_nothing_is_made_of_a_copy_nor_of_a_set_of_another_server(site, runner, tmp_path):
    tree = make_tree(tmp_path / "tree")
    copy = (await run(runner, site.task(site.backup_spec(tree, type_=BackupType.COPY)))).set
    heard = await run(runner, site.task(synthetic_spec(site, copy.id)))
    assert heard.ended.failure.code == "conflict", heard.lines
    task = site.task(SyntheticSpec((site.beta.id,), (copy.id,)), source=site.beta)
    heard = await run(runner, structs.replace(task))
    assert heard.ended.failure.code == "not-found", heard.lines
    assert site.sets() == [copy]
