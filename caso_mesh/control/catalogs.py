"""Who keeps the catalogs of sets: by the mode of the media server that made them, as the control state has it."""

from __future__ import annotations

from caso_mesh.control.state import ControlState
from caso_mesh.model.catalogs import CatalogMode
from caso_mesh.model.mesh import Server
from caso_mesh.model.settings import text

MODE = "catalog-mode"


def keeper_of(state: ControlState, node: str) -> Server | None:
    """The server that keeps, if any does, what ``node`` (a node id) made: itself, or the machine in whose place it is
    now; ``None`` if it has left the mesh."""
    server = state.servers.get(node)
    if server is not None:
        return server
    return next((each for each in state.servers.values() if node in each.succeeds), None)


def makers(server: Server) -> tuple[str, ...]:
    """The node ids whose sets are a server's to keep."""
    return (server.id, *server.succeeds)


def mode_of(state: ControlState, node: str) -> CatalogMode:
    """The mode of sets that ``node`` made. Of a server that has left there is nobody but the voters."""
    server = keeper_of(state, node)
    return CatalogMode.CENTRALIZED if server is None else _mode(state, server)


def _mode(state: ControlState, server: Server) -> CatalogMode:
    pools = [state.pool_settings.get(pool.name, {}) for pool in state.pools_of(server.id)]
    for layer in (server.imposed, server.settings, *reversed(pools), state.mesh_settings):
        if MODE in layer:
            return CatalogMode(text(layer, MODE))
    return CatalogMode.CENTRALIZED


def distributed(state: ControlState) -> dict[str, str]:
    """The nodes whose sets are not for voters to keep, once the server has their catalogs, each with that server's id."""
    layers = (state.mesh_settings, *state.pool_settings.values(), *(each.settings for each in state.servers.values()))
    found: dict[str, str] = {}
    if any(MODE in layer for layer in layers) or any(each.imposed for each in state.servers.values()):
        for server in state.server_list():
            if _mode(state, server) is CatalogMode.DISTRIBUTED:
                found |= dict.fromkeys(makers(server), server.id)
    return found
