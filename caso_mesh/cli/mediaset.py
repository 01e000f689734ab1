"""``caso-mesh mediaset``: media sets."""

from __future__ import annotations

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="mediaset", help="Media sets: how long sets are kept.")


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the media sets."""
    output.show(ask(common, "mediaset.list", q.Nothing(), v.MediaSetList), common.json, _list)


def _list(view: v.MediaSetList) -> None:
    output.table(
        view.media_sets,
        ("name", lambda row: row.name),
        ("keep", lambda row: _period(row.keep_s)),
        ("append", lambda row: _period(row.append_s)),
        ("protected", lambda row: _period(row.protection_s)),
        ("factory", lambda row: row.factory),
    )


def _period(seconds: float | None) -> str:
    if seconds is None:
        return "without end"
    return f"{seconds / 86400:g} d"
