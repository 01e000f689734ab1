"""What the administrator asks of the catalogs that this server keeps: folders, searches, versions."""

from __future__ import annotations

from caso_mesh.catalog.index import Match
from caso_mesh.model import catalogs as c
from caso_mesh.model import nodes as n
from caso_mesh.server.catalogs import OwnCatalogs

_MOST_ENTRIES, _MOST_PATHS, _DEEPEST = 50_000, 10_000, 1000


class CatalogAnswers:
    """Each raises ``NotFound`` for what is not kept here."""

    def __init__(self, catalogs: OwnCatalogs) -> None:
        self._catalogs = catalogs

    async def folder(self, request: c.CatalogFolder) -> n.SetFolderReply:
        """Raises ``PathNotInSet``."""
        catalog, limit = self._catalogs.open_catalog(request.set), _limit(request.limit)
        found = await catalog.list_folder(request.set, request.path, after=request.after, limit=limit + 1)
        entries = tuple(n.FolderEntry(each.path, each.type, each.size, each.modified, each.mode) for each in found)
        return n.SetFolderReply(entries[:limit], len(found) > limit)

    async def lookup(self, request: c.CatalogLookup) -> c.CatalogLookedUp:
        catalog = self._catalogs.open_catalog(request.set)
        for path in request.paths[:_MOST_PATHS]:
            if await catalog.lookup(request.set, path) is None:
                return c.CatalogLookedUp(path)
        return c.CatalogLookedUp()

    async def search(self, request: c.CatalogSearch) -> c.CatalogHits:
        """Raises ``InvalidValue``."""
        catalog, limit = self._catalogs.open_catalog(), _limit(request.find.limit)
        found = await catalog.matches(request.find, request.sources, limit, request.after, in_order=request.in_order)
        hits, more = tuple(map(_hit, found.matches[:limit])), len(found.matches) > limit
        return c.CatalogHits(hits, more, found.is_cut_off, found.reached, request.in_order)

    async def sizes(self, request: c.CatalogSizes) -> c.CatalogSizesReply:
        """Raises ``PathNotInSet``."""
        catalog, limit = self._catalogs.open_catalog(request.set), _limit(request.limit)
        found = await catalog.usage(request.set, request.path, depth=min(request.depth, _DEEPEST))
        folders = tuple(c.FolderSize(each.path, each.files, each.size) for each in found[:limit])
        return c.CatalogSizesReply(folders, len(found) > limit)

    async def history(self, request: c.CatalogHistory) -> c.CatalogHistoryReply:
        versions = await self._catalogs.open_catalog().versions(request.source, request.path)
        return c.CatalogHistoryReply(
            tuple(
                c.CatalogVersion(
                    first_set=each.first_set,
                    last_set=each.last_set,
                    sets=each.sets,
                    type=each.entry.type,
                    size=each.entry.size,
                    modified=each.entry.modified,
                    mode=each.entry.mode,
                    uid=each.entry.uid,
                    gid=each.entry.gid,
                    fingerprint=each.entry.fingerprint,
                )
                for each in versions
            )
        )


def _limit(limit: int) -> int:
    return max(1, min(limit, _MOST_ENTRIES))


def _hit(match: Match) -> c.CatalogHit:
    entry = match.entry
    return c.CatalogHit(match.set, match.source, entry.path, entry.type, entry.size, entry.modified, entry.mode)
