"""Local jobs, copied jobs and settings: what servers do without the administrator, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from mesh.inside import MemoryMesh
from mesh.trees import assert_equal, make_tree
from waiting import wait_for_async

from caso_mesh.admin.ports import Caller
from caso_mesh.identity.roster import Peer
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import CasoError, NotFound, NotOfThisServer, OutsideScope, Refused
from caso_mesh.model.job_edits import JobCopy, JobEdit, JobEdited
from caso_mesh.model.states import BackupType, DeviceState, Role

pytestmark = pytest.mark.jumping

DAY_S = 86400.0


async def a_site(memory_mesh: Any, tmp_path: Any) -> tuple[MemoryMesh, Any]:
    """alpha, the administrator, and beta with a device and a tree that the list ``home`` names."""
    tree = make_tree(tmp_path / "data", files=20)
    mesh: MemoryMesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await mesh.call(
        "alpha", "selection.create", q.SelectionCreate("home", SelectionDoc(paths=(f"beta:{tree}",))), v.SelectionView
    )
    return mesh, tree


async def a_policy(mesh: MemoryMesh, name: str, schedule: str | None, *, media_set: str = "keep-4-weeks") -> None:
    template = TemplateDoc("incremental", to="device:disk-beta", schedule=schedule, media_set=media_set)
    doc = PolicyDoc(templates={"often": template})
    await mesh.call("alpha", "policy.create", q.PolicyCreate(name, doc), v.PolicyView)


async def copy_to(mesh: MemoryMesh, target: str = "server:beta", **what: Any) -> v.Copied:
    return await mesh.call("alpha", "copy.to", q.CopyTo(target, **what), v.Copied)


async def outcomes(mesh: MemoryMesh, number: int) -> list[tuple[str, str, str]]:
    """What came of the newest copy, once that many were taken."""

    async def taken() -> list[v.CopyView]:
        copies = (await mesh.call("alpha", "copy.list", q.CopyListRequest("beta"), v.CopyList)).copies
        return list(copies) if len(copies) == number and copies[0].state == "taken" else []

    newest = (await wait_for_async(taken, 60.0, every_s=0.2, what=f"copy {number} is taken"))[0]
    return [(each.kind, each.name, each.came) for each in newest.outcomes]


async def own_jobs(mesh: MemoryMesh, state: str | None = None, at: str = "beta") -> tuple[o.JobView, ...]:
    return (await mesh.call(at, "local.job.list", q.JobListRequest(state), o.JobList)).jobs


def later(mesh: MemoryMesh, seconds: float) -> None:
    """The clocks of all servers are set: nothing has to be lived through meanwhile. For a minute after it was noticed,
    which takes up to half a minute, nothing that is due is opened."""
    for clock in mesh.clocks.values():
        clock.wall_offset_s += seconds


async def back(mesh: MemoryMesh, name: str = "alpha") -> None:
    """It is up again, and so is all that needs an administrator."""
    await mesh.run(name)

    async def connected() -> bool:
        try:
            return all(row.connected and row.state == "enabled" for row in await mesh.servers())
        except CasoError:
            await mesh.hang_up()
            return False

    await wait_for_async(connected, 60.0, every_s=0.1, what="alpha and beta are at work")


async def own_ended(mesh: MemoryMesh, number: int, timeout_s: float = 300.0) -> list[o.JobView]:
    """The runs of beta's own that have ended, once there are so many, the first of them first."""

    async def ended() -> list[o.JobView]:
        rows = await own_jobs(mesh, "ended")
        return list(rows)[::-1] if len(rows) >= number else []

    return await wait_for_async(ended, timeout_s, every_s=2.0, what=f"{number} runs of beta's own")


