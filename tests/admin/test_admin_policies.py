"""What the office does with schedules and rules of policies: late, missed, caught up, timed out, overdue, given way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world, node
from msgspec.structs import replace

from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.commands import SetJob
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import CasoError
from caso_mesh.model.jobs import Failure, Run
from caso_mesh.model.states import AttemptState, JobState, Role, RunState, WaitReason

pytestmark = pytest.mark.jumping
SECOND = 1_000_000_000
MINUTE = 60.0
#: The world begins on Monday 2025-01-06 at midnight.
FULL = TemplateDoc("full", to="device:dbeta", schedule="daily 00:03")
INC = TemplateDoc("incremental", to="device:dbeta", schedule="daily 00:03")


async def made(w: World, rules: tuple[str, ...] = (), *, listed: SelectionDoc | None = None, **templates: Any) -> None:
    for link in w.links.links.values():
        link.answers["path.check"] = lambda _: n.PathCheckReply()
    await w.ask("selection.create", q.SelectionCreate("home", listed or SelectionDoc(("beta:/srv",))))
    await w.ask("policy.create", q.PolicyCreate("nightly", PolicyDoc(templates, rules)))
    await w.ask("associate", q.AssociationEdit("home", "nightly"))


def runs(w: World, template: str) -> list[Run]:
    return list(w.state.runs_of(w.state.job_named(f"home.nightly.{template}").id))


async def at(w: World, minutes: float) -> None:
    """Until so many minutes after midnight."""
    await w.until(lambda: w.clock.monotonic_s() >= minutes * MINUTE, minutes * MINUTE + 60)


async def run_of(w: World, template: str, seconds: float = 15 * MINUTE) -> Run:
    found = await w.until(lambda: runs(w, template), seconds)
    return found[-1]


async def test_a_run_that_could_not_start_in_the_window_of_its_schedule_is_missed_with_an_alert(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(
            w, full=FULL, short=TemplateDoc("copy", to="device:dbeta", schedule="daily 00:03", start_window="1m")
        )
        await w.ask("queue.hold", q.QueueHold(True, server="beta"))
        short = await run_of(w, "short")
        await at(w, 4.2)
        assert w.state.run(short.id).state is RunState.MISSED
        assert runs(w, "full")[-1].closed_at_ns is None, "that one has the window of the settings"
        (alert,) = w.facts.alerts("job-missed")
        assert alert.text == "home.nightly.short (scheduled) was missed: the queue is on hold: beta"


async def test_what_was_missed_is_caught_up_with_when_its_server_returns_if_the_schedule_says_so(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        late = TemplateDoc("full", to="device:dbeta", schedule="daily 00:03", start_window="1m", catch_up=True)
        await made(w, full=late)
        w.links.down(node("beta"))
        run = await run_of(w, "full")
        await at(w, 5)
        assert w.state.run(run.id).closed_at_ns is None
        assert len(w.facts.alerts("job-late")) == 1, "it is told, once"
        w.links.up(node("beta"), "beta")
        await w.delegated(run.id)


async def test_a_run_that_was_never_caught_up_with_is_missed_when_the_next_one_is_due(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        late = TemplateDoc("full", to="device:dbeta", schedule="*/3 * * * *", start_window="1m", catch_up=True)
        await made(w, full=late)
        w.links.down(node("beta"))
        first = await run_of(w, "full")
        await at(w, 6.5)
        assert [each.state for each in runs(w, "full")] == [RunState.MISSED, RunState.READY]
        assert runs(w, "full")[0].id == first.id


async def test_a_run_that_takes_too_long_after_its_actual_start_ends_as_timed_out(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, full=TemplateDoc("full", to="device:dbeta", schedule="daily 00:03", cancel_after="2m"))
        w.links.down(node("beta"))
        run = await run_of(w, "full")
        await at(w, 4)
        w.links.up(node("beta"), "beta").answers["path.check"] = lambda _: n.PathCheckReply()
        attempt = await w.delegated(run.id)
        await w.report("beta", facts.AttemptStarted(attempt.id, attempt.server, attempt.device))
        await at(w, 5.9)
        assert not w.state.attempts[attempt.id].cancel, "the clock starts at the actual start"
        await at(w, 6.3)
        assert w.state.attempts[attempt.id].cancel
        await w.report("beta", w.end(attempt, AttemptState.CANCELED))
        ended = await w.until(lambda: w.state.run(run.id).closed_at_ns and w.state.run(run.id))
        assert ended.state is RunState.TIMED_OUT
        assert ended.parts[0].failure.code == "run-too-long"
        assert (await w.until(lambda: w.facts.alerts("job-timed-out")))[0].object == run.id


async def test_a_job_whose_only_due_time_is_over_waits_for_nothing(tmp_path: Path) -> None:
    """It was listed as scheduled, due at None."""
    async with admin_world(tmp_path) as w:
        await made(w, once=TemplateDoc("full", to="device:dbeta", schedule="once 2025-01-06T00:03"), full=FULL)
        (row,) = [row for row in (await w.ask("job.list", q.JobListRequest())).jobs if row.name == "home.nightly.once"]
        assert (row.reason, row.reason_ends) == ("not-yet-due", "ends at 2025-01-06T00:03:00Z")
        await run_of(w, "once")
        listed = (await w.ask("job.list", q.JobListRequest(state="scheduled"))).jobs
        assert [row.name for row in listed] == ["home.nightly.full"]


async def test_of_two_that_are_due_at_once_the_full_one_runs_and_the_history_says_so(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, ("when inc completes start check",), full=FULL, inc=INC, check=TemplateDoc("verify"))
        full = await run_of(w, "full")
        inc = await run_of(w, "inc")
        assert (w.state.run(inc.id).state, w.state.run(full.id).closed_at_ns) == (RunState.SUPERSEDED, None)
        shown = await w.ask("job.show", q.JobName("home.nightly.inc"))
        assert shown.runs[0].note == f"superseded by {full.id}"
        assert runs(w, "check") == []
        assert w.facts.alerts("job-missed") == []


async def test_a_template_on_hold_supersedes_nothing(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, full=FULL, inc=INC)
        await w.submit(SetJob(w.state.job_named("home.nightly.full").id, JobState.ON_HOLD))
        inc = await run_of(w, "inc")
        assert w.state.run(inc.id).state is not RunState.SUPERSEDED


async def test_a_template_that_was_not_there_when_it_was_due_supersedes_nothing(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await at(w, 1)
        await made(w, full=replace(FULL, schedule="daily 00:00"), inc=INC)
        inc = await run_of(w, "inc")
        assert w.state.run(inc.id).state is not RunState.SUPERSEDED


async def test_a_then_b_waits_in_the_queue_and_says_for_what(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("settings.set", q.SettingSet("start-window-s", "60s"))
        await made(w, ("on conflict full then inc",), full=FULL, inc=INC)
        full, inc = await run_of(w, "full"), await run_of(w, "inc")
        attempt = await w.delegated(full.id)
        waiting = await w.until(lambda: w.office.means.live.waiting.get((inc.id, node("beta"))))
        assert (waiting.reason, waiting.fields["run"]) == (WaitReason.BLOCKED_BY_RUN, full.id)
        await at(w, 6)
        assert w.state.run(inc.id).closed_at_ns is None, "its window begins when the other one has ended"
        await w.report("beta", *w.success(attempt))
        await w.delegated(inc.id)


async def test_a_rule_starts_a_run_once_whoever_is_in_office_by_then(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, ("when full succeeds start check",), full=FULL, check=TemplateDoc("verify"))
        full = await run_of(w, "full")
        attempt = await w.delegated(full.id)
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        check = await run_of(w, "check", 60)
        assert (check.terms.fired_by, check.spec.set_of(node("beta"))) == (full.id, backup.id)
        await w.another_office()
        began = w.clock.monotonic_s()
        await w.until(lambda: w.clock.monotonic_s() > began + 30)
        assert len(runs(w, "check")) == 1


async def test_a_scheduled_verify_is_about_the_newest_set_of_each_server(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, full=FULL, check=TemplateDoc("verify", schedule="daily 00:04"))
        attempt = await w.delegated((await run_of(w, "full")).id)
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        check = await run_of(w, "check")
        assert (check.terms.fired_by, check.spec.set_of(node("beta"))) == (None, backup.id)
        by_hand = await w.ask("job.run", q.JobName("home.nightly.check"))
        assert w.state.run(by_hand.run).spec.set_of(node("beta")) == backup.id


async def test_what_is_about_newest_sets_passes_over_those_that_are_known_to_be_no_good(tmp_path: Path) -> None:
    """A nightly copy was made of a set that was not there any more, and failed night after night, with a whole one before it."""
    async with admin_world(tmp_path) as w:
        templates = {"check": "verify", "offsite": "duplicate", "whole": "synthetic"}
        kinds = {
            name: TemplateDoc(kind, to="device:dgamma" if name == "offsite" else None)
            for name, kind in templates.items()
        }
        await made(w, full=TemplateDoc("full", to="device:dbeta"), **kinds)
        sets = []
        for _ in range(4):
            run = (await w.ask("job.run", q.JobName("home.nightly.full"))).run
            attempt = await w.delegated(run)
            sets.append(w.made_set(attempt))
            await w.report("beta", *w.success(attempt, sets[-1]))
            await w.until(lambda run=run: w.state.run(run).closed_at_ns)
        whole, bad, redundant, lost = (each.id for each in sets)
        check = await w.delegated((await w.ask("verify", q.VerifyRequest(bad))).run)
        damage = Failure("data-damaged", {"object": "packs/1", "detail": "it is not what it was"})
        await w.report("beta", w.end(check, AttemptState.FAILED, failure=damage))
        await w.until(lambda: w.state.run(check.run).closed_at_ns)
        await w.facts.append(facts.SetsMissing("dev-beta", (lost,), "an inventory"))
        w.office.means.live.redundant["node-beta"] = (redundant,)

        async def about(template: str) -> str:
            run = (await w.ask("job.run", q.JobName(f"home.nightly.{template}"))).run
            return str(w.state.run(run).spec.set_of(node("beta")))

        assert await about("offsite") == whole
        assert await about("whole") == whole
        assert await about("check") == bad, "only a check finds out that it is whole again"
        drill = (await w.ask("drill", q.DrillRequest("beta"))).run
        assert w.state.run(drill).spec.set == bad
        request = q.SyntheticRequest((("beta", b"/srv"),))
        assert w.state.run((await w.ask("synthetic", request)).run).spec.sets == (whole,)


async def test_a_backup_that_did_not_happen_is_an_alert_until_there_is_one(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, listed=SelectionDoc(("beta:/srv",), oldest_good="2m"), full=replace(FULL, schedule="daily 00:06"))
        await at(w, 1.5)
        assert w.facts.alerts("backup-overdue") == []
        await at(w, 4)
        (alert,) = w.facts.alerts("backup-overdue")
        assert (alert.object, "never was" in alert.text) == ("beta:home", True)
        attempt = await w.delegated((await run_of(w, "full")).id)
        await w.report("beta", *w.success(attempt))
        cleared = await w.until(lambda: [f for f in w.facts.all if isinstance(f, facts.AlertCleared)], 120)
        assert cleared
        await w.another_office()
        began = w.clock.monotonic_s()
        await w.until(lambda: w.clock.monotonic_s() > began + 70, 80)
        assert len(w.facts.alerts("backup-overdue")) == 1


async def test_a_preview_of_more_days_than_there_are_and_of_nothing_is_refused(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, full=FULL, inc=INC)
        for request in (q.SchedulePreview("home", 401.0), q.SchedulePreview("home", 0.0), q.SchedulePreview("nothing")):
            with pytest.raises(CasoError):
                await w.ask("schedule.preview", request)
        rows = await w.ask("schedule.preview", q.SchedulePreview("nightly", 10.0, limit=3))
        assert (len(rows.runs), rows.more) == (3, True)
        one = await w.ask("schedule.preview", q.SchedulePreview("home.nightly.inc", 2.0))
        assert [row.state for row in one.runs] == ["superseded", "superseded"]


async def test_a_preview_says_what_must_complete_first_until_that_is_due(tmp_path: Path) -> None:
    """Runs that would all be missed were shown as if nothing were in their way."""
    async with admin_world(tmp_path) as w:
        await made(w, ("full must complete first",), full=replace(FULL, schedule="wed 04:00"), inc=INC)
        rows = (await w.ask("schedule.preview", q.SchedulePreview("home.nightly.inc", 4.0))).runs
        assert [row.first for row in rows] == ["home.nightly.full"] * 3 + [None]


async def test_a_backup_by_hand_takes_the_same_schedules_and_refuses_what_belongs_to_one(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for link in w.links.links.values():
            link.answers["path.check"] = lambda _: n.PathCheckReply()
        id_ = await w.backup(
            schedule="weekdays 22:00",
            zone="Europe/Berlin",
            exclude_days=("2025-01-07",),
            cancel_after_s=60.0,
            catch_up=True,
        )
        job = w.state.jobs[id_]
        assert (job.schedule.text, job.schedule.cancel_after_s, job.schedule.catch_up) == ("weekdays 22:00", 60.0, True)
        rows = (await w.ask("schedule.preview", q.SchedulePreview(job.name, 3.0))).runs
        assert [row.due for row in rows] == ["2025-01-06T21:00:00Z", "2025-01-08T21:00:00Z"]
        shown = await w.ask("job.show", q.JobName(job.name))
        assert (shown.cancel_after_s, shown.catch_up, shown.exclude_days) == (60.0, True, ("2025-01-07",))
        for wrong in ({"catch_up": True}, {"exclude_days": ("2025-01-07",)}, {"schedule": "once 2024-01-01T00:00"}):
            with pytest.raises(CasoError):
                await w.backup(**wrong)


async def test_a_person_of_some_servers_is_shown_what_concerns_those_and_no_places_of_others(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, listed=SelectionDoc(("beta:/srv", "gamma:/home")), full=FULL)
        await w.ask("selection.create", q.SelectionCreate("other", SelectionDoc(("gamma:/etc",))))
        await w.ask("associate", q.AssociationEdit("other", "nightly"))
        beta = Peer(id="b", name="bea", kind="operator", role=None, server_roles=((node("beta"), Role.VIEWER),))
        shown = await w.ask("selection.list", q.SelectionListRequest(), person=beta)
        assert [(row.name, row.definition.paths) for row in shown.selections] == [("home", ("beta:/srv",))]
        assert (await w.ask("selection.show", q.Named("home"), person=beta)).definition.paths == ("beta:/srv",)
        with pytest.raises(CasoError) as refused:
            await w.ask("selection.show", q.Named("other"), person=beta)
        assert refused.value.code == "not-found"
        (policy,) = (await w.ask("policy.list", q.Nothing(), person=beta)).policies
        assert (policy.selections, policy.jobs) == (("home",), ("home.nightly.full",))
        rows = (await w.ask("schedule.preview", q.SchedulePreview(None, 2.0), person=beta)).runs
        assert {row.selection for row in rows} == {"home"}
        assert len((await w.ask("selection.list", q.SelectionListRequest())).selections) == 2
