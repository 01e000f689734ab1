"""Where the catalogs of each server's sets are, and how far a move is: counted anew for each question."""

from __future__ import annotations

from functools import partial

from caso_mesh.admin import kept_catalogs
from caso_mesh.admin.kept_catalogs import Counted
from caso_mesh.admin.ports import Answer, Caller
from caso_mesh.admin.present import restricted_to
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Away
from caso_mesh.control import catalogs
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import catalogs as c
from caso_mesh.model.mesh import Server


class Modes:
    """Answers ``catalog.modes``."""

    def __init__(self, *, keeper: ControlKeeper, tables: Tables, away: Away) -> None:
        self._keeper = keeper
        self._tables = tables
        self._away = away

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"catalog.modes": self._modes}

    async def _modes(self, caller: Caller, request: c.CatalogModesRequest) -> c.CatalogModes:
        state = self._keeper.state
        only = restricted_to(state, request.server, request.pool, caller.limits())
        shown = [server for server in state.server_list() if only is None or server.id in only]
        begun = await self._tables.ask(kept_catalogs.keepers)
        return c.CatalogModes(tuple([await self._view(server, begun=server.id in begun) for server in shown]))

    async def _view(self, server: Server, *, begun: bool) -> c.CatalogModeView:
        state = self._keeper.state
        mode = catalogs.mode_of(state, server.id)
        told = await self._tables.ask(partial(kept_catalogs.count, makers=catalogs.makers(server), keeper=server.id))
        to_admin = told.sets - told.here - told.damaged if mode.at_voters else 0
        to_server = told.sets - told.kept if mode.at_server else 0
        to_drop = (0 if mode.at_voters else told.both) + (0 if mode.at_server else told.kept)
        ending = begun and not mode.at_server
        left, connected = to_admin + to_server + to_drop + ending, self._away.linked(server.id)
        since = None if connected else self._away.since(server.id)
        waits = not connected and (to_server or told.kept > told.both or (to_drop and not mode.at_server))
        return c.CatalogModeView(
            server=server.name,
            mode=mode,
            origin=state.settings_with_origin(server.id)[catalogs.MODE][1],
            state="waiting" if left and waits else "moving" if left else "settled",
            sets=told.sets,
            at_admin=told.here,
            at_server=told.kept,
            to_admin=to_admin,
            to_server=to_server,
            to_drop=to_drop,
            percent=_percent(mode, told, to_admin + to_server, to_drop),
            connected=connected,
            unreachable_since=since,
            note=_note(server, mode, told, since, begun=begun, left=left),
        )


def _percent(mode: c.CatalogMode, told: Counted, missing: int, to_drop: int) -> float:
    """Of what a set takes in its mode, to be where it belongs and nowhere else, so much is done."""
    steps = told.sets * 2
    done = steps - min(told.sets, missing) - min(told.sets, to_drop)
    return 100.0 if not steps else 100.0 * done / steps


def _note(
    server: Server, mode: c.CatalogMode, told: Counted, since: str | None, *, begun: bool, left: int
) -> str | None:
    """What a person should know of it."""
    if told.damaged and mode.at_voters:
        return f"{told.damaged} catalogs of {server.name} are damaged: caso-mesh catalog rebuild makes them anew"
    if since is not None and told.kept > told.both:
        return f"catalog is on {server.name}, not reachable since {since}"
    if left and since is not None:
        return f"{server.name} is not reachable since {since}: the move goes on when it is back"
    if mode.at_server and not begun and since is None and server.ever_linked and told.sets:
        return f"{server.name} has not begun to keep catalogs: until it does the administrator keeps them"
    return None
