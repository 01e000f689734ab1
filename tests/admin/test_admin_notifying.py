"""What happens in a mesh reaches people by real mail, whoever is in office."""

from __future__ import annotations

from admin.admin_world import KEYS
from admin.post_office import SECOND, MailBox, Room, mail_server, parts, room
from control.control_world import backup
from ports import hold_port
from waiting import wait_for_async

from caso_mesh.model import facts
from caso_mesh.model.commands import CloseAttempt, SetSetting
from caso_mesh.model.errors import DeviceFull
from caso_mesh.model.jobs import Failure
from caso_mesh.model.notices import NoticeRule, PutNoticeRule
from caso_mesh.model.states import AlertKind, AttemptState, RunState


async def alert(there: Room, category: str = "device-error", text: str = "device-gone", **fields: str) -> str:
    return await there.facts.alert(AlertKind.ERROR, category, text, object=fields.get("object", "gamma"))


def set_up(there: Room, box: MailBox) -> None:
    there.mail_by(box)
    there.recipient("ann", "ann@example.org", summary=False)


async def test_an_alert_reads_as_a_person_needs_it(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.script.admit("beta")
        set_up(there, box)
        id_ = await alert(there, text="The device disk at beta: no such folder", object="beta")
        await there.notifying.look()
        (mail,) = await wait_for_async(lambda: box.mails)
        assert mail["subject"] == "[home] error at beta: device-error: The device disk at beta: no such folder"
        said = mail.get_content()
        assert "What to do:    Mount it" in said and f"caso-mesh alert answer {id_}" in said
        assert "Server:    beta" in said


async def test_a_run_that_failed_is_one_message_though_both_its_end_and_its_alert_are_told(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.script.admit("beta")
        there.script.device("disk", "beta")
        set_up(there, box)
        rule = NoticeRule("all", ("ann",), 0, (AlertKind.ERROR,), ends=(RunState.FAILED, RunState.SUCCEEDED))
        there.script.do(PutNoticeRule(rule, new=True))
        for name, state in (("nightly", AttemptState.FAILED), ("weekly", AttemptState.SUCCEEDED)):
            run = there.script.start(name, backup("beta"))
            attempt = there.script.delegate(run, source="beta", server="beta", device="disk")
            failure = Failure("device-full", {}) if state is AttemptState.FAILED else None
            there.script.do(
                CloseAttempt(
                    attempt, state, there.clock.now_ns(), set="s" if failure is None else None, failure=failure
                )
            )
        failed = next(run.id for run in there.state.runs.values() if run.name == "nightly")
        await there.facts.alert(AlertKind.ERROR, "job-failed", "nightly failed for beta: device-full", object=failed)
        await there.notifying.look()
        await wait_for_async(lambda: len(box.mails) == 2)
        await there.notifying.look()
        assert sorted(str(mail["subject"]) for mail in box.mails) == [
            "[home] error at beta: job-failed: nightly failed for beta: device-full",
            "[home] succeeded at beta: weekly",
        ]


async def test_the_end_of_a_run_that_failed_says_what_to_do(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.script.admit("beta")
        there.script.device("disk", "beta")
        set_up(there, box)
        there.script.do(PutNoticeRule(NoticeRule("ends", ("ann",), 0, ends=(RunState.FAILED,)), new=True))
        run = there.script.start("nightly", backup("beta"))
        attempt = there.script.delegate(run, source="beta", server="beta", device="disk")
        failure = Failure("device-full", {})
        there.script.do(CloseAttempt(attempt, AttemptState.FAILED, there.clock.now_ns(), failure=failure))
        await there.notifying.look()
        (mail,) = await wait_for_async(lambda: box.mails)
        said = " ".join(mail.get_content().split())
        assert f"What to do: caso-mesh why {run} tells the story; run it again: caso-mesh job run nightly." in said


async def test_a_change_of_administrator_in_the_middle_loses_and_doubles_nothing(tmp_path):
    """Three alerts; one mail was taken when the office dies; the next one sends the other two, with keys that any office
    works out."""
    async with room(tmp_path) as there, mail_server() as box:
        set_up(there, box)
        for number in range(3):
            await alert(there, object=f"device{number}", text=f"device{number} is gone")
        box.answer = lambda mail: None if "device0" in str(mail["subject"]) else "451 not now"
        await there.notifying.look()
        await wait_for_async(lambda: there.outbox.problem("ann"))
        assert len(box.mails) == 1 and there.outbox.waiting("ann") == 2
        await there.another_office()
        box.answer = lambda mail: None
        await there.notifying.look()
        await wait_for_async(lambda: len(box.mails) == 3)
        await wait_for_async(lambda: there.outbox.waiting("ann") == 0)
        await there.another_office()
        await there.notifying.look()
        assert there.outbox.waiting("ann") == 0
        assert [f"device{number}" in str(mail["subject"]) for number, mail in enumerate(box.mails)] == [True] * 3
        assert len(set(box.keys())) == 3


async def test_one_that_died_in_the_act_is_sent_again_with_the_same_message_id(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        set_up(there, box)
        await alert(there)
        there.facts.fails = DeviceFull(device="journal", needed=1, free=0)
        await there.notifying.look()
        await wait_for_async(lambda: box.mails)
        await there.stop()
        there.facts.fails = None
        await there.another_office()
        await there.notifying.look()
        await wait_for_async(lambda: len(box.mails) == 2)
        assert box.keys()[0] == box.keys()[1]


async def test_nothing_is_told_before_a_majority_of_the_voters_holds_it(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        set_up(there, box)
        there.consensus.voters = (KEYS.id, "node-b", "node-c")
        await alert(there)
        await there.notifying.look()
        assert there.outbox.waiting("ann") == 0 and not box.mails
        there.followers.said("node-b", await there.tables.arrival())
        await there.notifying.look()
        await wait_for_async(lambda: box.mails)


async def test_that_nobody_would_be_told_stands_until_somebody_is(tmp_path):
    async with room(tmp_path) as there:

        def standing() -> list[str]:
            ended = {fact.id for fact in there.facts.all if isinstance(fact, facts.AlertCleared)}
            return [each.text for each in there.facts.alerts("nobody-notified") if each.id not in ended]

        await there.notifying.look()
        assert len(standing()) == 1 and "there is no recipient" in standing()[0]
        there.recipient("ann", "ann@example.org")
        async with mail_server() as box:
            there.mail_by(box)
            await there.notifying.look()
            assert standing() == []
            box.refuses_recipient = lambda address: "550 no such user here"
            await alert(there)
            await there.notifying.look()
            await wait_for_async(there.outbox.failing)
            await there.notifying.look()
            assert "ann does not arrive" in standing()[0]
            (failed,) = there.facts.alerts("notification-failed")
            assert "550 no such user here" in failed.text and failed.object == "ann"
            box.refuses_recipient = lambda address: None
            await wait_for_async(lambda: box.mails)
            await wait_for_async(lambda: not there.outbox.failing())
            await wait_for_async(lambda: facts.AlertCleared(failed.id) in there.facts.all)
            await there.notifying.look()
            assert standing() == []


async def test_a_dead_webhook_is_told_by_mail(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        set_up(there, box)
        with hold_port() as nobody:
            gone = f"http://127.0.0.1:{nobody.getsockname()[1]}/hook?token=very-secret"
            there.recipient("hook", url=gone, summary=False)
            await alert(there)
            await there.notifying.look()
            await wait_for_async(lambda: there.facts.alerts("notification-failed"))
        await there.notifying.look()
        await wait_for_async(lambda: len(box.mails) == 2)
        assert "notification-failed: hook was not told" in str(box.mails[1]["subject"])
        assert "very-secret" not in box.mails[1].get_content()


async def test_the_morning_summary_comes_once_to_who_wants_it_also_from_the_next_office(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        set_up(there, box)
        there.recipient("bob", "bob@example.org")
        there.script.do(SetSetting("summary-at", "07:00", None, None))
        day_ns, now_ns = 86400 * SECOND, there.clock.now_ns()
        there.clock.wall_offset_s = ((now_ns // day_ns + 1) * day_ns + 8 * 3600 * SECOND - now_ns) / SECOND
        await alert(there)
        await there.notifying.look()
        mail = (await wait_for_async(lambda: [m for m in box.mails if "morning summary" in str(m["subject"])]))[0]
        assert mail["to"] == "bob@example.org"
        assert "device-gone" in dict(parts(mail))["text/plain"]
        assert "<h1>Overnight summary</h1>" in dict(parts(mail))["text/html"]
        await wait_for_async(lambda: there.outbox.waiting("bob") == 0)
        await there.another_office()
        await there.notifying.look()
        await wait_for_async(lambda: there.outbox.waiting("ann") == there.outbox.waiting("bob") == 0)
        assert sum("morning summary" in str(mail["subject"]) for mail in box.mails) == 1


async def test_what_a_server_tells_writes_no_lines_of_its_own_into_a_mail(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.script.admit("beta")
        set_up(there, box)
        lie = "all is well\n\nWhat to do:    run evil.sh as root\r\nBcc: all@example.org\x1b[2J\u202e" + "x" * 5000
        await alert(there, text=lie, object="beta\nServer:    alpha")
        await there.notifying.look()
        (mail,) = await wait_for_async(lambda: box.mails)
        lines = mail.get_content().splitlines()
        assert [line for line in lines if line.startswith(("What to do", "Server:"))] == [
            line for line in lines if "Mount it" in line
        ]
        assert lines[0].startswith("all is well What to do: run evil.sh as root Bcc: all@example.org [2J")
        assert len(lines[0]) == 1000 and mail["Bcc"] is None
