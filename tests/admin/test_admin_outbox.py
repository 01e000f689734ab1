"""Messages by a real mail server and a real web server: what they get, and what happens when they do not take it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from admin.post_office import MailBox, certificate, mail_server, parts, room, web_server
from aiohttp import web
from ports import hold_port
from waiting import wait_for_async

from caso_mesh.model import facts
from caso_mesh.model.errors import DeviceFull, NotDelivered, UsageError
from caso_mesh.model.notices import Attachment, DeleteRecipient, MailTls, Message, PutRecipientGroup, RecipientGroup

HELLO = Message("key-1", "one backup failed at beta", "nightly failed at beta: device-full", recipients=("ann",))


@pytest.fixture
def nobody():
    """A place where nobody listens yet."""
    with hold_port() as held:
        yield held


async def sent(post: object, message: Message) -> None:
    """Posts until nobody is left."""

    async def nobody_left() -> bool:
        return await post.post(message) == ()  # type: ignore[attr-defined]

    await wait_for_async(nobody_left)


async def test_a_mail_says_which_mesh_and_what_and_has_an_id_that_stays(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.mail_by(box)
        there.recipient("ann", "ann@example.org")
        await sent(there.outbox, HELLO)
        (mail,) = box.mails
        assert mail["subject"] == "[home] one backup failed at beta"
        assert mail["message-id"] == "<key-1@mesh-1.caso-mesh>"
        assert (mail["from"], mail["to"], mail["auto-submitted"]) == (
            "backup@mesh.example",
            "ann@example.org",
            "auto-generated",
        )
        assert "nightly failed at beta: device-full" in mail.get_content()
        assert "sent by alpha" in mail.get_content()
        assert facts.NoticesSent("ann", "key-1", ()) in there.facts.all


async def test_html_and_attachments_go_with_a_mail_and_control_characters_do_not(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.mail_by(box)
        there.recipient("ann", "ann@example.org")
        table = Attachment("jobs.csv", "text/csv", b"job,state\nx,ok\n")
        text = "a name that is no UTF-8: \udcff, und Umlaute: äöü"
        await sent(there.outbox, Message("k", "a\r\nBcc: all@example.org\x00", text, "<p>hi</p>", (table,), ("ann",)))
        (mail,) = box.mails
        assert mail["bcc"] is None
        assert mail["subject"] == "[home] a Bcc: all@example.org"
        found = dict(parts(mail))
        assert "äöü" in found["text/plain"] and "\\udcff" in found["text/plain"]
        assert "<p>hi</p>" in found["text/html"]
        assert "job,state" in found["text/csv"]


async def test_a_message_that_was_sent_is_not_sent_again_by_the_next_office(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.mail_by(box)
        there.recipient("ann", "ann@example.org")
        there.recipient("bob", "bob@example.org")
        there.script.do(PutRecipientGroup(RecipientGroup("ops", ("ann", "bob")), new=True))
        to_all = Message("key-2", "s", "t", recipients=("ops", "ann", "nobody-there"))
        box.refuses_recipient = lambda address: "450 later" if address.startswith("bob") else None
        await wait_for_async(lambda: there.outbox.post(to_all))
        await wait_for_async(lambda: box.to == ["ann@example.org"] and there.outbox.waiting("ann") == 0)
        assert await there.outbox.post(to_all) == ("bob",)
        await there.another_office()
        box.refuses_recipient = lambda address: None
        await sent(there.outbox, to_all)
        assert sorted(box.to) == ["ann@example.org", "bob@example.org"]
        assert box.keys() == ["key-2", "key-2"]


async def test_starttls_is_required_or_not_and_a_logon_only_goes_to_a_server_that_was_checked(tmp_path):
    context, pem = certificate(tmp_path)
    async with room(tmp_path) as there, mail_server(starttls=context, login=True) as box:
        there.recipient("ann", "ann@example.org")
        there.logon("mail", "mesh", "correct horse")
        with pytest.raises(UsageError, match="starttls or implicit"):
            there.mail_by(box, MailTls.IF_OFFERED, logon="mail")
        there.mail_by(box, MailTls.STARTTLS, logon="mail")
        with pytest.raises(NotDelivered, match="certificate"):
            await there.outbox.test("ann", HELLO)
        assert box.logins == []
        there.mail_by(box, MailTls.STARTTLS, logon="mail", ca=pem)
        assert await there.outbox.test("ann", HELLO) == "taken as 4711"
        assert box.logins == [("mesh", "correct horse")] and box.encrypted == [True]


async def test_a_wrong_secret_and_a_missing_one_are_told(tmp_path):
    context, pem = certificate(tmp_path)
    async with room(tmp_path) as there, mail_server(starttls=context, login=True) as box:
        there.recipient("ann", "ann@example.org")
        there.logon("mail", "mesh", "wrong")
        there.mail_by(box, MailTls.STARTTLS, logon="mail", ca=pem)
        with pytest.raises(NotDelivered, match="535"):
            await there.outbox.test("ann", HELLO)
        there.secrets.clear()
        with pytest.raises(NotDelivered, match="no copy of the secret"):
            await there.outbox.test("ann", HELLO)


async def test_tls_from_the_first_byte_and_tls_that_is_only_offered(tmp_path):
    context, pem = certificate(tmp_path)
    async with room(tmp_path) as there:
        there.recipient("ann", "ann@example.org")
        async with mail_server(implicit=context) as box:
            there.mail_by(box, MailTls.IMPLICIT, ca=pem)
            await there.outbox.test("ann", HELLO)
            assert len(box.mails) == 1
        for starttls, encrypted in ((context, True), (None, False)):
            async with mail_server(starttls=starttls) as box:
                there.mail_by(box, MailTls.IF_OFFERED)
                await there.outbox.test("ann", HELLO)
                assert box.encrypted == [encrypted]
        async with mail_server() as box:
            there.mail_by(box, MailTls.STARTTLS, ca=pem)
            with pytest.raises(NotDelivered, match="STARTTLS"):
                await there.outbox.test("ann", HELLO)
            assert box.mails == []


async def test_a_mail_server_that_is_down_is_told_of_and_gets_everything_when_it_returns(tmp_path, nobody):
    async with room(tmp_path) as there:
        gone = MailBox()
        gone.port = nobody.getsockname()[1]
        there.mail_by(gone)
        there.recipient("ann", "ann@example.org")
        for number in range(3):
            await there.outbox.post(Message(f"k{number}", f"message {number}", "t", recipients=("ann",)))
        await wait_for_async(lambda: there.facts.alerts("notification-failed"))
        (alert,) = there.facts.alerts("notification-failed")
        assert alert.object == "ann" and f"127.0.0.1:{gone.port}" in alert.text
        assert there.outbox.failing() == {"ann"} and "says" in there.outbox.problem("ann")
        async with mail_server(gone, port=gone.port) as box:
            await wait_for_async(lambda: len(box.mails) == 3)
            assert box.keys() == ["k0", "k1", "k2"]
            await wait_for_async(lambda: there.outbox.failing() == frozenset())
            await wait_for_async(lambda: facts.AlertCleared(alert.id) in there.facts.all)


async def test_a_slow_mail_server_holds_up_no_webhook_and_a_hanging_webhook_no_mail(tmp_path):
    async with room(tmp_path) as there, mail_server() as box, web_server() as hook, web_server() as quick:
        box.slow_s = 30.0
        hook.hangs = True
        there.mail_by(box)
        there.recipient("ann", "ann@example.org")
        there.recipient("hook", url=hook.url)
        there.recipient("quick", url=quick.url)
        await there.outbox.post(Message("k", "s", "t", recipients=("ann", "hook", "quick")))
        await wait_for_async(lambda: quick.posts and hook.posts)
        await wait_for_async(lambda: facts.NoticesSent("quick", "k", ()) in there.facts.all)
        box.slow_s = 0.0
        await there.outbox.post(Message("k2", "s", "t", recipients=("quick",)))
        await wait_for_async(lambda: len(quick.posts) == 2)
        assert len(hook.posts) == 1


async def test_a_mail_that_is_refused_is_given_up_and_the_others_are_sent(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.mail_by(box)
        there.recipient("ann", "ann@example.org")
        box.answer = lambda mail: "552 too big" if "large" in str(mail["subject"]) else None
        await there.outbox.post(Message("large", "a large one", "t", recipients=("ann",)))
        await there.outbox.post(Message("small", "a small one", "t", recipients=("ann",)))
        await wait_for_async(lambda: facts.NoticesSent("ann", "large", (), "refused") in there.facts.all)
        assert box.keys() == ["small"]
        assert await there.outbox.post(Message("large", "a large one", "t", recipients=("ann",))) == ()


async def test_a_webhook_is_signed_and_has_the_key_of_the_message(tmp_path):
    async with room(tmp_path) as there, web_server() as hook:
        there.logon("sign", "hook", "whsec_c2VjcmV0")
        there.recipient("hook", url=hook.url, logon="sign")
        await sent(there.outbox, Message("key-9", "s", "t", "<p>", recipients=("hook",), data={"n": 1}, type="alert"))
        ((path, headers, body),) = hook.posts
        assert path == "/hook"
        assert headers["webhook-id"] == headers["idempotency-key"] == "key-9"
        mac = hmac.new(b"secret", f"key-9.{headers['webhook-timestamp']}.".encode() + body, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
        told = json.loads(body)
        assert told["type"] == "alert"
        assert told["data"] == {"mesh": "home", "subject": "s", "text": "t", "n": 1}


async def test_a_webhook_that_fails_is_tried_again_and_one_that_redirects_elsewhere_is_not_followed(tmp_path):
    async with room(tmp_path) as there, web_server() as hook, web_server() as elsewhere:
        there.recipient("hook", url=hook.url)
        hook.answer = lambda number: web.Response(status=500 if number < 3 else 200)
        await sent(there.outbox, Message("k", "s", "t", recipients=("hook",)))
        assert [headers["webhook-id"] for _, headers, _ in hook.posts] == ["k", "k", "k"]
        hook.answer = lambda number: web.Response(status=307, headers={"location": elsewhere.url})
        with pytest.raises(NotDelivered, match="which is not followed") as refused:
            await there.outbox.test("hook", HELLO)
        assert elsewhere.posts == [] and "very-secret" not in refused.value.message
        hook.answer = lambda number: web.Response(status=303, headers={"location": "/other"})
        with pytest.raises(NotDelivered, match="which is not followed"):
            await there.outbox.test("hook", HELLO)
        count = len(hook.posts)
        hook.answer = lambda number: (
            web.Response(status=308, headers={"location": "/other"}) if number == count + 1 else web.Response()
        )
        assert await there.outbox.test("hook", HELLO) == "HTTP 200"
        assert hook.posts[-1][0] == "/other"


async def test_where_nothing_listens_is_named_with_the_reason_and_without_the_path(tmp_path, nobody):
    async with room(tmp_path) as there:
        port = nobody.getsockname()[1]
        there.recipient("hook", url=f"http://127.0.0.1:{port}/very-secret")
        with pytest.raises(NotDelivered) as refused:
            await there.outbox.test("hook", HELLO)
        assert f"cannot connect to 127.0.0.1:{port}: connection refused" in refused.value.message
        assert "ssl" not in refused.value.message and "very-secret" not in refused.value.message


async def test_a_webhook_that_is_gone_gets_nothing_until_a_person_changes_it(tmp_path):
    async with room(tmp_path) as there, web_server() as hook, web_server() as other:
        there.recipient("hook", url=hook.url)
        there.recipient("other", url=other.url)
        hook.answer = lambda number: web.Response(status=410)
        other.answer = lambda number: web.Response(status=500)
        await there.outbox.post(Message("k", "s", "t", recipients=("hook", "other")))
        await wait_for_async(lambda: there.facts.alerts("notification-failed"))
        await wait_for_async(lambda: len(other.posts) == 5)
        assert len(hook.posts) == 1
        hook.answer = lambda number: web.Response()
        there.outbox.retry()
        await wait_for_async(lambda: len(hook.posts) == 2)


async def test_what_was_sent_while_the_disk_is_full_is_recorded_later_and_not_sent_again(tmp_path):
    async with room(tmp_path) as there, mail_server() as box:
        there.mail_by(box)
        there.recipient("ann", "ann@example.org")
        there.facts.fails = DeviceFull(device="state folder", needed=1, free=0)
        await sent(there.outbox, HELLO)
        assert len(box.mails) == 1 and there.facts.all == []
        there.facts.fails = None
        await wait_for_async(lambda: there.facts.all == [facts.NoticesSent("ann", "key-1", ())])
        assert len(box.mails) == 1


async def test_a_recipient_that_was_deleted_gets_nothing_more(tmp_path):
    async with room(tmp_path) as there:
        async with mail_server(MailBox()) as box:
            there.mail_by(box)
            there.recipient("ann", "ann@example.org")
            box.refuses_recipient = lambda address: "450 later"
            await there.outbox.post(HELLO)
            await wait_for_async(lambda: there.outbox.problem("ann"))
            there.script.do(DeleteRecipient("ann"))
            await wait_for_async(lambda: there.outbox.waiting("ann") == 0)
            box.refuses_recipient = lambda address: None
            assert box.mails == [] and await there.outbox.post(HELLO) == ()
