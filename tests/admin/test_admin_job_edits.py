"""Jobs that a person made, changed and copied: what is given changes, and is refused as a new job would be."""

from __future__ import annotations

from pathlib import Path

import pytest
from admin.admin_world import admin_world, node
from msgspec import structs

from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.cataloguing import DeviceCatalog
from caso_mesh.model.documents import EntryDoc, PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    InvalidName,
    InvalidSchedule,
    InvalidValue,
    MadeByPolicy,
    NotFound,
    SourcePathMissing,
    UsageError,
)
from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.job_edits import JobCopy, JobEdit
from caso_mesh.model.states import BackupType, Priority, SnapshotMode
from caso_mesh.model.units import format_instant

pytestmark = pytest.mark.jumping

NIGHTLY = q.BackupRequest(
    sources=(("beta", b"/srv/b"), ("gamma", b"/srv/c"), ("gamma", b"/srv/d")),
    target="pool:p",
    type=BackupType.DIFFERENTIAL,
    excludes=("*.tmp",),
    one_file_system=True,
    exclude_caches=True,
    larger_than=10**9,
    default_excludes=False,
    verify=True,
    pre="stop",
    post="start",
    post_always=True,
    ignore_exit_codes=True,
    snapshot=SnapshotMode.AUTO,
    allow_shrink=True,
    priority=Priority.HIGH,
    name="nightly",
    schedule="weekdays 22:00",
    zone="Europe/Berlin",
    exclude_days=("2030-12-24",),
    start_window_s=7200.0,
    cancel_after_s=3600.0,
    catch_up=True,
    second="device:dgamma",
)


async def nightly(w, **changes):
    """A job of which nothing is as usual."""
    request = structs.replace(NIGHTLY, **({"target": "device:dbeta"} | changes))
    return w.state.jobs[(await w.ask("backup", request)).job]


async def edited(w, job, **changes):
    await w.ask("job.edit", JobEdit(job.name, **changes))
    return w.state.jobs[job.id]


