"""``caso-mesh set``: the backup sets."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = App(name="set", help="Backup sets.")


@app.command(name="list")
async def list_(
    *,
    server: Annotated[str | None, Parameter(help="Only sets that this server holds or is the source of.")] = None,
    pool: Annotated[str | None, Parameter(help="Only sets of the servers of this pool.")] = None,
    source: Annotated[str | None, Parameter(help="Only sets of files of this server.")] = None,
    limit: Annotated[int, Parameter(help="At most this many.")] = 1000,
    common: Common = DEFAULTS,
) -> None:
    """List the backup sets."""
    view = await ask(common, "set.list", q.SetListRequest(server, pool, source, limit), v.SetList)
    output.show(view, common.json, _list)


def _list(view: v.SetList) -> None:
    output.table(
        view.sets,
        ("set", lambda row: row.id),
        ("source", lambda row: row.source),
        ("paths", lambda row: row.paths),
        ("type", lambda row: row.type),
        ("ended", lambda row: row.ended),
        ("files", lambda row: row.files),
        ("size", lambda row: output.size(row.bytes)),
        ("device", lambda row: row.device),
        ("media set", lambda row: row.media_set),
        ("expires", lambda row: row.expires),
        ("exceptions", lambda row: row.exceptions or None),
    )
