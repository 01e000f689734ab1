"""``caso-mesh audit``: who did what, from where, and what it changed."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import msgspec

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter, shared
from caso_mesh.cli.listing import ANY_SERVER, ANY_TIME, Servers, Time
from caso_mesh.cli.options import DEFAULTS, Common, confirm, interactive
from caso_mesh.model.audit import (
    MOST_ENTRIES,
    AuditList,
    AuditListRequest,
    AuditTrim,
    AuditTrimmed,
    AuditView,
    Change,
)
from caso_mesh.model.audit_chain import AuditMark, AuditVerified, AuditVerify
from caso_mesh.model.errors import FAILED, WITH_EXCEPTIONS, AlreadyExists, InvalidValue, Refused, UsageError
from caso_mesh.model.units import parse_instant_ns

app = Group(name="audit", help="Who did what: list, export, verify, trim.")

#: A cell that a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@shared
@dataclass(frozen=True)
class Which:
    """Which entries."""

    category: Annotated[str | None, Parameter(help="Only this category, as in security or backup.")] = None
    who: Annotated[str | None, Parameter(help="Only what this operator or server did.")] = None
    what: Annotated[
        str | None, Parameter(help='Only this call, as in set.delete; with a dot at its end all that begin so: "set."')
    ] = None
    outcome: Annotated[
        str | None, Parameter(help="Only what ended so: done, an error's code, or not-done for all but done.")
    ] = None
    text: Annotated[str | None, Parameter(help="Only where this text stands somewhere, in these very letters.")] = None


ALL = Which()


def _request(which: Which, servers: Servers, time: Time, **more: Any) -> AuditListRequest:
    return AuditListRequest(
        category=which.category,
        who=which.who,
        what=which.what,
        outcome=which.outcome,
        text=which.text,
        server=servers.server,
        pool=servers.pool,
        since_ns=time.since_ns,
        until_ns=time.until_ns,
        **more,
    )


@app.command(name="list")
def list_(
    *,
    which: Which = ALL,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    limit: Annotated[int, Parameter(help="At most this many, the newest.", at_least=1)] = 500,
    after: Annotated[str | None, Parameter(help="Go on behind a page, by what that one said.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """List who did what, the newest first, how it ended, and what it changed. --server and --pool are about where it was
    written down: at the administrator in office, or at the server that was asked."""
    request = _request(which, servers, time, limit=limit, after=after)
    with connect(common) as client:
        pages = list(_pages(client, request))
    entries = tuple(entry for page in pages for entry in page.entries)
    output.show(AuditList(entries, pages[-1].next), common.json, _list)


def _pages(client: Client, request: AuditListRequest, *, all_of_them: bool = False) -> Iterator[AuditList]:
    """Page after page, until there are as many entries as were asked for."""
    left = request.limit
    while True:
        page = client.call("audit.list", msgspec.structs.replace(request, limit=min(left, MOST_ENTRIES)), AuditList)
        yield page
        left -= 0 if all_of_them else len(page.entries)
        if page.next is None or left <= 0:
            return
        request = msgspec.structs.replace(request, after=page.next)


#: Of a key or a long list the beginning is enough for a person; --json has all of it.
_LONGEST_FIELD = 120


def _list(view: AuditList) -> None:
    output.table(
        view.entries,
        ("at", lambda row: row.at),
        ("who", lambda row: row.who),
        ("what", lambda row: row.what),
        ("outcome", lambda row: row.outcome),
        ("server", lambda row: row.server),
        ("from", lambda row: row.source),
        ("fields", lambda row: " ".join(_fields(row.fields))),
        ("changed", lambda row: "; ".join(map(_changed, row.changed))),
        empty="No entries to show.",
        spare=("from", "server", "changed"),
    )
    if view.next is not None:
        output.note(f"There are more: --after {view.next}, or a higher --limit")


def _fields(fields: Mapping[str, Any]) -> Iterator[str]:
    """What was asked for, without what was not said."""
    for key, value in fields.items():
        if value not in (None, "", []) and value is not False:
            text = value if isinstance(value, str) else output.encoded(value)
            yield f"{key}={text if len(text) <= _LONGEST_FIELD else text[:_LONGEST_FIELD] + '...'}"


def _changed(change: Change) -> str:
    if not change.field:
        if change.old is None and change.new is None:
            return change.what
        if change.old is None or change.new is None:
            return f"{change.what} {'is new' if change.old is None else 'is gone'}"
        return f"{change.what}: {_value(change.old)} -> {_value(change.new)}"
    return f"{change.what}, {change.field}: {_value(change.old)} -> {_value(change.new)}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else output.encoded(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@app.command
def export(
    *,
    which: Which = ALL,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    format: Annotated[
        Literal["json-lines", "csv"], Parameter(name="--format", help="One JSON record a line, or a table.")
    ] = "json-lines",
    output_: Annotated[
        Path | None, Parameter(name="--output", help="A file that is not there yet (else stdout).")
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Write out the audit log, the oldest first, page by page: as much of it as there is takes no more memory than a page."""
    if common.json:
        raise UsageError(detail="--format says how it is written; --json has no meaning here")
    request = _request(which, servers, time, limit=MOST_ENTRIES, oldest_first=True)
    count = 0
    with connect(common) as client, _opened(output_) as stream:
        rows = csv.writer(stream) if format == "csv" else None
        if rows is not None:
            rows.writerow(AuditView.__struct_fields__)
        for page in _pages(client, request, all_of_them=True):
            for entry in page.entries:
                if rows is not None:
                    rows.writerow(_cells(entry))
                else:
                    stream.write(output.encoded(entry) + "\n")
            count += len(page.entries)
    output.note(f"{count} entries" if output_ is None else f"{count} entries in {output_}")


