"""``caso-mesh set``: the backup sets."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.listing import (
    ANY_SERVER,
    ANY_TIME,
    LISTING,
    AfterOption,
    LimitOption,
    Listing,
    Servers,
    Time,
    note_more,
)
from caso_mesh.cli.options import DEFAULTS, Common, confirm, interactive
from caso_mesh.model import browsing as b
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import UsageError
from caso_mesh.model.listing import SetStanding
from caso_mesh.model.units import parse_instant_ns

app = Group(name="set", help="Backup sets.")


@app.command(name="list")
def list_(
    *,
    listing: Listing = LISTING,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    source: Annotated[str | None, Parameter(help="Only sets of files of this server.")] = None,
    from_device: Annotated[
        str | None, Parameter(help="What lies on this device now, whatever the administrator knows of it.")
    ] = None,
    expired: Annotated[
        bool, Parameter(negative=(), help="Only sets that nothing keeps any more: they go within the hour.")
    ] = False,
    limit: LimitOption = 1000,
    after: AfterOption = None,
) -> None:
    """List the backup sets: of servers that hold them or are their source, by when they ended. States are kept, expired, locked
    and redundant."""
    state, common = listing.split(each.value for each in SetStanding)
    if expired and state not in {None, SetStanding.EXPIRED.value}:
        raise UsageError(detail=f"Ask for one state at a time, not expired and {state}")
    request = q.SetListRequest(
        servers.server,
        servers.pool,
        source,
        limit,
        from_device,
        expired,
        None if state is None else SetStanding(state),
        time.since_ns,
        time.until_ns,
        after,
    )
    output.show(ask(common, "set.list", request, b.SetList), common.json, _list)


@app.command
def delete(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Delete a backup set whose protection is over."""
    if interactive() and not yes and not confirm(f"Delete the backup set {set} for ever?"):
        raise UsageError(detail="Nothing was deleted")
    output.show(ask(common, "set.delete", b.SetName(set), v.Done), common.json, lambda _: output.line("deleted"))


@app.command
def lock(
    set: Annotated[str, Parameter(name="SET", help="Id of the backup set, or a unique beginning of it.")],
    /,
    *,
    until: Annotated[str | None, Parameter(help="Until when, as in 2030-01-31T02:00; without it: without end.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Protect a backup set from being deleted. Nobody can take that back or shorten it."""
    request = b.SetLock(set, parse_instant_ns(until) if until is not None else None)
    output.show(ask(common, "set.lock", request, v.Done), common.json, lambda _: output.line(_locked(set, until)))


def _locked(set: str, until: str | None) -> str:
    if until is None:
        return f"{set} is locked without end"
    return f"{set} is locked until {until}, or longer if it was: no lock is shortened"


@app.command
def expire(
    *,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Delete nothing: show what would go, and what keeps each other set.")
    ] = False,
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Delete the sets that nothing keeps any more now. The administrator does it every hour by itself."""
    if dry_run:
        output.show(ask(common, "set.expiry", q.Nothing(), b.ExpiryView), common.json, _expiry)
        return
    if interactive() and not yes and not confirm("Delete all sets that nothing keeps any more for ever?"):
        raise UsageError(detail="Nothing was deleted")
    output.show(ask(common, "set.expire", q.Nothing(), b.Expired), common.json, _expired)


def _expiry(view: b.ExpiryView) -> None:
    output.table(
        view.sets,
        ("set", lambda row: row.set),
        ("source", lambda row: row.source),
        ("ended", lambda row: row.ended),
        ("device", lambda row: row.device),
        ("media set", lambda row: row.media_set),
        ("goes", lambda row: "yes" if row.goes else None),
        ("why", lambda row: ", ".join(row.why) if row.why else "nothing keeps it"),
        ("expires", lambda row: row.expires),
        empty="There are no backup sets.",
        spare=("media set", "device"),
    )
    if view.paused is not None:
        output.note(f"Nothing expires now: {view.paused}")


def _expired(view: b.Expired) -> None:
    output.line(f"{view.gone} sets were deleted")
    if view.paused is not None:
        output.note(f"Nothing expires now: {view.paused}")


def _list(view: b.SetList) -> None:
    output.table(
        view.sets,
        ("set", lambda row: row.id),
        ("source", lambda row: row.source),
        ("paths", lambda row: row.paths),
        ("type", lambda row: f"{row.type} (synthetic)" if row.made_of else row.type),
        ("ended", lambda row: row.ended),
        ("files", lambda row: row.files),
        ("size", lambda row: output.size(row.bytes)),
        ("device", lambda row: row.device),
        ("media set", lambda row: row.media_set),
        ("expires", _expires),
        ("missing", lambda row: "yes" if row.missing else None),
        ("damaged", lambda row: "yes" if row.damaged else None),
        ("locked", lambda row: "yes" if row.locked else None),
        ("exceptions", lambda row: row.exceptions or None),
        empty="No backup sets to show. A backup now: caso-mesh backup SERVER:/PATH --to any --wait",
        spare=("media set", "exceptions", "files", "type", "size", "device"),
    )
    note_more(view.more, view.sets[-1].id if view.sets else None)


def _expires(row: b.SetView) -> str | None:
    if row.expired:
        return "expired"
    return f"kept: {', '.join(row.kept_by)}" if row.kept_by else row.expires
