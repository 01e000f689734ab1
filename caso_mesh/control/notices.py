"""Commands about whom the administrator tells of what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from msgspec.structs import replace

from caso_mesh.control.faults import Fault, raise_first, refused
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect, Put
from caso_mesh.model.errors import AlreadyExists, Conflict, InUse, InvalidValue, NotFound, UsageError
from caso_mesh.model.ids import check_name
from caso_mesh.model.notices import (
    MOST,
    DeleteNoticeRule,
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

#: Addresses are ASCII, since not every mail server takes others.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,252}[A-Za-z0-9])?")
_LONGEST_URL, _LONGEST_CA, _MOST_HOURLY = 2000, 65536, 1000


# --- the mail server -------------------------------------------------------------------------------------------------


def set_mail_server(state: ControlState, command: SetMailServer, context: Context) -> Effect:
    """``InvalidValue``, ``NotFound`` for a logon, ``UsageError`` for one that would travel open."""
    row = command.server
    if row is None:
        return Effect(None, (Put("mail_server", "", None),))
    raise_first(mail_server_faults(state, row))
    made = replace(row, changed_by=context.who, changed_at_ns=context.at_ns)
    return Effect(None, (Put("mail_server", "", made),))


def mail_server_faults(state: ControlState, row: MailServer) -> Iterator[Fault]:
    """All that is wrong; places are the keys of ``MailServerDoc``."""
    if not _HOST.fullmatch(row.host):
        yield Fault(_invalid(row.host, "mail server", "Use a host name or an address"), ("host",))
    if not 0 < row.port < 65536:
        yield Fault(_invalid(row.port, "port", "It lies between 1 and 65535"), ("port",))
    yield from refused(("sender",), check_address, row.sender)
    if len(row.ca_pem) > _LONGEST_CA or (row.ca_pem and "-----BEGIN CERTIFICATE-----" not in row.ca_pem):
        yield Fault(_invalid(row.ca_pem[:60], "CA", "Use certificates in PEM, of 64 kB at most"), ("ca",))
    if row.logon is not None:
        yield from refused(("logon",), _check_logon, state, row.logon)
        if row.tls not in {MailTls.STARTTLS, MailTls.IMPLICIT}:
            detail = "A logon is only given to a mail server whose certificate was checked: use starttls or implicit"
            yield Fault(UsageError(detail=detail), ("tls",))


def check_address(text: str) -> None:
    """Raises ``InvalidValue`` for what is no mail address."""
    if not _ADDRESS.fullmatch(text):
        raise _invalid(text, "mail address", "Use NAME@DOMAIN, without a display name, in ASCII")


def _check_logon(state: ControlState, name: str) -> None:
    """Any voter may be in office: one that only some servers may use would work by luck."""
    if not state.logon_named(name).voters:
        detail = f"The voters may not use the logon {name}, and any of them may be in office"
        raise UsageError(detail=f"{detail}: caso-mesh logon set {name} --voters")


# --- recipients and groups -------------------------------------------------------------------------------------------


def put_recipient(state: ControlState, command: PutRecipient, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``InvalidValue``, ``UsageError``, ``Conflict``."""
    row = command.recipient
    old = state.recipients.get(row.name)
    _check_there(old, command.new, "recipient", row.name)
    raise_first(recipient_faults(state, row))
    if old is None and len(state.recipients) >= MOST:
        raise Conflict(detail=f"There are {MOST} recipients, which are all that there may be")
    row = replace(
        row,
        since_ns=context.at_ns if old is None else old.since_ns,
        changed_by=context.who,
        changed_at_ns=context.at_ns,
    )
    return Effect({"recipient": row.name}, (Put("recipients", row.name, row),))


def recipient_faults(state: ControlState, row: Recipient) -> Iterator[Fault]:
    """All that is wrong; places are the keys of ``RecipientDoc``."""
    yield from refused((), check_name, row.name, "recipient")
    if row.name in state.recipient_groups:
        yield Fault(Conflict(detail=f"{row.name} is the name of a group of recipients"))
    if bool(row.mail) is bool(row.url):
        yield Fault(UsageError(detail=f"The recipient {row.name} needs a mail address or a URL, one of them"))
    if row.mail:
        yield from refused(("mail",), check_address, row.mail)
    if row.url:
        yield from refused(("url",), check_url, row.url)
    if row.logon is not None:
        if not row.url:
            yield Fault(
                UsageError(detail="A logon signs what goes to a URL; that of mail is the mail server's"), ("logon",)
            )
        yield from refused(("logon",), _check_logon, state, row.logon)
    if not 1 <= row.hourly <= _MOST_HOURLY:
        expected = f"It lies between 1 and {_MOST_HOURLY} an hour"
        yield Fault(_invalid(row.hourly, "number of messages", expected), ("hourly",))


