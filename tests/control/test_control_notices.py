"""Recipients, rules and the mail server in the control state, and in the file of the mesh."""

from __future__ import annotations

import pytest
from control.control_world import SEED, Script
from control.test_control_plan import apply, plan_of
from msgspec.structs import replace

from caso_mesh.control.exporting import written
from caso_mesh.control.plan import Plan
from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import Batch, SetVoter
from caso_mesh.model.errors import AlreadyExists, CasoError, InUse, InvalidValue, NotFound, UsageError
from caso_mesh.model.features import level_of
from caso_mesh.model.logons import DeleteLogon, GrantLogon, Logon, PutLogon
from caso_mesh.model.notices import (
    DeleteRecipient,
    DeleteRecipientGroup,
    MailServer,
    MailTls,
    NoticeRule,
    PutNoticeRule,
    PutRecipient,
    PutRecipientGroup,
    Recipient,
    RecipientGroup,
    SetMailServer,
)
from caso_mesh.model.states import AlertKind, RunState

FILE = """
[smtp]
host = "smtp.example.org"
sender = "mesh@example.org"
logon = "mail"

[recipient.ann]
mail = "ann@example.org"
hourly = 5

[recipient.chat]
url = "https://chat.example.org/hook"
summary = false

[recipient_group.ops]
members = ["ann", "chat"]

[selection.office]
paths = ["alpha:/srv"]

[notify_rule.urgent]
to = ["ops"]
alerts = ["attention-required", "device-error"]
over = true

[notify_rule.office]
to = ["ann"]
ends = ["failed", "missed"]
lists = ["office"]
servers = ["alpha"]
"""


def logon(**fields: object) -> PutLogon:
    values: dict[str, object] = {"voters": True, "copies": {"node-alpha": b"sealed"}}
    row = Logon("mail", "mesh", (), (), "v1", 0, {}, "", 0)
    return PutLogon(replace(row, **(values | fields)), 0)


@pytest.fixture
def mesh() -> Script:
    made = Script()
    made.do(logon())
    return made


def test_a_file_makes_it_all_and_again_changes_nothing_and_an_export_makes_it_elsewhere(mesh: Script) -> None:
    changes = apply(mesh, FILE)
    assert "create mail server smtp.example.org" in changes and "create rule of notification office" in changes
    assert apply(mesh, FILE) == []
    assert mesh.state.notice_rules["office"].ends == (RunState.FAILED, RunState.MISSED)
    assert mesh.state.notice_rules["office"].lists == (mesh.state.list_named("office").id,)
    assert mesh.state.notice_rules["urgent"].types == (AlertKind.ATTENTION,)
    text = written(mesh.state)
    other = Script()
    other.do(logon())
    apply(other, text)
    assert written(other.state) == text
    assert apply(other, text) == []
    assert apply(mesh, FILE.replace("hourly = 5", "hourly = 6")) == ["change recipient ann"]


def test_every_mistake_in_a_file_is_told_with_its_line(mesh: Script) -> None:
    wrong = """
[smtp]
host = "smtp.example.org"
sender = "nobody"

[recipient.ann]
mail = "ann at example.org"

[recipient_group.ops]
members = ["bob"]

[notify_rule.x]
to = ["ops"]
alerts = ["no-such-alert"]
"""
    plan = plan_of(mesh, wrong)
    told = {mistake.line: mistake.message for mistake in plan.mistakes}
    assert {4, 7, 10, 14} <= told.keys()
    assert "mail address" in told[4] and "no-such-alert" in told[14]


def test_a_snapshot_keeps_it_and_it_needs_the_third_level(mesh: Script) -> None:
    apply(mesh, FILE)
    restored = ControlState()
    restored.restore(mesh.state.snapshot())
    assert restored.notice_rules == mesh.state.notice_rules and restored.mail_server == mesh.state.mail_server
    assert restored.recipients == mesh.state.recipients and restored.recipient_groups == mesh.state.recipient_groups
    for command in (PutRecipient(Recipient("a", "a@b.c", "", 0), True), SetMailServer(None), logon()):
        assert level_of(command) == 3
    assert level_of(logon(voters=False, servers=("node-alpha",))) == 2
    assert level_of(Batch(Plan(mesh.state, FILE.replace("5", "6"), who="", at_ns=0, seed=SEED).commands(), SEED)) == 3


