"""``caso-mesh mediaset``: media sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec.structs import replace

from caso_mesh.cli import output
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter, shared
from caso_mesh.cli.medium import counted, media_of
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import NO_END, MediaSetDoc
from caso_mesh.model.errors import NotFound

app = Group(name="mediaset", help="Media sets: how long sets are kept.")


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the media sets."""
    output.show(ask(common, "mediaset.list", q.Nothing(), v.MediaSetList), common.json, _list)


def _list(view: v.MediaSetList) -> None:
    output.table(
        view.media_sets,
        ("name", lambda row: row.name),
        ("keep", _kept),
        ("append", lambda row: _period(row.append_s)),
        ("protected", lambda row: _period(row.protection_s)),
        ("closes at", _closes_at),
        ("factory", lambda row: row.factory),
    )


def _kept(row: v.MediaSetView) -> str:
    return ", ".join([_period(row.keep_s), *_counts(row.definition)])


def _closes_at(row: v.MediaSetView) -> str | None:
    return None if row.definition.medium_size == NO_END else row.definition.medium_size


def _counts(definition: MediaSetDoc) -> list[str]:
    kept = {
        "last": definition.keep_last,
        "daily": definition.keep_daily,
        "weekly": definition.keep_weekly,
        "monthly": definition.keep_monthly,
        "yearly": definition.keep_yearly,
    }
    return [f"{count} {what}" for what, count in kept.items() if count]


def _period(seconds: float | None) -> str:
    if seconds is None:
        return "without end"
    return f"{seconds / 86400:g} d"


Name = Annotated[str, Parameter(name="NAME", help="Name of the media set.")]
Append = Annotated[str | None, Parameter(help="How long a medium takes further sets, as in 6d; none: without end.")]
MediumSize = Annotated[str | None, Parameter(help="A medium closes when so much is stored on it, as in 1TB; or none.")]
Protection = Annotated[
    str | None,
    Parameter(help="How long after the last write to a medium nothing on it is deleted, as in 28d; or none."),
]
Keep = Annotated[str | None, Parameter(help="How long a set is kept, as in 28d; none: without end.")]
KeepLast = Annotated[int | None, Parameter(help="Beyond that, so many newest sets of each list and server.")]
KeepDaily = Annotated[int | None, Parameter(help="Beyond that, the newest set of so many days.")]
KeepWeekly = Annotated[int | None, Parameter(help="Beyond that, the newest set of so many weeks.")]
KeepMonthly = Annotated[int | None, Parameter(help="Beyond that, the newest set of so many months.")]
KeepYearly = Annotated[int | None, Parameter(help="Beyond that, the newest set of so many years.")]


@app.command
def show(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Show one media set, with how much lies on its media."""
    with connect(common) as client:
        row = _row(client, name)
        media = [] if common.json else media_of(client, media_set=name)
    output.show(row, common.json, lambda row: _show(row, media))


def _show(row: v.MediaSetView, media: list[v.MediumView]) -> None:
    output.details(
        ("name", row.name),
        ("keep", _kept(row)),
        ("append", _period(row.append_s)),
        ("protected", _period(row.protection_s)),
        ("closes at", _closes_at(row)),
        ("factory", row.factory),
        ("media", counted(media)),
        ("devices", sorted({each.device for each in media}) or None),
        ("sets", sum(each.sets for each in media)),
        ("size", output.size(sum(each.bytes for each in media))),
        ("last write", max((each.last_write for each in media), default=None)),
    )


@shared
@dataclass(frozen=True)
class Options:
    """How a media set is kept; what is not given stays as it is, or as usual."""

    append: Append = None
    medium_size: MediumSize = None
    protection: Protection = None
    keep: Keep = None
    keep_last: KeepLast = None
    keep_daily: KeepDaily = None
    keep_weekly: KeepWeekly = None
    keep_monthly: KeepMonthly = None
    keep_yearly: KeepYearly = None

    def given(self) -> dict[str, Any]:
        """The values of options that were given, by the names of a media set's fields."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


NOTHING_SAID = Options()


@app.command
def create(
    name: Name,
    /,
    *,
    options: Options = NOTHING_SAID,
    common: Common = DEFAULTS,
) -> None:
    """Make a media set; what is not said is as in keep-4-weeks."""
    edit = q.MediaSetEdit(name, replace(MediaSetDoc(), **options.given()))
    output.show(ask(common, "mediaset.create", edit, v.Done), common.json, lambda _: _made(edit))


def _made(edit: q.MediaSetEdit) -> None:
    doc = edit.definition
    kept = ", ".join([f"keep {doc.keep}", *_counts(doc)])
    output.line(f"media set {edit.name}: {kept}; append {doc.append}; protection {doc.protection}")


@app.command
def edit(
    name: Name,
    /,
    *,
    options: Options = NOTHING_SAID,
    common: Common = DEFAULTS,
) -> None:
    """Change a media set; its protection never becomes shorter."""
    with connect(common) as client:
        edit = q.MediaSetEdit(name, replace(_definition(client, name), **options.given()))
        view = client.call("mediaset.set", edit, v.Done)
    output.show(view, common.json, lambda _: _made(edit))


@app.command
def copy(
    name: Name, new: Annotated[str, Parameter(name="NEW", help="The new name.")], /, *, common: Common = DEFAULTS
) -> None:
    """Copy a media set; the copy has no media."""
    with connect(common) as client:
        edit = q.MediaSetEdit(new, _definition(client, name))
        view = client.call("mediaset.create", edit, v.Done)
    output.show(view, common.json, lambda _: _made(edit))


def _definition(client: Client, name: str) -> MediaSetDoc:
    return _row(client, name).definition


def _row(client: Client, name: str) -> v.MediaSetView:
    rows = client.call("mediaset.list", q.Nothing(), v.MediaSetList).media_sets
    found = next((row for row in rows if row.name == name), None)
    if found is None:
        raise NotFound(kind="mediaset", name=name)
    return found


@app.command
def delete(name: Name, /, *, common: Common = DEFAULTS) -> None:
    """Delete a media set that nothing uses and that has no sets."""
    view = ask(common, "mediaset.delete", q.Named(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"media set {name} was deleted"))
