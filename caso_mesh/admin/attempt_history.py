"""The calls of people about what was done: the history of attempts, and job logs as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from heapq import nlargest

import msgspec
from msgspec import Struct

from caso_mesh.admin import present
from caso_mesh.admin.attempts import AttemptRow, AttemptRows
from caso_mesh.admin.error_rules import category_of
from caso_mesh.admin.held import Held
from caso_mesh.admin.live import Live
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import history as h
from caso_mesh.model.errors import InvalidValue, NotFound
from caso_mesh.model.facts import LogLine
from caso_mesh.model.jobs import Attempt, Counts, Run, kind_of
from caso_mesh.model.listing import in_time
from caso_mesh.model.outcomes import LogLineView
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState, BackupType, JobKind
from caso_mesh.model.units import format_instant

#: So many local runs are looked through.
_MOST_LOCAL = 5000
#: How long somebody waits for lines at most, and how often it is looked for what no fact tells of.
_LONGEST_WAIT_S, _LOOK_S = 10.0, 1.0
#: Lines of one answer.
_MOST_LINES = 2000
_STATES = ("active", "ended", *(state.value for state in AttemptState))


class _Tried(Struct, frozen=True):
    attempt: Attempt
    run: Run
    local: bool = False

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands among the others."""
        return self.attempt.delegated_at_ns, self.attempt.id


