"""The calls of people about the audit log: a page of it, and trimming it, which is itself logged."""

from __future__ import annotations

from caso_mesh.admin import audit_rows, present
from caso_mesh.admin.audit_rows import AuditRow, Wanted
from caso_mesh.admin.ports import Answer, Caller, Facts
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import audit, facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.units import format_instant


class Auditing:
    """Answers of the administrator. ``facts`` is the journal of the server in office: all voters learn of a trim by it."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables, facts: Facts, clock: Clock) -> None:
        self._keeper = keeper
        self._tables = tables
        self._facts = facts
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"audit.list": self._list, "audit.trim": self._trim}

    async def _list(self, caller: Caller, request: audit.AuditListRequest) -> audit.AuditList:
        if request.category is not None and request.category not in audit.CATEGORIES:
            raise InvalidValue(
                value=request.category, what="category", expected=f"Use one of {', '.join(sorted(audit.CATEGORIES))}"
            )
        wanted = Wanted(
            category=request.category,
            who=request.who,
            what=request.what,
            servers=present.restricted_to(self._keeper.state, request.server, request.pool),
            outcome=request.outcome,
            text=request.text,
            since_ns=request.since_ns,
            until_ns=request.until_ns,
            after_ns=_place(request.after),
            oldest_first=request.oldest_first,
        )
        rows, more = await self._tables.ask(lambda c: audit_rows.find(c, wanted, request.limit))
        return audit.AuditList(tuple(map(self._view, rows)), str(rows[-1].at_ns) if more else None)

    def _view(self, row: AuditRow) -> audit.AuditView:
        return audit.AuditView(
            at=format_instant(row.at_ns) or "",
            who=row.who,
            what=row.what,
            category=row.category,
            outcome=row.outcome,
            server=self._keeper.state.name_of(row.server),
            source=row.source,
            fields=row.fields,
            changed=row.changed,
        )

    async def _trim(self, caller: Caller, request: audit.AuditTrim) -> audit.AuditTrimmed:
        """Repeated it has no second effect: what is gone is gone."""
        if request.before_ns > self._clock.now_ns():
            raise InvalidValue(
                value=format_instant(request.before_ns) or request.before_ns,
                what="time",
                expected="It lies in the past: what is still to come cannot be trimmed",
            )
        removed = await self._tables.ask(lambda c: audit_rows.older(c, request.before_ns))
        await self._facts.append(facts.AuditTrimmed(request.before_ns, caller.who))
        while True:
            # the fact comes into the tables by the way of all facts
            generation = self._tables.generation
            if not await self._tables.ask(lambda c: audit_rows.older(c, request.before_ns)):
                break
            await self._tables.wait_for_change(generation)
        oldest_ns = await self._tables.ask(audit_rows.oldest_ns)
        return audit.AuditTrimmed(removed, format_instant(oldest_ns))


def _place(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > 19:
        raise InvalidValue(value=after, what="place in the audit log", expected="Give the next of the page before")
    return int(after)
