"""Alerts that the administrator takes in and shows to nobody, as the setting ``alerts-hidden`` of a server says."""

from __future__ import annotations

from collections.abc import Iterable

from caso_mesh.admin.scoping import of_alert, places_of
from caso_mesh.admin.tables import AlertRow
from caso_mesh.control.state import ControlState
from caso_mesh.model.alerts import may_be_off
from caso_mesh.model.settings import categories_off

_NAME = "alerts-hidden"


def shown(state: ControlState, rows: Iterable[AlertRow]) -> list[AlertRow]:
    """Those that are not hidden. One that is about servers is, if each of them says so; one about the mesh, if the mesh does.
    What needs attention is shown whatever they say."""
    if not _hides_any(state):
        return list(rows)
    off, places = dict[str, frozenset[str]](), places_of(state)

    def hides(server: str, category: str) -> bool:
        if server not in off:
            known = server in state.servers
            off[server] = categories_off(state.settings_of(server) if known else state.settings_of_mesh(), _NAME)
        return category in off[server]

    return [
        row
        for row in rows
        if not may_be_off(row.category, row.alert)
        or not all(hides(server, row.category) for server in of_alert(state, row, places) or {""})
    ]


def _hides_any(state: ControlState) -> bool:
    """Most meshes hide nothing, and have thousands of alerts."""
    layers = (state.mesh_settings, *state.pool_settings.values(), *(row.settings for row in state.servers.values()))
    return any(_NAME in layer for layer in layers)