async def test_copied_jobs_run_by_the_local_schedule_without_any_connection_and_report_once_when_one_comes_back(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path)
    await a_policy(mesh, "hourly", "hourly :30")
    await copy_to(mesh, policies=("hourly",), selections=("home",))
    assert await outcomes(mesh, 1) == [("selection-list", "home", "made"), ("policy", "hourly", "made")]
    assert await mesh.jobs() == (), "at the administrator they are associated with nothing"
    (due,) = await own_jobs(mesh)
    assert (due.name, due.state) == ("home.hourly.often", "scheduled")

    await mesh.stop("alpha")
    later(mesh, 3600.0)
    await own_ended(mesh, 1)
    later(mesh, 3600.0)
    done = await own_ended(mesh, 2)
    assert [(row.state, row.server, row.source) for row in done] == [("succeeded", "beta", "beta")] * 2
    assert [row.due[14:] for row in done] == ["30:00Z"] * 2
    # its daemon starts again with nobody there, and goes on
    await mesh.stop("beta")
    await mesh.run("beta")
    later(mesh, 3600.0)
    done = await own_ended(mesh, 3)
    assert [row.type for row in done] == ["full", "incremental", "incremental"]

    await back(mesh)

    async def arrived() -> bool:
        return len(await mesh.jobs(state="ended")) >= 3 and len(await mesh.sets()) >= 3

    await wait_for_async(arrived, 60.0, every_s=0.2, what="the facts of beta have arrived")
    shown = sorted((row for row in await mesh.jobs(state="ended")), key=lambda row: row.due or "")
    assert [(row.run, row.name, row.state, row.local) for row in shown] == [
        (row.run, "home.hourly.often", "succeeded", True) for row in done
    ]
    sets = sorted(await mesh.sets(), key=lambda row: row.ended)
    assert [row.run for row in sets] == [row.run for row in done], "each set once"
    detail = await mesh.call("alpha", "job.show", q.JobName(str(shown[0].run)), o.JobDetail)
    assert detail.runs[-1].attempts[0].set == sets[0].id
    log = await mesh.call("alpha", "job.log", q.JobLogRequest(str(shown[0].run)), o.JobLogView)
    assert log.attempts[0].lines

    base = mesh.folder / "back"
    request = q.RestoreRequest(set=sets[0].id, to=("alpha", bytes(base)))
    result = await mesh.result(str((await mesh.call("alpha", "restore", request, o.Submitted)).run))
    assert result.state == "succeeded", result
    assert_equal(tree, base / str(tree).lstrip("/"))


async def test_copies_to_a_server_that_is_away_are_kept_and_come_when_it_returns_in_their_order(memory_mesh, tmp_path):
    mesh, _ = await a_site(memory_mesh, tmp_path)
    await a_policy(mesh, "asked", None)
    await mesh.stop("beta")
    await copy_to(mesh, selections=("home",))
    await copy_to(mesh, policies=("asked",), selections=("home",), overwrite=True)
    waiting = (await mesh.call("alpha", "copy.list", q.CopyListRequest(), v.CopyList)).copies
    assert [(row.state, row.outcomes) for row in waiting] == [("waiting", ())] * 2
    assert waiting[0].number > waiting[1].number
    await back(mesh, "beta")
    assert await outcomes(mesh, 2) == [("selection-list", "home", "overwritten"), ("policy", "asked", "made")]
    (policy,) = (await mesh.call("beta", "local.policy.list", q.Nothing(), v.PolicyViews)).policies
    assert (policy.name, policy.jobs) == ("asked", ("home.asked.often",))


async def test_a_name_that_is_taken_at_the_server_is_skipped_or_overwritten(memory_mesh, tmp_path):
    mesh, _ = await a_site(memory_mesh, tmp_path)
    await a_policy(mesh, "asked", None)
    await copy_to(mesh, policies=("asked",), selections=("home",))
    await outcomes(mesh, 1)
    template = TemplateDoc("full", to="device:disk-beta", media_set="keep-infinitely")
    await mesh.call("alpha", "policy.set", q.PolicySet("asked", PolicyDoc({"often": template})), v.PolicyView)

    async def media_set() -> str:
        (policy,) = (await mesh.call("beta", "local.policy.list", q.Nothing(), v.PolicyViews)).policies
        return policy.definition.templates["often"].media_set

    await copy_to(mesh, policies=("asked",), selections=("home",))
    assert await outcomes(mesh, 2) == [("selection-list", "home", "skipped"), ("policy", "asked", "skipped")]
    assert await media_set() == "keep-4-weeks"
    await copy_to(mesh, policies=("asked",), selections=("home",), overwrite=True)
    assert await outcomes(mesh, 3) == [("selection-list", "home", "overwritten"), ("policy", "asked", "overwritten")]
    assert await media_set() == "keep-infinitely"


