"""Deleting sets at the administrator: what is in use, what an old database lacks, who may tell of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin.admin_world import admin_world, node

from caso_mesh.admin.live import Live
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Away
from caso_mesh.database import Database
from caso_mesh.model import browsing as b
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import ClocksDiffer, DeviceAway, InUse, Protected

pytestmark = pytest.mark.jumping
DAY_NS = 86400 * 10**9


async def expired_set(w):
    """A set of a run that ended, older than its protection, on the disk of beta."""
    run = await w.backup(to="device:dbeta")
    attempt = await w.delegated(run)
    then = w.clock.now_ns() - 40 * DAY_NS
    backup = w.made_set(attempt, started_at_ns=then, ended_at_ns=then)
    await w.report("beta", *w.success(attempt, backup))
    return backup


async def test_a_set_that_a_run_names_is_in_use_and_one_without_a_server_waits(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await expired_set(w)
        asked: list[n.SetHold] = []

        async def hold(request: n.SetHold) -> v.Done:
            asked.append(request)
            await w.report("beta", facts.SetDeleted(request.set, request.device, request.who, request.request))
            return v.Done()

        w.links.get(node("beta")).answers["set.hold"] = hold
        run = (await w.ask("verify", q.VerifyRequest(backup.id))).run
        with pytest.raises(InUse, match=run):
            await w.ask("set.delete", b.SetName(backup.id))
        await w.ask("job.cancel", q.JobCancel(run))
        attempt = next(iter(w.state.attempts_of(run)), None)
        if attempt is not None:
            from caso_mesh.model.states import AttemptState

            await w.report("beta", w.end(attempt, AttemptState.CANCELED))
        await w.ask("set.delete", b.SetName(backup.id[:20]), id="r1")
        assert (asked[0].device, asked[0].who, asked[0].now_ns <= w.clock.now_ns()) == ("dev-beta", "ann", True)
        assert (await w.ask("set.list", q.SetListRequest())).sets == ()
        await w.ask("set.delete", b.SetName(backup.id[:20]), id="r1")  # asked again: it is done
        assert len(asked) == 1


async def test_a_young_set_is_protected_and_a_device_that_nobody_reaches_is_waited_for(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        young = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, young))
        with pytest.raises(Protected):
            await w.ask("set.delete", b.SetName(young.id))
        old = await expired_set(w)
        w.links.down(node("beta"))
        with pytest.raises(DeviceAway, match="device dbeta cannot be reached now: beta is not connected since 20"):
            await w.ask("set.delete", b.SetName(old.id))


async def test_a_set_is_locked_by_any_clock_and_goes_only_by_one_that_is_right(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await expired_set(w)
        asked: list[str] = []

        async def hold(request: n.SetHold) -> v.Done:
            asked.append(request.hold)
            if request.hold == "tombstone":
                await w.report("beta", facts.SetDeleted(request.set, request.device, request.who, request.request))
            return v.Done()

        w.links.get(node("beta")).answers["set.hold"] = hold
        w.links.offsets_s[node("beta")] = -40.0
        with pytest.raises(ClocksDiffer, match="40 s"):
            await w.ask("set.delete", b.SetName(backup.id))
        await w.ask("set.lock", b.SetLock(backup.id, w.clock.now_ns() + DAY_NS))
        w.links.offsets_s[node("beta")] = 0.0
        await w.ask("set.delete", b.SetName(backup.id))
        assert asked == ["lock", "tombstone"]


async def test_a_catalog_that_is_away_is_read_out_of_its_device_only_while_somebody_reaches_that(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        backup = await expired_set(w)
        away = Away(keeper=w.keeper, live=Live(), links=w.links, clock=w.clock)
        assert f"catalog ls {backup.id} --from-device dbeta" in away.error(node("gamma"), backup).hint
        w.links.down(node("beta"))
        hint = away.error(node("gamma"), backup).hint
        assert "--from-device" not in hint and "beta is not connected since 20" in hint


async def test_only_a_server_that_reaches_the_device_may_tell_that_a_set_is_deleted(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        backup = await expired_set(w)
        await w.report("gamma", facts.SetDeleted(backup.id, "dev-beta", "eve"))
        await w.report("gamma", facts.SetDeleted(backup.id, "dev-gamma", "eve"))
        await w.report("gamma", facts.SetDeleted(backup.id, "no-such-device", "eve"))
        assert [row.id for row in (await w.ask("set.list", q.SetListRequest())).sets] == [backup.id]
        await w.report("beta", facts.SetDeleted(backup.id, "dev-beta", "ann"))
        assert (await w.ask("set.list", q.SetListRequest())).sets == ()


async def test_a_deletion_that_is_heard_before_the_set_counts_all_the_same(tmp_path: Path) -> None:
    """The journals of two servers arrive in any order."""
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        backup = w.made_set(attempt)
        await w.report("gamma", facts.SetDeleted(backup.id, "dev-gamma", "eve"))  # on another device: not this set
        await w.report("beta", *w.success(attempt, backup))
        assert [row.id for row in (await w.ask("set.list", q.SetListRequest())).sets] == [backup.id]
        other = await w.delegated(await w.backup(to="device:dbeta"))
        second = w.made_set(other)
        await w.report("beta", facts.SetDeleted(second.id, "dev-beta", "ann"), *w.success(other, second))
        assert [row.id for row in (await w.ask("set.list", q.SetListRequest())).sets] == [backup.id]


async def test_tables_of_the_first_version_are_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "tables.db"
    async with Database.open(path, MIGRATIONS[:1], durable=False, same_thread=True) as old:
        await old.write(lambda c: c.execute("INSERT INTO backup_set VALUES ('s', x'00', 'a', 'b', 'd', 'x', 1, 2)"))
    async with Database.open(path, MIGRATIONS, durable=False, same_thread=True) as new:
        tables = Tables(new)
        assert await tables.set_ids() == ["s"]
        assert await tables.deleted() == []
        assert await tables.locks() == {}
