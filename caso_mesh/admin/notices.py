"""The calls of people about notification."""

from __future__ import annotations

import asyncio

from caso_mesh.admin.once import Once, Remembered
from caso_mesh.admin.outbox import Outbox
from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.control import notice_docs as docs
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import notice_docs as d
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import Command
from caso_mesh.model.errors import NotDelivered, NotFound
from caso_mesh.model.notices import (
    DeleteNoticeRule,
    DeleteRecipient,
    DeleteRecipientGroup,
    Message,
    PutNoticeRule,
    PutRecipient,
    PutRecipientGroup,
    SetMailServer,
)
from caso_mesh.model.units import format_instant

#: Characters of what servers say, of all of a group together and of one at least: they lie in the log.
_MOST_SAID, _SHORTEST_SAID = 100_000, 100


class Notices:
    """Answers of the administrator."""

    def __init__(self, *, keeper: ControlKeeper, submit: Submit, outbox: Outbox, server: str, clock: Clock) -> None:
        self._keeper = keeper
        self._submit = submit
        self._outbox = outbox
        self._server = server
        self._clock = clock
        #: A duty.
        self.once = Once(Remembered(keeper=keeper, submit=submit))

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "mail-server.show": self._show_server,
            "mail-server.set": self._set_server,
            "recipient.list": self._recipients,
            "recipient.create": self._create_recipient,
            "recipient.set": self._set_recipient,
            "recipient.delete": self._delete_recipient,
            "recipient-group.list": self._groups,
            "recipient-group.create": self._create_group,
            "recipient-group.set": self._set_group,
            "recipient-group.delete": self._delete_group,
            "notify-rule.list": self._rules,
            "notify-rule.create": self._create_rule,
            "notify-rule.set": self._set_rule,
            "notify-rule.delete": self._delete_rule,
            "notify.test": self._test,
        }

    async def _do(self, caller: Caller, command: Command) -> v.Done:
        if done_before(self._keeper, caller) is None:
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def _show_server(self, caller: Caller, request: q.Nothing) -> d.MailServerView:
        row = self._keeper.state.mail_server
        if row is None:
            return d.MailServerView(None)
        return d.MailServerView(docs.mail_server_doc(row), format_instant(row.changed_at_ns) or "", row.changed_by)

    async def _set_server(self, caller: Caller, request: d.MailServerSet) -> v.Done:
        row = docs.mail_server_of(request.mail_server) if request.mail_server is not None else None
        return await self._do(caller, SetMailServer(row))

    async def _recipients(self, caller: Caller, request: q.Nothing) -> d.RecipientViews:
        rows = self._keeper.state.recipients
        return d.RecipientViews(
            tuple(
                d.RecipientView(
                    name,
                    docs.recipient_doc(row),
                    self._outbox.waiting(name),
                    self._outbox.problem(name),
                    format_instant(row.changed_at_ns) or "",
                    row.changed_by,
                )
                for name, row in sorted(rows.items())
            )
        )

    async def _create_recipient(self, caller: Caller, request: d.RecipientEdit) -> v.Done:
        return await self._do(caller, PutRecipient(docs.recipient_of(request.name, request.definition), new=True))

    async def _set_recipient(self, caller: Caller, request: d.RecipientEdit) -> v.Done:
        return await self._do(caller, PutRecipient(docs.recipient_of(request.name, request.definition), new=False))

    async def _delete_recipient(self, caller: Caller, request: q.Named) -> v.Done:
        return await self._do(caller, DeleteRecipient(request.name))

    async def _groups(self, caller: Caller, request: q.Nothing) -> d.RecipientGroupViews:
        rows = sorted(self._keeper.state.recipient_groups.items())
        return d.RecipientGroupViews(tuple(d.RecipientGroupEdit(name, docs.group_doc(row)) for name, row in rows))

    async def _create_group(self, caller: Caller, request: d.RecipientGroupEdit) -> v.Done:
        return await self._do(caller, PutRecipientGroup(docs.group_of(request.name, request.definition), new=True))

    async def _set_group(self, caller: Caller, request: d.RecipientGroupEdit) -> v.Done:
        return await self._do(caller, PutRecipientGroup(docs.group_of(request.name, request.definition), new=False))

    async def _delete_group(self, caller: Caller, request: q.Named) -> v.Done:
        return await self._do(caller, DeleteRecipientGroup(request.name))

    async def _rules(self, caller: Caller, request: q.Nothing) -> d.NoticeRuleViews:
        state = self._keeper.state
        rows = self._outbox.book().standing()
        return d.NoticeRuleViews(
            tuple(d.NoticeRuleEdit(row.name, docs.rule_doc(state, row)) for row in rows),
            standard=not state.notice_rules,
        )

    async def _create_rule(self, caller: Caller, request: d.NoticeRuleEdit) -> v.Done:
        rule = docs.rule_of(self._keeper.state, request.name, request.definition)
        return await self._do(caller, PutNoticeRule(rule, new=True))

    async def _set_rule(self, caller: Caller, request: d.NoticeRuleEdit) -> v.Done:
        rule = docs.rule_of(self._keeper.state, request.name, request.definition)
        return await self._do(caller, PutNoticeRule(rule, new=False))

    async def _delete_rule(self, caller: Caller, request: q.Named) -> v.Done:
        return await self._do(caller, DeleteNoticeRule(request.name))

    async def _test(self, caller: Caller, request: d.NoticeTest) -> d.NoticesTested:
        """Sends one message to each, all at once; asked again, it tells what came of it. Raises ``NotFound``.

        Where the office ends in between, the next one sends it once more: with the same id, by which receivers know it.
        """
        names = self._outbox.book().resolved((request.name,))

        async def send() -> d.NoticesTested:
            if not names:
                raise NotFound(kind="recipient", name=request.name)
            longest = max(_SHORTEST_SAID, _MOST_SAID // len(names))
            return d.NoticesTested(tuple(await asyncio.gather(*(self._try(caller, name, longest) for name in names))))

        return await self.once(caller, send, d.NoticesTested)

    async def _try(self, caller: Caller, name: str, longest: int) -> d.NoticeTested:
        at, mesh = format_instant(self._clock.now_ns()), self._keeper.state.info().name
        text = f"{caller.who} asked the mesh {mesh} to try this way at {at}. If you read this, it works."
        message = Message(f"test-{caller.request_id}", f"test from {self._server}", text, type="notice.test")
        try:
            return d.NoticeTested(name, arrived=True, answer=(await self._outbox.test(name, message))[:longest])
        except NotDelivered as error:
            return d.NoticeTested(name, arrived=False, problem=error.message[:longest])
