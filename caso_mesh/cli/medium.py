"""``caso-mesh medium``: media on the devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, ask
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.listing import (
    ANY_SERVER,
    ANY_TIME,
    LISTING,
    AfterOption,
    LimitOption,
    Listing,
    Servers,
    Time,
    note_more,
)
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.listing import MOST_ROWS
from caso_mesh.model.storage import MediumState

app = Group(name="medium", help="Media on the devices.")


@app.command(name="list")
def list_(
    *,
    listing: Listing = LISTING,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    limit: LimitOption = MOST_ROWS,
    after: AfterOption = None,
) -> None:
    """List the media: of the servers that write them, by when they were last written to."""
    state, common = listing.split(each.value for each in MediumState)
    request = q.MediumListRequest(servers.server, servers.pool, state, time.since_ns, time.until_ns, limit, after)
    output.show(ask(common, "medium.list", request, v.MediumList), common.json, _list)


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
        empty="No media to show: the first backup to a device opens one",
        spare=("opened", "media set", "size"),
    )
    note_more(view.more, view.media[-1].label if view.media else None)


def media_of(client: Client, *, device: str | None = None, media_set: str | None = None) -> list[v.MediumView]:
    """Media that are listed, of a device or of a media set, by name."""
    return [
        each for each in _all_media(client) if device in {None, each.device} and media_set in {None, each.media_set}
    ]


def _all_media(client: Client) -> Iterator[v.MediumView]:
    after = None
    while True:
        view = client.call("medium.list", q.MediumListRequest(after=after), v.MediumList)
        yield from view.media
        if not view.more or not view.media:
            return
        after = view.media[-1].label


def counted(media: list[v.MediumView]) -> str:
    """How many there are, and in which states, for people."""
    states = sorted(Counter(each.state for each in media).items())
    return f"{len(media)}" + (f" ({', '.join(f'{count} {state}' for state, count in states)})" if states else "")


@app.command
def retire(
    label: Annotated[str, Parameter(name="LABEL", help="Label of the medium.")], /, *, common: Common = DEFAULTS
) -> None:
    """Let a medium take no further sets; those on it stay, and the next backup opens another one."""
    view = ask(common, "medium.retire", q.MediumLabel(label), v.Done)
    output.show(view, common.json, lambda _: output.line(f"medium {label} takes no further sets"))
