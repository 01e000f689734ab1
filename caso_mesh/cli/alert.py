"""``caso-mesh alert``: what needs somebody's attention."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec.structs import replace

from caso_mesh.cli import output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, Local
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.alert_calls import AlertAnswered, AlertDetail, AlertFollow, AlertsNow
from caso_mesh.model.alerts import CATEGORIES, CategoryList
from caso_mesh.model.errors import NoAdmin, UsageError
from caso_mesh.model.units import parse_instant_ns

app = Group(name="alert", help="Alerts: list, show, watch, answer.")

Id = Annotated[str, Parameter(name="ID", help="Id of the alert, or a unique beginning of it.")]
Server = Annotated[str | None, Parameter(help="Only alerts about this server, or raised by it.")]
Pool = Annotated[str | None, Parameter(help="Only alerts about the servers of this pool, or raised by them.")]
Types = Annotated[
    tuple[str, ...],
    Parameter(
        name="--type",
        negative=(),
        help="Only attention-required, error, warning or information ones; may be repeated.",
    ),
]
Categories = Annotated[
    tuple[str, ...], Parameter(name="--category", negative=(), help="Only those of this category; may be repeated.")
]
_WAIT_S = 10.0


@app.command(name="list")
def list_(
    *,
    all: Annotated[bool, Parameter(negative=(), help="Answered and cleared ones, too.")] = False,
    server: Server = None,
    pool: Pool = None,
    type_: Types = (),
    category: Categories = (),
    since: Annotated[str | None, Parameter(help="Only those raised from then on (ISO 8601).")] = None,
    until: Annotated[str | None, Parameter(help="Only those raised before (ISO 8601).")] = None,
    limit: Annotated[int, Parameter(help="At most this many.", at_least=1)] = 500,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """List the alerts that nobody answered yet."""
    _check_pool(pool, local)
    request = q.AlertListRequest(
        all,
        server,
        pool,
        limit,
        type_,
        category,
        parse_instant_ns(since) if since is not None else None,
        parse_instant_ns(until) if until is not None else None,
    )
    with _either_end(local):
        view = ask(common, local.call("alert.list"), request, v.AlertList)
    output.show(view, common.json, lambda view: _list(view, local))


def _check_pool(pool: str | None, local: Local) -> None:
    if local.local and pool is not None:
        raise UsageError(detail="With --local a server shows its own alerts: leave out --pool")


@contextmanager
def _either_end(local: Local) -> Iterator[None]:
    """Says what can be done where no administrator is reached."""
    try:
        yield
    except NoAdmin:
        if not local.local:
            output.note("What the server that was asked told of itself is shown and answered without one: --local")
        raise


def _list(view: v.AlertList, local: Local) -> None:
    if local.local:
        output.note("What this server told of itself. Those of the mesh are at the administrator: without --local")
    columns = (("kept here", lambda row: row.here),) if local.local else ()
    output.table(
        view.alerts,
        ("id", lambda row: row.id),
        ("raised", lambda row: row.raised),
        ("category", lambda row: row.category),
        ("type", lambda row: row.alert),
        ("raised by", lambda row: row.server),
        ("text", lambda row: row.text),
        ("answered", lambda row: row.answered and f"{row.response} by {row.answered_by}"),
        ("cleared", lambda row: row.cleared),
        *columns,
        empty="No alerts to show: nothing needs you. Those that are over: caso-mesh alert list --all",
        spare=("cleared", "raised by", "answered", "type"),
    )
    if view.more:
        output.note("There are more: a higher --limit, or a shorter time: --until, --since")


@app.command
def show(id: Id, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Show one alert: what it means and what to do about it."""
    with _either_end(local):
        view = ask(common, local.call("alert.show"), q.Named(id), AlertDetail)
    output.show(view, common.json, _detail)


def _detail(view: AlertDetail) -> None:
    row = view.alert
    output.details(
        ("alert", row.id),
        ("category", f"{row.category}, {row.alert}"),
        ("text", row.text),
        ("about", view.about or None),
        ("object", row.object or None),
        ("raised", f"{row.raised} by {row.server}"),
        ("answered", row.answered and f"{row.answered} by {row.answered_by}: {row.response}"),
        ("over", row.cleared or ("with its condition" if view.stands else None)),
        ("kept here", row.here),
        ("it means", view.means or None),
        ("what to do", view.do or None),
    )


@app.command
def watch(
    *,
    server: Server = None,
    pool: Pool = None,
    type_: Types = (),
    category: Categories = (),
    json_lines: Annotated[bool, Parameter(name="--json-lines", negative=(), help="One JSON record a line.")] = False,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Print the open alerts, then each that is raised, answered or over, until interrupted."""
    _check_pool(pool, local)
    which = q.AlertListRequest(True, server, pool, 500, type_, category)
    known: dict[str, v.AlertView] = {}
    request, first = AlertFollow(which, "", 0.0), True
    with _either_end(local), connect(common) as client:
        while True:
            now = client.call(local.call("alert.follow"), request, AlertsNow)
            for row in reversed(now.alerts):
                closed = row.answered is not None or row.cleared is not None
                if known.get(row.id) != row and not (first and closed):
                    _say(row, json_lines=json_lines)
            known = {row.id: row for row in now.alerts}
            request, first = replace(request, known=now.mark, wait_s=_WAIT_S), False


def _say(row: v.AlertView, *, json_lines: bool) -> None:
    if json_lines:
        output.line(json.dumps(msgspec.to_builtins(row), ensure_ascii=False))
    elif row.cleared is not None:
        output.line(f"{row.cleared}  over      {row.id}  {row.category}: {row.text}")
    elif row.answered is not None:
        output.line(f"{row.answered}  answered  {row.id}  {row.category}: {row.response} (by {row.answered_by})")
    else:
        output.line(f"{row.raised}  {row.alert}  {row.id}  {row.server}  {row.category}: {row.text}")


@app.command
def categories(*, common: Common = DEFAULTS) -> None:
    """List every category of alerts there is, with its type. help alerts says what each means."""
    output.show(CategoryList(CATEGORIES), common.json, _categories)


def _categories(view: CategoryList) -> None:
    output.table(
        view.categories,
        ("category", lambda row: row.name),
        ("type", lambda row: tuple(kind.value for kind in row.types)),
        ("stands", lambda row: row.standing),
        ("what it means", lambda row: row.text),
    )


@app.command
def answer(
    id: Id,
    response: Annotated[str, Parameter(name="RESPONSE", help="What you say to it.")] = "ok",
    /,
    *,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Answer an alert. Of two answers the first counts."""
    with _either_end(local):
        view = ask(common, local.call("alert.answer"), q.AlertAnswer(id, response), AlertAnswered)

    def say(view: AlertAnswered) -> None:
        if not view.first:
            output.line(f"alert {id} was answered before: {view.response} (by {view.who})")
            return
        output.line(f"alert {id} is answered{' here' if local.local else ''}: {view.response}")
        if local.local:
            output.note("It counts in the mesh, too, unless the administrator has another answer when they meet")

    output.show(view, common.json, say)