def _cells(entry: AuditView) -> list[str]:
    """One cell for each field; what a spreadsheet would run is quoted."""
    values = (getattr(entry, field) for field in AuditView.__struct_fields__)
    texts = (value if isinstance(value, str) else output.encoded(value) for value in values)
    return [f"'{text}" if text.startswith(_FORMULA) else text for text in texts]


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """A new file for its owner alone, which has its name when it is whole; or stdout."""
    if path is None:
        yield sys.stdout
        return
    if path.exists():
        raise AlreadyExists(kind="file", name=path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(detail=f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Refused(detail=f"{path} cannot be written: {error.strerror or error}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@app.command
def trim(
    *,
    before: Annotated[str, Parameter(help="Entries of before this time are forgotten, as in 2025-01-31.")],
    yes: Annotated[bool, Parameter(name="--yes", negative=(), help="Do not ask.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Forget old entries of the audit log, on all voters. That it was trimmed, by whom and up to when, stays in it."""
    request = AuditTrim(parse_instant_ns(before))
    if not yes and interactive() and not confirm(f"Forget all entries of before {before}? They cannot be had back."):
        raise UsageError(detail="Nothing was trimmed")
    output.show(ask(common, "audit.trim", request, AuditTrimmed), common.json, _trimmed)


@app.command
def verify(
    *,
    against: Annotated[
        Path | None, Parameter(help="What this command printed earlier with --json, which lay elsewhere meanwhile.")
    ] = None,
    common: Common = DEFAULTS,
) -> int:
    """Look whether the audit log is what was written down: entry by entry at the administrator, at the other voters, and
    against an earlier answer. Exit status 1: it is not; 7: a voter could not be asked."""
    marks = () if against is None else _marks(against)
    view = ask(common, "audit.verify", AuditVerify(marks), AuditVerified)
    output.show(view, common.json, lambda view: _verified(view, len(marks)))
    if not view.whole:
        return FAILED
    return WITH_EXCEPTIONS if any(each.state == "away" for each in view.voters) else 0


def _marks(path: Path) -> tuple[AuditMark, ...]:
    """Raises ``InvalidValue``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AuditVerified).marks
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidValue(
            value=path, what="earlier answer", expected=f"Give what audit verify --json printed ({error})"
        ) from None


def _verified(view: AuditVerified, marks: int) -> None:
    output.details(
        ("audit log", "whole" if view.whole else "not what was written down"),
        ("from", view.since),
        ("to", view.until),
        ("entries", view.entries),
        ("trimmed", f"{view.trimmed} of before {view.trimmed_before}" if view.trimmed_before else "none"),
        ("time is over", view.aged or None),
        (
            "without chain",
            view.unchained and f"{view.unchained} of before there were chains: nothing is proven of them",
        ),
        ("as noted", f"{view.compared} of {marks} marks" if marks else None),
    )
    for each in view.voters:
        output.line(f"{each.server}: {each.state}, {each.text}")
    for problem in view.problems:
        output.warning(f"{problem.server}, {problem.at or 'no time'}: {problem.text}")


def _trimmed(view: AuditTrimmed) -> None:
    output.line(f"{view.removed} entries are gone; the oldest one left is of {view.oldest or '-'}")
