"""``why``: the story of a run, of a night of a list and of a server, and what is kept for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import Ambiguous, InvalidValue, NotFound
from caso_mesh.model.jobs import Failure
from caso_mesh.model.states import AttemptState, Role, RunState

pytestmark = pytest.mark.jumping
#: The world begins on Monday 2025-01-06 at midnight.
FULL = TemplateDoc("full", to="pool:p", schedule="daily 00:03")


async def made(w: World, rules: tuple[str, ...] = (), **templates: Any) -> None:
    await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(("alpha:/srv",))))
    await w.ask("policy.create", q.PolicyCreate("nightly", PolicyDoc(templates, rules)))
    await w.ask("associate", q.AssociationEdit("home", "nightly"))


async def why(w: World, name: str, night: str | None = None, person: Peer | None = None) -> o.Story:
    story = await w.ask("why", q.Why(name, night), person=person)
    assert isinstance(story, o.Story)
    assert [line.at for line in story.lines] == sorted(line.at for line in story.lines)
    return story


def whats(story: o.Story) -> list[str]:
    return [line.what for line in story.lines]


def waited(story: o.Story) -> list[tuple[str | None, int]]:
    return [(line.reason, round(line.seconds or 0)) for line in story.lines if line.what == "waited"]


async def until_s(w: World, seconds: float) -> None:
    await w.until(lambda: w.clock.monotonic_s() >= seconds, seconds + 60)


async def run_of(w: World, template: str) -> Any:
    job = w.state.job_named(f"home.nightly.{template}").id
    return (await w.until(lambda: w.state.runs_of(job), 900))[-1]


async def test_a_night_of_a_list_is_told_from_its_due_time_by_waits_failures_and_recoveries_to_its_set(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, full=FULL)
        await w.ask("queue.hold", q.QueueHold(True, server="alpha"))
        for name in ("beta", "gamma"):
            await w.ask("queue.hold", q.QueueHold(True, server=name))
        run = await run_of(w, "full")
        await until_s(w, 240)
        w.links.down(node("beta"))
        w.links.down(node("gamma"))
        for name in ("alpha", "beta", "gamma"):
            await w.ask("queue.hold", q.QueueHold(False, server=name))
        await until_s(w, 300)
        w.links.up(node("beta"), "beta")
        first = await w.delegated(run.id, 1)
        await w.report("beta", facts.AttemptStarted(first.id, first.server, first.device, None))
        w.silent.add(node("beta"))
        w.links.down(node("beta"))
        w.links.up(node("gamma"), "gamma")
        second = await w.delegated(run.id, 2, 3600)
        backup = w.made_set(second)
        await w.report("gamma", *w.success(second, backup))
        story = await why(w, "home")
        assert (story.kind, story.about, story.night, story.zone) == ("list", "home", "2025-01-05", "UTC")
        assert [(each.name, each.state, each.sets[0].set) for each in story.runs] == [
            ("home.nightly.full", "succeeded", backup.id)
        ]
        (held, held_s), (unreachable, unreachable_s) = waited(story)[:2]
        assert (held, unreachable) == ("queue-on-hold", "no-server-reachable")
        assert abs(held_s - 60) <= 3, "from its due time until the queues were released"
        assert abs(unreachable_s - 60) <= 3, "until beta came back"
        told = [line for line in story.lines if line.what not in {"waited", "alert", "alert-over"}]
        assert [line.what for line in told] == [
            "due", "delegated", "started", "ended", "delegated", "started", "ended", "set",
        ]  # fmt: skip
        assert (told[3].state, told[3].server, told[3].device) == ("recovered", "beta", "dbeta")
        assert (told[6].state, told[6].server, told[7].set) == ("succeeded", "gamma", backup.id)
        silence = [line.text for line in story.lines if line.what == "alert"]
        assert any("server-no-communication" in text for text in silence), "why it was recovered"
        assert (await why(w, run.id)).lines == story.lines


async def test_an_error_is_told_with_what_to_do_and_a_run_without_a_set_says_why(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await made(w, full=FULL)
        run = await run_of(w, "full")
        attempt = await w.delegated(run.id)
        name = w.state.name_of(attempt.server)
        gone = Failure("source-path-missing", {"path": "/srv", "server": "alpha"})
        await w.report(name, w.end(attempt, AttemptState.FAILED, failure=gone))
        await w.until(lambda: w.facts.alerts("job-failed"))
        story = await why(w, run.id)
        ended, none = (next(line for line in story.lines if line.what == what) for what in ("ended", "no-set"))
        assert ended.error is not None and ended.error["code"] == "source-path-missing"
        assert ended.error["message"] in ended.text and ended.error["hint"] in ended.text
        assert none.text.startswith("no set of alpha: home.nightly.full failed: ")
        assert whats(story)[-1] == "alert"


async def test_a_missed_run_says_what_it_waited_for_and_one_that_gave_way_for_whom(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        inc = TemplateDoc("incremental", to="pool:p", schedule="daily 00:03")
        full = TemplateDoc("full", to="pool:p", schedule="daily 00:03", start_window="1m")
        await made(w, full=full, inc=inc)
        w.links.down(node("beta"))
        w.links.down(node("gamma"))
        run = await run_of(w, "full")
        await w.until(lambda: w.state.run(run.id).state is RunState.MISSED, 600)
        story = await why(w, "list:home")
        gave_way = next(line for line in story.lines if line.what == "superseded")
        assert gave_way.name == "home.nightly.inc"
        assert f"home.nightly.full ({run.id})" in gave_way.text
        none = next(line for line in story.lines if line.what == "no-set")
        assert "could not start within 1m 00s; it waited because: no server of the target is connected" in none.text
        assert waited(story)[0][0] == "no-server-reachable"


async def test_what_a_rule_started_names_the_run_and_the_rule(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        check = TemplateDoc("verify")
        await made(w, ("when full succeeds start check",), full=FULL, check=check)
        run = await run_of(w, "full")
        attempt = await w.delegated(run.id)
        await w.report(w.state.name_of(attempt.server), *w.success(attempt))
        fired = await run_of(w, "check")
        line = (await why(w, fired.id)).lines[0]
        assert line.what == "fired"
        assert line.text == (
            f'started by home.nightly.full ({run.id}), as its policy says: "when full succeeds start check"'
        )


async def test_reasons_survive_another_office_and_a_wait_that_goes_on_is_told_once(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        w.links.down(node("beta"))
        w.links.down(node("gamma"))
        run = await w.backup()
        await until_s(w, 30)
        assert len(await w.tables.waits([run])) == 1
        await w.another_office()
        await until_s(w, 90)
        assert len(await w.tables.waits([run])) == 1, "it waits for the same all the time"
        ((reason, seconds),) = waited(await why(w, run))
        assert reason == "no-server-reachable"
        assert 80 <= seconds <= 90, "also of the time before this office"
        line = next(line for line in (await why(w, run)).lines if line.what == "waited")
        assert line.until is None and "ends when one of these is linked again" in line.text


async def test_a_run_that_need_not_wait_leaves_no_reason(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup()
        await w.delegated(run)
        await until_s(w, 30)
        assert await w.tables.waits([run]) == []


async def test_reasons_that_take_turns_all_night_are_few_facts(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("queue.hold", q.QueueHold(True))
        run = await w.backup(to="server:beta")
        for turn in range(60):
            await w.ask("job.release" if turn % 2 else "job.hold", q.JobName(run))
            await until_s(w, 10 * (turn + 1))
        kept = await w.tables.waits([run])
        assert 10 <= len(kept) <= 20, "the n-th comes n times five seconds after the one before"
        assert {row.waiting.reason.value for row in kept} == {"queue-on-hold", "on-hold"}


async def test_only_one_in_office_tells_why_runs_wait(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        w.links.down(node("gamma"))
        run = await w.backup(to="server:gamma")
        await until_s(w, 20)
        (kept,) = await w.tables.waits([run])
        lie = facts.RunWaits(run, kept.source, kept.waiting.reason, kept.since_ns + 1)
        await w.report("beta", lie)
        assert await w.tables.waits([run]) == [kept]


async def test_a_server_is_told_all_that_touched_it_and_a_night_without_runs_says_so(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        read, written = await w.backup("beta", to="server:gamma"), await w.backup("alpha", to="server:beta")
        other = await w.backup("alpha", to="server:gamma")
        await w.delegated(written)
        story = await why(w, "beta")
        assert {each.run for each in story.runs} == {read, written}
        assert other not in {line.run for line in story.lines}
        empty = await why(w, "beta", "2025-01-03")
        assert (empty.runs, empty.lines, empty.notes) == ((), (), ("No run touched beta in the night of 2025-01-03.",))


async def test_a_list_of_which_nothing_was_due_says_why(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("selection.create", q.SelectionCreate("lone", SelectionDoc(("alpha:/srv",))))
        assert (await why(w, "lone")).notes == ("No policy is associated with lone, so nothing is ever due.",)
        await made(w, full=FULL)
        assert "home.nightly.full is due next at 2025-01-06T00:03:00Z." in (await why(w, "home")).notes
        await w.ask("job.hold", q.JobName("home.nightly.full"))
        assert "caso-mesh job release home.nightly.full" in (await why(w, "home")).notes[-1]


async def test_wrong_questions_are_refused_with_what_would_be_right(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("selection.create", q.SelectionCreate("beta", SelectionDoc(("alpha:/srv",))))
        with pytest.raises(Ambiguous, match="list:beta, server:beta"):
            await why(w, "beta")
        assert (await why(w, "server:beta")).kind == "server"
        for name in ("nobody", "list:nobody", "server:nobody", "nobody@1"):
            with pytest.raises(NotFound):
                await why(w, name)
        with pytest.raises(InvalidValue):
            await why(w, "planet:beta")
        with pytest.raises(InvalidValue):
            await why(w, "alpha", "yesterday")


async def test_who_is_limited_to_a_server_is_told_its_stories_only(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        mine, foreign = await w.backup("beta", to="server:gamma"), await w.backup("alpha", to="server:beta")
        await w.delegated(foreign)
        limited = Peer(id="p", name="bob", kind="operator", server_roles=((node("beta"), Role.VIEWER),))
        assert {each.run for each in (await why(w, "beta", person=limited)).runs} == {mine}
        for name in (foreign, "alpha"):
            with pytest.raises(NotFound):
                await why(w, name, person=limited)
