"""``caso-mesh medium``: media on the devices."""

from __future__ import annotations

from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

app = Group(name="medium", help="Media on the devices.")


@app.command(name="list")
def list_(
    *,
    server: Annotated[str | None, Parameter(help="Only media that this server writes.")] = None,
    pool: Annotated[str | None, Parameter(help="Only media that the servers of this pool write.")] = None,
    common: Common = DEFAULTS,
) -> None:
    """List the media."""
    view = ask(common, "medium.list", q.DeviceListRequest(server, pool), v.MediumList)
    output.show(view, common.json, _list)


def _list(view: v.MediumList) -> None:
    output.table(
        view.media,
        ("label", lambda row: row.label),
        ("device", lambda row: row.device),
        ("media set", lambda row: row.media_set),
        ("state", lambda row: row.state),
        ("opened", lambda row: row.opened),
        ("last write", lambda row: row.last_write),
        ("size", lambda row: output.size(row.bytes)),
        ("sets", lambda row: row.sets),
    )


@app.command
def retire(
    label: Annotated[str, Parameter(name="LABEL", help="Label of the medium.")], /, *, common: Common = DEFAULTS
) -> None:
    """Let a medium take no further sets; those on it stay, and the next backup opens another one."""
    view = ask(common, "medium.retire", q.MediumLabel(label), v.Done)
    output.show(view, common.json, lambda _: output.line(f"medium {label} takes no further sets"))
