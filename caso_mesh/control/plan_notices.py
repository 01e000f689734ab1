"""What a file says of who is told: the mail server, recipients, groups, rules of notification and report schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from caso_mesh.control import notice_docs, report_schedules
from caso_mesh.control.lines import Path
from caso_mesh.control.state import ControlState
from caso_mesh.control.steps import Steps
from caso_mesh.model import notice_docs as n
from caso_mesh.model.notices import PutNoticeRule, PutRecipient, PutRecipientGroup, SetMailServer
from caso_mesh.model.report_schedules import PutReportSchedule, ReportScheduleDoc


class NoticeSections:
    """``known``: what the file makes beside, which a rule may name."""

    def __init__(self, state: ControlState, file: Steps, known: Callable[[], notice_docs.Known]) -> None:
        self._state = state
        self._file = file
        self._known = known

    def mail_server(self, value: Any) -> None:
        path: Path = ("smtp",)
        doc = self._file.convert(n.MailServerDoc, value, path)
        if doc is None or self._file.is_told(path):
            return
        doc, old = self._file.sound(doc, path, notice_docs.mail_server_of), self._state.mail_server
        if self._file.is_told(path):
            return
        row = notice_docs.mail_server_of(doc)
        was = None if old is None else notice_docs.mail_server_doc(old)
        if was is None or notice_docs.mail_server_of(was) != row:
            self._file.add(path, SetMailServer(row), "mail server", row.host, was, notice_docs.mail_server_doc(row))

    def recipient(self, name: str, doc: n.RecipientDoc, path: Path) -> None:
        old = self._state.recipients.get(name)
        was = None if old is None else notice_docs.recipient_doc(old)
        if was != doc:
            command = PutRecipient(notice_docs.recipient_of(name, doc), new=old is None)
            self._file.add(path, command, "recipient", name, was, doc)

    def group(self, name: str, doc: n.RecipientGroupDoc, path: Path) -> None:
        old, row = self._state.recipient_groups.get(name), notice_docs.group_of(name, doc)
        if old != row:
            was = None if old is None else notice_docs.group_doc(old)
            command = PutRecipientGroup(row, new=old is None)
            self._file.add(path, command, "group of recipients", name, was, notice_docs.group_doc(row))

    def rule(self, name: str, doc: n.NoticeRuleDoc, path: Path) -> None:
        state, old = self._state, self._state.notice_rules.get(name)
        known = self._known()
        doc = self._file.sound(doc, path, lambda doc: notice_docs.rule_of(state, name, doc, known))
        row = notice_docs.rule_of(state, name, doc, known)
        if old is None or replace(old, since_ns=0) != row:
            was = None if old is None else notice_docs.rule_doc(state, old)
            self._file.add(path, PutNoticeRule(row, new=old is None), "rule of notification", name, was, doc)

    def report_schedule(self, name: str, doc: ReportScheduleDoc, path: Path) -> None:
        doc = self._file.sound(doc, path, lambda doc: report_schedules.report_schedule_of(name, doc))
        row, old = report_schedules.report_schedule_of(name, doc), self._state.report_schedules.get(name)
        if old is None or replace(old, created_by="", created_at_ns=0, last_due_at_ns=None) != row:
            was = None if old is None else report_schedules.report_schedule_doc(old)
            command = PutReportSchedule(row, new=old is None)
            self._file.add(path, command, "report schedule", name, was, report_schedules.report_schedule_doc(row))
