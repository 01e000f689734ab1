"""What commands about rows that people name have in common, each kind told by one description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import Struct

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NotFound

Name = Annotated[str, Parameter(name="NAME", help="Its name.")]


class Kind(Struct, frozen=True):
    """``empty``: what is said where there are none; ``group``: the commands about these rows; ``call``: what the calls about them begin with; ``edit`` makes the request
    that creates or changes one; ``views``: the answer with all ``rows``, shown in ``columns``; ``made``: what is said of a new
    one; ``listing`` and ``deletion``: the help of those commands."""

    group: Group
    name: str
    call: str
    edit: Callable[[str, Any], Struct]
    views: type[Struct]
    rows: Callable[[Any], Sequence[Any]]
    columns: tuple[output.Column[Any], ...]
    made: str
    listing: str
    deletion: str
    empty: str = ""


def add_commands(kind: Kind) -> None:
    """Adds those that need no options of their own: ``list`` and ``delete``."""

    def list_(*, common: Common = DEFAULTS) -> None:
        view = ask(common, f"{kind.call}.list", q.Nothing(), kind.views)
        output.show(view, common.json, lambda view: output.table(kind.rows(view), *kind.columns, empty=kind.empty))

    def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
        view = ask(common, f"{kind.call}.delete", q.Named(name), v.Done)
        output.show(view, common.json, lambda _: output.line(f"{kind.name} {name} was deleted"))

    list_.__doc__, delete.__doc__ = kind.listing, kind.deletion
    kind.group.command(list_, name="list")
    kind.group.command(delete)


def create(kind: Kind, name: str, doc: Struct, common: Common) -> None:
    """Makes a row, and says so."""
    view = ask(common, f"{kind.call}.create", kind.edit(name, doc), v.Done)
    output.show(view, common.json, lambda _: output.line(f"{kind.name} {name} {kind.made.format(name=name)}"))


def change(kind: Kind, name: str, doc: Struct, common: Common, client: Client) -> None:
    """Gives a row another definition, and says so."""
    view = client.call(f"{kind.call}.set", kind.edit(name, doc), v.Done)
    output.show(view, common.json, lambda _: output.line(f"{kind.name} {name} was changed"))


def definition(kind: Kind, name: str, client: Client) -> Any:
    """That of the row as it is. What only stands in for rows that there are not is none. Raises ``NotFound``."""
    view = client.call(f"{kind.call}.list", q.Nothing(), kind.views)
    rows = () if getattr(view, "standard", False) else kind.rows(view)
    found = next((row.definition for row in rows if row.name == name), None)
    if found is None:
        raise NotFound(kind=kind.call, name=name)
    return found
