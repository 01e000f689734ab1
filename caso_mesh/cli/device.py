"""``caso-mesh device``: storage devices."""

from __future__ import annotations

from typing import Annotated, Literal

from caso_mesh.cli import device_import, device_pool, device_work, output
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.listing import ANY_SERVER, LISTING, AfterOption, LimitOption, Listing, Servers, note_more
from caso_mesh.cli.medium import counted, media_of
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import InvalidValue, NotFound, UsageError
from caso_mesh.model.listing import MOST_ROWS
from caso_mesh.model.states import DeviceState
from caso_mesh.model.units import parse_size

app = Group(name="device", help="Storage devices.")
device_pool.add_to(app)
device_work.add_to(app)
device_import.add_to(app)

Name = Annotated[str, Parameter(name="NAME", help="Name of the device.")]
LowSpace = Annotated[str | None, Parameter(help="Below this free space no new job starts, as in 10GB.")]


@app.command(name="list")
def list_(
    *,
    listing: Listing = LISTING,
    servers: Servers = ANY_SERVER,
    limit: LimitOption = MOST_ROWS,
    after: AfterOption = None,
) -> None:
    """List the storage devices that servers reach."""
    state, common = listing.split(each.value for each in DeviceState)
    request = q.DeviceListRequest(servers.server, servers.pool, state, limit, after)
    output.show(ask(common, "device.list", request, v.DeviceList), common.json, _list)


def _list(view: v.DeviceList) -> None:
    output.table(
        view.devices,
        ("name", lambda row: row.name),
        ("kind", lambda row: row.kind),
        ("servers", lambda row: row.servers),
        ("state", lambda row: row.state),
        ("free", lambda row: output.size(row.free_bytes)),
        ("used", lambda row: output.size(row.used_bytes)),
        ("sets", lambda row: row.sets),
        ("running", lambda row: f"{row.running}/{row.concurrency}"),
        empty="No devices to show. A new one: caso-mesh device add NAME --server SERVER --path FOLDER",
        spare=("kind", "used"),
    )
    for row in view.devices:
        for server, size in sorted(row.quotas.items()):
            output.line(f"{row.name}: {server} may take {output.size(size)}")
        for server in row.disabled:
            output.line(f"{row.name}: {server} does not use it")
        for text in row.warnings:
            output.warning(f"{row.name}: {text}")
    note_more(view.more, view.devices[-1].name if view.devices else None)


