"""What the administrator answers servers that keep the catalogs of their sets by themselves, and what a voter answers the
administrator for them.

A server that is to give a catalog up says first, in its journal, that it does not keep it any more. Then it asks whether a
majority of the voters has it. A voter says so only if it has the catalog *and* that word: from then on it does not drop
the catalog before the server has said anew that it keeps it. So at every moment somebody has it who will go on having it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from caso_mesh.admin import kept_catalogs
from caso_mesh.admin.fetching import PIECE, Fetching, Source
from caso_mesh.admin.ports import Links, NodeAnswer
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.sets import digest_of
from caso_mesh.control import catalogs
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.roster import Peer
from caso_mesh.model import catalogs as c
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import CasoError, CatalogNotHere, InvalidValue, NotFound, Refused
from caso_mesh.model.mesh import Server
from caso_mesh.model.storage import BackupSet
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

#: Sets of one question.
MOST_SETS = 500
_ASK_S = 15.0


class KeepingCatalogs:
    """Answers of the one in office. ``folder`` is for catalogs that are laid ready; ``readers`` as in ``CatalogIntake``;
    ``voters``: the node ids of those that vote."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        catalog: Catalog,
        links: Links,
        folder: Path,
        readers: Callable[[str], list[str]],
        voters: Callable[[], Iterable[str]],
        own: str,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._catalog = catalog
        self._links = links
        self._folder = folder
        self._readers = readers
        self._voters = voters
        self._own = own
        self._laying = asyncio.Lock()
        self._begun = False

    def handlers(self) -> dict[str, NodeAnswer]:
        """Calls by name."""
        return {
            "catalog.assigned": self._assigned,
            "catalog.records": self._records,
            "catalog.export": self._export,
            "catalog.exported": self._exported,
            "catalog.kept": self._kept,
        }

    def _asker(self, peer: Peer) -> Server:
        server = self._keeper.state.servers.get(peer.id)
        if server is None:
            raise Refused(detail=f"{peer.name} is no server of the mesh")
        return server

    async def _assigned(self, peer: Peer, request: c.CatalogAssigned, link: Any) -> c.CatalogAssignment:
        makers = catalogs.makers(self._asker(peer))
        begun = peer.id in await self._tables.ask(kept_catalogs.keepers)

        async def page(after: str) -> list[tuple[str, bool]]:
            return await self._tables.ask(partial(kept_catalogs.assigned, makers=makers, keeper=peer.id, after=after))

        if request.digest and begun:
            found, sets = list[tuple[str, bool]](), await page("")
            while sets:
                found += sets
                sets = await page(sets[-1][0])
            if all(kept for _, kept in found) and digest_of(each for each, _ in found) == request.digest:
                return c.CatalogAssignment(same=True, begun=True)
        sets = await page(request.after)
        return c.CatalogAssignment(tuple(sets), more=bool(sets), begun=begun)

    async def _records(self, peer: Peer, request: c.CatalogSets, link: Any) -> c.CatalogRecords:
        makers = catalogs.makers(self._asker(peer))
        found, gone = await self._tables.ask(
            partial(kept_catalogs.records, makers=makers, set_ids=_bounded(request.sets))
        )
        return c.CatalogRecords(tuple(found), tuple(gone))

    async def _mine(self, peer: Peer, set_id: str) -> BackupSet:
        backup = await self._tables.set(set_id)
        if backup is None or backup.server not in catalogs.makers(self._asker(peer)):
            raise NotFound(kind="set", name=set_id[:100])
        return backup

    async def _export(self, peer: Peer, request: c.CatalogExport, link: Any) -> n.CatalogMade:
        """Out of the catalog of this voter, or made by another server that reaches the device."""
        backup = await self._mine(peer, request.set)
        async with self._laying:
            await self._begin()
            path = self._path(peer, backup.id)
            draft = path.with_suffix(".draft")
            await asyncio.to_thread(draft.unlink, missing_ok=True)
            if await self._catalog.has_detail(backup.id):
                digest, size = await self._catalog.export(draft, backup.id, request.base)
            else:
                fetching = Fetching(links=self._links, folder=self._folder)
                reason = NotFound(kind="catalog", name=backup.id)
                made = await fetching.fetch_made(backup, request.base, draft, reason, self._others(backup, peer))
                digest, size = made.digest, made.size
            await asyncio.to_thread(draft.replace, path)
        return n.CatalogMade(digest, size)

    async def _begin(self) -> None:
        """What an earlier office has laid ready goes."""
        if not self._begun:
            await asyncio.to_thread(_clear, self._folder)
            self._begun = True

    def _others(self, backup: BackupSet, peer: Peer) -> list[Source]:
        """Nobody where the asking server reaches the device itself."""
        readers = self._readers(backup.device)
        return [] if peer.id in readers else [Source(each, backup.device) for each in readers]

    def _path(self, peer: Peer, set_id: str) -> Path:
        return self._folder / f"{peer.id}-{set_id}.segment"

    async def _exported(self, peer: Peer, request: n.CatalogRead, link: Any) -> n.CatalogPiece:
        """It is gone when it was read to its end."""
        backup = await self._mine(peer, request.set)
        if request.offset < 0 or request.length <= 0:
            raise InvalidValue(value=request.offset, what="place in a segment", expected="Use numbers from 0 on")
        path = self._path(peer, backup.id)
        try:
            data, size = await asyncio.to_thread(_piece, path, request.offset, min(request.length, PIECE))
        except FileNotFoundError:
            raise NotFound(kind="catalog", name=backup.id) from None
        if request.offset + len(data) >= size:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return n.CatalogPiece(data, size)

    async def _kept(self, peer: Peer, request: c.CatalogKept, link: Any) -> c.CatalogSets:
        self._asker(peer)
        asked = c.CatalogKeeps(peer.id, _bounded(request.sets), request.firm)
        voters = sorted(self._voters())
        counts: dict[str, int] = dict.fromkeys(asked.sets, 0)
        answers = await asyncio.gather(*(self._keeps(voter, asked) for voter in voters))
        for found in answers:
            for set_id in found:
                counts[set_id] = counts.get(set_id, 0) + 1
        return c.CatalogSets(tuple(set_id for set_id in asked.sets if counts[set_id] > len(voters) // 2))

    async def _keeps(self, voter: str, asked: c.CatalogKeeps) -> tuple[str, ...]:
        try:
            if voter == self._own:
                return (await keeps(self._tables, self._catalog, asked)).sets
            link = self._links.get(voter)
            return (await ask(link, "catalog.keeps", asked, c.CatalogSets, timeout_s=_ASK_S)).sets
        except CasoError as error:
            log.info("whether %s keeps catalogs is not known: %s", self._keeper.state.name_of(voter), error)
            return ()


async def keeps(tables: Tables, catalog: Catalog, asked: c.CatalogKeeps) -> c.CatalogSets:
    """Which catalogs this voter has and does not drop."""
    but = asked.server if asked.firm else ""
    here = await tables.ask(partial(kept_catalogs.held_here, keeper=but, set_ids=_bounded(asked.sets)))
    found = [each for each in here if await catalog.has_detail(each)]
    if found:
        await catalog.settle()
        await tables.settle()
    return c.CatalogSets(tuple(found))


async def write_detail(catalog: Catalog, request: n.CatalogMake, path: Path) -> n.CatalogMade:
    """The detail of a set as a segment, for another voter. Raises ``NotFound`` if it is not in ``catalog``."""
    try:
        return n.CatalogMade(*await catalog.export(path, request.set, request.base))
    except (CatalogNotHere, NotFound):
        raise NotFound(kind="catalog", name=request.set) from None


def _bounded(sets: tuple[str, ...]) -> tuple[str, ...]:
    if len(sets) > MOST_SETS:
        raise InvalidValue(value=len(sets), what="number of sets", expected=f"Ask for {MOST_SETS} at most")
    return sets


def _piece(path: Path, offset: int, length: int) -> tuple[bytes, int]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(min(offset, size))
        return file.read(length), size


def _clear(folder: Path) -> None:
    folder.mkdir(0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