async def test_what_is_not_given_stays_to_the_last_field(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        job = await nightly(w)
        after = await edited(w, job, media_set="keep-infinitely")
        spec = structs.replace(job.spec, media_set="keep-infinitely")
        assert after == structs.replace(job, spec=spec)
        assert await edited(w, after, media_set=job.spec.media_set) == job


async def test_each_field_is_what_it_was_said_to_be(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        job = await nightly(w)
        after = await edited(
            w, job, sources=(("alpha", b"/srv/a/"),), target="any", type=BackupType.FULL, excludes=(),
            one_file_system=False, priority=Priority.LOW, clear=("second", "larger_than", "pre", "post"),
        )  # fmt: skip
        (source,) = after.spec.sources
        assert (source.server, source.roots) == (w.state.server_named("alpha").id, (b"srv/a",))
        spec = after.spec
        assert (str(spec.target), spec.type, spec.excludes, spec.one_file_system) == ("any", BackupType.FULL, (), False)
        assert (spec.second, spec.larger_than, spec.pre, spec.post, spec.post_always) == (None, None, None, None, False)
        assert (spec.exclude_caches, spec.verify, after.priority) == (True, True, Priority.LOW)
        assert after.schedule == job.schedule


async def test_a_schedule_is_changed_in_parts_taken_away_and_given_back(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        job = await nightly(w)
        schedule = (await edited(w, job, zone="UTC", clear=("start_window_s",))).schedule
        assert schedule == structs.replace(job.schedule, zone="UTC", start_window_s=None)
        told = await w.ask("job.edit", JobEdit("nightly", schedule="daily 03:00"))
        assert (told.schedule, told.zone) == ("daily 03:00", "UTC")
        assert told.next_due is not None
        assert w.state.jobs[job.id].schedule.excludes == ("2030-12-24",)
        told = await w.ask("job.edit", JobEdit("nightly", clear=("schedule",)))
        assert (told.schedule, told.next_due) == (None, None)
        with pytest.raises(UsageError, match="--catch-up belongs to --schedule"):
            await edited(w, job, catch_up=True)
        back = await edited(w, job, schedule="daily 04:00", catch_up=True)
        assert (back.schedule.text, back.schedule.catch_up, back.schedule.excludes) == ("daily 04:00", True, ())


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({}, UsageError, "Say what shall be different"),
        ({"target": "device:none"}, NotFound, "device"),
        ({"sources": (("delta", b"/srv"),)}, NotFound, "server"),
        ({"sources": ()}, UsageError, "Nothing to back up"),
        ({"media_set": "none"}, NotFound, "media"),
        ({"schedule": "sometimes"}, InvalidSchedule, "sometimes"),
        ({"schedule": "once 2001-01-01T00:00"}, InvalidSchedule, "that time is over"),
        ({"zone": "UTC", "clear": ("schedule",)}, UsageError, "--zone belongs to --schedule"),
        ({"post_always": True, "clear": ("post",)}, UsageError, "--post-always belongs to --post"),
        ({"logon": "db", "clear": ("pre", "post")}, UsageError, "A logon belongs to a command"),
        ({"second": "device:dbeta"}, CasoError, "dbeta"),
        ({"devices": ("dbeta",)}, UsageError, "--device means nothing for the job nightly, which is a backup"),
        ({"pre": "x", "clear": ("pre",)}, UsageError, "--pre"),
        ({"clear": ("target",)}, InvalidValue, "field"),
    ],
)  # fmt: skip
async def test_what_a_new_job_would_be_refused_with_refuses_a_change(tmp_path: Path, changes, error, text) -> None:
    async with admin_world(tmp_path) as w:
        job = await nightly(w)
        with pytest.raises(error) as refused:
            await edited(w, job, **changes)
        assert text in str(refused.value)
        assert w.state.jobs[job.id] == job


async def test_servers_are_asked_about_what_they_are_to_do_anew_and_about_nothing_else(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        job = await nightly(w)

        def missing(request: n.PathCheck) -> n.PathCheckReply:
            raise SourcePathMissing(server="beta", path="/srv/new")

        w.links.get(node("beta")).answers["path.check"] = missing
        assert (await edited(w, job, priority=Priority.LOW)).priority is Priority.LOW
        with pytest.raises(SourcePathMissing):
            await edited(w, job, sources=(("beta", b"/srv/new"),))
        w.links.down(node("beta"))
        told = await w.ask("job.edit", JobEdit("nightly", sources=(("beta", b"/srv/new"),)))
        assert "beta does not answer now" in told.warnings[0]


async def test_catalogs_that_are_made_anew_get_other_devices_and_nothing_of_a_backup(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        asked = DeviceCatalog(("dbeta",), name="monthly", when=ScheduleWords("sun 06:00"))
        job = w.state.jobs[(await w.ask("catalog.remake", asked)).job]
        after = await edited(w, job, devices=("dgamma", "dbeta", "dgamma"), schedule="mon 06:00")
        assert (after.spec.devices, after.schedule.text) == (("dev-gamma", "dev-beta"), "mon 06:00")
        assert (await edited(w, job, devices=())).spec.devices == ()
        for wrong in ({"target": "any"}, {"clear": ("pre",)}):
            with pytest.raises(UsageError, match="means nothing for the job monthly, which is a catalog"):
                await edited(w, job, **wrong)


async def test_of_a_verify_only_the_priority_is_changed_and_nothing_of_a_run(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        submitted = await w.ask("verify", q.VerifyRequest(backup.id))
        job = w.state.jobs[submitted.job]
        assert (await edited(w, job, priority=Priority.LOW)).priority is Priority.LOW
        with pytest.raises(UsageError, match="is a verify: of it only the priority can be changed"):
            await edited(w, job, schedule="daily 22:00")
        with pytest.raises(UsageError, match="name its job"):
            await w.ask("job.edit", JobEdit(submitted.run, priority=Priority.LOW))


async def test_a_copy_does_the_same_by_the_same_schedule_and_is_a_job_of_its_own(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        job = await nightly(w)
        told = await w.ask("job.copy", JobCopy("nightly", "second"))
        copy = w.state.jobs[told.job]
        assert (copy.spec, copy.schedule, copy.priority) == (job.spec, job.schedule, job.priority)
        assert (copy.name, copy.last_due_at_ns, w.state.runs_of(copy.id)) == ("second", None, [])
        await edited(w, copy, target="any", clear=("second",))
        assert w.state.jobs[job.id] == job
        with pytest.raises(AlreadyExists):
            await w.ask("job.copy", JobCopy("second", "nightly"))
        with pytest.raises(InvalidName):
            await w.ask("job.copy", JobCopy("nightly", "No Name"))


async def test_a_copy_of_what_was_once_and_is_over_runs_when_it_is_asked_to(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        at = format_instant(w.clock.now_ns() + 3600 * 10**9)
        assert at is not None
        job = await nightly(w, schedule=f"once {at[:16]}", zone="UTC", catch_up=False, exclude_days=())
        before = await w.ask("job.copy", JobCopy("nightly", "second"))
        assert (before.schedule, before.warnings) == (job.schedule.text, ())
        w.clock.wall_offset_s = 7200.0
        after = await w.ask("job.copy", JobCopy("nightly", "third"))
        assert (after.schedule, after.next_due) == (None, None)
        assert "is over" in after.warnings[0]


async def test_jobs_of_policies_are_changed_there_and_a_copy_of_one_is_by_hand(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask(
            "selection.create",
            q.SelectionCreate("files", SelectionDoc(entries=(EntryDoc("beta:/srv", exclude=("*.o",)),))),
        )
        templates = {
            "full": TemplateDoc("full", to="any", schedule="daily 22:00"),
            "check": TemplateDoc("verify", schedule="daily 23:00"),
        }
        await w.ask("policy.create", q.PolicyCreate("nights", PolicyDoc(templates)))
        await w.ask("associate", q.AssociationEdit("files", "nights"))
        jobs = {job.origin.template: job for job in w.state.jobs.values() if job.origin is not None}
        with pytest.raises(MadeByPolicy):
            await edited(w, jobs["full"], priority=Priority.LOW)
        copy = w.state.jobs[(await w.ask("job.copy", JobCopy(jobs["full"].name, "by-hand"))).job]
        assert (copy.origin, copy.spec) == (None, jobs["full"].spec)
        assert (await edited(w, copy, schedule="daily 21:00")).spec == copy.spec
        with pytest.raises(UsageError, match="what only a selection list says"):
            await edited(w, copy, verify=False)
        with pytest.raises(UsageError, match="policy copy"):
            await w.ask("job.copy", JobCopy(jobs["check"].name, "never"))
