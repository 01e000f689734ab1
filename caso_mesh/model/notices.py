"""Whom the administrator tells of what, by mail and by webhooks, and the commands about it.

A *recipient* is one destination. A *rule* says of which alerts and ends of runs its recipients are told; while there is no
rule at all, all of them are told of alerts that need attention or are errors. Secrets (of the mail server, of signatures)
are logons that the voters may use, since any of them may be in office.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from caso_mesh.model.states import AlertKind, RunState

#: How many of each there may be.
MOST = 200
#: Messages to one recipient in an hour, without another word.
HOURLY = 20


class MailTls(StrEnum):
    """How the connection to the mail server is kept from others. ``starttls-if-offered`` checks no certificate: who can
    change what passes could have it left out as well."""

    STARTTLS = "starttls"
    IF_OFFERED = "starttls-if-offered"
    IMPLICIT = "implicit"
    NONE = "none"


class MailServer(Struct, frozen=True):
    """The server that takes the mail of the mesh. ``sender``: the address it comes from; ``logon``: its user and secret;
    ``ca_pem``: certificates that are believed of it, instead of those of the machine in office."""

    host: str
    port: int
    tls: MailTls
    sender: str
    logon: str | None = None
    ca_pem: str = ""
    changed_by: str = ""
    changed_at_ns: int = 0


class Recipient(Struct, frozen=True):
    """One destination: ``mail`` or ``url``, the other is empty. ``logon``: by its secret what goes to ``url`` is signed.
    ``hourly``: at most so many messages in an hour. ``summary``: it gets the one of each morning. It is told of what
    happens after ``since_ns``."""

    name: str
    mail: str
    url: str
    since_ns: int
    logon: str | None = None
    hourly: int = HOURLY
    summary: bool = True
    changed_by: str = ""
    changed_at_ns: int = 0


class RecipientGroup(Struct, frozen=True):
    """Recipients under one name."""

    name: str
    members: tuple[str, ...]


class NoticeRule(Struct, frozen=True):
    """``to``: recipients and groups. Told is what is one of ``types`` or ``categories`` of alerts, or one of the ``ends`` of
    runs; of those only what is about one of ``servers`` (ids) or ``pools`` (names), and about one of ``jobs``, ``policies``,
    ``lists`` (ids), where some are named. ``over``: also that what an alert told of is over. It holds for what happens after
    ``since_ns``."""

    name: str
    to: tuple[str, ...]
    since_ns: int
    types: tuple[AlertKind, ...] = ()
    categories: tuple[str, ...] = ()
    ends: tuple[RunState, ...] = ()
    servers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    over: bool = False


class SetMailServer(Struct, frozen=True, tag="set-mail-server", tag_field="do"):
    """``None``: there is none any more."""

    server: MailServer | None


class PutRecipient(Struct, frozen=True, tag="put-recipient", tag_field="do"):
    """``new``: it must not be there; else it must, and keeps its ``since_ns``."""

    recipient: Recipient
    new: bool


class DeleteRecipient(Struct, frozen=True, tag="delete-recipient", tag_field="do"):
    name: str


class PutRecipientGroup(Struct, frozen=True, tag="put-recipient-group", tag_field="do"):
    group: RecipientGroup
    new: bool


class DeleteRecipientGroup(Struct, frozen=True, tag="delete-recipient-group", tag_field="do"):
    name: str


class PutNoticeRule(Struct, frozen=True, tag="put-notice-rule", tag_field="do"):
    rule: NoticeRule
    new: bool


class DeleteNoticeRule(Struct, frozen=True, tag="delete-notice-rule", tag_field="do"):
    name: str


NoticeCommand = (
    SetMailServer
    | PutRecipient
    | DeleteRecipient
    | PutRecipientGroup
    | DeleteRecipientGroup
    | PutNoticeRule
    | DeleteNoticeRule
)


class Attachment(Struct, frozen=True):
    """A file that goes with a mail. ``type`` as in ``text/csv``."""

    name: str
    type: str
    data: bytes


class Message(Struct, frozen=True):
    """What goes to ``recipients`` (names of recipients and groups). ``key`` is the same whoever sends it: of two messages
    with one key a recipient needs only one. ``html`` and ``attachments`` go by mail alone, ``data`` to webhooks alone."""

    key: str
    subject: str
    text: str
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    recipients: tuple[str, ...] = ()
    data: dict[str, Any] = {}
    type: str = "message"