async def test_of_a_pool_those_servers_are_left_out_that_could_do_nothing_with_a_copy(memory_mesh, tmp_path):
    mesh, _ = await a_site(memory_mesh, tmp_path)
    await mesh.add_pool("store", "alpha", "beta")
    copied = await copy_to(mesh, "pool:store", selections=("home",))
    assert [row.server for row in copied.copies] == ["beta"]
    assert [(each.server, each.error["code"]) for each in copied.refused] == [("alpha", "usage")]


async def test_an_operator_at_a_servers_own_console_creates_and_controls_jobs_there_while_nobody_is_in_office(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path)
    await mesh.stop("alpha")

    async def own(call: str, request: Any, reply: Any) -> Any:
        return await mesh.call("beta", f"local.{call}", request, reply)

    sources = (("beta", bytes(tree)),)
    made = await own("backup", q.BackupRequest(sources, "device:disk-beta", BackupType.FULL), o.Submitted)
    (done,) = await own_ended(mesh, 1, 60.0)
    assert (done.run, done.state) == (made.run, "succeeded")
    progress = await own("run.follow", q.RunFollow(made.run, 5.0, True), o.RunProgress)
    assert progress.result is not None
    set_id = progress.result.set
    assert (await own("job.log", q.JobLogRequest(made.run), o.JobLogView)).attempts
    base = mesh.folder / "back"
    asked = await own("restore", q.RestoreRequest(set_id, to=("beta", bytes(base))), o.Submitted)
    await own_ended(mesh, 2, 60.0)
    assert (await own("job.show", q.JobName(asked.run), o.JobDetail)).runs[0].state == "succeeded"
    assert_equal(tree, base / str(tree).lstrip("/"))

    recurring = q.BackupRequest(sources, "any", schedule="hourly :15", name="mine")
    assert (await own("backup", recurring, o.Submitted)).next_due is not None
    await own("job.hold", q.JobName("mine"), v.Done)
    assert [(row.name, row.state) for row in await own_jobs(mesh)] == [("mine", "on-hold")]
    await own("job.release", q.JobName("mine"), v.Done)
    copied = await own("job.copy", JobCopy("mine", "second"), JobEdited)
    assert (copied.name, copied.schedule) == ("second", "hourly :15")
    edited = await own("job.edit", JobEdit("second", type=BackupType.FULL, clear=("schedule",)), JobEdited)
    assert (edited.job, edited.schedule, edited.next_due) == (copied.job, None, None)
    later(mesh, 3600.0)
    assert [row.type for row in await own_ended(mesh, 3)][2:] == ["incremental"], "only the first one has a schedule"
    await own("job.run", q.JobName("second"), o.Submitted)
    assert [row.type for row in await own_ended(mesh, 4)][3:] == ["full"]
    for name in ("mine", "second"):
        await own("job.delete", q.JobName(name), v.Done)
    assert await own_jobs(mesh) == ()


async def test_local_control_is_refused_with_the_reason_where_it_is_not_allowed(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path)
    await mesh.add_device("alpha")
    with pytest.raises(NotOfThisServer):
        await mesh.call("beta", "local.backup", q.BackupRequest((("alpha", bytes(tree)),), "any"), o.Submitted)
    with pytest.raises(NotFound, match="disk-alpha"):
        request = q.BackupRequest((("beta", bytes(tree)),), "device:disk-alpha")
        await mesh.call("beta", "local.backup", request, o.Submitted)
    # what was refused anew is refused as a change as well
    mine = q.BackupRequest((("beta", bytes(tree)),), "any", schedule="hourly :15", name="mine")
    await mesh.call("beta", "local.backup", mine, o.Submitted)
    with pytest.raises(NotOfThisServer):
        await mesh.call("beta", "local.job.edit", JobEdit("mine", sources=(("alpha", bytes(tree)),)), JobEdited)
    with pytest.raises(NotFound, match="disk-alpha"):
        await mesh.call("beta", "local.job.edit", JobEdit("mine", target="device:disk-alpha"), JobEdited)
    # the operator of beta is nobody at alpha, and alpha hands nothing of the kind on
    made = await mesh.call("beta", "local.backup", q.BackupRequest((("beta", bytes(tree)),), "any"), o.Submitted)
    with pytest.raises(OutsideScope):
        await mesh.call("alpha", "local.job.cancel", q.JobCancel(str(made.run)), v.Done, by="beta")
    link = mesh.nodes["alpha"].links.get(mesh.nodes["beta"].server.keys.id)
    with pytest.raises(Refused, match="asked of it"):
        await link.call("call.signed", mesh.signed("alpha", "local.job.list", q.JobListRequest()))


