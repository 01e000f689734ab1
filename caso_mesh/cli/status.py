"""``caso-mesh status``: the mesh on one screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError

if TYPE_CHECKING:
    # a document needs none of it
    from caso_mesh.cli.screen import Line
    from caso_mesh.model.overview import Overview


def status(*, common: Common = DEFAULTS) -> None:
    """Show the mesh on one screen: who administers it, the servers and who is away, what runs and what waits and why, open
    alerts, how the last 24 hours went, and what is due next."""
    with connect(common) as client:
        view = client.call("status", q.Nothing(), v.StatusView)
        if common.json:
            output.document(view)
            return
        seen = overview(client, 10) if view.admin is not None else None
    from caso_mesh.cli.screen import status_lines

    show(status_lines(view, seen))


def overview(client: Client, limit: int, *, watch: bool = False) -> Overview | None:
    """``None`` from an administrator of an older version, or one that has just left the office."""
    from caso_mesh.model.overview import Overview, OverviewRequest

    try:
        return client.call("overview", OverviewRequest(limit, watch), Overview)
    except CasoError as error:
        output.note(f"There is no more to be seen: {error.message}")
        return None


def show(lines: Sequence[Line]) -> None:
    """On a terminal with colours, each line cut to its width; in a pipe whole and plain."""
    from caso_mesh.cli.screen import cut

    if not output.is_terminal(sys.stdout):
        for line in lines:
            sys.stdout.write(encodable("".join(text for text, _ in cut(line, None)).rstrip()) + "\n")
        return
    from rich.text import Text

    screen = output.console(sys.stdout)
    width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
    for line in lines:
        pieces = [(encodable(text), style) for text, style in cut(line, width)]
        screen.print(Text.assemble(*pieces), no_wrap=True, overflow="crop", crop=True)


def encodable(text: str) -> str:
    """What the terminal's own letters cannot write is escaped."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
