"""Answers ``catalog.find``: a page of what was found, and how it goes on behind it."""

from __future__ import annotations

from caso_mesh.admin import present
from caso_mesh.admin.browsing import Browsing, Place
from caso_mesh.admin.ports import Caller
from caso_mesh.admin.source_names import names_of_sources, source_of
from caso_mesh.admin.tables import Tables
from caso_mesh.control.documents import clean_path
from caso_mesh.control.importing import source_named
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.state import ControlState
from caso_mesh.model import browsing as b
from caso_mesh.model.errors import Ambiguous, InvalidValue, NotFound
from caso_mesh.model.listing import MOST_MATCHES, CatalogFind
from caso_mesh.model.states import Role
from caso_mesh.model.units import format_seconds, unescape_path


class Finding:
    def __init__(self, *, keeper: ControlKeeper, tables: Tables, browsing: Browsing) -> None:
        self._keeper = keeper
        self._tables = tables
        self._browsing = browsing

    async def answer(self, caller: Caller, request: CatalogFind) -> b.MatchList:
        """Raises ``NotFound`` for a server, ``InvalidValue`` for a pattern or a place."""
        state = self._keeper.state
        source = await source_of(state, self._tables, request.server) if request.server else None
        limit = max(1, min(request.limit, MOST_MATCHES))
        limits = caller.limits(Role.RESTORE)
        asked = limits if source is None else {source} if limits is None else limits & {source}
        after = None if request.after is None else await self._place(request.after)
        found = await self._browsing.find(request, asked, limit, after)
        names = await names_of_sources(state, self._tables, ((each.source, each.set) for each in found.matches))
        return b.MatchList(
            tuple(
                b.MatchView(
                    server=names[match.source],
                    path=present.shown_path(match.path),
                    path_b64=present.b64(match.path),
                    set=match.set,
                    size=match.entry.size,
                    mtime=format_seconds(match.entry.modified[0]),
                    mtime_ns=present.mtime_ns(match.entry.modified),
                    type=match.entry.type.value,
                )
                for match in found.matches
            ),
            found.more,
            found.away,
            found.cut_off,
            () if limits is None or source in limits else tuple(sorted(map(state.name_of, limits))),
            None if found.next is None else _text(state, found.next),
        )

    async def _place(self, text: str) -> Place:
        """Raises ``InvalidValue``."""
        name, colon, path = text.partition(":")
        if not colon or not path.startswith("/"):
            raise InvalidValue(
                value=text[:100], what="place in the catalogs", expected="Give the next of the page before"
            )
        try:
            source = await source_of(self._keeper.state, self._tables, name)
        except NotFound:
            source = name
        return source, clean_path(unescape_path(path))


def _text(state: ControlState, place: Place) -> str:
    """As people give it back: by the name of the server, if that means it."""
    source, path = place
    name = state.name_of(source)
    try:
        is_named = source_named(state, name) == source
    except (NotFound, Ambiguous):
        is_named = False
    return f"{name if is_named else source}:{present.shown_path(path)}"