class AttemptHistory:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        live: Live,
        held: Held,
        work: Work,
        local: LocalHistory,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._live = live
        self._held = held
        self._work = work
        self._local = local

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"history": self._history, "log.follow": self._log_follow}

    # --- history ---

    async def _history(self, caller: Caller, request: h.HistoryRequest) -> h.History:
        _check(request.state, "state", _STATES)
        _check(request.type, "type", [each.value for each in BackupType])
        _check(request.kind, "kind", [each.value for each in JobKind])
        limit = max(1, min(request.limit, h.MOST_ENTRIES))
        fits = self._fits(caller, request)
        state = self._keeper.state
        tried = [
            found
            for attempt in state.attempts.values()
            if (run := state.runs.get(attempt.run)) is not None and fits(found := _Tried(attempt, run))
        ]
        for told in await self._local.runs(limit=_MOST_LOCAL):
            tried += [found for each in told.attempts if fits(found := _Tried(each, told.run, local=True))]
        if request.after is not None:
            behind = next((each.place for each in tried if each.attempt.id == request.after), None)
            if behind is None:
                raise NotFound(kind="attempt", name=request.after)
            tried = [each for each in tried if each.place < behind]
        # one at a time where the type counts: what really ran is in the tables
        page = nlargest(limit + 1 if request.type is None else len(tried), tried, key=lambda each: each.place)
        entries: list[h.HistoryEntry] = []
        for start in range(0, len(page), limit + 1):
            piece = page[start : start + limit + 1]
            rows = await self._tables.attempts(list({each.run.id for each in piece}))
            shown = (self._entry(each, rows) for each in piece)
            entries += [entry for entry in shown if request.type in {None, entry.type}]
            if len(entries) > limit:
                break
        return h.History(tuple(entries[:limit]), len(entries) > limit)

    def _fits(self, caller: Caller, request: h.HistoryRequest) -> Callable[[_Tried], bool]:
        state = self._keeper.state
        only = present.restricted_to(state, request.server, request.pool, caller.limits())
        selection = state.list_named(request.selection).id if request.selection is not None else None
        made = {job.id for job in state.jobs_made_of(selection=selection)} if selection is not None else set()

        def fits(each: _Tried) -> bool:
            attempt, run = each.attempt, each.run
            if only is not None and only.isdisjoint((attempt.server, attempt.source, attempt.reader)):
                return False
            if not in_time(attempt.delegated_at_ns, request.since_ns, request.until_ns):
                return False
            if request.job is not None and request.job not in {run.job, run.name}:
                return False
            if selection is not None and run.job not in made:
                return False
            if request.kind is not None and kind_of(run.spec).value != request.kind:
                return False
            active = attempt.state in ATTEMPT_ACTIVE
            wanted = request.state
            if wanted in {None, "active", "ended"}:
                return wanted is None or active is (wanted == "active")
            # of what is active the journal says more
            return active if AttemptState(wanted) in ATTEMPT_ACTIVE else attempt.state.value == wanted

        return fits

    def _entry(self, each: _Tried, rows: AttemptRows) -> h.HistoryEntry:
        state, attempt, run = self._keeper.state, each.attempt, each.run
        row = rows.of(attempt)
        view = present.attempt_view(state, attempt, row, run)
        job = state.jobs.get(run.job)
        origin = present.origin_view(state, job) if job is not None else None
        counts = self._counts(attempt, row)
        seconds = row.seconds if row is not None else None
        return h.HistoryEntry(
            attempt=attempt.id,
            run=run.id,
            job=run.job,
            name=run.name,
            kind=kind_of(run.spec).value,
            type=view.type,
            state=view.state,
            source=view.source,
            server=view.server,
            device=view.device,
            due=format_instant(run.due_at_ns) or "",
            delegated=view.delegated,
            started=view.started,
            ended=view.ended,
            seconds=seconds,
            files=counts.files,
            bytes=counts.bytes,
            bytes_read=counts.bytes_read,
            bytes_stored=counts.bytes_stored,
            exceptions=counts.exceptions,
            rate=counts.bytes_read / seconds if seconds else None,
            set=view.set,
            error=view.error,
            error_category=category_of(view.error["code"]) if view.error is not None else None,
            policy=origin.policy if origin is not None else None,
            selection=origin.selection if origin is not None else None,
            local=each.local,
        )

    def _counts(self, attempt: Attempt, row: AttemptRow | None) -> Counts:
        progress = self._live.progress.get(attempt.id)
        if attempt.state in ATTEMPT_ACTIVE and progress is not None:
            return progress.counts
        return row.counts if row is not None else Counts()

    # --- job logs as they grow ---

    async def _log_follow(self, caller: Caller, request: h.LogFollow) -> h.LogTail:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (min(request.wait_s, _LONGEST_WAIT_S) if request.wait_s > 0 else 0.0)
        name = self._work.find_run(request.name).id if "#" not in request.name else request.name
        while True:
            news = self._live.next_news()
            found = await self._tail(name, request)
            left_s = until_s - loop.time()
            if found.lines or found.ended or left_s <= 0:
                return found
            try:
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await news.wait()
            except TimeoutError:
                continue

    async def _tail(self, name: str, request: h.LogFollow) -> h.LogTail:
        state = self._keeper.state
        run, number = self._work.find_run(name), request.attempt
        if "#" in name:
            text = name.rpartition("#")[2]
            number = int(text) if text.isascii() and text.isdigit() else None
        attempts = [each for each in state.attempts_of(run.id) if number in {None, each.number}]
        if number is not None and not attempts and run.closed_at_ns is not None:
            raise NotFound(kind="attempt", name=f"{run.id}#{number}")
        # before the lines are read: what ends meanwhile may have written more
        rows = await self._tables.attempts([run.id])
        ended = all(_is_over(each, rows) for each in attempts) and (
            run.closed_at_ns is not None or (number is not None and bool(attempts))
        )
        lines, seen, away = list[tuple[int, h.TailLine]](), dict(request.seen), dict[str, None]()
        for attempt in attempts:
            for server in dict.fromkeys((attempt.server, attempt.other)):
                key = f"{attempt.id} {server}"
                more, missing = await self._beyond(attempt, server, max(0, seen.get(key, 0)))
                seen[key] = seen.get(key, 0) + len(more)
                lines += [(line.at_ns, self._line(attempt, server, line)) for line in more]
                if missing:
                    away[state.name_of(server)] = None
        lines.sort(key=lambda each: each[0])
        return h.LogTail(run.id, tuple(line for _, line in lines), seen, ended and not lines, tuple(away))

    def _line(self, attempt: Attempt, server: str, line: LogLine) -> h.TailLine:
        shown = LogLineView(format_instant(line.at_ns) or "", line.level, line.text)
        return h.TailLine(attempt.id, self._keeper.state.name_of(server), shown)

    async def _beyond(self, attempt: Attempt, server: str, seen: int) -> tuple[list[LogLine], bool]:
        """What a server has written beyond ``seen`` lines, told or held back; and whether it cannot be asked."""
        told, rows = await self._tables.log_beyond(attempt.id, server, seen, _MOST_LINES)
        lines = [msgspec.convert({"at_ns": row.at_ns, "level": row.level, "text": row.text}, LogLine) for row in rows]
        if len(rows) >= _MOST_LINES:
            return lines, False
        held, away = await self._held.beyond(attempt, server, max(0, seen - told), _MOST_LINES - len(rows))
        return lines + held, away


def _is_over(attempt: Attempt, rows: AttemptRows) -> bool:
    """It has ended, and what it told has come."""
    if attempt.state in ATTEMPT_ACTIVE:
        return False
    row = rows.of(attempt)
    return attempt.state in {AttemptState.RECOVERED, AttemptState.INTERRUPTED} or (
        row is not None and row.ended_at_ns is not None
    )


def _check(value: str | None, what: str, known: Iterable[str]) -> None:
    names = list(known)
    if value is not None and value not in names:
        raise InvalidValue(value=value, what=what, expected=f"Use {', '.join(names[:-1])} or {names[-1]}")
