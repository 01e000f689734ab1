"""Reports of a mesh in which something happened: each is made of real rows, and shows nobody more than he may see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.admin import reporting
from caso_mesh.admin.state_rows import Seen, server_rows
from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import InvalidValue, NotFound, OutsideScope, UnknownZone
from caso_mesh.model.jobs import Failure
from caso_mesh.model.reports import Report, ReportShow
from caso_mesh.model.resources import FileSystem
from caso_mesh.model.states import AttemptState, Role
from caso_mesh.reports import catalogue

pytestmark = pytest.mark.jumping


async def report(w: World, name: str, person: Peer | None = None, **fields: Any) -> Report:
    found = await w.ask("report.show", ReportShow(name, **fields), person=person)
    assert isinstance(found, Report)
    return found


def rows(found: Report, table: str) -> list[dict[str, Any]]:
    (one,) = (each for each in found.tables if each.name == table)
    names = [column.name for column in one.columns]
    return [dict(zip(names, row, strict=True)) for row in one.rows]


def figure(found: Report, name: str) -> Any:
    return next(each.value for each in found.figures if each.name == name)


async def succeed(w: World, source: str, **fields: Any) -> str:
    run = await w.backup(source, **fields)
    attempt = await w.delegated(run)
    await w.report(attempt.server.removeprefix("node-"), *w.success(attempt))
    await w.until(lambda: w.state.runs[run].closed_at_ns)
    return run


async def fail(w: World, source: str, code: str = "device-full", **fields: Any) -> str:
    run = await w.backup(source, **fields)
    attempt = await w.delegated(run)
    ended = w.end(attempt, AttemptState.FAILED, failure=Failure(code, {"device": "dbeta"}))
    await w.report(attempt.server.removeprefix("node-"), ended)
    await w.until(lambda: w.state.runs[run].closed_at_ns)
    return run


def limited(server: str) -> Peer:
    return Peer(id="v", name="vic", kind="operator", role=None, server_roles=((node(server), Role.VIEWER),))


async def test_the_summary_of_a_night_says_first_what_needs_somebody(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await succeed(w, "beta", name="good", to="device:dbeta")
        run = await fail(w, "gamma", name="bad", to="device:dgamma")
        found = await report(w, "overnight-summary", zone="Europe/Berlin")
        assert not found.good
        assert "1 of 2 backups ended well" in found.verdict
        assert any(need.command == f"caso-mesh why {run}" for need in found.needs)
        (wrong,) = rows(found, "wrong")
        assert (wrong["job"], wrong["source"], wrong["state"]) == ("bad", "gamma", "failed")
        assert "full" in wrong["error"]
        assert figure(found, "bad") == 1
        assert figure(found, "stored") == 0


async def test_what_was_made_up_for_needs_nobody_any_more(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await fail(w, "beta", name="j", to="device:dbeta")
        await asyncio.sleep(5)
        again = await w.ask("job.run", q.JobName("j"))
        attempt = await w.delegated(again.run)
        await w.report("beta", *w.success(attempt))
        await w.until(lambda: w.state.runs[again.run].closed_at_ns)
        found = await report(w, "failed-jobs")
        (row,) = rows(found, "failed")
        assert row["made_up"] is not None
        assert found.good
        assert found.needs == ()


@pytest.mark.parametrize("name", [each.name for each in catalogue.REPORTS])
async def test_every_report_can_be_asked_for(tmp_path: Path, name: str) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(("beta:/home",))))
        full = TemplateDoc("full", to="device:dbeta", schedule="daily 00:06")
        await w.ask("policy.create", q.PolicyCreate("nightly", PolicyDoc({"full": full})))
        await w.ask("associate", q.AssociationEdit("home", "nightly"))
        attempt = await w.until(lambda: next(iter(w.state.active_attempts()), None), 500)
        await w.report("beta", *w.success(attempt))
        await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)
        found = await report(w, name)
        assert (found.name, found.mesh, found.zone) == (name, "home", "UTC")
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Report) == found
        of_list = await report(w, name, selection="home", pool="p", server="beta")
        assert of_list.limits == ("the server beta", "the pool p", "the list home")


async def test_whoever_may_see_one_server_sees_only_what_concerns_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await succeed(w, "beta", name="mine", to="device:dbeta")
        await fail(w, "gamma", name="theirs", to="device:dgamma")
        for each in catalogue.REPORTS:
            if each.whole_mesh:
                with pytest.raises(OutsideScope):
                    await report(w, each.name, limited("beta"))
                continue
            found = await report(w, each.name, limited("beta"))
            told = msgspec.json.encode(found).decode()
            assert "theirs" not in told, each.name
            assert "gamma" not in told, each.name
            assert found.limits == ("the servers that you may see",)
        listed = await w.ask("report.list", q.Nothing(), person=limited("beta"))
        assert {each.name for each in listed.reports} == {
            each.name for each in catalogue.REPORTS if not each.whole_mesh
        }
        assert rows(await report(w, "jobs-summary", limited("beta")), "jobs")[0]["job"] == "mine"
        assert not rows(await report(w, "jobs-summary", limited("gamma"), server="beta"), "jobs")


async def test_a_question_that_means_nothing_is_refused(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for fields, error in (
            ({"name": "nonsense"}, NotFound),
            ({"name": "failed-jobs", "server": "nobody"}, NotFound),
            ({"name": "failed-jobs", "selection": "nothing"}, NotFound),
            ({"name": "failed-jobs", "days": 0.0}, InvalidValue),
            ({"name": "failed-jobs", "since_ns": 5, "until_ns": 5}, InvalidValue),
            ({"name": "failed-jobs", "zone": "Mars/Olympus"}, UnknownZone),
        ):
            with pytest.raises(error):
                await report(w, **fields)


async def test_a_report_that_is_too_large_for_the_wire_is_cut_and_says_so(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for number in range(12):
            await succeed(w, "beta", name=f"job-{number:02}", to="device:dbeta")
        found = await report(w, "jobs-summary")
        small = reporting.within(found, 2500)
        assert len(msgspec.msgpack.encode(small)) <= 2500
        (before,) = (each for each in found.tables if each.name == "jobs")
        (after,) = (each for each in small.tables if each.name == "jobs")
        assert after.rows == before.rows[: len(after.rows)]
        assert after.more == len(before.rows) - len(after.rows) > 0
        limit = await report(w, "jobs-summary", limit=5)
        assert [(len(each.rows), each.more) for each in limit.tables if each.name == "jobs"] == [(5, 7)]


async def listed(w: World, schedule: str = "daily 00:06", **fields: Any) -> None:
    await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(("beta:/home",), **fields)))
    full = TemplateDoc("full", to="device:dbeta", schedule=schedule)
    await w.ask("policy.create", q.PolicyCreate("nightly", PolicyDoc({"full": full})))
    await w.ask("associate", q.AssociationEdit("home", "nightly"))


async def test_the_age_that_is_allowed_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await listed(w)
        (row,) = rows(await report(w, "missed-backups"), "ages")
        assert (row["state"], row["newest"], row["allowed_s"]) == ("not due yet", None, 2 * 86400 + 4 * 3600)
        assert "between due times" in row["origin"]
        assert (await report(w, "missed-backups")).good
        attempt = await w.until(lambda: next(iter(w.state.active_attempts()), None), 500)
        found = await report(w, "missed-backups")
        assert (found.good, rows(found, "ages")[0]["state"]) == (True, "first under way")
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)
        (row,) = rows(await report(w, "missed-backups"), "ages")
        assert (row["state"], row["set"]) == ("in time", backup.id)
        await w.ask("selection.set", q.SelectionSet("home", SelectionDoc(("beta:/home",), oldest_good="never")))
        (row,) = rows(await report(w, "missed-backups"), "ages")
        assert (row["state"], row["origin"]) == ("any age", "set to never")
        shown = await w.ask("selection.show", q.Named("home"))
        assert shown.definition.oldest_good == "never"


async def test_a_list_whose_first_backup_failed_was_never_backed_up_and_no_report_is_green(tmp_path: Path) -> None:
    """The report said that no backup was overdue, two days long, of a list that had never been backed up."""
    async with admin_world(tmp_path) as w:
        await listed(w)
        attempt = await w.until(lambda: next(iter(w.state.active_attempts()), None), 500)
        await w.report("beta", w.end(attempt, AttemptState.FAILED, failure=Failure("no-such-path", {"path": "/home"})))
        await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)
        found = await report(w, "missed-backups")
        (row,) = rows(found, "ages")
        assert (row["state"], found.good, figure(found, "never"), figure(found, "overdue")) == (
            "never backed up", False, 1, 0,
        )  # fmt: skip
        assert "1 server of a list has no good backup at all" in found.verdict
        assert found.needs[0].text.startswith("beta of the list home: it was never backed up; the first was due ")
        night = await report(w, "overnight-summary")
        assert not night.good
        assert any("never backed up" in need.text for need in night.needs)
        job = next(each for each in w.state.jobs.values() if each.origin is not None)
        await w.ask("job.hold", q.JobName(job.name))
        assert rows(await report(w, "missed-backups"), "ages")[0]["state"] == "never backed up", "it was due"
        await w.ask("selection.set", q.SelectionSet("home", SelectionDoc(("beta:/home",), oldest_good="never")))
        assert (await report(w, "missed-backups")).good, "somebody has said that it need not be there"


async def test_a_set_that_a_verify_found_damaged_is_no_good_backup(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await listed(w, oldest_good="10m")
        attempt = await w.until(lambda: next(iter(w.state.active_attempts()), None), 500)
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)
        submitted = await w.ask("verify", q.VerifyRequest(backup.id))
        check = await w.delegated(submitted.run)
        damage = Failure("data-damaged", {"object": "packs/1", "detail": "it is not what it was"})
        await w.report("beta", w.end(check, AttemptState.FAILED, failure=damage))
        await w.until(lambda: w.state.runs[submitted.run].closed_at_ns)
        (row,) = rows(await report(w, "missed-backups"), "ages")
        assert (row["set"], row["state"]) == (None, "none any more")
        required = await report(w, "media-required-for-recovery")
        assert [each["set"] for each in rows(required, "required")] == [backup.id], "there is nothing else"
        assert "the only sets are damaged" in required.needs[0].text
        again = await w.ask("verify", q.VerifyRequest(backup.id))
        check = await w.delegated(again.run)
        await w.report("beta", w.end(check, AttemptState.SUCCEEDED))
        await w.until(lambda: w.state.runs[again.run].closed_at_ns)
        (row,) = rows(await report(w, "missed-backups"), "ages")
        assert row["set"] == backup.id


async def test_what_no_list_names_is_told_with_what_servers_say_of_themselves(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await listed(w)
        systems = (
            FileSystem(b"", "ext4", 100, 50), FileSystem(b"home", "xfs", 100, 50), FileSystem(b"mnt/beta", "ext4", 9, 1),
            FileSystem(b"srv/\xff", "ext4", 100, 20),
        )  # fmt: skip
        await w.report("beta", facts.FileSystems(systems))
        found = await report(w, "resource-protection")
        told = {(row["server"], row["path"]): row["cover"] for row in rows(found, "resources")}
        assert told == {
            ("beta", "/"): "partly-covered", ("beta", "/home"): "covered", ("beta", "/srv/\\xff"): "unprotected",
            ("alpha", None): "unknown", ("gamma", None): "unknown",
        }  # fmt: skip
        assert {row["server"] for row in rows(found, "servers")} == {"alpha", "gamma"}
        assert figure(found, "bare") == 1
        await w.report("beta", facts.FileSystems(systems[:2]))
        assert figure(await report(w, "resource-protection"), "bare") == 0


async def test_a_copy_on_another_device_belongs_to_the_list_of_its_set(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await listed(w)
        attempt = await w.until(lambda: next(iter(w.state.active_attempts()), None), 500)
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        await w.until(lambda: w.state.runs[attempt.run].closed_at_ns)
        (row,) = rows(await report(w, "media-required-for-recovery"), "required")
        assert (row["selection"], row["device"], row["also_on"]) == ("home", "dbeta", None)
        submitted = await w.ask("duplicate", q.DuplicateRequest(backup.id, "device:dgamma"))
        second = await w.delegated(submitted.run)
        copy = w.made_set(second, copy_of=backup.id, started_at_ns=backup.started_at_ns, ended_at_ns=backup.ended_at_ns)
        await w.report("gamma", *w.success(second, copy))
        await w.until(lambda: w.state.runs[submitted.run].closed_at_ns)
        (row,) = rows(await report(w, "media-required-for-recovery"), "required")
        assert (row["set"], row["device"], row["also_on"]) == (backup.id, "dbeta", "dgamma")
        (row,) = rows(await report(w, "missed-backups"), "ages")
        assert row["set"] in {backup.id, copy.id}, "a copy is as old as its set"


async def test_a_server_that_is_removed_while_a_report_is_made_is_no_row_of_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        told = server_rows(w.state, Seen(node("alpha"), frozenset(), {}), None)
        first = next(told).name
        gone = next(name for name in ("gamma", "beta") if name != first)
        for device in [each for each in w.state.device_list() if each.path_on(node(gone)) is not None]:
            await w.ask("device.remove", q.DeviceName(device.name))
        await w.ask("server.remove", q.ServerName(gone))
        left = [row.name for row in told]
        assert left and gone not in left
