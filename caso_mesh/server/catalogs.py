"""The catalogs that this server keeps by itself, of the sets that it made, where its mode says so.

What it keeps is compared with what the administrator knows of, again and again: what is missing is taken in from its own
segments, from the administrator's catalog, or out of its devices; what is deleted goes. The journal tells what is kept, as
soon as it is so durably; only then do voters drop theirs. What is not to be kept any more goes when a majority of the
voters has it, see ``admin/keeping_catalogs.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import chain_of
from caso_mesh.catalog.sets import digest_of
from caso_mesh.model import catalogs as c
from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    CatalogBaseMissing,
    CatalogNotHere,
    DataDamaged,
    NotFound,
)
from caso_mesh.model.orders import Orders
from caso_mesh.model.settings import text
from caso_mesh.model.states import AlertKind
from caso_mesh.model.storage import BackupSet
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.rebuilding import Rebuilding
from caso_mesh.server.segments import Segments
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: How often it is compared when nothing says that there is something new; and after something failed.
_EACH_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 1.0, 60.0
#: How often it is looked whether the voters have what is given up.
_GIVING_S = 1.0
#: Sets of one question, and that are told of at once.
_SETS, _TOLD = 500, 50
_PIECE, _EXPORT_S, _PIECE_S = 1 << 20, 3600.0, 60.0
_LARGEST = 16 << 30


class OwnCatalogs:
    """``path`` is that of the database; a folder beside it is for segments on their way. ``admin`` gives the link with the
    administrator in office, and raises ``NoAdmin``. ``rebuilding`` makes details out of the trees in devices."""

    def __init__(
        self,
        *,
        path: Path,
        name: str,
        segments: Segments,
        facts: FactWriter,
        orders: Callable[[], Orders],
        admin: Callable[[], Callee],
        rebuilding: Rebuilding,
        same_thread: bool,
    ) -> None:
        self._name = name
        self._mended = 0
        self._path = path
        self._incoming = path.with_name("own-incoming")
        self._segments = segments
        self._facts = facts
        self._orders = orders
        self._admin = admin
        self._rebuilding = rebuilding
        rebuilding.own.append(self.write_detail)
        self._same_thread = same_thread
        self._catalog: Catalog | None = None
        self._stack = AsyncExitStack()
        self._wake = asyncio.Event()
        self._mode: c.CatalogMode | None = None
        #: The sets whose catalogs are here; those of them that the journal does not tell of yet, or not any more.
        self._mine: set[str] = set()
        self._untold: set[str] = set()
        self._given_up: set[str] = set()
        self._new: dict[str, BackupSet] = {}
        self._said: dict[str, str] = {}
        self._damaged: set[str] = set()

    # --- what others say ---

    def mode(self) -> c.CatalogMode:
        """By the orders in force."""
        try:
            return c.CatalogMode(text(self._orders().settings, "catalog-mode"))
        except ValueError:  # of a later version
            return c.CatalogMode.CENTRALIZED

    def look(self) -> None:
        """There may be something new."""
        self._wake.set()

    def ordered(self) -> None:
        """There are other orders."""
        if self.mode() is not self._mode:
            self._wake.set()

    def made(self, backup: BackupSet) -> None:
        """A set was made here, and its segment lies ready."""
        if self.mode().at_server:
            self._new[backup.id] = backup
            self._wake.set()

    async def deleted(self, set_id: str) -> None:
        """A set is deleted in its device, which is told."""
        if self._catalog is not None:
            await self._forget([set_id])

    def open_catalog(self, set_id: str | None = None) -> Catalog:
        """The catalog, which has a set. Raises ``NotFound``."""
        if self._catalog is None or (set_id is not None and set_id not in self._mine):
            raise NotFound(kind="catalog", name=set_id or self._name)
        return self._catalog

    async def write_detail(self, request: n.CatalogMake, path: Path) -> n.CatalogMade:
        """The detail of a set as a segment. Raises ``NotFound`` if it is not kept here."""
        catalog = self.open_catalog(request.set)
        try:
            return n.CatalogMade(*await catalog.export(path, request.set, request.base))
        except CatalogNotHere:
            raise NotFound(kind="catalog", name=request.set) from None

    # --- the work ---

    async def run(self) -> None:
        """Never returns."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                self._wake.clear()
                wait_s: float | None
                try:
                    wait_s = await self._pass()
                    pause_s = _FIRST_PAUSE_S
                except (CasoError, OSError) as error:
                    self._say("", error)
                    wait_s, pause_s = pause_s, min(_LONGEST_PAUSE_S, 2 * pause_s)
                except Exception:
                    # catalogs can be made again: whatever is wrong with them, the server works on
                    log.exception("the catalogs of this server cannot be looked after")
                    wait_s = _LONGEST_PAUSE_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
        finally:
            await self._stack.aclose()

    async def _pass(self) -> float | None:
        """One look; after how long the next one is due."""
        self._mode = self.mode()
        if self._catalog is not None and self._catalog.mended != self._mended:
            await self._begin(self._catalog)
        if not self._mode.at_server:
            self._new.clear()
            if self._catalog is None and not await asyncio.to_thread(self._path.exists):
                return None
            await self._open()
            return await self._give_up()
        await self._open()
        await self._take_new()
        admin = self._admin()
        missing = await self._compare(admin)
        failed = await self._fill(admin, missing)
        self._said.pop("", None)
        return _EACH_S if not failed else _EACH_S / 4

    async def _open(self) -> None:
        if self._catalog is not None:
            return
        await asyncio.to_thread(_clear, self._incoming)
        self._catalog = await self._stack.enter_async_context(Catalog.open(self._path, same_thread=self._same_thread))
        self._catalog.on_mended.append(self._wake.set)
        await self._begin(self._catalog)
        left = await asyncio.to_thread(self._segments.ids) - self._mine
        if left:  # made before, and not taken in
            async for fact in self._facts.since(None):
                if isinstance(fact, facts.SetPublished) and fact.set.id in left:
                    self._new[fact.set.id] = fact.set

    async def _begin(self, catalog: Catalog) -> None:
        """What is here, also after the file turned out damaged."""
        damaged, self._mended = catalog.mended, catalog.mended
        self._mine = {backup.id for backup in await catalog.sets(detail=True)}
        self._untold.clear()
        self._given_up.clear()
        if damaged:
            await self._facts.append(facts.CatalogAtServer(began=True))
            await self._warn("catalog-damaged", f"is damaged: {catalog.damage}; it is made anew")

    async def _warn(self, category: str, what: str) -> None:
        text_ = f"The catalog that {self._name} keeps of its sets {what}"
        await self._facts.alert(AlertKind.WARNING, category, text_, object=self._name)

    async def _close(self) -> None:
        stack, self._stack, self._catalog = self._stack, AsyncExitStack(), None
        await stack.aclose()

    # --- keeping ---

    async def _take_new(self) -> None:
        """What was made here, without asking anybody."""
        for backup in sorted(self._new.values(), key=lambda each: each.ended_at_ns):
            taken = backup.id in self._mine or await self._take(backup, self._from_segment)
            self._new.pop(backup.id, None)
            if not taken:
                log.info("the catalog of set %s is made another way", backup.id)
        await self._tell()

    async def _compare(self, admin: Callee) -> list[str]:
        """With what the administrator knows of: tells it what it does not know, and forgets what is deleted. The sets
        that are missing here."""
        digest, assigned, after = digest_of(self._mine), dict[str, bool](), ""
        while True:
            page = await ask(admin, "catalog.assigned", c.CatalogAssigned(digest, after), c.CatalogAssignment)
            if page.same:
                return []
            if not page.begun and not after:
                await self._facts.append(facts.CatalogAtServer(began=True))
                self._untold |= self._mine
            assigned |= dict(page.sets)
            if not page.more or not page.sets:
                break
            after, digest = page.sets[-1][0], b""
        self._untold |= {each for each, known in assigned.items() if each in self._mine and not known}
        await self._tell()
        false = sorted(each for each, known in assigned.items() if known and each not in self._mine)
        for sets in _pages(false):
            await self._facts.append(facts.CatalogAtServer(gone=tuple(sets)))
        if false and not self._mended:
            await self._warn("catalog-lost", f"lacks {len(false)} sets that it had, which are taken in again")
        await self._forget_deleted(admin, self._mine - assigned.keys())
        return [each for each in assigned if each not in self._mine]

    async def _forget_deleted(self, admin: Callee, unknown: Iterable[str]) -> None:
        """Of the sets that the administrator does not know of those that are deleted; it may not have heard of others yet."""
        for sets in _pages(sorted(unknown)):
            reply = await ask(admin, "catalog.records", c.CatalogSets(tuple(sets)), c.CatalogRecords)
            await self._forget(each for each in reply.deleted if each in self._mine)

    async def _forget(self, set_ids: Iterable[str]) -> None:
        for set_id in set_ids:
            self._mine.discard(set_id)
            self._untold.discard(set_id)
            self._given_up.discard(set_id)
            if self._catalog is not None:
                await self._catalog.remove_set(set_id)

    async def _fill(self, admin: Callee, missing: Sequence[str]) -> int:
        """Takes in what is missing, in the order in which it was made; how many could not be."""
        records: list[BackupSet] = []
        for sets in _pages(missing):
            reply = await ask(admin, "catalog.records", c.CatalogSets(tuple(sets)), c.CatalogRecords)
            records += reply.sets
        failed = 0
        for backup in sorted(records, key=lambda each: (each.ended_at_ns, each.id)):
            if not self.mode().at_server:
                break
            await self._take_new()
            ways = (self._from_segment, self._from_admin, self._from_device)
            failed += backup.id not in self._mine and not await self._take(backup, *ways)
            if len(self._untold) >= _TOLD:
                await self._tell()
        await self._tell()
        return failed

    async def _take(self, backup: BackupSet, *ways: Callable[[BackupSet], AsyncGenerator[Path]]) -> bool:
        """Takes the catalog of a set in by the first of some ways that leads to it."""
        catalog = self.open_catalog()
        if backup.id in self._damaged:
            return False
        failed: CasoError | None = None
        for way in ways:
            try:
                async with contextlib.aclosing(way(backup)) as paths:
                    async for path in paths:
                        await catalog.add_set(backup)
                        await catalog.ingest(path)
                        self._mine.add(backup.id)
                        self._untold.add(backup.id)
                        self._said.pop(backup.id, None)
                        return True
            except (NotFound, CatalogBaseMissing, DataDamaged, AlreadyExists) as error:
                failed = error
            except CasoError as error:
                if not error.retryable:
                    raise
                failed = error
        if failed is not None and len(ways) > 1:
            self._say(backup.id, failed)
            if isinstance(failed, DataDamaged):
                self._damaged.add(backup.id)
                text_ = f"The catalog of set {backup.id} cannot be made: {failed}"
                await self._facts.alert(AlertKind.WARNING, "catalog-error", text_, object=backup.id)
        return False

    async def _from_segment(self, backup: BackupSet) -> AsyncGenerator[Path]:
        path = self._segments.path(backup.id)
        if not await asyncio.to_thread(path.exists):
            raise NotFound(kind="catalog", name=backup.id)
        yield path

    async def _from_admin(self, backup: BackupSet) -> AsyncGenerator[Path]:
        link, base = self._admin(), await self._earlier(backup)
        made = await ask(link, "catalog.export", c.CatalogExport(backup.id, base), n.CatalogMade, timeout_s=_EXPORT_S)
        async with self._incoming_file(backup) as path:
            digest, offset = hashlib.sha256(), 0
            if not 0 < made.size <= _LARGEST:
                raise NotFound(kind="catalog", name=backup.id)
            while offset < made.size:
                request = n.CatalogRead(backup.id, offset, _PIECE)
                piece = await ask(link, "catalog.exported", request, n.CatalogPiece, timeout_s=_PIECE_S)
                if not piece.data:
                    break
                digest.update(piece.data)
                await asyncio.to_thread(_append, path, piece.data)
                offset += len(piece.data)
            if digest.digest() != made.digest:
                raise NotFound(kind="catalog", name=backup.id)  # made anew meanwhile: the next way, or the next time
            yield path

    async def _from_device(self, backup: BackupSet) -> AsyncGenerator[Path]:
        async with self._incoming_file(backup) as path:
            await self._rebuilding.make_at(n.CatalogMake(backup.device, backup.id, await self._earlier(backup)), path)
            yield path

    @contextlib.asynccontextmanager
    async def _incoming_file(self, backup: BackupSet) -> AsyncIterator[Path]:
        path = self._incoming / f"{backup.id}.segment"
        await asyncio.to_thread(path.unlink, missing_ok=True)
        try:
            yield path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _earlier(self, backup: BackupSet) -> str | None:
        """The newest earlier set of the same chain that is here."""
        chain = chain_of(backup)
        for each in await self.open_catalog().sets(source=backup.source, until_ns=backup.ended_at_ns, detail=True):
            if each.id != backup.id and each.device == backup.device and chain_of(each) == chain:
                return each.id
        return None

    async def _tell(self) -> None:
        """The journal tells of what is kept here, which is durable before."""
        if not self._untold:
            return
        told = sorted(self._untold)
        await self.open_catalog().settle()
        for sets in _pages(told):
            await self._facts.append(facts.CatalogAtServer(sets=tuple(sets)))
        self._untold.difference_update(told)
        self._given_up.difference_update(told)
        if not self.mode().at_voters:
            for set_id in told:
                await asyncio.to_thread(self._segments.remove, set_id)

    # --- giving up ---

    async def _give_up(self) -> float | None:
        """What a majority of the voters has goes; at the end all of it."""
        admin = self._admin()
        await self._forget_deleted(admin, self._mine)
        for sets in _pages(sorted(self._mine)):
            if self.mode().at_server:
                return 0.0
            have = await self._kept(admin, sets, firm=False)
            leaving = [each for each in have if each not in self._given_up]
            if leaving:
                await self._facts.append(facts.CatalogAtServer(gone=tuple(leaving)))
                self._given_up.update(leaving)
            given_up = [each for each in sets if each in self._given_up]
            if given_up:
                await self._forget(await self._kept(admin, given_up, firm=True))
        self._said.pop("", None)
        if self._mine:
            return _GIVING_S
        await self._facts.append(facts.CatalogAtServer(ended=True))
        await self._close()
        await asyncio.to_thread(self._remove)
        return None

    async def _kept(self, admin: Callee, sets: Sequence[str], *, firm: bool) -> list[str]:
        reply = await ask(admin, "catalog.kept", c.CatalogKept(tuple(sets), firm), c.CatalogSets, timeout_s=_PIECE_S)
        return [each for each in reply.sets if each in self._mine]

    def _remove(self) -> None:
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink(missing_ok=True)

    def _say(self, what: str, error: Exception) -> None:
        """Says once why something waits."""
        if self._said.get(what) != str(error):
            self._said[what] = str(error)
            log.info("%s waits: %s", f"the catalog of set {what}" if what else "keeping catalogs", error)


def _pages(sets: Sequence[str]) -> Iterable[Sequence[str]]:
    return [sets[begin : begin + _SETS] for begin in range(0, len(sets), _SETS)]


def _clear(folder: Path) -> None:
    folder.mkdir(0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        left.unlink()


def _append(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
        file.write(data)
