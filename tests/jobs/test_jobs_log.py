"""What the job log of an attempt tells."""

from __future__ import annotations

from job_site import run, run_pair, verify_spec

from caso_mesh.model.states import AttemptState, BackupType


def make(folder):
    folder.mkdir()
    for number in range(7):
        (folder / f"file-{number}").write_bytes(b"%d" % number * 1000)
    return folder


async def test_a_clean_backup_verify_and_restore_tell_how_they_begin_and_how_they_end(site, runner, tmp_path):
    tree = make(tmp_path / "data")
    heard = await run(runner, site.task(site.backup_spec(tree)))
    assert heard.lines[0].startswith(f"begins: full backup of alpha:{tree} to the device disk, medium ALPHA-000001")
    assert f"published the set {heard.set.id}" in heard.lines
    assert heard.lines[-1].startswith("ended, succeeded: 7 files, 8 entries, 7.0 kB, 7.0 kB read, ")

    again = await run(runner, site.task(site.backup_spec(tree, type_=BackupType.INCREMENTAL, verify=True)))
    assert f"builds on the set {heard.set.id}" in again.lines
    assert any(line.startswith("verified:") for line in again.lines)

    check = await run(runner, site.task(verify_spec(heard.set.id)))
    assert check.lines[0] == f"begins: verification of the set {heard.set.id} on the device disk at alpha"
    assert check.lines[-1].startswith("ended, succeeded: 7 files, 8 entries, 7.0 kB checked in ")
    counts = check.ended.counts
    assert (counts.files, counts.bytes, counts.bytes_read) == (7, 7000, 7000)

    back = await run(runner, site.task(site.restore_spec(heard.set.id, tmp_path / "back")))
    assert back.lines[0].startswith(f"begins: restore of everything out of the set {heard.set.id} on the device disk")
    assert str(tmp_path / "back") in back.lines[0]
    assert back.lines[-1].startswith("ended, succeeded: 7 files, ")


async def test_an_attempt_that_fails_tells_its_figures_after_the_reason(site, runner, tmp_path):
    heard = await run(runner, site.task(verify_spec("nosuchset")))
    assert heard.ended.state is AttemptState.FAILED
    assert heard.lines[0].startswith("begins: ")
    assert heard.lines[-1].startswith("ended, failed: 0 files")
    assert "nosuchset" in heard.lines[-2]


async def test_both_ends_of_a_backup_tell_what_they_do(site, runners, tmp_path):
    tree = make(tmp_path / "data")
    spec = site.backup_spec(tree, source=site.beta)
    device, source = await run_pair(site, runners, spec)
    assert device.lines[0].startswith(f"begins: full backup of beta:{tree} to the device disk")
    assert source.lines[0] == f"begins: beta reads {tree} for alpha"
    assert device.lines[-1].startswith("ended, succeeded: 7 files")
