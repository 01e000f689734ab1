"""Recipients, rules and the mail server as people write them, in calls and in the file of ``apply``; and the calls."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.notices import HOURLY


class MailServerDoc(Struct, frozen=True):
    """The mail server. ``port`` 0 is the usual one: 587 with ``starttls``, 465 with ``implicit``, else 25. ``tls``:
    ``starttls``, ``starttls-if-offered``, ``implicit`` or ``none``. ``ca``: certificates in PEM that are believed instead of
    those of the machine."""

    host: str
    sender: str
    port: int = 0
    tls: str = "starttls"
    logon: str | None = None
    ca: str = ""


class RecipientDoc(Struct, frozen=True):
    """A recipient: a mail address, or the URL of a webhook. ``logon``: by its secret what goes to the URL is signed.
    ``hourly``: at most so many messages in an hour. ``summary``: it gets the one of each morning."""

    mail: str = ""
    url: str = ""
    logon: str | None = None
    hourly: int = HOURLY
    summary: bool = True


class RecipientGroupDoc(Struct, frozen=True):
    """Recipients under one name."""

    members: tuple[str, ...] = ()


class NoticeRuleDoc(Struct, frozen=True):
    """A rule. ``to``: recipients and groups. ``alerts``: types or categories of alerts (help alerts). ``ends``: of runs, as in
    ``failed``. The others narrow it down. ``over``: also that what an alert told of is over."""

    to: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    over: bool = False


class MailServerSet(Struct, frozen=True):
    """Without ``mail_server`` there is none any more."""

    mail_server: MailServerDoc | None = None


class MailServerView(Struct, frozen=True):
    mail_server: MailServerDoc | None
    changed: str = ""
    changed_by: str = ""


class RecipientEdit(Struct, frozen=True):
    name: str
    definition: RecipientDoc


class RecipientView(Struct, frozen=True):
    """``waiting``: messages that were not sent yet; ``problem``: why the last one did not arrive."""

    name: str
    definition: RecipientDoc
    waiting: int
    problem: str
    changed: str
    changed_by: str


class RecipientViews(Struct, frozen=True):
    recipients: tuple[RecipientView, ...]


class RecipientGroupEdit(Struct, frozen=True):
    name: str
    definition: RecipientGroupDoc


class RecipientGroupViews(Struct, frozen=True):
    groups: tuple[RecipientGroupEdit, ...]


class NoticeRuleEdit(Struct, frozen=True):
    name: str
    definition: NoticeRuleDoc


class NoticeRuleViews(Struct, frozen=True):
    """``standard``: there is no rule, and the one that is shown holds by itself."""

    rules: tuple[NoticeRuleEdit, ...]
    standard: bool = False


class NoticeTest(Struct, frozen=True):
    """``name``: a recipient or a group."""

    name: str


class NoticeTested(Struct, frozen=True):
    """``answer``: what the receiving server said; ``problem``: why it did not arrive."""

    recipient: str
    arrived: bool
    answer: str = ""
    problem: str = ""


class NoticesTested(Struct, frozen=True):
    results: tuple[NoticeTested, ...]