@app.command
def show(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Show one device: where it is, how it is and why, its space, its pools and what lies on it."""
    with connect(common) as client:
        row = _row(client, name)
        pools: tuple[v.DevicePoolView, ...] = ()
        media: list[v.MediumView] = []
        if not common.json:
            pools = client.call("device-pool.list", q.Nothing(), v.DevicePoolViews).device_pools
            media = media_of(client, device=name)
    output.show(row, common.json, lambda row: _show(row, pools, media))


def _row(client: Client, name: str) -> v.DeviceView:
    after = None
    while True:
        view = client.call("device.list", q.DeviceListRequest(after=after), v.DeviceList)
        found = next((row for row in view.devices if row.name == name), None)
        if found is not None:
            return found
        if not view.more or not view.devices:
            raise NotFound(kind="device", name=name)
        after = view.devices[-1].name


def _show(row: v.DeviceView, pools: tuple[v.DevicePoolView, ...], media: list[v.MediumView]) -> None:
    places = ((f"on {server}", _place(row, server)) for server in row.servers)
    output.details(
        ("name", row.name),
        ("id", row.id),
        ("kind", row.kind),
        ("mesh", row.mesh),
        ("state", row.state),
        *places,
        ("pools", _memberships(row.name, pools) or None),
        ("free", output.size(row.free_bytes)),
        ("used", output.size(row.used_bytes)),
        ("low space", output.size(row.low_space_bytes or None)),
        ("running", f"{row.running}/{row.concurrency}"),
        ("sets", row.sets),
        ("media", counted(media)),
        ("last write", max((each.last_write for each in media), default=None)),
    )  # what its servers say is wrong with it follows, as warnings of the record


def _place(row: v.DeviceView, server: str) -> str:
    quota = row.quotas.get(server)
    return ", ".join(
        [
            row.paths[server],
            *([f"may take {output.size(quota)}"] if quota is not None else []),
            *(["does not use it"] if server in row.disabled else []),
        ]
    )


def _memberships(device: str, pools: tuple[v.DevicePoolView, ...]) -> list[str]:
    """Pools that name the device, with its priority there as it was given."""
    found = []
    for pool in pools:
        for member in pool.definition.devices:
            name, colon, priority = member.partition(":")
            if name == device:
                found.append(f"{pool.name} (priority {priority if colon else 100})")
    return found


def _one(view: v.DeviceView) -> None:
    places = ", ".join(f"{server}={path}" for server, path in view.paths.items())
    output.line(f"device {view.name} ({view.kind}) is {view.state} on {places}")


@app.command
def add(
    name: Name,
    /,
    *,
    kind: Annotated[
        Literal["disk", "shared"] | None, Parameter(help="A folder of one server, or one that several servers see.")
    ] = None,
    server: Annotated[str | None, Parameter(help="The server that has the folder.")] = None,
    path: Annotated[str | None, Parameter(help="The folder on that server.")] = None,
    on: Annotated[
        tuple[str, ...],
        Parameter(name="--on", negative=(), help="SERVER=FOLDER, once for each server that sees a shared device."),
    ] = (),
    concurrency: Annotated[int, Parameter(help="How many jobs may use it at once.")] = 1,
    low_space: LowSpace = None,
    common: Common = DEFAULTS,
) -> None:
    """Add a storage device: a folder of one server, or a folder that several servers see."""
    places = _places(kind, server, path, on)
    request = q.DeviceAdd(
        name=name,
        kind=kind or ("shared" if on else "disk"),
        on=places,
        concurrency=concurrency,
        low_space_bytes=parse_size(low_space) if low_space is not None else 0,
    )
    output.show(ask(common, "device.add", request, v.DeviceView), common.json, _one)


def _places(kind: str | None, server: str | None, path: str | None, on: tuple[str, ...]) -> dict[str, str]:
    if on and (server is not None or path is not None or kind == "disk"):
        raise UsageError(detail="A disk takes --server and --path, a shared device --on SERVER=FOLDER for each server")
    if not on:
        if kind == "shared":
            raise UsageError(detail="A shared device takes --on SERVER=FOLDER for each server")
        if server is None or path is None:
            raise UsageError(detail="A disk takes --server and --path")
        return {server: path}
    places: dict[str, str] = {}
    for text in on:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder or name in places:
            raise InvalidValue(value=text, what="place", expected="Use SERVER=FOLDER, once for each server")
        places[name] = folder
    return places


@app.command(name="set")
def set_(
    name: Name,
    /,
    *,
    concurrency: Annotated[int | None, Parameter(help="How many jobs may use it at once.")] = None,
    low_space: LowSpace = None,
    quota: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="SERVER=SIZE: how much the sets of a server may take on it; SERVER=none: all."),
    ] = (),
    enable: Annotated[tuple[str, ...], Parameter(negative=(), help="A server that may use it again.")] = (),
    disable: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="A server that sees it and shall not use it; what runs there goes on."),
    ] = (),
    common: Common = DEFAULTS,
) -> None:
    """Change how a device is used: how many jobs at once, the free space it must keep, by which servers."""
    if concurrency is None and low_space is None and not quota and not enable and not disable:
        raise UsageError(detail="Say what to change: --concurrency, --low-space, --quota, --enable or --disable")
    if set(enable) & set(disable):
        raise UsageError(detail=f"{', '.join(sorted(set(enable) & set(disable)))}: either --enable or --disable")
    low = parse_size(low_space) if low_space is not None else None
    enabled = {**dict.fromkeys(enable, True), **dict.fromkeys(disable, False)}
    request = q.DeviceSet(name, None, concurrency, low, _quotas(quota), enabled)
    view = ask(common, "device.set", request, v.DeviceView)
    output.show(view, common.json, _one)


def _quotas(texts: tuple[str, ...]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for text in texts:
        server, equals, size = text.partition("=")
        if not equals or not server or server in found:
            raise InvalidValue(value=text, what="quota", expected="Use SERVER=SIZE, once for each server")
        found[server] = None if size == "none" else parse_size(size)
    return found


@app.command
def pause(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Start no new jobs on a device; what runs there goes on."""
    view = ask(common, "device.set", q.DeviceSet(name, DeviceState.PAUSED), v.DeviceView)
    output.show(view, common.json, _one)


@app.command
def resume(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Use a paused device again."""
    view = ask(common, "device.set", q.DeviceSet(name, DeviceState.ONLINE), v.DeviceView)
    output.show(view, common.json, _one)


@app.command(name="read-only")
def read_only(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Write nothing more to a device; what is on it can be restored. Resume ends that."""
    view = ask(common, "device.set", q.DeviceSet(name, DeviceState.READ_ONLY), v.DeviceView)
    output.show(view, common.json, _one)


@app.command
def offline(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Use a device for nothing at all, as while its disk is in a safe. Resume ends that."""
    view = ask(common, "device.set", q.DeviceSet(name, DeviceState.OFFLINE), v.DeviceView)
    output.show(view, common.json, _one)


@app.command
def move(
    name: Name,
    /,
    *,
    to: Annotated[
        tuple[str, ...],
        Parameter(name="--to", negative=(), help="SERVER=FOLDER where it lies now; once for each server that sees it."),
    ],
    common: Common = DEFAULTS,
) -> None:
    """Tell that a device was carried elsewhere, with all that is on it: to another server, or into another folder."""
    request = q.DeviceMove(name, _places("shared", None, None, to))
    output.show(ask(common, "device.move", request, v.DeviceView), common.json, _one)


@app.command
def share(
    name: Name,
    /,
    *,
    on: Annotated[str, Parameter(name="--on", help="SERVER=FOLDER: one more server that sees it.")],
    common: Common = DEFAULTS,
) -> None:
    """Let one more server use a device, which is a shared one from then on."""
    ((server, path),) = _places("shared", None, None, (on,)).items()
    output.show(ask(common, "device.share", q.DeviceShare(name, server, path), v.DeviceView), common.json, _one)


@app.command
def unshare(
    name: Name, server: Annotated[str, Parameter(name="SERVER", help="The server.")], /, *, common: Common = DEFAULTS
) -> None:
    """Take a device away from one of the servers that see it."""
    output.show(ask(common, "device.share", q.DeviceShare(name, server), v.DeviceView), common.json, _one)


@app.command
def remove(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Take a device without sets, or an imported one, out of the mesh; nothing on it is deleted."""
    view = ask(common, "device.remove", q.DeviceName(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"device {name} was removed; its folder is untouched"))
