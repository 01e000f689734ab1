"""``caso-mesh server``: the servers of the mesh."""

from __future__ import annotations

from typing import Annotated, Literal

from caso_mesh.cli import output
from caso_mesh.cli.client import ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.listing import ANY_SERVER, LISTING, AfterOption, LimitOption, Listing, Servers, note_more
from caso_mesh.cli.options import DEFAULTS, Common, confirm, interactive
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NotFound, Refused, UsageError
from caso_mesh.model.ids import SHORT_NODE_ID
from caso_mesh.model.listing import MOST_ROWS
from caso_mesh.model.states import DataLocation, ServerState

app = Group(name="server", help="Servers: list, approve, pause, resume, remove ...")

Name = Annotated[str, Parameter(name="NAME", help="Name of the server.")]


@app.command(name="list")
def list_(
    *,
    discovered: Annotated[
        bool, Parameter(negative=(), help="Servers that were found and belong to no mesh, with their codes.")
    ] = False,
    listing: Listing = LISTING,
    servers: Servers = ANY_SERVER,
    limit: LimitOption = MOST_ROWS,
    after: AfterOption = None,
) -> None:
    """List the servers, or those that were discovered and wait for approval."""
    state, common = listing.split(each.value for each in ServerState if each is not ServerState.DISCOVERED)
    request = q.ServerListRequest(discovered, servers.pool, servers.server, state, limit, after)
    view = ask(common, "server.list", request, v.ServerList)
    output.show(view, common.json, _discovered if discovered else _list)