async def test_jobs_of_a_servers_own_do_not_show_at_the_administrator_without_monitoring(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path)
    await mesh.call("alpha", "settings.set", q.SettingSet("local-job-monitoring", "0", server="beta"), v.SettingList)
    made = await mesh.call("beta", "local.backup", q.BackupRequest((("beta", bytes(tree)),), "any"), o.Submitted)
    await own_ended(mesh, 1, 60.0)

    async def arrived() -> bool:
        return bool(await mesh.sets())

    await wait_for_async(arrived, 60.0, every_s=0.2, what="its set has arrived")
    assert await mesh.jobs(state="all") == ()
    with pytest.raises(NotFound):
        await mesh.call("alpha", "job.show", q.JobName(str(made.run)), o.JobDetail)
    await mesh.call("alpha", "settings.set", q.SettingSet("local-job-monitoring", None, server="beta"), v.SettingList)
    assert [row.run for row in await mesh.jobs(state="all")] == [made.run]


async def test_a_server_that_nobody_has_confirmed_for_the_life_of_its_certificate_begins_nothing_by_itself(
    memory_mesh, tmp_path
):
    mesh, _ = await a_site(memory_mesh, tmp_path)
    await a_policy(mesh, "hourly", "hourly :00")
    await copy_to(mesh, policies=("hourly",), selections=("home",))
    await outcomes(mesh, 1)
    await mesh.stop("alpha")
    later(mesh, DAY_S)
    assert [row.state for row in await own_ended(mesh, 1)] == ["succeeded"]
    later(mesh, 8 * DAY_S)

    async def waits() -> list[o.JobView]:
        return [row for row in await own_state(mesh) if row.state == "ready" and row.reason is not None]

    (row,) = await wait_for_async(waits, 300.0, every_s=2.0, what="a run of beta's own waits")
    assert row.reason == "membership-unconfirmed"
    assert "beta" in (row.reason_text or "")
    # its certificate is renewed (a daemon that starts looks at once), and it goes on
    await mesh.run("alpha")
    await mesh.stop("beta")
    await mesh.run("beta")

    async def goes_on() -> bool:
        return [row.state for row in await own_state(mesh, "ended")] == ["succeeded"] * 2

    await wait_for_async(goes_on, 600.0, every_s=2.0, what="its job runs again")


async def test_a_server_that_was_removed_begins_nothing_by_itself_once_a_voter_has_told_it_so(memory_mesh, tmp_path):
    mesh, _ = await a_site(memory_mesh, tmp_path)
    await a_policy(mesh, "hourly", "hourly :00")
    await copy_to(mesh, policies=("hourly",), selections=("home",))
    await outcomes(mesh, 1)
    await mesh.stop("beta")
    await mesh.call("alpha", "server.remove", q.ServerName("beta"), v.Done)
    await mesh.run("beta")

    async def opened() -> bool:
        return mesh.nodes["beta"].local.office is not None

    await wait_for_async(opened, 60.0, every_s=0.2, what="beta's own work is open")
    later(mesh, DAY_S)

    async def waits() -> list[o.JobView]:
        return [row for row in await own_state(mesh) if row.state == "ready" and row.reason is not None]

    (row,) = await wait_for_async(waits, 300.0, every_s=2.0, what="a run of beta's own waits")
    assert (row.reason, row.reason_text) == ("removed-from-mesh", "beta was removed from the mesh")


