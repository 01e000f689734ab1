"""``caso-mesh settings``: settings of the mesh, of pools and of servers."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import UsageError
from caso_mesh.model.units import format_number

app = Group(name="settings", help="Settings of the mesh, of pools and of servers.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the setting.")]
Server = Annotated[str | None, Parameter(help="For this server alone.")]
Pool = Annotated[str | None, Parameter(help="For the servers of this pool.")]


@app.command(name="list")
def list_(*, server: Server = None, pool: Pool = None, common: Common = DEFAULTS) -> None:
    """List the settings in force and where each comes from."""
    _check(server, pool)
    view = ask(common, "settings.list", q.SettingsListRequest(server, pool), v.SettingList)
    output.show(view, common.json, _list)


def _list(view: v.SettingList) -> None:
    output.table(
        view.settings,
        ("name", lambda row: row.name),
        ("value", lambda row: row.value),
        ("from", lambda row: row.origin),
        ("default", lambda row: row.default),
        ("what it does", lambda row: row.text.partition(". ")[0].rstrip(".")),
        spare=("default", "from"),
    )
    output.note("More about each: caso-mesh help settings")


@app.command(name="set")
def set_(
    name: Name,
    value: Annotated[
        str,
        Parameter(
            name="VALUE",
            help="A number; for names in -s a duration, as in 90s or 15m; for others a text, see caso-mesh help settings.",
        ),
    ],
    /,
    *,
    server: Server = None,
    pool: Pool = None,
    common: Common = DEFAULTS,
) -> None:
    """Change a setting of the mesh, of a pool or of a server."""
    _change(common, name, value, server, pool)


@app.command
def unset(name: Name, /, *, server: Server = None, pool: Pool = None, common: Common = DEFAULTS) -> None:
    """Return to what the wider scope says (server, pool, mesh, default)."""
    _change(common, name, None, server, pool)


def _change(common: Common, name: str, value: str | None, server: str | None, pool: str | None) -> None:
    _check(server, pool)
    view = ask(common, "settings.set", q.SettingSet(name, value, server, pool), v.SettingList)

    def people(view: v.SettingList) -> None:
        for row in view.settings:
            if row.name == name:
                output.line(f"{row.name} is {_plain(row.value)} (from {row.origin})")

    output.show(view, common.json, people)


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else format_number(value)


def _check(server: str | None, pool: str | None) -> None:
    if server is not None and pool is not None:
        raise UsageError(detail="Give --server or --pool, not both")