@app.command
def show(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Show one server."""
    view = ask(common, "server.list", q.ServerListRequest(), v.ServerList)
    row = next((each for each in view.servers if each.name == name), None)
    if row is None:
        raise NotFound(kind="server", name=name)
    output.show(row, common.json, _show)


def _show(row: v.ServerView) -> None:
    output.details(
        ("name", row.name),
        ("id", row.id),
        ("state", _state(row)),
        ("connected", row.connected),
        ("role", _role(row)),
        ("pools", row.pools or None),
        ("running", row.running),
        ("address", row.address or None),
        ("version", row.version or None),
        ("silent since", row.silent_since),
        ("device and media data location", row.data_location),
    )


@app.command(name="set")
def set_(
    name: Name,
    /,
    *,
    data_location: Annotated[
        Literal["admin", "server"],
        Parameter(
            name="--data-location",
            help="Where its device and media data lie: on the administrator, or on the server itself.",
        ),
    ],
    common: Common = DEFAULTS,
) -> None:
    """Say where the device and media data of a server lie."""
    view = ask(common, "server.set", q.ServerSet(name, DataLocation(data_location)), v.ServerView)
    done = f"the device and media data of {name} are on the {data_location}"
    output.show(view, common.json, lambda _: output.line(done))


def _role(row: v.ServerView) -> str | None:
    return "admin" if row.admin else ("voter" if row.voter else None)


def _state(row: v.ServerView) -> str:
    """Before the silence of a server has consequences it is shown."""
    state = f"{row.state}, queue on hold" if row.queue_on_hold else row.state
    return state if row.silent_s is None else f"{state}, silent for {output.duration(row.silent_s)}"


def _list(view: v.ServerList) -> None:
    output.table(
        view.servers,
        ("name", lambda row: row.name),
        ("state", _state),
        ("connected", lambda row: row.connected),
        ("role", _role),
        ("pools", lambda row: row.pools),
        ("running", lambda row: row.running),
        ("address", lambda row: row.address),
        ("version", lambda row: row.version),
        ("silent since", lambda row: row.silent_since),
        ("data", lambda row: row.data_location),
        ("id", lambda row: row.id[:SHORT_NODE_ID]),
        spare=("data", "version", "id", "address", "running", "pools"),
    )
    note_more(view.more, view.servers[-1].name if view.servers else None)


def _discovered(view: v.ServerList) -> None:
    output.table(
        view.servers,
        ("name", lambda row: row.name),
        ("code", lambda row: row.code),
        ("address", lambda row: row.address),
        ("version", lambda row: row.version),
        ("id", lambda row: row.id[:SHORT_NODE_ID]),
        empty="No new servers to show. On a new one: caso-mesh run --server NAME --listen HOST:PORT. Where multicast does not "
        "reach, here: caso-mesh peer add HOST:PORT. Or by a link: caso-mesh token create",
    )


@app.command
def approve(
    name: Name,
    /,
    *,
    code: Annotated[str | None, Parameter(help="The code that the new server printed. Compare it yourself.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a discovered server a member, after its code was compared."""
    with connect(common) as client:
        if code is None:
            if not interactive():
                raise UsageError(detail="--code is needed: the code that the new server printed")
            found = client.call("server.list", q.ServerListRequest(discovered=True), v.ServerList)
            code = next((row.code for row in found.servers if row.name == name), None)
            if code is None:
                raise NotFound(kind="server", name=name)
            if not confirm(f"The code of {name} is {code}. Does the new server print the same one?"):
                raise Refused(detail=f"{name} was not approved")
        view = client.call("server.approve", q.ServerApprove(name, code), v.ServerView)
    output.show(view, common.json, lambda view: output.line(f"{view.name} is a member of the mesh"))


def _set_state(common: Common, name: str, state: ServerState) -> None:
    view = ask(common, "server.set-state", q.ServerSetState(name, state), v.ServerView)
    output.show(view, common.json, lambda view: output.line(f"{view.name} is {view.state}"))


@app.command
def pause(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Give a server no new jobs; what runs there goes on."""
    _set_state(common, name, ServerState.PAUSED)


@app.command
def resume(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Give a paused server jobs again."""
    _set_state(common, name, ServerState.ENABLED)


@app.command
def enable(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Use a disabled server again."""
    _set_state(common, name, ServerState.ENABLED)


@app.command
def disable(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Use a server for nothing until it is enabled again."""
    _set_state(common, name, ServerState.DISABLED)


Queue = Annotated[str | None, Parameter(name="NAME", help="Name of the server; without it give --pool or --all.")]
QueuePool = Annotated[str | None, Parameter(help="The queues of the servers of this pool.")]
AllQueues = Annotated[bool, Parameter(name="--all", negative=(), help="The queues of all servers.")]


def _hold(common: Common, name: str | None, pool: str | None, *, every: bool, held: bool) -> None:
    if (name is not None) + (pool is not None) + every != 1:
        raise UsageError(detail="Name one server, or give --pool POOL, or --all")
    view = ask(common, "queue.hold", q.QueueHold(held, name, pool), v.ServerList)
    whose = name or (f"the servers of {pool}" if pool is not None else "all servers")
    output.show(view, common.json, lambda _: output.line(f"the queue of {whose} {'is on hold' if held else 'runs'}"))


@app.command(name="hold-queue")
def hold_queue(
    name: Queue = None, /, *, pool: QueuePool = None, every: AllQueues = False, common: Common = DEFAULTS
) -> None:
    """Start no more jobs of the queue of a server, of a pool's servers, or of all; what runs goes on."""
    _hold(common, name, pool, every=every, held=True)


@app.command(name="release-queue")
def release_queue(
    name: Queue = None, /, *, pool: QueuePool = None, every: AllQueues = False, common: Common = DEFAULTS
) -> None:
    """Start jobs of a queue again that was on hold."""
    _hold(common, name, pool, every=every, held=False)


@app.command
def remove(
    name: Name,
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Remove a server from the mesh; its identity is refused from now on."""
    question = f"Remove {name} from the mesh? Its identity is refused from then on."
    if interactive() and not yes and not confirm(question):
        raise Refused(detail=f"{name} was not removed")
    view = ask(common, "server.remove", q.ServerName(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"{name} was removed from the mesh"))
