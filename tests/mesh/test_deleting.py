"""Deleting and locking sets: protected until it is over by two clocks, then gone for every reader."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import audit as audit_log
from caso_mesh.model import browsing as b
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import MediaSetDoc
from caso_mesh.model.errors import CasoError, ClocksDiffer, NotFound, Protected, StateFull
from caso_mesh.model.states import BackupType
from caso_mesh.wire.typed import ask

DAY_S = 86400.0
pytestmark = pytest.mark.jumping


async def delete(mesh, set_id):
    return await mesh.call("alpha", "set.delete", b.SetName(set_id), v.Done)


def days_later(mesh, days, names=("alpha", "beta")):
    for name in names:
        mesh.clocks[name].wall_offset_s = days * DAY_S


async def made(mesh, tree, **more):
    result = await mesh.result((await mesh.backup("alpha", tree, "server:beta", **more)).run)
    assert result.state == "succeeded", result
    return result


async def test_a_set_is_deleted_when_its_protection_is_over_by_both_clocks_and_not_before(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    first = await made(mesh, tree)
    second = await made(mesh, tree, type=BackupType.INCREMENTAL)
    with pytest.raises(Protected) as refused:
        await delete(mesh, second.set)
    assert refused.value.exit_status == 4

    days_later(mesh, 29, ("alpha",))  # the media server's own clock says otherwise
    with pytest.raises((Protected, ClocksDiffer)):
        await delete(mesh, second.set)
    days_later(mesh, 29)
    mesh.clocks["beta"].wall_offset_s += 45.0
    with pytest.raises(ClocksDiffer):
        await delete(mesh, second.set)
    days_later(mesh, 29)

    await delete(mesh, second.set)
    assert [row.id for row in await mesh.sets()] == [first.set]
    with pytest.raises(NotFound):
        await mesh.call("alpha", "catalog.ls", b.CatalogList(second.set), b.EntryList)
    with pytest.raises(NotFound):
        await mesh.call("alpha", "restore", q.RestoreRequest(second.set, to=("beta", b"/tmp/x")), o.Submitted)
    found = await mesh.call("alpha", "catalog.versions", b.CatalogVersions("alpha", bytes(tree / "odd")), b.VersionList)
    assert {row.last_set for row in found.versions} == {first.set}
    with pytest.raises(NotFound):
        await delete(mesh, second.set)
    # what is deleted is no base: the next incremental builds on the first
    third = await made(mesh, tree, type=BackupType.INCREMENTAL)
    assert third.type == "incremental"
    log = await mesh.call("alpha", "job.log", q.JobLogRequest(third.run), o.JobLogView)
    assert any(f"builds on the set {first.set}" in line.text for each in log.attempts for line in each.lines)
    audit = await mesh.call("alpha", "audit.list", audit_log.AuditListRequest(), audit_log.AuditList)
    told = [(row.outcome, row.fields["set"]) for row in audit.entries if row.what == "set.delete"]
    assert ("done", second.set) in told
    assert ("protected", second.set) in told


async def test_a_clock_that_is_set_right_deletes_at_once_though_it_was_wrong_when_the_link_began(memory_mesh, tmp_path):
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await mesh.call("alpha", "mediaset.create", q.MediaSetEdit("brief", MediaSetDoc(protection="0s")), v.Done)
    backup = (await made(mesh, make_tree(tmp_path / "data", files=5), media_set="brief")).set
    mesh.clocks["beta"].wall_offset_s = 45.0
    await mesh.nodes["alpha"].server.links.begin_anew()
    await mesh.wait_connected("beta")
    with pytest.raises(ClocksDiffer):
        await delete(mesh, backup)
    mesh.clocks["beta"].wall_offset_s = 0.0
    await delete(mesh, backup)
    assert await mesh.sets() == ()


async def test_the_server_that_deletes_believes_neither_clock_nor_protection_of_the_administrator(
    memory_mesh, tmp_path
):
    mesh = await memory_mesh(2)
    device = await mesh.add_device("beta")
    backup = (await made(mesh, make_tree(tmp_path / "data", files=5))).set
    beta = mesh.nodes["alpha"].server.links.get(mesh.nodes["beta"].server.own().id)

    async def told(now_ns):
        hold = n.SetHold(device.id, backup, "tombstone", "ann", "r", now_ns)
        await ask(beta, "set.hold", hold, v.Done)

    with pytest.raises(ClocksDiffer):
        await told(mesh.clock("beta").now_ns() + round(40 * DAY_S) * 10**9)
    with pytest.raises(Protected):
        await told(mesh.clock("beta").now_ns())
    assert [each.id for each in await mesh.sets()] == [backup]


async def test_a_lock_outlasts_the_protection_and_nobody_can_shorten_it(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    result = await made(mesh, tree)
    now_ns = mesh.clock("alpha").now_ns()
    for days in (60, 40):
        until_ns = now_ns + round(days * DAY_S) * 10**9
        await mesh.call("alpha", "set.lock", b.SetLock(result.set, until_ns), v.Done)

    async def locked():
        return [row for row in await mesh.sets() if row.locked]

    (row,) = await wait_for_async(locked, 60, what="the lock is known")
    assert row.protected_until is not None
    days_later(mesh, 45)
    with pytest.raises(Protected):
        await delete(mesh, result.set)
    days_later(mesh, 61)
    await delete(mesh, result.set)
    assert await mesh.sets() == ()


async def untold(mesh, monkeypatch, set_id, fails):
    """beta deletes a set, and ``fails`` when it is to say so: the tombstone lies in the device by then."""
    beta = mesh.nodes["beta"].server
    append, begun = beta.facts.append, asyncio.Event()

    async def told(*new):
        if any(isinstance(each, facts.SetDeleted) for each in new):
            begun.set()
            await fails()
        return await append(*new)

    monkeypatch.setattr(beta.facts, "append", told)
    asked = asyncio.create_task(delete(mesh, set_id))
    await begun.wait()
    return asked


async def shown(mesh):
    return [row.id for row in await mesh.sets()]


async def brief(mesh):
    await mesh.call(
        "alpha", "mediaset.create", q.MediaSetEdit("brief", MediaSetDoc(protection="0s", keep="0s")), v.Done
    )


async def test_a_server_that_dies_between_the_tombstone_and_the_word_of_it_says_it_when_it_is_back(
    memory_mesh, tmp_path, monkeypatch
):
    """The set was shown for ever: the device had lost it, and whoever had deleted it did not remember."""
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await brief(mesh)
    first, second = [
        (await made(mesh, make_tree(tmp_path / name, files=5), media_set="brief")).set for name in ("one", "two")
    ]
    asked = await untold(mesh, monkeypatch, second, asyncio.Event().wait)
    await mesh.stop("beta")
    with contextlib.suppress(CasoError):
        await asked
    assert second in await shown(mesh)
    await mesh.run("beta")

    async def gone():
        return await shown(mesh) == [first]

    await wait_for_async(gone, 60, what="the set is known to be deleted")
    assert await mesh.nodes["beta"].server._queue.deletions() == [], "it is not told again at each start"


async def test_a_deletion_that_cannot_be_written_down_is_told_when_it_can_and_one_that_was_refused_is_not(
    memory_mesh, tmp_path, monkeypatch
):
    mesh = await memory_mesh(2)
    device = await mesh.add_device("beta")
    await brief(mesh)
    kept = await made(mesh, make_tree(tmp_path / "kept", files=5))
    backup = await made(mesh, make_tree(tmp_path / "data", files=5), media_set="brief")
    with pytest.raises(Protected):
        hold = n.SetHold(device.id, kept.set, "tombstone", "ann", "r", mesh.clock("beta").now_ns())
        beta = mesh.nodes["alpha"].server.links.get(mesh.nodes["beta"].server.own().id)
        await ask(beta, "set.hold", hold, v.Done)
    assert await mesh.nodes["beta"].server._queue.deletions() == []

    async def full():
        monkeypatch.undo()
        raise StateFull(state="beta")

    with pytest.raises(StateFull):
        await (await untold(mesh, monkeypatch, backup.set, full))

    async def gone():
        return await shown(mesh) == [kept.set]

    await wait_for_async(gone, 60, what="the set is known to be deleted")


async def test_where_the_server_that_deleted_does_not_come_back_the_next_pass_of_expiry_finds_it_out(
    memory_mesh, tmp_path, monkeypatch
):
    mesh = await memory_mesh(3)
    paths = dict.fromkeys(("beta", "gamma"), str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    await mesh.call("alpha", "device.add", q.DeviceAdd("disk", "shared", paths), v.DeviceView)
    await brief(mesh)
    tree = make_tree(tmp_path / "data", files=5)
    older, newer = [(await made(mesh, tree, media_set="brief")).set for _ in range(2)]
    asked = await untold(mesh, monkeypatch, older, asyncio.Event().wait)
    await mesh.stop("beta")
    with contextlib.suppress(CasoError):
        await asked
    assert sorted(await shown(mesh)) == sorted([older, newer])

    async def passed():
        expired = await mesh.call("alpha", "set.expire", q.Nothing(), b.Expired)
        return expired.paused is None and await shown(mesh) == [newer]

    await wait_for_async(passed, 900, every_s=5, what="gamma has told what beta deleted")
