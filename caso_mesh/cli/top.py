"""``caso-mesh top``: the mesh as it works, drawn anew every second."""

from __future__ import annotations

import gc
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.cli.screen import SORTS, Line, cut, top_lines
from caso_mesh.cli.status import encodable, overview, show
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import CasoError
from caso_mesh.model.overview import Overview, OverviewRequest

_EACH_S, _ANSWER_S = 1.0, 3.0
_ROWS = 100
#: Of a picture that nobody looks at on a terminal.
_PLAIN_HEIGHT = 60


def top(*, common: Common = DEFAULTS) -> None:
    """Show what runs, what waits and what is wrong, drawn anew every second. q ends it, s sorts what runs in another way.
    Without a terminal one picture is printed."""
    with connect(common) as client:
        if common.json:
            output.document(client.call("overview", OverviewRequest(_ROWS), Overview))
            return
        if not (output.is_terminal(sys.stdout) and output.is_terminal(sys.stdin)):
            view, seen = _look(client)
            if seen is not None:
                show(top_lines(view, seen, _PLAIN_HEIGHT, SORTS[0])[:-1])
            return
        _live(client)


def _look(client: Client) -> tuple[v.StatusView, Overview | None]:
    return client.call("status", q.Nothing(), v.StatusView), overview(client, _ROWS, watch=True)


def _live(client: Client) -> None:
    from rich.live import Live

    gc.enable()  # this may go on for days
    # while an answer is waited for no key is heard
    client.timeout_s = min(client.timeout_s, _ANSWER_S)
    view = client.call("status", q.Nothing(), v.StatusView)
    seen = client.call("overview", OverviewRequest(_ROWS, watch=True), Overview)
    screen, sort, note = output.console(sys.stdout), 0, ""
    with _keys() as fd, Live(console=screen, screen=True, auto_refresh=False, redirect_stderr=False) as live:
        while True:
            lines = top_lines(view, seen, screen.size.height, SORTS[sort], note)
            live.update(_drawn(lines, screen.size.width), refresh=True)
            until_s = time.monotonic() + _EACH_S
            while (left_s := until_s - time.monotonic()) > 0:
                pressed = _key(fd, left_s)
                if pressed in {"q", "Q", "\x03", "\x04"}:
                    return
                if pressed in {"s", "S"}:
                    sort = (sort + 1) % len(SORTS)
                    break
                if pressed:
                    continue
                break
            try:
                view = client.call("status", q.Nothing(), v.StatusView)
                seen = client.call("overview", OverviewRequest(_ROWS, watch=True), Overview)
                note = ""
            except CasoError as error:
                note = f"no answer: {error.code}"


def _drawn(lines: list[Line], width: int) -> Any:
    from rich.text import Text

    pieces = [[(encodable(text), style) for text, style in cut(line, width)] for line in lines]
    return Text("\n").join(Text.assemble(*line) for line in pieces)


@contextmanager
def _keys() -> Iterator[int]:
    """The terminal gives each key at once, and does not show it."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _key(fd: int, seconds: float) -> str:
    """A key that is pressed within so long; empty if none is."""
    ready, _, _ = select.select([fd], [], [], seconds)
    if not ready:
        return ""
    # a closed terminal is read as its end
    return os.read(fd, 1).decode("latin-1") or "q"
