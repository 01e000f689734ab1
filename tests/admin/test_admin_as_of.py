"""Which set a restore of a place takes: the newest one that can be read now and is whole, or a copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from admin.test_admin_inventory import begun

from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.device_jobs import Inventoried
from caso_mesh.model.device_work import DeviceLacks
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import DeviceAway, NoneReadable, NoneWhole
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState
from caso_mesh.model.storage import BackupSet

pytestmark = pytest.mark.jumping


async def backed_up(w, device="dbeta", **fields) -> BackupSet:
    attempt = await w.delegated(await w.backup(to=f"device:{device}"))
    backup = w.made_set(attempt, vault=f"v-{device[1:]}", **fields)
    await w.report(device[1:], *w.success(attempt, backup))
    return backup


async def copied(w, backup: BackupSet, device: str) -> BackupSet:
    """A copy of a set on another device, with the times of that set."""
    attempt = await w.delegated(await w.backup(to=f"device:{device}"))
    times = {"started_at_ns": backup.started_at_ns, "ended_at_ns": backup.ended_at_ns}
    copy = w.made_set(attempt, vault=f"v-{device[1:]}", copy_of=backup.id, **times)
    await w.report(device[1:], *w.success(attempt, copy))
    return copy


async def lacks(w, device: str, *sets: BackupSet) -> None:
    """An inventory of the device finds all but these."""
    (attempt,) = await begun(w, device)
    await w.node_call(attempt.server, "device.lacks", DeviceLacks(attempt.id, tuple(each.id for each in sets)))
    found = Inventoried(1, 0, len(sets), 0, 0, ("BETA-000001",), 1, 0, 0, 3, 300, 10, 20)
    await w.report(device[1:], w.end(attempt, AttemptState.SUCCEEDED, found=found))


DAMAGE = Failure("data-damaged", {"object": "the set", "detail": "2 places: /srv/a, /srv/b"})


async def verified(w, backup: BackupSet, *, whole: bool) -> str:
    """The run that reads a set back and finds it whole, or not."""
    run = (await w.ask("verify", q.VerifyRequest(backup.id))).run
    attempt = await w.delegated(run)
    end = {} if whole else {"failure": DAMAGE}
    state = AttemptState.SUCCEEDED if whole else AttemptState.FAILED
    await w.report(backup.device.removeprefix("dev-"), w.end(attempt, state, **end))
    await w.until(lambda: w.state.runs[run].closed_at_ns)
    return str(run)


async def looked_into(w) -> c.CatalogChoice:
    return await w.ask("catalog.as-of", c.CatalogAsOf("alpha", b"/srv"))


async def chosen(w) -> b.SetChoice:
    return await w.ask("set.as-of", b.SetAsOf("alpha", (b"/srv",)))


async def test_a_set_that_an_inventory_did_not_find_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    """It was chosen, and the restore failed, with an older set beside it that was whole."""
    async with admin_world(tmp_path) as w:
        older, newer = await backed_up(w), await backed_up(w)
        assert (await chosen(w)).id == newer.id
        await lacks(w, "dbeta", newer)
        found = await chosen(w)
        assert found.id == older.id
        (warning,) = found.warnings
        assert newer.id in warning
        assert "dbeta did not find it" in warning
        await w.another_office()
        assert (await chosen(w)).id == older.id, "another administrator knows it as well"


async def test_a_copy_on_another_device_is_taken_before_an_older_set(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await backed_up(w)
        newer = await backed_up(w)
        copy = await copied(w, newer, "dgamma")
        await lacks(w, "dbeta", newer)
        found = await chosen(w)
        assert (found.id, found.device, found.warnings) == (copy.id, "dgamma", ())
        await lacks(w, "dbeta")
        w.problem["dev-gamma"] = "device-missing"
        await w.heartbeat(node("gamma"))
        assert (await chosen(w)).id == newer.id
        w.problem = {"dev-beta": "device-missing"}
        await w.heartbeat(node("gamma"))
        await w.heartbeat(node("beta"))
        assert (await chosen(w)).id == copy.id


async def test_where_none_can_be_read_each_reason_is_told_by_name(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        one, two = await backed_up(w), await backed_up(w)
        w.problem["dev-beta"] = "device-missing"
        await w.heartbeat(node("beta"))
        with pytest.raises(DeviceAway) as away:
            await chosen(w)
        assert "dbeta" in away.value.message
        w.problem.clear()
        await w.heartbeat(node("beta"))
        other = await backed_up(w, "dgamma")
        await lacks(w, "dbeta", one, two)
        w.problem["dev-gamma"] = "device-missing"
        await w.heartbeat(node("gamma"))
        with pytest.raises(NoneReadable) as caught:
            await chosen(w)
        message = caught.value.message
        assert "3 sets" in message
        assert f"set {other.id}: no server reaches its device dgamma now" in message
        assert f"set {two.id}: the last inventory of its device dbeta did not find it there" in message
        assert one.id not in message


async def test_a_set_that_a_verify_found_damaged_is_passed_over_until_one_finds_it_whole(tmp_path: Path) -> None:
    """It was chosen, and files were left out that an older set, or a copy of it, had whole."""
    async with admin_world(tmp_path) as w:
        older, newer = await backed_up(w), await backed_up(w)
        run = await verified(w, newer, whole=False)
        found = await chosen(w)
        assert found.id == older.id
        (warning,) = found.warnings
        assert f"the newer set {newer.id}" in warning
        assert f"the run {run} found it damaged (the set is damaged: 2 places: /srv/a, /srv/b)" in warning
        shown = await looked_into(w)
        assert (shown.set, shown.warnings) == (older.id, (warning,)), "what is looked into is what would be restored"
        rows = {row.id: row for row in (await w.ask("set.list", q.SetListRequest())).sets}
        assert (rows[newer.id].damaged, rows[older.id].damaged) == (True, False)
        assert "last-good" in rows[older.id].kept_by
        assert "last-good" not in rows[newer.id].kept_by
        await w.another_office()
        assert (await chosen(w)).id == older.id, "another administrator knows it as well"
        copy = await copied(w, newer, "dgamma")
        found = await chosen(w)
        assert (found.id, found.warnings) == (copy.id, ()), "a whole copy of it goes before an older one"
        await verified(w, newer, whole=True)
        await verified(w, copy, whole=False)
        assert (await chosen(w)).id == newer.id


async def test_where_only_a_damaged_set_is_left_it_is_named_with_the_command_that_restores_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        only = await backed_up(w)
        run = await verified(w, only, whole=False)
        with pytest.raises(NoneWhole) as caught:
            await w.ask("set.as-of", b.SetAsOf("alpha", (b"/srv/my data",)))
        assert f"set {only.id}: the run {run} found it damaged" in caught.value.message
        assert "2 places: /srv/a, /srv/b" in caught.value.message
        assert f"caso-mesh restore {only.id} '/srv/my data'" in caught.value.hint
        assert f"caso-mesh verify {only.id}" in caught.value.hint
        shown = await looked_into(w)
        assert shown.set == only.id
        assert "no good to be restored" in shown.warnings[0]
        (row,) = (await w.ask("set.list", q.SetListRequest())).sets
        assert row.kept_by == ("last-good",), "what can be restored at all does not go by itself"
        submitted = await w.ask("restore", q.RestoreRequest(only.id, to=("alpha", b"/back")))
        attempt = await w.delegated(submitted.run)
        assert (attempt.device, attempt.set) == ("dev-beta", ""), "by its id it is restored all the same"


async def test_a_backup_that_reads_back_what_it_wrote_and_finds_it_damaged_is_not_restored_by_time(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        older = await backed_up(w)
        attempt = await w.delegated(await w.backup(to="device:dbeta", verify=True))
        newer = w.made_set(attempt, vault="v-beta")
        began, published, _ = w.success(attempt, newer)
        await w.report("beta", began, published, w.end(attempt, AttemptState.FAILED, set=newer.id, failure=DAMAGE))
        await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)
        assert (await chosen(w)).id == older.id
        await verified(w, newer, whole=True)
        assert (await chosen(w)).id == newer.id


async def test_what_a_drill_or_a_restore_found_damaged_counts_until_all_of_the_set_was_read_and_is_whole(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        older, newer = await backed_up(w), await backed_up(w)

        async def read(call: str, request, *bad: bytes) -> None:
            attempt = await w.delegated((await w.ask(call, request)).run)
            hit = tuple(SourceException(path, "damaged", "it is not what it was") for path in bad)
            state = AttemptState.SUCCEEDED_WITH_EXCEPTIONS if bad else AttemptState.SUCCEEDED
            await w.report("beta", facts.AttemptExceptions(attempt.id, hit), w.end(attempt, state))
            await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)

        for call, request in (
            ("restore", q.RestoreRequest(newer.id, to=("alpha", b"/back"))),
            ("drill", q.DrillRequest(newer.id, server="alpha")),
        ):
            await read(call, request, b"srv/a", b"srv/b")
            found = await chosen(w)
            assert found.id == older.id
            assert "2 places: /srv/a, /srv/b" in found.warnings[0]
            await read("drill", q.DrillRequest(newer.id, server="alpha"))
            assert (await chosen(w)).id == older.id, "a sample that is whole says nothing of the rest"
            await verified(w, newer, whole=True)
            assert (await chosen(w)).id == newer.id


async def test_a_restore_by_id_of_a_set_that_is_missing_reads_a_copy_that_is_whole_if_there_is_one(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        backup = await backed_up(w)
        bad, copy = await copied(w, backup, "dgamma"), await copied(w, backup, "dgamma")
        await lacks(w, "dbeta", backup)
        await verified(w, bad, whole=False)
        submitted = await w.ask("restore", q.RestoreRequest(backup.id, to=("alpha", b"/back")))
        attempt = await w.delegated(submitted.run)
        assert (attempt.device, attempt.set) == ("dev-gamma", copy.id)
