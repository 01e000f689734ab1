"""Recovery and error handling, row by row: what the office makes of lost servers and of failures."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from admin.admin_world import KEYS, World, admin_world, name_of, node

from caso_mesh.admin.live import NEWS_S
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.canceling import RunCanceled
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import InvalidValue, WrongState
from caso_mesh.model.jobs import Counts, Failure
from caso_mesh.model.rules import ErrorRule, Then
from caso_mesh.model.states import AttemptState, JobState, RunState, ServerState, WaitReason

pytestmark = pytest.mark.jumping
SECOND = 1_000_000_000
FULL = Failure("device-full", {"device": "dbeta"})


async def lost(w: World, attempt: Any) -> None:
    """The media server of a running attempt falls silent."""
    name = name_of(attempt)
    await w.report(name, facts.AttemptStarted(attempt.id, attempt.server, attempt.device))
    w.silent.add(attempt.server)
    w.links.down(attempt.server)
    await w.until(lambda: w.state.attempts[attempt.id].state is AttemptState.RECOVERED, 1400)


def back(w: World, server: str) -> None:
    w.silent.discard(server)
    link = w.links.up(server, server.removeprefix("node-"))
    link.answers["path.check"] = lambda _: n.PathCheckReply()


async def fails(w: World, run: str, number: int, failure: Failure = FULL, seconds: float = 60.0) -> None:
    attempt = await w.delegated(run, number, seconds)
    await w.report(name_of(attempt), w.end(attempt, AttemptState.FAILED, failure=failure))


async def test_a_lost_job_is_delegated_at_once_then_once_more_after_five_minutes(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        first = await w.delegated(run)
        await lost(w, first)
        second = await w.delegated(run, 2, seconds=5)
        assert second.server != first.server
        back(w, first.server)
        await lost(w, second)
        began = w.clock.monotonic_s()
        third = await w.delegated(run, 3, seconds=400)
        assert 295 <= w.clock.monotonic_s() - began <= 305
        assert third.server == first.server


async def test_a_lost_job_goes_to_no_server_outside_its_own_target(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="server:beta")
        await lost(w, await w.delegated(run))
        other = await w.backup(source="gamma", to="server:gamma")
        await w.delegated(other)
        began = w.clock.monotonic_s()
        await w.until(lambda: w.clock.monotonic_s() > began + 900, 1000)
        assert f"{run}#2" not in w.state.attempts
        back(w, node("beta"))
        assert (await w.delegated(run, 2)).server == node("beta")


async def test_a_job_lost_with_all_servers_of_its_target_is_held_with_an_alert_and_goes_on_by_itself(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        job = await w.backup(to="server:beta", schedule="20 1 * * *", name="nightly")
        submitted = await w.ask("job.run", q.JobName("nightly"))
        for number in (1, 2, 3):
            await lost(w, await w.delegated(submitted.run, number, seconds=400))
            if number < 3:
                back(w, node("beta"))
        await w.until(lambda: w.state.run(submitted.run).stranded)
        assert w.state.job(job).state is JobState.ACTIVE  # the run is held, never the job
        (alert,) = await w.until(lambda: w.facts.alerts("job-held"))
        await w.until(lambda: (submitted.run, node("alpha")) in w.office.means.live.waiting)
        (held,) = (await w.ask("job.list", q.JobListRequest())).jobs[1:]
        assert (held.reason, held.reason_ends) == ("no-server-left", "ends when another server of the target returns")
        # the next due run comes as if nothing were held, and is held by nobody
        next_due = await w.until(lambda: [run for run in w.state.runs_of(job) if run.id != submitted.run], 7200)
        assert (next_due[0].state, next_due[0].held) == (RunState.READY, False)
        back(w, node("beta"))
        await w.report("beta", *w.success(await w.delegated(submitted.run, 4)))
        await w.delegated(next_due[0].id)
        await w.until(lambda: any(isinstance(f, facts.AlertCleared) and f.id == alert.id for f in w.facts.all))


async def test_a_server_that_is_back_gets_what_it_was_lost_with_once_it_has_told_what_it_did(
    tmp_path: pathlib.Path,
) -> None:
    """It was given its part again in the moment of its return, and what it had made of it while it was away came after."""
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="server:beta")
        first = await w.delegated(run)
        await lost(w, first)
        other = await w.backup(source="gamma", to="server:beta")
        w.telling.add(first.server)
        back(w, first.server)
        # what it was not lost with does not wait for that
        await w.delegated(other, seconds=5)
        assert f"{run}#2" not in w.state.attempts
        reasons = {key: each.reason for key, each in w.office.means.live.waiting.items()}
        assert reasons[run, node("alpha")] is WaitReason.NEWS_ON_ITS_WAY
        await w.report("beta", *w.success(first, w.made_set(first)))
        w.telling.clear()
        await w.until(lambda: w.state.run(run).state is RunState.SUCCEEDED)
        assert f"{run}#2" not in w.state.attempts


async def test_what_a_server_is_back_with_and_cannot_tell_is_waited_for_a_minute(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="server:beta")
        first = await w.delegated(run)
        await lost(w, first)
        w.telling.add(first.server)
        back(w, first.server)
        began = w.clock.monotonic_s()
        await w.delegated(run, 2, seconds=200)
        assert NEWS_S - 5 <= w.clock.monotonic_s() - began <= NEWS_S + 15


async def test_a_late_result_of_a_lost_server_is_kept_and_is_no_base(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        first = await w.delegated(run)
        await lost(w, first)
        second = await w.delegated(run, 2)
        good, late = w.made_set(second), w.made_set(first)
        await w.report(name_of(second), *w.success(second, good))
        await w.until(lambda: w.state.run(run).state is RunState.SUCCEEDED)
        back(w, first.server)
        await w.report(name_of(first), facts.SetPublished(late), w.end(first, AttemptState.SUCCEEDED, set=late.id))
        assert w.state.attempt(first.id).state is AttemptState.REDUNDANT
        assert w.state.run(run).parts[0].set == good.id
        assert {each.id: each.redundant for each in (await w.ask("set.list", q.SetListRequest())).sets} == {
            good.id: False,
            late.id: True,
        }
        assert w.office.means.live.redundant[KEYS.id] == (late.id,)


@pytest.mark.parametrize("told_late", [False, True])
async def test_a_set_that_was_whole_when_its_attempt_was_cut_short_is_no_base_beside_the_one_that_counts(
    tmp_path: pathlib.Path, told_late: bool
) -> None:
    """It was published and not verified yet: its attempt ends without it, in a run that has another set by then or later."""
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        first = await w.delegated(run)
        cut_short = w.made_set(first)
        told = (facts.SetPublished(cut_short), facts.AttemptEnded(first.id, AttemptState.INTERRUPTED, Counts(), 1.0))
        if told_late:
            await lost(w, first)
        else:
            await w.report(name_of(first), *told)
        second = await w.delegated(run, 2)
        good = w.made_set(second)
        await w.report(name_of(second), *w.success(second, good))
        await w.until(lambda: w.state.run(run).state is RunState.SUCCEEDED)
        if told_late:
            back(w, first.server)
            await w.report(name_of(first), *told)
        assert w.state.attempt(first.id).state in {AttemptState.RECOVERED, AttemptState.INTERRUPTED}
        sets = (await w.ask("set.list", q.SetListRequest())).sets
        assert {each.id: each.redundant for each in sets} == {good.id: False, cut_short.id: True}
        assert w.office.means.live.redundant[KEYS.id] == (cut_short.id,)


async def test_what_still_runs_on_a_disabled_server_goes_on_and_is_recovered_elsewhere_when_that_falls_silent(
    tmp_path: pathlib.Path,
) -> None:
    """Whoever was disabled was watched no more: what still ran there when it died was never given up."""
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        first = await w.delegated(run)
        await w.report(name_of(first), facts.AttemptStarted(first.id, first.server, first.device))
        disable = q.ServerSetState(name_of(first), ServerState.DISABLED)
        assert (await w.ask("server.set-state", disable)).state == "disabled"
        began = w.clock.monotonic_s()
        await w.until(lambda: w.clock.monotonic_s() > began + 60, 100)
        assert w.state.attempt(first.id).state is AttemptState.QUEUED
        await lost(w, first)
        second = await w.delegated(run, 2, seconds=5)
        assert second.server != first.server
        assert w.facts.alerts("server-no-communication") == w.facts.alerts("server-stalled") == []
        assert w.state.server(first.server).state is ServerState.DISABLED


async def test_a_server_that_returns_before_the_second_limit_fails_nothing_and_got_nothing_new_meanwhile(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        first = await w.delegated(await w.backup(to="server:beta"))
        await w.report("beta", facts.AttemptStarted(first.id, first.server, first.device))
        w.silent.add(first.server)
        w.links.down(first.server)
        await w.until(lambda: w.state.server(first.server).state is ServerState.STALLED, 320)
        waits = await w.backup(to="server:beta", name="second")
        reason = await w.until(lambda: w.office.means.live.waiting.get((waits, KEYS.id)))
        assert (reason.reason, reason.fields) == ("server-stalled", {"servers": ["beta"]})
        began = w.clock.monotonic_s()
        await w.until(lambda: w.clock.monotonic_s() > began + 800, 900)  # the second limit is 900 s further
        back(w, first.server)
        await w.until(lambda: w.state.server(first.server).state is ServerState.ENABLED)
        assert w.state.attempt(first.id).state is AttemptState.QUEUED
        assert w.state.run(first.run).parts[0].recovered == 0
        await w.report("beta", *w.success(first)[1:])
        await w.until(lambda: w.state.run(first.run).state is RunState.SUCCEEDED)
        await w.delegated(waits)


async def test_a_paused_server_finishes_what_runs_and_gets_nothing_new_until_it_is_resumed(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        first = await w.delegated(await w.backup(to="server:beta"))
        await w.ask("server.set-state", q.ServerSetState("beta", ServerState.PAUSED))
        waits = await w.backup(to="server:beta", name="second")
        await w.report("beta", *w.success(first))
        await w.until(lambda: w.state.run(first.run).state is RunState.SUCCEEDED)
        reason = await w.until(lambda: w.office.means.live.waiting.get((waits, KEYS.id)))
        assert (reason.reason, reason.fields) == ("server-paused", {"servers": ["beta"]})
        await w.ask("server.set-state", q.ServerSetState("beta", ServerState.ENABLED))
        await w.delegated(waits)


# --- error-handling rules ---


async def rule(w: World, **fields: Any) -> None:
    values = {"name": "full", "errors": ("device-full",), "retries": 2, "every_s": 600.0, **fields}
    await w.ask("error-rule.create", q.ErrorRuleCreate(ErrorRule(**values)))


async def test_a_failure_that_a_rule_is_for_is_tried_again_after_its_pause_and_then_fails(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await rule(w)
        run = await w.backup(to="server:beta")
        for number in (1, 2):
            await fails(w, run, number, seconds=700)
            failed_s = w.clock.monotonic_s()
            await w.delegated(run, number + 1, seconds=700)
            assert w.clock.monotonic_s() - failed_s == pytest.approx(600, abs=3)
        await fails(w, run, 3)
        assert w.state.run(run).state is RunState.FAILED
        assert w.state.job(w.state.run(run).job).state is JobState.ACTIVE
        assert len(await w.until(lambda: w.facts.alerts("job-failed"))) == 1


async def test_of_a_list_of_two_servers_the_one_that_failed_is_tried_again_alone_and_the_run_failed_for_it(
    tmp_path: pathlib.Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await rule(w, retries=1, every_s=60.0)
        listed = SelectionDoc(("beta:/srv", "gamma:/srv"))
        await w.ask("selection.create", q.SelectionCreate("both", listed))
        policy = PolicyDoc({"full": TemplateDoc("full", to="pool:p")})
        await w.ask("policy.create", q.PolicyCreate("nightly", policy))
        await w.ask("associate", q.AssociationEdit("both", "nightly"))
        run = str((await w.ask("job.run", q.JobName("both.nightly.full"))).run)
        tried = [await w.delegated(run, number) for number in (1, 2)]
        good, bad = sorted(tried, key=lambda each: str(each.source))
        await w.report(name_of(good), *w.success(good))
        await w.report(name_of(bad), w.end(bad, AttemptState.FAILED, failure=FULL))
        again = await w.delegated(run, 3, seconds=90)
        assert again.source == bad.source == node("gamma")
        await w.report(name_of(again), w.end(again, AttemptState.FAILED, failure=FULL))
        await w.until(lambda: w.state.run(run).closed_at_ns is not None)
        assert f"{run}#4" not in w.state.attempts
        assert {part.source: part.state for part in w.state.run(run).parts} == {
            node("beta"): RunState.SUCCEEDED, node("gamma"): RunState.FAILED,
        }  # fmt: skip
        assert w.state.run(run).state is RunState.FAILED
        (alert,) = await w.until(lambda: w.facts.alerts("job-failed"))
        assert "gamma" in alert.text and "beta" not in alert.text.partition(": ")[0]


async def test_a_rule_for_a_category_is_for_all_errors_of_it_and_for_no_others(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await rule(w, errors=("device",), every_s=0.0)
        run = await w.backup(to="server:beta")
        await fails(w, run, 1)
        await fails(w, run, 2, Failure("contains-no-data", {"detail": "x"}))
        assert w.state.run(run).state is RunState.FAILED
        with pytest.raises(InvalidValue):
            await rule(w, name="other", errors=("no-such-error",))


async def test_a_rule_may_hold_the_job_with_an_alert_until_a_person_releases_it(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await rule(w, retries=0, then=Then.HOLD)
        await w.backup(to="server:beta", schedule="0 3 * * *", name="nightly")
        run = str((await w.ask("job.run", q.JobName("nightly"))).run)
        await fails(w, run, 1)
        (alert,) = await w.until(lambda: w.facts.alerts("job-held"))
        assert "device-full" in alert.text
        assert "caso-mesh job release nightly" in alert.text
        listed = await w.ask("job.list", q.JobListRequest())
        shown = next(each for each in listed.jobs if each.run == run)
        assert (shown.reason, shown.reason_fields) == ("on-hold", {"job": "nightly"})
        await w.ask("job.release", q.JobName("nightly"))
        attempt = await w.delegated(run, 2)
        await w.report("beta", *w.success(attempt))
        assert w.state.run(run).state is RunState.SUCCEEDED
        await w.until(lambda: any(isinstance(f, facts.AlertCleared) and f.id == alert.id for f in w.facts.all))


async def test_a_rule_that_was_deleted_tries_nothing_again(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        await rule(w)
        assert [each.name for each in (await w.ask("error-rule.list", q.Nothing())).rules] == ["full"]
        await w.ask("error-rule.delete", q.Named("full"))
        run = await w.backup(to="server:beta")
        await fails(w, run, 1)
        assert w.state.run(run).state is RunState.FAILED


# --- ending a run ---


async def test_a_run_that_ends_by_itself_while_it_is_canceled_is_not_said_to_be_canceled(
    tmp_path: pathlib.Path,
) -> None:
    """Found by the mesh simulator: it had succeeded just then, and whoever had canceled it was told that it was canceled."""
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="server:beta")
        first = await w.delegated(run)
        work = w.office.runs.work
        submit = work._submit

        async def ends_just_then(command: Any, **more: Any) -> Any:
            done = await submit(command, **more)
            made = w.made_set(first)
            await w.report("beta", facts.SetPublished(made), w.end(first, AttemptState.SUCCEEDED, set=made.id))
            return done

        work._submit = ends_just_then
        with pytest.raises(WrongState, match="succeeded"):
            await w.ask("job.cancel", q.JobCancel(run))
        assert w.state.run(run).state is RunState.SUCCEEDED


async def test_by_force_a_run_ends_though_its_server_cannot_be_told(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="server:beta")
        first = await w.delegated(run)
        w.silent.add(first.server)
        w.links.down(first.server)

        async def cancel(name: str, *, by_force: bool = False) -> RunCanceled:
            (told,) = (await w.ask("job.cancel", q.JobCancel(name, by_force))).runs
            return told

        assert await cancel(run) == RunCanceled(run, "canceling")
        assert w.state.run(run).closed_at_ns is None
        for name in (run, w.state.run(run).job):
            assert await cancel(name) == RunCanceled(run, "canceling", already=True)
        assert await cancel(run, by_force=True) == RunCanceled(run, "canceled")
        for name in (run, w.state.run(run).job):
            assert await cancel(name) == RunCanceled(run, "canceled", already=True)
        assert w.state.run(run).state is RunState.CANCELED
        back(w, first.server)
        late = w.made_set(first)
        await w.report("beta", facts.SetPublished(late), w.end(first, AttemptState.SUCCEEDED, set=late.id))
        assert w.state.attempt(first.id).state is AttemptState.REDUNDANT
        assert w.state.run(run).state is RunState.CANCELED


async def test_by_force_a_linked_server_is_told_to_end_it_at_once(tmp_path: pathlib.Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="server:beta")
        first = await w.delegated(run)
        await w.ask("job.cancel", q.JobCancel(run, by_force=True))
        link = w.links.links[first.server]

        def told() -> bool:
            orders = [each for each in link.told("orders") if each["attempts"]]
            return bool(orders) and orders[-1]["attempts"][0]["by_force"] is True

        await w.until(told)
        assert w.state.run(run).closed_at_ns is None
