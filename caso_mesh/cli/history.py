"""``caso-mesh history``: what was done, one line for each attempt."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.listing import ANY_SERVER, ANY_TIME, LISTING, AfterOption, Listing, Servers, Time, note_more
from caso_mesh.model.history import History, HistoryEntry, HistoryRequest
from caso_mesh.model.states import AttemptState

#: What ``--state`` takes beside the states of attempts.
GROUPS = ("active", "ended")


def history(
    *,
    listing: Listing = LISTING,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    list_: Annotated[str | None, Parameter(name="--list", help="Only of the jobs of this selection list.")] = None,
    job: Annotated[str | None, Parameter(help="Only of this job, by name or id.")] = None,
    type: Annotated[
        str | None, Parameter(help="Only backups that were of this type: full, incremental, differential, copy.")
    ] = None,
    kind: Annotated[
        str | None,
        Parameter(
            help="Only backup, restore, verify, duplicate, synthetic, drill, test-run, inventory, catalog or erase."
        ),
    ] = None,
    limit: Annotated[int, Parameter(help="At most this many, the newest.", at_least=1)] = 200,
    after: AfterOption = None,
) -> None:
    """List what was done, the newest first: one line for each attempt, with its times, counts, rate, and how it ended. It is
    kept for joblog-keep-s. --state takes a state of attempts, active, or ended."""
    state, common = listing.split((*GROUPS, *(each.value for each in AttemptState)))
    request = HistoryRequest(
        server=servers.server,
        pool=servers.pool,
        selection=list_,
        job=job,
        state=state,
        type=type,
        kind=kind,
        since_ns=time.since_ns,
        until_ns=time.until_ns,
        limit=limit,
        after=after,
    )
    output.show(ask(common, "history", request, History), common.json, _list)


def _list(view: History) -> None:
    output.table(
        view.entries,
        ("attempt", lambda row: row.attempt),
        ("name", lambda row: row.name),
        ("kind", lambda row: row.kind if row.type is None else f"{row.kind} {row.type}"),
        ("state", lambda row: f"{row.state} (local)" if row.local else row.state),
        ("source", lambda row: row.source),
        ("server", lambda row: row.server),
        ("device", lambda row: row.device),
        ("started", lambda row: row.started or row.delegated),
        ("time", lambda row: output.duration(row.seconds)),
        ("files", lambda row: row.files),
        ("size", lambda row: output.size(row.bytes)),
        ("read", lambda row: output.size(row.bytes_read)),
        ("stored", lambda row: output.size(row.bytes_stored)),
        ("rate", lambda row: f"{output.size(int(row.rate))}/s" if row.rate else None),
        ("set", lambda row: row.set),
        ("error", _error),
        empty="No attempts to show. A backup now: caso-mesh backup SERVER:/PATH --to any --wait",
        spare=("rate", "read", "size", "files", "attempt", "set", "stored", "time", "kind"),
    )
    note_more(view.more, view.entries[-1].attempt if view.entries else None)


def _error(row: HistoryEntry) -> str | None:
    return None if row.error is None else f"{row.error_category}: {row.error.get('message', '')}"
