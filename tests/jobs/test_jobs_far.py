"""Backup and restore over the network: the files on beta, the device at alpha, each with a nursery of its own."""

from __future__ import annotations

import os

import msgspec
from job_site import run_pair
from job_trees import make_tree

from caso_mesh.jobs import messages as say
from caso_mesh.model.states import AttemptState
from caso_mesh.sources.compare import differences


async def test_a_tree_of_another_server_comes_back_there(site, runners, tmp_path):
    tree = make_tree(tmp_path / "tree")
    device, source = await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    assert device.ended.state is AttemptState.SUCCEEDED, (device.lines, source.lines)
    assert source.ended.state is AttemptState.SUCCEEDED, source.lines
    assert source.ended.set is None
    assert device.ended.set == device.set.id
    assert device.set.source == site.beta.id
    assert device.set.files == 300 + 6
    out = tmp_path / "out"
    spec = site.restore_spec(device.set.id, out, server=site.beta)
    device, target = await run_pair(site, runners, spec)
    assert device.ended.state is AttemptState.SUCCEEDED, (device.lines, target.lines)
    assert target.ended.state is AttemptState.SUCCEEDED, target.lines
    assert list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True)) == []


async def test_how_far_a_single_large_file_is_by_now_is_told_while_it_is_read(site, runners, tmp_path):
    """The bars stood at nothing for as long as large files were read for another server: it was told between files."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "image").write_bytes(os.urandom(12_000_000))
    device, _ = await run_pair(
        site,
        runners,
        site.backup_spec(tree, source=site.beta),
        change=lambda device, source: (device, msgspec.structs.replace(source, bandwidth="5MB")),
    )
    assert device.ended.state is AttemptState.SUCCEEDED, device.lines
    told = [message.progress for message in device.all(say.Progressed)]
    under_way = [each for each in told if each.counts.bytes_read and not each.counts.files]
    assert under_way
    assert all(each.path.endswith("/tree/image") for each in under_way)


async def test_a_damaged_file_is_named_and_the_rest_comes_back_there(site, runners, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3):
        (tree / f"{number}").write_bytes(os.urandom(5_000_000))
    device, _ = await run_pair(site, runners, site.backup_spec(tree, source=site.beta))
    packs = [path for path in (site.device / "packs" / "d").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"garbage")
    out = tmp_path / "out"
    spec = site.restore_spec(device.set.id, out, server=site.beta)
    device, target = await run_pair(site, runners, spec)
    assert device.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS, (device.lines, target.lines)
    (lost,) = device.exceptions
    assert lost.reason == "damaged"
    there = out / os.fsdecode(os.fsencode(tree)[1:])
    whole = {name for name in "012" if (there / name).exists()}
    assert whole == set("012") - {os.fsdecode(lost.path)[-1]}
    assert all((there / name).read_bytes() == (tree / name).read_bytes() for name in whole)
