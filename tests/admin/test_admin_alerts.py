"""Alerts as people ask for them, and those that nobody answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.admin.alarms import occasion_id
from caso_mesh.identity.roster import Peer
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.alert_calls import AlertFollow
from caso_mesh.model.alerts import AUTOMATIC
from caso_mesh.model.commands import AdmitOperator, InviteOperator, SetSetting
from caso_mesh.model.errors import AwaitingApproval, InvalidValue, NotFound
from caso_mesh.model.ids import local_id
from caso_mesh.model.mesh import OperatorGrant
from caso_mesh.model.settings import check_setting, parse_answer_after, parse_setting
from caso_mesh.model.states import AlertKind, Role
from caso_mesh.wire.codec import to_wire

pytestmark = pytest.mark.jumping
DAY_S = 86400.0


async def raised(w: World, category: str, kind: AlertKind = AlertKind.WARNING, object: str = "beta") -> str:
    return await w.facts.alert(kind, category, f"{category} of {object}", object=object)


async def listed(w: World, **fields: object) -> set[str]:
    found = await w.ask("alert.list", q.AlertListRequest(**fields))  # type: ignore[arg-type]
    return {row.category for row in found.alerts} - {"no-recovery-kit", "nobody-notified"}


async def test_alerts_are_found_by_type_category_server_pool_and_time(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:
        begins_ns = w.clock.now_ns()
        await raised(w, "job-recovered")
        await asyncio.sleep(60.0)
        await raised(w, "device-error", AlertKind.ERROR, "gamma")
        assert await listed(w) == {"job-recovered", "device-error"}
        assert await listed(w, types=("error",)) == {"device-error"}
        assert await listed(w, categories=("job-recovered",)) == {"job-recovered"}
        cut = await w.ask("alert.list", q.AlertListRequest(limit=1))
        assert len(cut.alerts) == 1 and cut.more and not (await w.ask("alert.list", q.AlertListRequest())).more
        assert await listed(w, server="beta") == {"job-recovered"}
        assert await listed(w, server="gamma") == {"device-error"}
        assert await listed(w, pool="p") == {"job-recovered", "device-error"}
        assert await listed(w, until_ns=begins_ns + 30 * 10**9) == {"job-recovered"}
        assert await listed(w, since_ns=begins_ns + 30 * 10**9) == {"device-error"}
        for wrong in ({"types": ("eror",)}, {"categories": ("error",)}):
            with pytest.raises(InvalidValue):
                await listed(w, **wrong)


async def test_one_alert_is_shown_with_what_it_means_and_what_to_do(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:
        id_ = await raised(w, "device-error", AlertKind.ERROR, "gamma")
        shown = await w.ask("alert.show", q.Named(id_))
        assert shown.alert.id == id_ and shown.about == ("gamma",) and shown.stands
        assert "cannot be used" in shown.means and "Mount it" in shown.do
        with pytest.raises(NotFound):
            await w.ask("alert.show", q.Named("nothing"))


async def test_what_to_do_names_what_the_alert_is_about_and_keeps_general_words_for_the_rest(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:

        async def do(category: str, object: str) -> str:
            id_ = await raised(w, category, AlertKind.ERROR, object)
            return str((await w.ask("alert.show", q.Named(id_))).do)

        assert "caso-mesh why run1 tells" in await do("job-failed", "run1")
        assert "caso-mesh job run JOB" in await do("job-failed", "run2")
        assert "notify test ann" in await do("notification-failed", "ann")
        assert "caso-mesh why home tells" in await do("backup-overdue", "beta:home")
        assert "kept by NTP" in await do("clock-differs", "beta")


async def test_who_watches_is_answered_when_something_is_new_and_not_before(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:
        which = q.AlertListRequest(all=True)
        first = await w.ask("alert.follow", AlertFollow(which))
        assert first.alerts == ()
        waiting = asyncio.ensure_future(w.ask("alert.follow", AlertFollow(which, first.mark, 20.0)))
        await asyncio.sleep(5.0)
        assert not waiting.done()
        id_ = await raised(w, "job-recovered")
        second = await waiting
        assert [row.id for row in second.alerts] == [id_]
        begun_s = w.clock.monotonic_s()
        third = await w.ask("alert.follow", AlertFollow(which, second.mark, 20.0))
        assert third == second and w.clock.monotonic_s() - begun_s >= 20.0
        answering = asyncio.ensure_future(w.ask("alert.follow", AlertFollow(which, third.mark, 20.0)))
        await w.ask("alert.answer", q.AlertAnswer(id_, "seen"))
        assert (await answering).alerts[0].response == "seen"


async def test_what_nobody_answers_is_answered_after_the_time_that_is_set_and_the_audit_log_says_so(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path, start=False) as w:
        await w.submit(SetSetting("alert-answer-after", "warning 2d; job-failed 1d; device-error 1h", None, None))
        ids = {
            name: await raised(w, name, kind)
            for name, kind in (
                ("job-recovered", AlertKind.WARNING),
                ("job-failed", AlertKind.ERROR),
                ("job-timed-out", AlertKind.ERROR),
                ("device-error", AlertKind.ERROR),  # it stands
                ("mass-change", AlertKind.ATTENTION),  # it waits for a person
            )
        }
        answering = w.office.alerts.answering
        assert await answering.look() == 0
        w.clock.wall_offset_s += 1.5 * DAY_S
        assert await answering.look() == 1
        assert w.state.answers[ids["job-failed"]].who == AUTOMATIC
        w.clock.wall_offset_s += 300 * DAY_S
        assert await answering.look() == 1
        assert set(w.state.answers) == {ids["job-failed"], ids["job-recovered"]}
        audits = [fact for fact in w.facts.audits("alert.answer") if fact.who == AUTOMATIC]
        assert [fact.fields["category"] for fact in audits] == ["job-failed", "job-recovered"]
        assert await answering.look() == 0


async def test_what_no_second_operator_asked_for_within_a_day_lapses_and_its_alert_with_it(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:
        await w.submit(SetSetting("second-operator", 1.0, None, None))
        with pytest.raises(AwaitingApproval):
            await w.ask("operator.create", q.OperatorCreate("carl", Role.ADMIN))
        w.clock.wall_offset_s += DAY_S - 60
        await w.office.approving.look()
        assert await listed(w) == {"awaiting-approval"}
        w.clock.wall_offset_s += 120
        await w.office.approving.look()
        assert await listed(w) == set()
        (shown,) = (await w.ask("alert.list", q.AlertListRequest(all=True, categories=("awaiting-approval",)))).alerts
        assert shown.cleared is not None and shown.answered_by == AUTOMATIC
        assert shown.response == "lapsed: nobody else asked for it within a day"
        (audit,) = w.facts.audits("alert.answer")
        assert audit.fields["id"] == shown.id


async def test_what_one_operator_asked_for_counts_once_also_before_it_is_in_the_audit_log_that_it_was_done(
    tmp_path: Path,
) -> None:
    """Until then the second one could do it again."""
    async with admin_world(tmp_path, start=False) as w:
        for name in ("anna", "ben"):
            grant = OperatorGrant(name, Role.ADMIN)
            await w.submit(InviteOperator(name.encode().ljust(32), w.clock.now_ns() + 10**12, grant))
            await w.submit(AdmitOperator(name.encode().ljust(32), f"person-{name}", name.encode()))
        await w.submit(SetSetting("second-operator", 1.0, None, None))
        anna, ben = (Peer(id=f"person-{name}", name=name, kind="operator", role=Role.ADMIN) for name in ("anna", "ben"))
        brake = q.SettingSet("ransomware-brake", "0")

        async def waits(person: Peer, id_: str) -> None:
            with pytest.raises(AwaitingApproval):
                await w.ask("settings.set", brake, id=id_, person=person)
            fields = facts.audited(to_wire(brake))
            await w.facts.append(facts.Audit(person.name, "settings.set", "x", "awaiting-approval", "", fields))

        await waits(anna, "one")
        await w.ask("settings.set", brake, id="two", person=ben)
        await w.ask("settings.set", brake, id="two", person=ben)  # the same once more, whose answer was lost
        assert [(each.who, each.response) for each in w.state.answers.values()] == [("ben", "done")]
        w.clock.wall_offset_s += 1
        await waits(ben, "three")
        w.clock.wall_offset_s += 1
        # whoever is in office next knows it as well
        await w.another_office()
        await w.stop()
        with pytest.raises(AwaitingApproval):
            await w.ask("settings.set", brake, id="four", person=ben)
        await w.ask("settings.set", brake, id="five", person=anna)  # what ben asked for is good


async def test_history_of_alerts_is_bounded_by_time_but_what_stands_stays(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:
        await raised(w, "job-failed", AlertKind.ERROR)
        standing = await raised(w, "device-error", AlertKind.ERROR)
        over = await raised(w, "device-low-on-space")
        await w.facts.append(facts.AlertCleared(over))
        await asyncio.sleep(60.0)
        late = await raised(w, "job-missed", AlertKind.ERROR)
        await w.tables.prune([], w.clock.now_ns() - 30 * 10**9, 10, 0)
        assert {row.id for row in await w.tables.alerts()} == {standing, late}


async def test_an_answer_that_was_given_at_a_server_counts_here_if_it_is_the_first_and_the_server_hears_which_one_does(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path, start=False) as w:
        first, second, third = (local_id(each, node("beta")) for each in ("first", "second", "third"))
        kind = AlertKind.ERROR
        raised = [facts.AlertRaised(id_, kind, "catalog-error", "x") for id_ in (first, second, third)]
        await w.report("beta", *raised, facts.AlertAnswered(first, "bob", "I do"))
        await w.ask("alert.answer", q.AlertAnswer(first, "too late"))
        await w.ask("alert.answer", q.AlertAnswer(second, "ours"))
        await w.report("beta", facts.AlertAnswered(second, "bob", "mine"), facts.AlertCleared(third))
        answers = {id_: (each.who, each.response) for id_, each in w.state.answers.items()}
        assert answers == {first: ("bob at beta", "I do"), second: ("ann", "ours")}
        assert await listed(w) == set()
        (audit,) = w.facts.audits("alert.answer")
        assert (audit.who, audit.source, audit.fields["id"]) == ("bob at beta", "beta", first)
        beat = n.Heartbeat(w.clock.now_ns(), None, (), (), alerts=(first, second, third, "unknown"))
        reply = await w.node_call(node("beta"), "server.heartbeat", beat)
        news = {each.id: (each.who, each.response, each.over_ns is None) for each in reply.alerts}
        assert news == {first: ("bob at beta", "I do", True), second: ("ann", "ours", True), third: ("", "", False)}
        # another server learns nothing of them
        assert (await w.node_call(node("gamma"), "server.heartbeat", beat)).alerts == ()


async def test_a_server_answers_no_alert_of_another_one_nor_of_the_mesh(tmp_path: Path) -> None:
    """The alert that holds expiry back has an id that can be worked out before it is raised."""
    async with admin_world(tmp_path, start=False) as w:
        of_beta, of_mesh = local_id("a", node("beta")), occasion_id("mass-change", "set")
        await w.report("beta", facts.AlertRaised(of_beta, AlertKind.ERROR, "catalog-error", "x"))
        for id_ in (of_beta, of_mesh):
            raised = facts.AlertRaised(id_, AlertKind.ERROR, "catalog-error", "x")
            await w.report("gamma", raised, facts.AlertAnswered(id_, "mallory", "all is well"))
            assert w.facts.audits("journal.push")[-1].fields["count"] == 1
        await w.report("gamma", facts.AlertAnswered(local_id("never", node("gamma")), "mallory", "x"))
        assert w.state.answers == {}


async def test_what_is_hidden_of_a_server_is_taken_in_and_neither_listed_nor_counted_and_what_needs_attention_is(
    tmp_path: Path,
) -> None:
    async with admin_world(tmp_path, start=False) as w:
        await w.report("beta", facts.AlertRaised("of-beta", AlertKind.ERROR, "catalog-error", "x", object="a-set"))
        await w.report("gamma", facts.AlertRaised("of-gamma", AlertKind.ERROR, "catalog-error", "x", object="a-set"))
        await raised(w, "server-stalled", object="beta")  # told in office, about beta
        await raised(w, "job-held", AlertKind.ATTENTION)
        assert await w.office.alerts.calls.open() == 4
        await w.submit(SetSetting("alerts-hidden", "catalog-error server-stalled", node("beta"), None))
        found = (await w.ask("alert.list", q.AlertListRequest(all=True))).alerts
        assert {(row.category, row.server) for row in found} == {("catalog-error", "gamma"), ("job-held", "alpha")}
        assert await w.office.alerts.calls.open() == 2
        readings = await w.office.overview.measures.take()
        assert readings.alerts == {"attention-required": 1, "error": 1, "warning": 0, "information": 0}
        assert (await w.ask("alert.show", q.Named("of-beta"))).alert.category == "catalog-error"
        with pytest.raises(InvalidValue):
            await w.submit(SetSetting("alerts-hidden", "job-held", None, None))
        await w.submit(SetSetting("alerts-hidden", "catalog-error", None, "p"))
        assert {row.category for row in (await w.ask("alert.list", q.AlertListRequest())).alerts} == {"job-held"}
        await w.submit(SetSetting("alerts-hidden", "none", node("beta"), None))
        assert await w.office.alerts.calls.open() == 3


@pytest.mark.parametrize(
    "text", ["", "mass-change", "catalog-lost mass-change", "attention-required", "Catalog", "x;y"]
)
def test_categories_that_cannot_be_turned_off_are_refused(text: str) -> None:
    for name in ("alerts-off", "alerts-hidden"):
        with pytest.raises(InvalidValue):
            check_setting(name, text)
        with pytest.raises(InvalidValue):
            parse_setting(name, text)


def test_a_person_turns_off_a_category_that_there_is_and_a_voter_takes_what_a_newer_one_knows() -> None:
    assert parse_setting("alerts-off", " catalog-lost,  clock-jumped") == "catalog-lost, clock-jumped"
    with pytest.raises(InvalidValue):
        parse_setting("alerts-off", "catalog-lost clock-jumpd")
    assert check_setting("alerts-off", "catalog-lost of-a-newer-version") == "catalog-lost of-a-newer-version"


@pytest.mark.parametrize("text", ["", "warning", "warning 7d;", "warning 7d; warning 8d", "Warning 7d", "warning x"])
def test_a_setting_that_says_no_times_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_answer_after(text)