async def test_the_administrator_is_a_server_as_well_and_runs_jobs_of_its_own_beside_the_office(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path)
    await mesh.add_device("alpha")
    request = q.BackupRequest((("alpha", bytes(tree)),), "device:disk-alpha")
    made = await mesh.call("alpha", "local.backup", request, o.Submitted)

    async def shown() -> list[o.JobView]:
        return [row for row in await mesh.jobs(state="ended") if row.run == made.run and await mesh.sets()]

    (row,) = await wait_for_async(shown, 60.0, every_s=0.2, what="the run is shown")
    assert (row.state, row.local) == ("succeeded", True)
    assert await own_jobs(mesh) == (), "it is nobody else's"


async def test_a_copy_waits_for_the_end_of_a_run_of_what_it_replaces(memory_mesh, tmp_path):
    mesh, _ = await a_site(memory_mesh, tmp_path)
    await a_policy(mesh, "asked", None)
    await copy_to(mesh, policies=("asked",), selections=("home",))
    await outcomes(mesh, 1)
    await mesh.call("alpha", "device.set", q.DeviceSet("disk-beta", DeviceState.PAUSED), v.DeviceView)

    async def paused() -> bool:
        return mesh.nodes["beta"].server.orders.devices[0].state is DeviceState.PAUSED

    await wait_for_async(paused, 30.0, every_s=0.1, what="beta knows that the device is paused")
    run = (await mesh.call("beta", "local.job.run", q.JobName("home.asked.often"), o.Submitted)).run
    other = PolicyDoc({"rarely": TemplateDoc("full", to="device:disk-beta")})
    await mesh.call("alpha", "policy.set", q.PolicySet("asked", other), v.PolicyView)
    await copy_to(mesh, policies=("asked",), selections=("home",), overwrite=True)

    async def waits() -> bool:
        office = mesh.nodes["beta"].local.office
        return office is not None and office.mirror.waits

    await wait_for_async(waits, 30.0, every_s=0.1, what="the copy waits")
    await mesh.call("beta", "local.job.cancel", q.JobCancel(str(run)), v.Done)
    assert ("policy", "asked", "overwritten") in await outcomes(mesh, 2)
    (policy,) = (await mesh.call("beta", "local.policy.list", q.Nothing(), v.PolicyViews)).policies
    assert policy.jobs == ("home.asked.rarely",)


async def test_a_server_whose_own_work_cannot_be_opened_says_why_and_goes_on_with_what_is_delegated(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path)
    assert await own_jobs(mesh) == ()
    await mesh.stop("beta")
    folder = mesh.state("beta") / "local"
    good = (folder / "log.db").read_bytes()
    (folder / "log.db").write_bytes(b"no database at all" * 1000)
    await mesh.run("beta")
    await mesh.wait_connected("beta", timeout_s=60.0)

    async def says_why() -> bool:
        try:
            await own_jobs(mesh)
            return False
        except CasoError as error:
            return error.code == "unavailable" and "log.db" in error.message

    await wait_for_async(says_why, 60.0, every_s=0.5, what="beta says why")
    result = await mesh.result(str((await mesh.backup("beta", tree, "device:disk-beta")).run))
    assert result.state == "succeeded"

    async def alerts() -> list[str]:
        found = await mesh.call("alpha", "alert.list", q.AlertListRequest(), v.AlertList)
        return [row.category for row in found.alerts if row.server == "beta"]

    assert "own-work-failed" in await alerts()
    await mesh.stop("beta")
    # its tables are made anew out of the journal
    (folder / "log.db").write_bytes(good)
    (folder / "tables.db").unlink()
    await mesh.run("beta")
    assert await own_jobs(mesh) == ()

    async def is_over() -> bool:
        return "own-work-failed" not in await alerts()

    await wait_for_async(is_over, 60.0, every_s=0.5, what="the alert is over")


async def own_state(mesh: MemoryMesh, state: str | None = None) -> tuple[o.JobView, ...]:
    """The own runs of beta as its office has them: nobody can call it any more when certificates have ended."""
    office = mesh.nodes["beta"].local.office
    if office is None:
        return ()
    try:
        who = Caller("a test", "", "", Peer("", "a test", "operator", Role.ADMIN))
        return (await office.handlers["local.job.list"](who, q.JobListRequest(state))).jobs
    except CasoError:
        return ()
