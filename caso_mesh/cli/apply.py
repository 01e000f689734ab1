"""``caso-mesh apply`` and ``caso-mesh export``: the mesh as a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import USAGE, UsageError

_SIGNS = {"create": "+", "change": "~", "delete": "-"}


def apply(
    *,
    file: Annotated[Path, Parameter(name="-f", help="The file (TOML).")],
    dry_run: Annotated[bool, Parameter(negative=(), help="Only show what would change.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Make the mesh as a file says: all of it, or, with a mistake in it, nothing."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(detail=f"{file} cannot be read: {error}") from None
    view = ask(common, "config.apply", q.ConfigApply(text, dry_run), v.Applied)
    output.show(view, common.json, lambda view: _applied(view, file, dry_run=dry_run))
    return USAGE if view.mistakes else 0


def _applied(view: v.Applied, file: Path, *, dry_run: bool) -> None:
    for mistake in view.mistakes:
        place = f" ({mistake.place})" if mistake.place else ""
        output.note(f"{file}, line {mistake.line}{place}: {mistake.message} {mistake.hint}".rstrip())
    if view.mistakes:
        count = len(view.mistakes)
        output.note(f"{count} mistake{'s' if count > 1 else ''}; nothing was changed.")
        return
    for change in view.changes:
        output.line(f"{_SIGNS[change.action]} {change.kind} {change.name}")
        for detail in change.details:
            output.line(f"    {detail}")
    if not view.changes:
        output.line("Everything is as the file says.")
    elif dry_run:
        output.note("Nothing was changed: this was a dry run.")


def export(*, common: Common = DEFAULTS) -> None:
    """Print the file that would make the mesh as it is."""
    view = ask(common, "config.export", q.Nothing(), v.Exported)
    output.show(view, common.json, _exported)


def _exported(view: v.Exported) -> None:
    sys.stdout.write(view.text)
