"""What the administrator asks of a device to make its records anew: the sets that lie there, and the catalog detail of
one, read out of its tree."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from caso_mesh.jobs.publishing import write_detail
from caso_mesh.model import nodes as n
from caso_mesh.model.entries import Entry, EntryType, path_key
from caso_mesh.model.errors import NotFound, PathNotInSet
from caso_mesh.model.importing import as_here
from caso_mesh.model.units import escape_path
from caso_mesh.server.patience import bounded
from caso_mesh.server.segments import Segments
from caso_mesh.server.vaults import Vaults

#: How long a device may take to list its sets, and to have the tree of one read.
_LIST_S, _DETAIL_S = 120.0, 3600.0
_MOST_SETS, _MOST_ENTRIES = 1000, 50_000


class Rebuilding:
    """Answers ``vault.sets``, ``set.folder`` and ``catalog.make``. ``own`` write the detail of a set into a file, each out of a
    catalog that this server has, and raise ``NotFound`` without one."""

    def __init__(self, *, vaults: Vaults, segments: Segments) -> None:
        self.own: list[Callable[[n.CatalogMake, Path], Awaitable[n.CatalogMade]]] = []
        self._vaults = vaults
        self._segments = segments
        #: Every voter asks for the same ones: each is made once for every base.
        self._made: dict[tuple[str, str | None], n.CatalogMade] = {}
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def sets(self, request: n.VaultSets) -> n.VaultSetsReply:
        """A page of the sets of a device, by id. Raises ``NotFound``, and what the device does."""
        access = await self._vaults.access(request.device)
        limit = max(1, min(request.limit, _MOST_SETS))

        def work() -> n.VaultSetsReply:
            with self._vaults.opened(access) as vault:
                known = sorted(
                    (each for each in vault.sets(deleted=True) if each.id > request.after), key=lambda each: each.id
                )
                page = known[:limit]
                gone = tuple(each.id for each in page if vault.holds.is_gone(each.id))
                locks = {each.id: lock.until_ns for each in page if (lock := vault.holds.lock_of(each.id)) is not None}
                problems = tuple(vault.problems()[:20]) if not request.after else ()
                if access.foreign is not None:
                    page = [as_here(each, access.foreign.device) for each in page]
                return n.VaultSetsReply(tuple(page), gone, locks, len(known) > limit, problems)

        return await bounded(work, what=f"the device {access.name}", seconds=_LIST_S)

    async def folder(self, request: n.SetFolder) -> n.SetFolderReply:
        """A page of a folder in a set; a path that is no folder gives itself. Raises ``NotFound``, ``PathNotInSet``,
        ``DataDamaged``, ``ObjectMissing``, and what the device does."""
        access = await self._vaults.access(request.device)
        limit = max(1, min(request.limit, _MOST_ENTRIES))
        after = b"" if request.after is None else path_key(request.after)

        def work() -> n.SetFolderReply:
            with self._vaults.opened(access) as vault:
                tree = vault.tree(vault.load_set(request.set).root)
                rows = _rows(request.path, tree.children(request.path))
                page = list(islice((row for row in rows if path_key(row.path) > after), limit + 1))
                if not page and request.path and request.after is None:
                    page = _alone(tree.lookup(request.path), request)
                return n.SetFolderReply(tuple(page[:limit]), len(page) > limit)

        return await bounded(work, what=f"the device {access.name}", seconds=_LIST_S)

    async def make(self, request: n.CatalogMake) -> n.CatalogMade:
        """The catalog detail of a set, ready to be read by ``catalog.read``. Raises ``NotFound``, ``DataDamaged``,
        ``ObjectMissing``, and what the device does."""
        draft = self._segments.draft(request.set)
        async with self._making[request.set]:
            made = self._made.get((request.set, request.base))
            if made is None or not await asyncio.to_thread(self._segments.made(request.set, made.digest).exists):
                await asyncio.to_thread(draft.unlink, missing_ok=True)
                made = await self._make_of_own(request, draft) or await self.make_at(request, draft)
                await asyncio.to_thread(draft.replace, self._segments.made(request.set, made.digest))
                self._made[request.set, request.base] = made
            return made

    async def _make_of_own(self, request: n.CatalogMake, path: Path) -> n.CatalogMade | None:
        for write in self.own:
            try:
                return await write(request, path)
            except NotFound:
                continue
        return None

    async def make_at(self, request: n.CatalogMake, path: Path) -> n.CatalogMade:
        """The same out of the tree in the device, into a file; without a device nothing is read."""
        if not request.device:
            raise NotFound(kind="catalog", name=request.set)
        access = await self._vaults.access(request.device)

        def work() -> n.CatalogMade:
            with self._vaults.opened(access) as vault:
                backup = vault.load_set(request.set)
                earlier = [] if request.base is None else [each for each in vault.sets() if each.id == request.base]
                return n.CatalogMade(*write_detail(str(path), vault, backup, earlier))

        return await bounded(work, what=f"the device {access.name}", seconds=_DETAIL_S)


def _alone(entry: Entry | None, request: n.SetFolder) -> list[n.FolderEntry]:
    """What there is at a path that has nothing below it."""
    if entry is None:
        raise PathNotInSet(set=request.set, path=escape_path(b"/" + request.path))
    if entry.type is EntryType.DIRECTORY:
        return []
    return [n.FolderEntry(entry.path, entry.type, entry.size, entry.modified, entry.mode)]


def _rows(folder: bytes, children: Iterable[Entry]) -> Iterator[n.FolderEntry]:
    """What a person sees of a folder: each name once, also those above a root, of which the set has no entry."""
    cut, last = len(folder) + 1 if folder else 0, b""
    for entry in children:
        path = entry.path[:cut] + entry.path[cut:].partition(b"/")[0]
        if path == last:
            continue
        last = path
        if path == entry.path:
            yield n.FolderEntry(path, entry.type, entry.size, entry.modified, entry.mode)
        else:
            yield n.FolderEntry(path, EntryType.DIRECTORY, 0, (0, 0), 0o755)
