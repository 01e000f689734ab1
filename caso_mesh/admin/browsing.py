"""Looking into what was backed up, wherever the catalogs are: in this voter's own, or at the servers that keep them, which are
asked. What such a server says is believed only of sets that it keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeGuard

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.admin import kept_catalogs
from caso_mesh.admin.ports import Links
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.whereabouts import Away, Whereabouts
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.index import Match, Version
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.control import catalogs
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import catalogs as c
from caso_mesh.model import nodes as n
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import CasoError, CatalogNotHere, InvalidValue, NotFound, PathNotInSet, PeerFault
from caso_mesh.model.listing import CatalogFind
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import escape_path
from caso_mesh.wire.typed import T, ask

log = logging.getLogger(__name__)

#: How long a server that keeps catalogs may take. All are asked at once.
ASK_S = 10.0


#: Of a path: the node id of its source, and itself.
Place = tuple[str, bytes]


class Found(Struct, frozen=True):
    """``away``: servers that may have more, and could not be asked. ``cut_off``: a search took too long and was ended.
    ``next``: the place behind which another search goes on."""

    matches: list[Match]
    more: bool
    cut_off: bool
    away: tuple[c.CatalogAway, ...] = ()
    next: Place | None = None


class _Asked(Struct):
    """A server that keeps catalogs of files of ``sources`` (node ids). ``overlaps``: some of them are here as well."""

    server: Server
    sources: frozenset[str]
    overlaps: bool


class Browsing:
    def __init__(
        self, *, keeper: ControlKeeper, tables: Tables, catalog: Catalog, links: Links, where: Whereabouts, away: Away
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._catalog = catalog
        self._links = links
        self._where = where
        self._away = away

    # --- one set ---

    async def is_here(self, backup: BackupSet) -> bool:
        """Whether nobody else need be asked about a set."""
        return await self._catalog.has_detail(backup.id)

    async def folder(
        self, backup: BackupSet, path: bytes, *, after: bytes | None, limit: int
    ) -> tuple[list[CatalogEntry], bool]:
        """What is right below ``path``, and whether there is more. Raises ``CatalogAway``, ``CatalogNotHere``,
        ``PathNotInSet``."""
        if await self._catalog.has_detail(backup.id):
            entries = await self._catalog.list_folder(backup.id, path, after=after, limit=limit + 1)
            return entries[:limit], len(entries) > limit
        request = c.CatalogFolder(backup.id, path, after, limit)
        reply = await self._ask_of(backup, "catalog.folder", request, n.SetFolderReply)
        found = [CatalogEntry(each.path, each.type, each.size, each.modified, each.mode) for each in reply.entries]
        return found[:limit], reply.more

    async def sizes(self, backup: BackupSet, path: bytes, *, depth: int, limit: int) -> tuple[list[c.FolderSize], bool]:
        """A folder and those below it down to ``depth``, with how large they are, and whether there are more. Raises as
        ``folder`` does."""
        if await self._catalog.has_detail(backup.id):
            found = await self._catalog.usage(backup.id, path, depth=depth)
            return [c.FolderSize(each.path, each.files, each.size) for each in found[:limit]], len(found) > limit
        request = c.CatalogSizes(backup.id, path, depth, limit)
        reply = await self._ask_of(backup, "catalog.sizes", request, c.CatalogSizesReply)
        return list(reply.folders[:limit]), reply.more

    async def check_paths(self, backup: BackupSet, paths: Sequence[bytes]) -> None:
        """Raises ``PathNotInSet`` for the first that is missing, ``CatalogAway``, ``CatalogNotHere``."""
        paths = [path for path in paths if path]
        missing: bytes | None = None
        if await self._catalog.has_detail(backup.id):
            for path in paths:
                if await self._catalog.lookup(backup.id, path) is None:
                    missing = path
                    break
        elif paths:
            request = c.CatalogLookup(backup.id, tuple(paths))
            missing = (await self._ask_of(backup, "catalog.lookup", request, c.CatalogLookedUp)).missing
        if missing is not None:
            raise PathNotInSet(set=backup.id, path="/" + escape_path(missing))

    async def _ask_of(self, backup: BackupSet, call: str, request: Struct, reply: type[T]) -> T:
        """The answer of the server that keeps the catalog of a set."""
        server = self._where.keeper_of(backup)
        kept = await self._where.is_kept(backup)
        if server is None or not (kept or self._where.mode_of(backup).at_server):
            raise CatalogNotHere(set=backup.id, server=backup.server_name)
        try:
            return await ask(self._links.get(server.id), call, request, reply, timeout_s=ASK_S)
        except CasoError as error:
            if not _is_away(error):
                raise
            if not kept and self._links.linked(server.id):
                raise CatalogNotHere(set=backup.id, server=backup.server_name) from error
            raise self._away.error(server.id, backup) from error

    # --- all sets ---

    async def find(
        self, request: CatalogFind, sources: Collection[str] | None, limit: int, after: Place | None = None
    ) -> Found:
        """Files of ``sources`` (node ids; ``None`` = of all): the newest set that has each, in order of the names of their
        servers and of path, the first ``limit`` behind a place. Nothing is given of what lies behind the place that one of those
        got to that were asked: it comes with the next page, with what that one has there."""
        keepers = await self._keepers(sources)
        if sources is None:
            wanted = {*await self._catalog.sources(), *(source for each in keepers for source in each.sources)}
        else:
            wanted = set(sources)
        order = self._by_name(wanted if after is None else wanted | {after[0]})
        places = _Places({source: number for number, source in enumerate(order)})
        left = [source for source in order[0 if after is None else places.ranks[after[0]] :] if source in wanted]
        behind = after if after is not None and after[0] in wanted else None
        own = await self._catalog.matches(request, left, limit, behind, in_order=True)
        asked = replace(request, server=None, limit=limit, after=None)

        def question(keeper: _Asked) -> c.CatalogSearch:
            its = tuple(source for source in left if source in keeper.sources)
            return c.CatalogSearch(asked, its, behind, in_order=True)

        answers, away = await self._ask_all(keepers, "catalog.search", question, c.CatalogHits)
        found = {(each.source, each.path): each for each in own.matches}
        sets: dict[str, BackupSet | None] = {}
        more, cut_off = len(own.matches) > limit, own.is_cut_off
        reached = [] if own.reached is None else [own.reached]
        for server, reply in ((asked.server, reply) for asked, reply in answers):
            more, cut_off = more or reply.more, cut_off or reply.cut_off
            if not reply.in_order:
                # an earlier program goes by ids: what it passed by, or has behind, may lie anywhere
                cut_off = cut_off or reply.more or after is not None
            elif places.is_ahead(reply.reached, after):
                reached.append(reply.reached)
            else:
                cut_off = cut_off or reply.more  # what it has behind cannot be asked for
            for hit in reply.hits:
                match = Match(hit.set, hit.source, hit.path, _entry(hit))
                place = hit.source, hit.path
                if hit.source not in wanted or (after and places.key(place) <= places.key(after)):
                    continue
                if await self._is_newer(server, match, found.get(place), sets):
                    found[place] = match
        end = min(reached, key=places.key, default=None)
        within = [each for each in found if end is None or places.key(each) <= places.key(end)]
        within.sort(key=places.key)
        if len(within) > limit:
            more, end = True, within[limit - 1]
        return Found([found[each] for each in within[:limit]], more, cut_off, away, end)

    def _by_name(self, sources: Collection[str]) -> list[str]:
        """Sources as people read them; of two that had one name the ids decide."""
        name_of = self._keeper.state.name_of
        return sorted(sources, key=lambda source: (name_of(source), source))

    async def _is_newer(
        self, server: Server, match: Match, known: Match | None, sets: dict[str, BackupSet | None]
    ) -> bool:
        """Whether what a server says is of a set of its own, and newer than what is known. ``sets``: what was asked for
        before: a thousand matches are of a few sets."""
        backup = await self._set(match.set, sets)
        if backup is None or backup.source != match.source or backup.server not in catalogs.makers(server):
            return False
        if known is None:
            return True
        other = await self._set(known.set, sets)
        return other is None or (other.ended_at_ns, other.id) < (backup.ended_at_ns, backup.id)

    async def _set(self, set_id: str, sets: dict[str, BackupSet | None]) -> BackupSet | None:
        if set_id not in sets:
            sets[set_id] = await self._tables.set(set_id)
        return sets[set_id]

    async def versions(self, source: str, path: bytes) -> tuple[list[Version], tuple[c.CatalogAway, ...]]:
        """The different states of a path in all sets of a source (node id), newest first, and which servers may know of
        more. Raises ``CatalogAway`` if only such know anything."""
        found = await self._catalog.versions(source, path)
        request = c.CatalogHistory(source, path)
        keepers = await self._keepers([source])
        answers, away = await self._ask_all(keepers, "catalog.history", lambda keeper: request, c.CatalogHistoryReply)
        ends: dict[str, tuple[int, str]] = {}
        merged = {each.entry: each for each in found}
        for each in found:
            for set_id in (each.first_set, each.last_set):
                await self._end(set_id, ends)
        for asked, reply in answers:
            for told in reply.versions:
                version = Version(_state(path, told), told.first_set, told.last_set, max(1, told.sets))
                if await self._is_its_own(asked.server, source, version, ends):
                    known = merged.get(version.entry)
                    merged[version.entry] = version if known is None else _both(known, version, ends, asked.overlaps)
        if not merged and away:
            raise await self._away_from(source, [each.server for each in away])
        return sorted(merged.values(), key=lambda each: ends[each.last_set], reverse=True), away

    async def _away_from(self, source: str, servers: Collection[str]) -> CasoError:
        """What is said of a path of ``source`` of which only ``servers`` (names) may know: by the newest set that one of
        them keeps."""
        for backup in await self._tables.sets(source=source, limit=-1):
            server = self._where.keeper_of(backup)
            if server is not None and server.name in servers and await self._where.is_kept(backup):
                return self._away.error(server.id, backup)
        return NotFound(kind="catalog", name=self._keeper.state.name_of(source))

    async def _is_its_own(
        self, server: Server, source: str, version: Version, ends: dict[str, tuple[int, str]]
    ) -> bool:
        makers = catalogs.makers(server)
        for set_id in (version.first_set, version.last_set):
            backup = await self._end(set_id, ends)
            if backup is None or backup.source != source or backup.server not in makers:
                return False
        return True

    async def _end(self, set_id: str, ends: dict[str, tuple[int, str]]) -> BackupSet | None:
        backup = await self._tables.set(set_id)
        ends[set_id] = (0 if backup is None else backup.ended_at_ns, set_id)
        return backup

    async def _ask_all(
        self, servers: Sequence[_Asked], call: str, request: Callable[[_Asked], Struct], reply: type[T]
    ) -> tuple[list[tuple[_Asked, T]], tuple[c.CatalogAway, ...]]:
        """The answers of servers that keep catalogs, each to its own question."""

        async def one(asked: _Asked) -> T | None:
            try:
                return await ask(self._links.get(asked.server.id), call, request(asked), reply, timeout_s=ASK_S)
            except InvalidValue:
                raise  # what was asked is wrong, wherever it is asked
            except CasoError as error:
                log.info("%s is not answered by %s: %s", call, asked.server.name, error)
                return None

        answers = await asyncio.gather(*(one(each) for each in servers))
        pairs = list(zip(servers, answers, strict=True))
        away = tuple(self._unasked(each.server) for each, answer in pairs if answer is None)
        return [(each, answer) for each, answer in pairs if answer is not None], away

    async def _keepers(self, sources: Collection[str] | None) -> list[_Asked]:
        """The servers that keep catalogs of sets of ``sources`` which are not here."""
        state = self._keeper.state
        told = await self._tables.ask(partial(kept_catalogs.keeping, sources=sources))
        return [
            _Asked(server, frozenset(keeper.sources), keeper.too)
            for server_id, keeper in sorted(told.items())
            if keeper.alone
            and (server := state.servers.get(server_id)) is not None
            and not keeper.makers.isdisjoint(catalogs.makers(server))
        ]

    def _unasked(self, server: Server) -> c.CatalogAway:
        since = self._away.since(server.id)
        return c.CatalogAway(server.name, since, f"catalog is on {server.name}, not reachable since {since}")


def _both(known: Version, other: Version, ends: dict[str, tuple[int, str]], overlaps: bool) -> Version:
    """The same state in two catalogs. ``overlaps``: they may have the same sets, as long as some move."""
    first = min(known.first_set, other.first_set, key=lambda set_id: ends[set_id])
    last = max(known.last_set, other.last_set, key=lambda set_id: ends[set_id])
    sets = max(known.sets, other.sets) if overlaps else known.sets + other.sets
    return Version(known.entry, first, last, sets)


def _is_away(error: CasoError) -> bool:
    """Whether a server was not reached, or has no such catalog (any more), rather than said what is wrong."""
    return (
        error.retryable
        or isinstance(error, PeerFault)
        or (isinstance(error, NotFound) and not isinstance(error, PathNotInSet))
    )


class _Places(Struct, frozen=True):
    """``ranks``: of each source that is asked about, where it stands among them."""

    ranks: dict[str, int]

    def key(self, place: Place) -> tuple[int, bytes]:
        return self.ranks[place[0]], path_key(place[1])

    def is_ahead(self, place: Place | None, after: Place | None) -> TypeGuard[Place]:
        """Whether a search gets on by that place, and it is one that was asked about."""
        return place is not None and place[0] in self.ranks and (after is None or self.key(place) > self.key(after))


def _entry(hit: c.CatalogHit) -> CatalogEntry:
    return CatalogEntry(hit.path, hit.type, hit.size, hit.modified, hit.mode)


def _state(path: bytes, version: c.CatalogVersion) -> CatalogEntry:
    return CatalogEntry(
        path,
        version.type,
        version.size,
        version.modified,
        version.mode,
        version.uid,
        version.gid,
        version.fingerprint,
    )