def check_url(text: str) -> None:
    """Raises ``InvalidValue`` for what is no URL of a webhook."""
    expected = "Use http:// or https:// and a host, without a user in it"
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
        fine = fine and (parts.port is None or parts.port > 0) and not parts.fragment
    except ValueError:
        fine = False
    if not fine or len(text) > _LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise _invalid(text[:200], "URL", expected)


def delete_recipient(state: ControlState, command: DeleteRecipient, context: Context) -> Effect:
    """``NotFound``, ``InUse`` while a group or a rule names it."""
    if command.name not in state.recipients:
        raise NotFound(kind="recipient", name=command.name)
    users = [f"group {group.name}" for group in state.recipient_groups.values() if command.name in group.members]
    _check_unused(state, "recipient", command.name, sorted(users))
    return Effect(None, (Put("recipients", command.name, None),))


def put_group(state: ControlState, command: PutRecipientGroup, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``Conflict``, ``UsageError``."""
    row = command.group
    old = state.recipient_groups.get(row.name)
    _check_there(old, command.new, "recipient-group", row.name)
    raise_first(group_faults(state, row))
    if old is None and len(state.recipient_groups) >= MOST:
        raise Conflict(detail=f"There are {MOST} groups of recipients, which are all that there may be")
    row = replace(row, members=tuple(dict.fromkeys(row.members)))
    return Effect({"group": row.name}, (Put("recipient_groups", row.name, row),))


def group_faults(state: ControlState, row: RecipientGroup) -> Iterator[Fault]:
    """All that is wrong; places are the keys of ``RecipientGroupDoc``."""
    yield from refused((), check_name, row.name, "group of recipients")
    if row.name in state.recipients:
        yield Fault(Conflict(detail=f"{row.name} is the name of a recipient"))
    if not row.members:
        yield Fault(UsageError(detail=f"The group {row.name} has at least one recipient"), ("members",))
    for member in row.members:
        if member not in state.recipients:
            yield Fault(NotFound(kind="recipient", name=member), ("members",))


def delete_group(state: ControlState, command: DeleteRecipientGroup, context: Context) -> Effect:
    """``NotFound``, ``InUse`` while a rule names it."""
    if command.name not in state.recipient_groups:
        raise NotFound(kind="recipient-group", name=command.name)
    _check_unused(state, "recipient-group", command.name, [])
    return Effect(None, (Put("recipient_groups", command.name, None),))


def _check_unused(state: ControlState, kind: str, name: str, users: list[str]) -> None:
    users += sorted(f"report {row.name}" for row in state.report_schedules.values() if name in row.to)
    users = [*users, *(f"rule {rule.name}" for rule in _rules(state) if name in rule.to)]
    if users:
        raise InUse(kind=kind, name=name, by=users)


def _rules(state: ControlState) -> list[NoticeRule]:
    return [state.notice_rules[name] for name in sorted(state.notice_rules)]


# --- rules -----------------------------------------------------------------------------------------------------------


def put_rule(state: ControlState, command: PutNoticeRule, context: Context) -> Effect:
    """``AlreadyExists``, ``NotFound``, ``UsageError``, ``Conflict``. A rule that was changed holds from then on."""
    row = command.rule
    old = state.notice_rules.get(row.name)
    _check_there(old, command.new, "notify-rule", row.name)
    raise_first(rule_faults(state, row))
    if old is None and len(state.notice_rules) >= MOST:
        raise Conflict(detail=f"There are {MOST} rules, which are all that there may be")
    row = replace(row, since_ns=context.at_ns)
    return Effect({"rule": row.name}, (Put("notice_rules", row.name, row),))


def rule_faults(state: ControlState, row: NoticeRule) -> Iterator[Fault]:
    """All that is wrong; places are the keys of ``NoticeRuleDoc``."""
    yield from refused((), check_name, row.name, "rule")
    if not row.to:
        yield Fault(UsageError(detail=f"Say whom the rule {row.name} tells"), ("to",))
    for name in row.to:
        if name not in state.recipients and name not in state.recipient_groups:
            yield Fault(NotFound(kind="recipient", name=name), ("to",))
    if not (row.types or row.categories or row.ends):
        yield Fault(UsageError(detail=f"Say of which alerts, or which ends of runs, the rule {row.name} tells"))


def delete_rule(state: ControlState, command: DeleteNoticeRule, context: Context) -> Effect:
    """``NotFound``."""
    if command.name not in state.notice_rules:
        raise NotFound(kind="notify-rule", name=command.name)
    return Effect(None, (Put("notice_rules", command.name, None),))


def _check_there(old: object, new: bool, kind: str, name: str) -> None:
    if new and old is not None:
        raise AlreadyExists(kind=kind, name=name)
    if not new and old is None:
        raise NotFound(kind=kind, name=name)


def _invalid(value: object, what: str, expected: str) -> InvalidValue:
    return InvalidValue(value=value, what=what, expected=expected)
