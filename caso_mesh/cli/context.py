"""``caso-mesh context``: an operator's key, with the way to a mesh, for a machine that is no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.client import Access, Client, contexts_folder, load_access
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common, JsonOption
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import AlreadyExists, InvalidName, InvalidValue, Refused, StateMissing, UsageError
from caso_mesh.model.ids import NAME

if TYPE_CHECKING:
    from caso_mesh.identity.store import OperatorIdentity

app = Group(name="context", help="Contexts: an operator's key with the way to a mesh, for use without a state folder.")


class ContextView(Struct, frozen=True):
    """What was written. ``endpoints`` are tried in their order."""

    name: str
    folder: str
    endpoints: tuple[str, ...]


@app.command
def create(
    name: Annotated[str, Parameter(name="NAME", help="What --context is to call it.")],
    /,
    *,
    endpoint: Annotated[
        tuple[str, ...],
        Parameter(
            name="--endpoint",
            negative=(),
            help="HOST:PORT of a server of the mesh, tried in the order given; may be repeated (else all there are).",
        ),
    ] = (),
    link: Annotated[
        str | None, Parameter(help='What "caso-mesh operator create" printed: a key of your own is made here.')
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a context: of a new operator by --link, else of the operator of a state folder.

    A context works without a state folder, and without the server that made it. Whoever has it may do what its operator
    may. That of a state folder, made again under its name, is brought up to date.
    """
    if not NAME.match(name):
        raise InvalidName(name=name, kind="context")
    folder = contexts_folder() / name
    given = tuple(map(_checked, endpoint))
    if link is not None:
        _follow(name, folder, link, given, common)
        return
    access = load_access(common)
    endpoints = given or _servers(access, common.timeout_s)
    _check_free(name, folder, access)
    _write(folder, endpoints, access)
    view = ContextView(name, str(folder), endpoints)
    output.show(view, common.json, _people)


class ContextList(Struct, frozen=True):
    """The contexts of this user."""

    contexts: tuple[ContextView, ...]


@app.command(name="list")
def list_(*, json: JsonOption = False) -> None:
    """List the contexts of this user, and where each asks."""
    folders = sorted(each.parent for each in contexts_folder().glob("*/endpoint"))
    output.show(ContextList(tuple(map(_kept, folders))), json, _list)


def _kept(folder: Path) -> ContextView:
    return ContextView(folder.name, str(folder), tuple((folder / "endpoint").read_text("utf-8").split()))


def _list(view: ContextList) -> None:
    output.table(
        view.contexts,
        ("name", lambda row: row.name),
        ("asks at", lambda row: row.endpoints),
        ("folder", lambda row: row.folder),
        empty="No contexts of this user. Of the operator of this state folder: caso-mesh context create NAME; of an invitation: "
        "caso-mesh context create NAME --link LINK",
        spare=("folder",),
    )


def _follow(name: str, folder: Path, link: str, endpoints: tuple[str, ...], common: Common) -> None:
    from caso_mesh.cli.invited import accept

    if common.state is not None or common.context is not None:
        raise UsageError(detail="--link takes the place of --state and --context")
    if (folder / "endpoint").exists():
        raise AlreadyExists(kind="context", name=name)
    try:
        who, where = accept(link, folder, endpoints, common.timeout_s)
    except OSError as error:
        raise Refused(detail=f"{folder} cannot be written: {error.strerror or error}") from error
    view = ContextView(name, str(folder), where)
    output.show(view, common.json, lambda shown: _follower(shown, who))


def _follower(view: ContextView, who: str) -> None:
    output.line(f"You are the operator {who}. Your key is in {view.folder}: it was made here, and is nowhere else.")
    output.line(f"Use it:   caso-mesh --context {view.name} status")


def _checked(address: str) -> str:
    from caso_mesh.wire.addresses import split_address

    try:
        split_address(address)
    except ValueError:
        raise InvalidValue(
            value=address, what="endpoint", expected="Use HOST:PORT, or [ADDRESS]:PORT for IPv6"
        ) from None
    return address


def _servers(access: Access, timeout_s: float) -> tuple[str, ...]:
    """Where the servers of the mesh are reached: those first that may be in office, as they are asked most."""
    client = Client(access, timeout_s)
    try:
        rows = client.call("server.list", q.ServerListRequest(), v.ServerList).servers
    finally:
        client.close()
    return tuple(row.address for row in sorted(rows, key=lambda row: not row.voter) if row.address)


def _check_free(name: str, folder: Path, access: Access) -> None:
    from caso_mesh.identity.store import IdentityStore

    try:
        known = IdentityStore(folder).load_operator()
    except StateMissing:
        return
    if known.key.id != access.operator.key.id:
        raise AlreadyExists(kind="context", name=name)


def _write(folder: Path, endpoints: tuple[str, ...], access: Access) -> None:
    from caso_mesh.identity.store import write_context

    operator: OperatorIdentity = access.operator
    try:
        write_context(
            folder,
            endpoints=endpoints,
            mesh=access.mesh,
            anchors=access.anchors,
            key=operator.key,
            chain=operator.chain,
        )
    except OSError as error:
        raise Refused(detail=f"{folder} cannot be written: {error.strerror or error}") from error


def _people(view: ContextView) -> None:
    output.line(f"The context {view.name} is in {view.folder}; it asks at {', '.join(view.endpoints)}.")
    output.line(f"Use it:             caso-mesh --context {view.name} status")
    output.line("On another machine: copy the folder to the same place of your home there. Keep it as safe as a key")