def test_what_is_named_stays_and_names_are_of_one_kind(mesh: Script) -> None:
    apply(mesh, FILE)
    refused: list[tuple[object, type[CasoError]]] = [
        (DeleteRecipient("ann"), InUse),
        (DeleteRecipientGroup("ops"), InUse),
        (DeleteLogon("mail"), InUse),
        (logon(voters=False, servers=("node-alpha",)), AlreadyExists),
        (PutRecipient(Recipient("ann", "x@y.z", "", 0), True), AlreadyExists),
        (PutRecipient(Recipient("bob", "x@y.z", "", 0), False), NotFound),
        (PutRecipient(Recipient("ops", "x@y.z", "", 0), True), CasoError),
        (PutRecipientGroup(RecipientGroup("chat", ("ann",)), True), CasoError),
        (PutRecipientGroup(RecipientGroup("none", ()), True), UsageError),
        (PutNoticeRule(NoticeRule("r", ("nobody",), 0, (AlertKind.ERROR,)), True), NotFound),
        (PutNoticeRule(NoticeRule("r", ("ann",), 0), True), UsageError),
    ]
    for command, error in refused:
        with pytest.raises(error):
            mesh.do(command)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "recipient",
    [
        Recipient("a", "", "", 0),
        Recipient("a", "a@b.c", "https://x.y/", 0),
        Recipient("a", "a@b.c\nBcc: d@e.f", "", 0),
        Recipient("a", "A <a@b.c>", "", 0),
        Recipient("a", "ä@b.c", "", 0),
        Recipient("a", "", "ftp://x.y/", 0),
        Recipient("a", "", "https://user:secret@x.y/", 0),
        Recipient("a", "", "https:///nowhere", 0),
        Recipient("a", "", "https://x.y/\r\nX: 1", 0),
        Recipient("a", "", "https://x.y:99999/", 0),
        Recipient("a", "a@b.c", "", 0, hourly=0),
        Recipient("a", "a@b.c", "", 0, logon="mail"),
        Recipient("a", "", "https://x.y/", 0, logon="none"),
    ],
)
def test_a_recipient_that_cannot_be_right_is_refused(mesh: Script, recipient: Recipient) -> None:
    with pytest.raises((UsageError, NotFound)):
        mesh.do(PutRecipient(recipient, True))


@pytest.mark.parametrize(
    "server",
    [
        MailServer("", 25, MailTls.NONE, "a@b.c"),
        MailServer("host name", 25, MailTls.NONE, "a@b.c"),
        MailServer("host", 0, MailTls.NONE, "a@b.c"),
        MailServer("host", 25, MailTls.NONE, "nobody"),
        MailServer("host", 25, MailTls.STARTTLS, "a@b.c", ca_pem="no certificate"),
        MailServer("host", 25, MailTls.IF_OFFERED, "a@b.c", logon="mail"),
    ],
)
def test_a_mail_server_that_cannot_be_right_is_refused(mesh: Script, server: MailServer) -> None:
    with pytest.raises((UsageError, InvalidValue)):
        mesh.do(SetMailServer(server))


def test_a_voter_that_votes_no_more_has_no_copy_of_what_is_for_the_voters(mesh: Script) -> None:
    mesh.admit("beta")
    mesh.do(SetVoter("node-beta", True, b"beta"))
    mesh.do(GrantLogon("mail", "v1", {"node-beta": b"sealed"}))
    assert set(mesh.state.logons["mail"].copies) == {"node-alpha", "node-beta"}
    mesh.do(SetVoter("node-beta", False))
    assert set(mesh.state.logons["mail"].copies) == {"node-alpha"}


def test_a_file_for_who_may_not_see_recipients_changes_none_of_them(mesh: Script) -> None:
    apply(mesh, FILE)
    text = written(mesh.state, notices=False)
    assert "chat.example.org" not in text and "smtp" not in text and "notify_rule" not in text and "office" in text
    assert apply(mesh, text) == []
