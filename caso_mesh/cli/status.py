"""``caso-mesh status``: the mesh on one line."""

from __future__ import annotations

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.options import DEFAULTS, Common
from caso_mesh.model import requests as q
from caso_mesh.model import views as v


def status(*, common: Common = DEFAULTS) -> None:
    """Show the mesh, its administrator in office, and how many servers, running jobs and alerts there are."""
    output.show(ask(common, "status", q.Nothing(), v.StatusView), common.json, _people)


def _people(view: v.StatusView) -> None:
    output.details(
        ("mesh", view.mesh),
        ("server", view.server),
        ("administrator", view.admin or "none in office"),
        ("voters", view.voters),
        ("servers", view.servers),
        ("running", view.running),
        ("alerts", view.alerts),
        ("version", view.version or None),
    )
