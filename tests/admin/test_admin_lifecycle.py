"""The whole life of what jobs are made of: made, changed, copied, deleted, and what becomes of the jobs each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world
from msgspec.structs import replace

from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.documents import (
    CalendarDoc,
    DevicePoolDoc,
    MediaSetDoc,
    PolicyDoc,
    SelectionDoc,
    TemplateDoc,
)
from caso_mesh.model.errors import CasoError
from caso_mesh.model.jobs import Job
from caso_mesh.model.states import AttemptState, Priority, RunState
from caso_mesh.model.storage import Medium

pytestmark = pytest.mark.jumping
FULL = TemplateDoc("full", to="devices:disks", schedule="fri 22:00", media_set="archive")
INC = TemplateDoc("incremental", to="pool:p", schedule="daily 22:00", calendars=("holidays",))
CHECK = TemplateDoc("verify")
POLICY = PolicyDoc({"full": FULL, "inc": INC, "check": CHECK}, ("when full succeeds start check",))
JOBS = ["home.nightly.check", "home.nightly.full", "home.nightly.inc"]


async def made(w: World) -> None:
    await w.ask("mediaset.create", q.MediaSetEdit("archive", MediaSetDoc(keep="90d")))
    await w.ask("device-pool.create", q.DevicePoolEdit("disks", DevicePoolDoc(("dbeta",))))
    await w.ask("calendar.create", q.CalendarEdit("holidays", CalendarDoc(("2025-12-24",))))
    await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(("beta:/srv",), priority="low")))
    await w.ask("policy.create", q.PolicyCreate("nightly", POLICY))
    await w.ask("associate", q.AssociationEdit("home", "nightly"))


def jobs(w: World) -> list[str]:
    return [job.name for job in w.state.job_list()]


def job(w: World, template: str) -> Job:
    found: Job = w.state.job_named(f"home.nightly.{template}")
    return found


async def change(w: World, **templates: Any) -> None:
    doc = (await w.ask("policy.show", q.Named("nightly"))).definition
    kept = {name: each for name, each in {**doc.templates, **templates}.items() if each is not None}
    await w.ask("policy.set", q.PolicySet("nightly", replace(doc, templates=kept), before=doc))


async def refused(w: World, call: str, request: Any) -> CasoError:
    with pytest.raises(CasoError) as error:
        await w.ask(call, request)
    return error.value


async def test_the_life_of_a_selection_list(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w)
        ids = {each.name: each.id for each in w.state.job_list()}
        run = (await w.ask("job.run", q.JobName("home.nightly.full"))).run
        await w.ask("selection.set", q.SelectionSet("home", SelectionDoc(("beta:/srv", "gamma:/etc"), priority="high")))
        assert {each.name: each.id for each in w.state.job_list()} == ids, "jobs follow and stay who they are"
        assert [each.server for each in job(w, "full").spec.sources] == ["node-beta", "node-gamma"]
        assert len(w.state.run(run).parts) == 1, "a run that is open goes on as it began"
        await w.ask("selection.rename", q.Renamed("home", "site"))
        assert jobs(w) == [name.replace("home", "site") for name in JOBS]
        await w.ask("selection.copy", q.Renamed("site", "other"))
        copied, first = w.state.list_named("other"), w.state.list_named("site")
        assert (copied.entries, copied.priority) == (first.entries, Priority.HIGH)
        assert len(jobs(w)) == 3, "a copy has no policy yet"
        assert (await refused(w, "selection.delete", q.Named("site"))).code == "in-use"
        await w.ask("selection.delete", q.Named("other"))
        assert (await refused(w, "dissociate", q.AssociationEdit("site", "nightly"))).code == "in-use"
        attempt = await w.delegated(run)
        await w.ask("job.cancel", q.JobCancel(run))
        await w.report("beta", w.end(attempt, AttemptState.CANCELED))
        await w.ask("dissociate", q.AssociationEdit("site", "nightly"))
        assert jobs(w) == [], "its jobs are gone"
        assert w.state.run(run).state is RunState.CANCELED, "what they did is not"
        await w.ask("selection.delete", q.Named("site"))
        assert w.state.selection_lists() == []


async def test_the_priority_of_a_list_holds_for_its_jobs_unless_their_template_has_one_of_its_own(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await made(w)
        await change(w, full=replace(FULL, priority="highest"))
        assert (job(w, "full").priority, job(w, "inc").priority) == (Priority.HIGHEST, Priority.LOW)
        await change(w, full=FULL)
        assert job(w, "full").priority is Priority.LOW


async def test_the_life_of_a_policy_its_templates_and_rules(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w)
        inc = job(w, "inc")
        await change(w, inc=replace(INC, schedule="daily 23:00"))
        assert (job(w, "inc").id, job(w, "inc").schedule.text) == (inc.id, "daily 23:00")
        await change(w, yearly=replace(FULL, schedule="day 1 22:00"))  # policy template copy, then edit
        assert jobs(w) == [*JOBS, "home.nightly.yearly"]
        await change(w, yearly=None)
        assert jobs(w) == JOBS
        doc = (await w.ask("policy.show", q.Named("nightly"))).definition
        ruled = replace(doc, rules=(*doc.rules, "on conflict full then inc"))
        await w.ask("policy.set", q.PolicySet("nightly", ruled, before=doc))
        shown = await w.ask("policy.show", q.Named("nightly"))
        assert shown.definition.rules == ("when full succeeds start check", "on conflict full then inc")
        stale = q.PolicySet("nightly", doc, before=doc)
        assert (await refused(w, "policy.set", stale)).code == "conflict", "nobody undoes what another one did"
        await w.ask("policy.set", q.PolicySet("nightly", doc, before=ruled))
        await w.ask("policy.rename", q.Renamed("nightly", "late"))
        assert jobs(w) == [name.replace("nightly", "late") for name in JOBS]
        await w.ask("policy.copy", q.Renamed("late", "later"))
        assert (await w.ask("policy.show", q.Named("later"))).definition == doc
        assert len(jobs(w)) == 3, "a copy has no list yet"
        await w.ask("associate", q.AssociationEdit("home", "later"))
        assert len(jobs(w)) == 6
        assert (await refused(w, "policy.delete", q.Named("late"))).code == "in-use"
        for name in ("late", "later"):
            await w.ask("dissociate", q.AssociationEdit("home", name))
            await w.ask("policy.delete", q.Named(name))
        assert (jobs(w), w.state.policy_list()) == ([], [])


async def test_the_life_of_a_media_set_a_device_pool_and_a_calendar_that_jobs_use(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w)
        await w.ask("mediaset.set", q.MediaSetEdit("archive", MediaSetDoc(keep="365d", keep_yearly=5)))
        await w.ask("device-pool.set", q.DevicePoolEdit("disks", DevicePoolDoc(("dgamma:10", "dbeta"))))
        await w.ask("calendar.set", q.CalendarEdit("holidays", CalendarDoc(("2025-12-24", "2025-12-25"))))
        assert job(w, "inc").schedule.excludes == ("2025-12-24", "2025-12-25"), "jobs follow their calendars"
        run = (await w.ask("job.run", q.JobName("home.nightly.full"))).run
        attempt = await w.delegated(run)
        assert attempt.device == "dev-gamma", "and their pool"
        for call, name in (("mediaset", "archive"), ("device-pool", "disks"), ("calendar", "holidays")):
            error = await refused(w, f"{call}.delete", q.Named(name))
            assert (error.code, "nightly" in error.message) == ("in-use", True), error
        shorter = q.MediaSetEdit("archive", MediaSetDoc(protection="1d"))
        assert (await refused(w, "mediaset.set", shorter)).code == "conflict"
        # a set is written under it: nobody else uses it any more, and it still says how long that set stays
        backup = w.made_set(attempt, media_set="archive", medium="GAMMA-000001")
        medium = Medium(
            "GAMMA-000001", backup.device, "archive", backup.server, backup.started_at_ns, backup.ended_at_ns, None
        )
        await w.report("gamma", facts.MediumChanged(medium), *w.success(attempt, backup))
        await w.until(lambda: w.state.run(run).closed_at_ns is not None)
        await change(w, full=replace(FULL, media_set="keep-4-weeks", to="pool:p"), inc=replace(INC, calendars=()))
        error = await refused(w, "mediaset.delete", q.Named("archive"))
        assert "GAMMA-000001" in error.message
        await w.ask("device-pool.delete", q.Named("disks"))
        await w.ask("calendar.delete", q.Named("holidays"))
        assert (w.state.device_pools, w.state.calendars) == ({}, {})
        await w.ask("mediaset.create", q.MediaSetEdit("other", MediaSetDoc()))
        await w.ask("mediaset.delete", q.Named("other"))
        assert (await refused(w, "mediaset.delete", q.Named("keep-4-weeks"))).code == "conflict"
        assert jobs(w) == JOBS
