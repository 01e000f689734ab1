"""Erasing a device: what the worker looks at itself, what it asks, and what it leaves when it is cut off."""

from __future__ import annotations

import json
import os
import time

import pytest
from job_site import listen, run
from msgspec import structs

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.task import ErasePlan
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.device_work import EraseGranted
from caso_mesh.model.errors import EraseUnfinished
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import MediaSet
from caso_mesh.vault.header import read_header

SPEC = EraseSpec("dev1", "newvault")
BRIEF = MediaSet("keep-4-weeks", 1.0, 0.0, 1.0)
LONG = MediaSet("keep-4-weeks", 1.0, 86400.0, 86400.0)


def task_of(site, *, begun=False, media_sets=(BRIEF,), keys=True):
    task = structs.replace(site.task(SPEC), erase=ErasePlan(begun, media_sets, {}))
    return task if keys else structs.replace(task, device=structs.replace(task.device, content_keys={}, write_key=""))


async def erase(runner, site, answer=None, **how):
    """Runs an erase; ``answer`` is the administrator's."""
    worker = await runner.start(task_of(site, **how))
    asked = []

    async def on(message):
        if isinstance(message, say.Consults):
            asked.append(message.erase)
            recipients = {site.alpha.id: site.alpha.keys.encryption_key}
            await worker.send(answer or say.Answered(grant=EraseGranted(recipients, time.time_ns())))

    return await listen(worker, on=on), asked


def header(site):
    backend = FolderBackend(str(site.device), "d", marker=None)
    try:
        return read_header(backend)
    finally:
        backend.close()


def mark(site, vault):
    """As an erase leaves it that was cut off."""
    erasure = {"vault": vault, "becomes": "newvault", "attempt": "a@1#1"}
    (site.device / "erasing").write_text(json.dumps(erasure))


def objects(site):
    return {path.relative_to(site.device).parts[0] for path in site.device.rglob("*") if path.is_file()}


@pytest.fixture
async def stored(site, runner, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content" * 1000)
    return (await run(runner, site.task(site.backup_spec(tmp_path / "tree")))).set


async def test_a_device_is_emptied_and_has_a_new_vault_while_what_is_not_of_a_vault_stays(site, runner, stored):
    (site.device / "holiday.jpg").write_text("mine")
    heard, (asked,) = await erase(runner, site)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert (asked.sets, asked.sessions) == (1, ())
    assert header(site).vault == "newvault"
    assert objects(site) == {"format", "keys", "holiday.jpg"}
    assert heard.ended.counts.entries > 4


async def test_what_is_protected_or_may_be_locked_stays_and_nobody_is_asked(site, runner, stored):
    heard, asked = await erase(runner, site, media_sets=(LONG,))
    assert (heard.ended.failure.code, asked) == ("protected", [])
    heard, asked = await erase(runner, site, media_sets=())
    assert (heard.ended.failure.code, asked) == ("protected", [])
    folder = site.device / "holds" / stored.id
    folder.mkdir(parents=True)
    (folder / "1").write_bytes(b"what may be a lock")
    heard, asked = await erase(runner, site)
    assert (heard.ended.failure.code, asked) == ("data-damaged", [])
    assert [each.id for each in site.sets()] == [stored.id]


async def test_without_a_word_of_the_administrator_nothing_goes(site, runner, stored):
    for answer, code in (
        (say.Answered(failure=Failure("no-admin", {"server": "alpha"})), "no-admin"),
        (say.Answered(), "internal"),
        (say.Answered(grant=EraseGranted({}, time.time_ns() - 60 * 10**9)), "clocks-differ"),
    ):
        heard, _ = await erase(runner, site, answer)
        assert heard.ended.state is AttemptState.FAILED
        assert heard.ended.failure.code.startswith(code)
        assert [each.id for each in site.sets()] == [stored.id]


async def test_an_open_session_is_told_to_the_administrator(site, runner, stored):
    for path in (site.device / "sessions").rglob("*.closed"):
        path.unlink()
    _, (asked,) = await erase(
        runner, site, say.Answered(failure=Failure("in-use", {"kind": "d", "name": "d", "by": "x"}))
    )
    assert [each.attempt for each in asked.sessions] == [stored.attempt]


async def test_one_that_was_cut_off_is_no_vault_and_goes_on_without_its_keys(site, runner, stored):
    mark(site, site.access.vault)
    for path in (site.device / "keys").rglob("*"):
        path.unlink()
    os.unlink(site.device / "format")
    with pytest.raises(EraseUnfinished):
        header(site)
    heard, (asked,) = await erase(runner, site, begun=True, keys=False)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert asked.sets == 0
    assert header(site).vault == "newvault"
    # it was done, and nobody lived to tell
    heard, _ = await erase(runner, site, begun=True, keys=False)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines


async def test_one_that_was_cut_off_makes_no_vault_where_the_disk_is_not_mounted(site, runner, stored):
    """It was taken for an erase on a device that had no room for its mark: a new vault came to lie below the mount point."""
    disk = site.device.with_name("elsewhere")
    site.device.rename(disk)
    site.device.mkdir()
    (disk / "format").unlink()
    heard, asked = await erase(runner, site, begun=True, keys=False)
    assert (heard.ended.failure.code, asked) == ("device-vanished", [])
    assert list(site.device.iterdir()) == []
    site.device.rmdir()
    disk.rename(site.device)
    heard, _ = await erase(runner, site, begun=True, keys=False)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    assert header(site).vault == "newvault"


async def test_another_vault_is_never_erased_in_its_place(site, runner, stored):
    text = (site.device / "format").read_text()
    os.unlink(site.device / "format")
    heard, asked = await erase(runner, site, keys=False)
    assert (heard.ended.failure.code, asked) == ("device-vanished", [])
    mark(site, "other")
    (site.device / "format").write_text(text)
    heard, asked = await erase(runner, site, begun=True, keys=False)
    assert (heard.ended.failure.code, asked) == ("device-vanished", [])
