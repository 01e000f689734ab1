"""What a verification or a restore found damaged is read from the source again by the next backup, whatever its type and
wherever the source lies; old sets that need it are whole again."""

from __future__ import annotations

import os
import random

import pytest
from job_site import run, run_pair, verify_spec
from job_trees import make_tree

from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.sources.compare import differences

MIB = 1 << 20


def flip(site, kind: str = "d") -> None:
    """A bit in the middle of the largest pack of that kind."""
    path = max((site.device / "packs" / kind).glob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


async def find(site, runner, set_id: str, tmp_path, finder: str):
    """Damage is found in one of the ways in which it is."""
    spec = verify_spec(set_id) if finder == "verify" else site.restore_spec(set_id, tmp_path / "lost", strip=True)
    found = await run(runner, site.task(spec))
    assert found.exceptions
    assert any("never reused" in line for line in found.lines), found.lines
    return found


async def is_whole(site, runner, set_id: str) -> bool:
    verified = await run(runner, site.task(verify_spec(set_id)))
    return verified.ended.state is AttemptState.SUCCEEDED


@pytest.mark.parametrize("finder", ["verify", "restore"])
@pytest.mark.parametrize("type_", [BackupType.FULL, BackupType.INCREMENTAL])
async def test_the_next_backup_stores_what_was_found_damaged_anew(site, runner, tmp_path, type_, finder):
    tree = make_tree(tmp_path / "tree", large=20 * MIB)
    first = await run(runner, site.task(site.backup_spec(tree)))
    flip(site)
    await find(site, runner, first.set.id, tmp_path, finder)
    second = await run(runner, site.task(site.backup_spec(tree, type_=type_)))
    assert second.ended.state is AttemptState.SUCCEEDED, second.lines
    assert second.set.type is BackupType.FULL, "an incremental has nothing to build on"
    assert 0 < second.set.bytes_stored < first.set.bytes_stored
    assert await is_whole(site, runner, second.set.id)
    assert await is_whole(site, runner, first.set.id)
    third = await run(runner, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
    assert third.set.type is BackupType.INCREMENTAL


async def test_a_tree_that_was_lost_stops_no_later_backup(site, runner, tmp_path):
    """The catalog's detail is the difference to the last set: with its tree lost every later backup failed."""
    tree = make_tree(tmp_path / "tree", large=MIB)
    first = await run(runner, site.task(site.backup_spec(tree)))
    flip(site, "m")
    (tree / "new").write_bytes(b"new")
    for type_ in (BackupType.INCREMENTAL, BackupType.FULL):
        again = await run(runner, site.task(site.backup_spec(tree, type_=type_)))
        assert again.ended.state is AttemptState.SUCCEEDED, again.lines
        assert await is_whole(site, runner, again.set.id)
    back = await run(runner, site.task(site.restore_spec(again.set.id, tmp_path / "out", strip=True)))
    assert back.ended.state is AttemptState.SUCCEEDED
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"))) == []
    assert not await is_whole(site, runner, first.set.id)


@pytest.mark.parametrize("kind", ["d", "m"])
@pytest.mark.parametrize("type_", [BackupType.FULL, BackupType.INCREMENTAL])
async def test_a_source_on_another_server_sends_again_what_is_lost(site, runners, tmp_path, type_, kind):
    tree = make_tree(tmp_path / "tree", large=20 * MIB)
    spec = site.backup_spec(tree, source=site.beta, type_=type_)
    first, _ = await run_pair(site, runners, spec)
    assert first.ended.state is AttemptState.SUCCEEDED, first.lines
    flip(site, kind)
    assert not await is_whole(site, runners[0], first.set.id)
    second, source = await run_pair(site, runners, spec)
    assert second.ended.state is AttemptState.SUCCEEDED, (second.lines, source.lines)
    assert second.set.bytes_stored < first.set.bytes_stored
    assert await is_whole(site, runners[0], second.set.id)
    # reading a file changes its time of access, so the tree of the first set is not made again
    assert await is_whole(site, runners[0], first.set.id) is (kind == "d")


async def test_damage_at_random_places_is_healed_as_long_as_the_files_are_there(site, runner, tmp_path):
    chance = random.Random(5)
    tree = make_tree(tmp_path / "tree", large=4 * MIB)
    sets = []
    for number in range(4):
        (tree / f"new-{number}").write_bytes(chance.randbytes(2 * MIB))
        made = await run(runner, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL)))
        assert made.ended.state is AttemptState.SUCCEEDED, made.lines
        sets.append(made.set.id)
        packs = sorted(site.device.glob("packs/?/*/*"))
        path = chance.choice(packs)
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.chmod(0o600)
        path.write_bytes(content)
        for each in sets:
            await run(runner, site.task(verify_spec(each)))
    last = await run(runner, site.task(site.backup_spec(tree)))
    assert last.ended.state is AttemptState.SUCCEEDED, last.lines
    assert await is_whole(site, runner, last.set.id)
    await run(runner, site.task(site.restore_spec(last.set.id, tmp_path / "out", strip=True)))
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"))) == []
