"""Inventories: what lies in a device by names and heads, with what the administrator says to it."""

from __future__ import annotations

import pytest
from job_site import listen, run

from caso_mesh.jobs import messages as say
from caso_mesh.model.device_jobs import InventorySpec
from caso_mesh.model.device_work import DeviceCompared
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState

SPEC = InventorySpec(("dev1",))


async def take(runner, site, answer=lambda found: DeviceCompared(), change=lambda worker: None):
    """Runs an inventory; ``answer`` is the administrator's to each page."""
    worker = await runner.start(site.task(SPEC))
    asked = []

    async def on(message):
        if isinstance(message, say.Consults):
            asked.append(message)
            reply = None if message.found is None else answer(message.found)
            await worker.send(reply if isinstance(reply, say.Answered) else say.Answered(compared=reply))
            change(message)

    return await listen(worker, on=on), asked


@pytest.fixture
async def two(site, runner, tmp_path):
    """Two sets in the device."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"content" * 1000)
    return [(await run(runner, site.task(site.backup_spec(tree)))).set for _ in range(2)]


def object_of(site, backup):
    (path,) = [path for path in (site.device / "sets").rglob("*") if path.is_file() and is_of(site, path, backup)]
    return path


def is_of(site, path, backup):
    with site.opened() as vault:
        names = {each.id: name for name, each in _named(vault)}
    return str(path.relative_to(site.device)) == names.get(backup.id)


def _named(vault):
    list(vault.sets())
    return [(name, each) for name, each in vault._sets.items() if each is not None]


async def test_an_inventory_counts_what_is_there_and_changes_nothing(site, runner, two):
    before = {path: path.stat().st_mtime_ns for path in site.device.rglob("*")}
    heard, asked = await take(runner, site)
    assert heard.ended.state is AttemptState.SUCCEEDED, heard.lines
    found = heard.ended.found
    packs = [path for path in (site.device / "packs").rglob("*") if path.is_file()]
    assert (found.sets, found.deleted, found.missing, found.added, found.unreadable) == (2, 0, 0, 0, 0)
    assert (found.media, found.writers, found.sessions) == (("ALPHA-000001",), 1, 0)
    assert (found.packs, found.pack_bytes) == (len(packs), sum(path.stat().st_size for path in packs))
    assert 0 < found.free_bytes <= found.total_bytes
    pages, lacks = asked[:-1], asked[-1].lacks
    assert [{each.id for each in page.found.sets} for page in pages] == [{each.id for each in two}]
    assert pages[0].found.last
    assert lacks.sets == ()
    assert {path: path.stat().st_mtime_ns for path in site.device.rglob("*")} == before


async def test_what_the_administrator_misses_is_looked_for_once_more_before_it_is_called_missing(site, runner, two):
    """A set that another server published while this one listed is no missing one."""
    late = object_of(site, two[1])
    aside = site.device.parent / "aside"
    late.rename(aside)

    def answer(found):
        assert {each.id for each in found.sets} == {two[0].id}
        aside.rename(late)
        return DeviceCompared(missing=(two[1].id, "01gone"))

    heard, asked = await take(runner, site, answer)
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    assert heard.ended.found.missing == 1
    assert asked[-1].lacks.sets == ("01gone",)
    assert [(each.path, each.reason) for each in heard.exceptions] == [(b"sets/01gone", "set-missing")]


async def test_what_cannot_be_read_and_what_is_no_object_is_told_by_name(site, runner, two):
    damaged = object_of(site, two[0])
    damaged.write_bytes(b"x" * 300)
    (site.device / "sets" / "notes.txt").write_text("mine")
    (site.device / "holiday.jpg").write_text("mine")
    heard, _ = await take(runner, site)
    assert heard.ended.state is AttemptState.SUCCEEDED_WITH_EXCEPTIONS
    assert heard.ended.found.sets == 1
    assert heard.ended.found.unreadable >= 2
    assert str(damaged.relative_to(site.device)).encode() in {each.path for each in heard.exceptions}
    assert any("holiday.jpg" in line and "names that no object of a vault has" in line for line in heard.lines)


async def test_a_session_without_an_end_is_told_of_as_the_administrator_knows_it(site, runner, two):
    closed = sorted((site.device / "sessions").rglob("*.closed"))
    for path in closed:
        path.unlink()
    heard, asked = await take(runner, site, lambda found: DeviceCompared(abandoned=(found.sessions[0].attempt,)))
    (sessions,) = [page.found.sessions for page in asked if page.found is not None]
    assert {each.attempt for each in sessions} == {each.attempt for each in two}
    assert (heard.ended.found.sessions, heard.ended.found.abandoned) == (2, 1)
    assert any("has no end, and nobody is at work for it" in line for line in heard.lines)
    assert any("is at work here" in line for line in heard.lines)


async def test_without_an_administrator_an_inventory_fails_with_that_and_a_cancel_ends_one_that_waits(
    site, runner, two
):
    heard, _ = await take(runner, site, lambda found: say.Answered(failure=Failure("no-admin", {"server": "alpha"})))
    assert heard.ended.state is AttemptState.FAILED
    assert heard.ended.failure.code == "no-admin"

    worker = await runner.start(site.task(SPEC))

    async def on(message):
        if isinstance(message, say.Consults):
            await worker.send(say.Cancel())

    heard = await listen(worker, on=on)
    assert heard.ended.state is AttemptState.CANCELED


async def test_a_device_with_another_vault_is_never_taken_for_this_one(site, runner, two):
    header = site.device / "format"
    header.rename(site.device / "format-away")
    heard, asked = await take(runner, site)
    assert (heard.ended.state, heard.ended.failure.code) == (AttemptState.FAILED, "device-vanished")
    assert asked == []
