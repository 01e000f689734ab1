"""The calls of people about what was backed up and what happened: sets, catalog."""

from __future__ import annotations

from caso_mesh.admin import present
from caso_mesh.admin.browsing import Browsing
from caso_mesh.admin.finding import Finding
from caso_mesh.admin.on_device import OnDevice
from caso_mesh.admin.ports import Answer, Caller, Submit
from caso_mesh.admin.roots import lies_above, listed_roots
from caso_mesh.admin.set_lists import SetLists
from caso_mesh.admin.source_names import source_of
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.control.documents import clean_path
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import InvalidValue, NotFound
from caso_mesh.model.units import format_instant, format_seconds

#: Entries of one answer.
_MOST_ENTRIES = 50_000
#: Levels of folders that are told one by one.
_DEEPEST = 1000


class History:
    """Answers of the administrator."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        browsing: Browsing,
        submit: Submit,
        work: Work,
        clock: Clock,
        on_device: OnDevice,
        sets: SetLists,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._browsing = browsing
        self._finding = Finding(keeper=keeper, tables=tables, browsing=browsing)
        self._submit = submit
        self._work = work
        self._clock = clock
        self._on_device = on_device
        self._sets = sets

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "set.list": self._sets.answer,
            "catalog.ls": self._catalog_ls,
            "catalog.find": self._finding.answer,
            "catalog.versions": self._catalog_versions,
            "catalog.du": self._catalog_du,
        }

    async def _catalog_ls(self, caller: Caller, request: b.CatalogList) -> b.EntryList:
        path, limit = clean_path(b"/" + request.path.lstrip(b"/")), max(1, min(request.limit, _MOST_ENTRIES))
        device = request.from_device
        if device is not None:
            backup = await self._on_device.find(device, request.set)
        else:
            backup = await self._work.find_set(request.set)

        async def folder(path: bytes, after: bytes | None, limit: int) -> tuple[list[CatalogEntry], bool]:
            if device is not None:
                return await self._on_device.folder(device, backup, path, after=after, limit=limit)
            return await self._browsing.folder(backup, path, after=after, limit=limit)

        if request.roots and b"" not in backup.roots:
            found, more = await listed_roots(backup.roots, folder, request.after, limit)
        else:
            found, more = await folder(path, request.after, limit)
        views = tuple(present.entry_view(each, implied=lies_above(backup.roots, each)) for each in found)
        return b.EntryList(views, more)

    async def _catalog_versions(self, caller: Caller, request: b.CatalogVersions) -> b.VersionList:
        source = await source_of(self._keeper.state, self._tables, request.server)
        path = clean_path(request.path)
        views = []
        found, away = await self._browsing.versions(source, path)
        for version in found:
            first, last = await self._tables.set(version.first_set), await self._tables.set(version.last_set)
            entry = version.entry
            views.append(
                b.VersionView(
                    path=present.shown_path(entry.path),
                    type=entry.type.value,
                    size=entry.size,
                    mtime=format_seconds(entry.modified[0]),
                    mtime_ns=present.mtime_ns(entry.modified),
                    mode=f"{entry.mode & 0o7777:04o}",
                    first_set=version.first_set,
                    last_set=version.last_set,
                    sets=version.sets,
                    first_seen=(format_instant(first.ended_at_ns) if first else None) or "",
                    last_seen=(format_instant(last.ended_at_ns) if last else None) or "",
                )
            )
        if not views:
            raise NotFound(kind="path in any backup set", name=f"{request.server}:{present.shown_path(path)}")
        return b.VersionList(tuple(views), away)

    async def _catalog_du(self, caller: Caller, request: c.CatalogUsage) -> c.UsageList:
        backup = await self._work.find_set(request.set)
        path = clean_path(b"/" + request.path.lstrip(b"/"))
        limit = max(1, min(request.limit, _MOST_ENTRIES))
        if not 0 <= request.depth <= _DEEPEST:
            raise InvalidValue(value=request.depth, what="depth", expected=f"Use a number from 0 to {_DEEPEST}")
        found, more = await self._browsing.sizes(backup, path, depth=request.depth, limit=limit)
        return c.UsageList(
            backup.id,
            tuple(
                c.UsageView(present.shown_path(each.path), present.b64(each.path), each.files, each.size)
                for each in found
            ),
            more,
        )
