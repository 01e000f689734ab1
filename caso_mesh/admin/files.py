"""The calls of people about single files and points in time: which set has what was there then, and one file's bytes."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from msgspec import Struct

from caso_mesh.admin.browsing import Browsing
from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.live import Live
from caso_mesh.admin.on_device import Unreached, readers_of
from caso_mesh.admin.ports import Answer, Caller, Links
from caso_mesh.admin.present import device_name, shown_path
from caso_mesh.admin.source_names import source_of
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.work import Work
from caso_mesh.catalog.sets import is_within
from caso_mesh.control.documents import clean_path
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import nodes as n
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import (
    CasoError,
    CatalogAway,
    CatalogNotHere,
    InvalidValue,
    NoneReadable,
    NoneWhole,
    NotFound,
    PathNotInSet,
    Unavailable,
    UsageError,
    from_wire,
)
from caso_mesh.model.ids import IdSource
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_instant
from caso_mesh.planning.choosing import Flaw, Flaws, Use
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

#: Files that are open at once; one that is not read for so long is forgotten.
_MOST_OPEN, _IDLE_S = 256, 600.0
#: Beyond this a media server reads no more in one piece.
_LONGEST_PIECE = 4 << 20
_PIECE_S = 70.0
#: Of why no set can be read, and of sets that are passed over.
_MOST_REASONS, _MOST_PASSED = 5, 3


class _Open(Struct):
    """A file that a person reads."""

    person: str
    set: BackupSet
    path: bytes
    size: int
    server: str
    used_s: float


class Files:
    """Answers of the administrator. What is open is forgotten with the office: it is opened again."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        browsing: Browsing,
        live: Live,
        links: Links,
        unreached: Unreached,
        work: Work,
        clock: Clock,
        new_id: IdSource,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._browsing = browsing
        self._live = live
        self._links = links
        self._unreached = unreached
        self._work = work
        self._clock = clock
        self._new_id = new_id
        self._open: dict[str, _Open] = {}

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {
            "set.as-of": self._as_of,
            "catalog.as-of": self._shown_as_of,
            "file.open": self._file_open,
            "file.read": self._file_read,
        }

    # --- points in time ---

    async def _as_of(self, caller: Caller, request: b.SetAsOf) -> b.SetChoice:
        """The newest set that ended in time, covers all paths, lies where it can be read now, and is fit to be (``planning.choosing``);
        of its copies the nearest.

        Raises ``NotFound`` if there is none, ``DeviceAway`` or ``NoneReadable`` if none of them can be read, ``NoneWhole`` if those that
        can were found damaged, ``PathNotInSet`` if the set covers a path where nothing was at that time.
        """
        state = self._keeper.state
        origin = await source_of(state, self._tables, request.server)
        paths = [clean_path(path) for path in request.paths]
        if not paths:
            raise UsageError(detail="Name at least one path")
        until_ns = request.at_ns if request.at_ns is not None else self._clock.now_ns()
        near = self._at(origin) if request.near is None else state.server_named(request.near).id
        flaws = await flaws_of(state, self._tables, self._live)
        skipped: list[BackupSet] = []
        found: tuple[BackupSet, list[str]] | None = None
        async for backup in self._tables.sets_until(origin, until_ns):
            if found is not None and backup.ended_at_ns < found[0].ended_at_ns:
                break
            if not all(any(is_within(path, root) for root in backup.roots) for path in paths):
                continue
            readers = readers_of(state, self._live, self._links, backup.device)
            if not readers or flaws.bars(backup.id, Use.READ) is not None:
                skipped.append(backup)
            elif found is None or (_same(backup, found[0]) and near in readers and near not in found[1]):
                found = backup, readers
        shown = ", ".join(f"{request.server}:{shown_path(path)}" for path in paths[:3])
        what = f"{shown} as of {format_instant(until_ns)}"
        if found is None:
            if not skipped:
                raise NotFound(kind="set", name=what)
            raise self._none_of(what, paths, skipped, flaws)
        backup, readers = found
        newer = [each for each in skipped if not _same(each, backup)]
        try:
            await self._check_paths(backup, paths)
        except PathNotInSet as error:
            if not newer:
                raise
            # what is passed over may have it
            raise self._none_of(what, paths, newer, flaws, f"; set {backup.id}: {error.message}") from None
        return b.SetChoice(
            id=backup.id,
            source=request.server,
            type=backup.type.value,
            started=format_instant(backup.started_at_ns) or "",
            ended=format_instant(backup.ended_at_ns) or "",
            device=device_name(state, backup.device),
            servers=tuple(state.name_of(each) for each in readers),
            warnings=self._passed_over(newer, flaws),
        )

    def _none_of(
        self, what: str, paths: Sequence[bytes], skipped: Sequence[BackupSet], flaws: Flaws, more: str = ""
    ) -> CasoError:
        """Why none of some sets, newest first, is restored; ``more`` is said of others."""
        devices = {each.device for each in skipped}
        if len(devices) == 1 and not more and not any(flaws.bars(each.id, Use.READ) for each in skipped):
            return self._unreached(skipped[0].device)
        # of each reason the newest set
        reasons = {self._why_not(each, flaws): each for each in reversed(skipped)}
        told = sorted(reasons.items(), key=lambda item: item[1].ended_at_ns, reverse=True)[:_MOST_REASONS]
        why = "; ".join(f"set {each.id}: {reason}" for reason, each in told) + more
        for each in skipped:
            readers = readers_of(self._keeper.state, self._live, self._links, each.device)
            if readers and flaws.bars(each.id, Use.READ) is Flaw.DAMAGED:
                command = shlex.join([each.id, *map(shown_path, paths)])
                return NoneWhole(what=what, why=why, set=each.id, command=command)
        return NoneReadable(what=what, sets=len(skipped) + bool(more), why=why)

    def _passed_over(self, skipped: Sequence[BackupSet], flaws: Flaws) -> tuple[str, ...]:
        return tuple(
            f"the newer set {each.id}, ended {format_instant(each.ended_at_ns)}, is passed over: {self._why_not(each, flaws)}"
            for each in skipped[:_MOST_PASSED]
        )

    def _why_not(self, backup: BackupSet, flaws: Flaws) -> str:
        """Why a set is not read."""
        device = device_name(self._keeper.state, backup.device)
        match flaws.bars(backup.id, Use.READ):
            case Flaw.MISSING:
                return f"the last inventory of its device {device} did not find it there"
            case Flaw.DAMAGED:
                damage = flaws.damaged[backup.id]
                said = from_wire({"code": damage.failure.code, "fields": damage.failure.fields}).message.rstrip(".")
                return f"the run {damage.run} found it damaged ({said})"
            case _:
                return f"no server reaches its device {device} now"

    async def _shown_as_of(self, caller: Caller, request: c.CatalogAsOf) -> c.CatalogChoice:
        """The newest set that ended in time, covers the path and is fit to be restored, also if it cannot be read now; else one that
        is not fit. Of its copies one whose catalog is here. Raises ``NotFound``."""
        origin = await source_of(self._keeper.state, self._tables, request.server)
        path = clean_path(request.path)
        until_ns = request.at_ns if request.at_ns is not None else self._clock.now_ns()
        flaws = await flaws_of(self._keeper.state, self._tables, self._live)
        skipped: list[BackupSet] = []
        found: BackupSet | None = None
        detail = False
        async for backup in self._tables.sets_until(origin, until_ns):
            if found is not None and (detail or backup.ended_at_ns < found.ended_at_ns):
                break
            if not any(is_within(path, root) or is_within(root, path) for root in backup.roots):
                continue
            if flaws.bars(backup.id, Use.READ) is not None:
                skipped.append(backup)
                continue
            here = await self._browsing.is_here(backup)
            if found is None or (here and _same(backup, found)):
                found, detail = backup, here
        passed = [each for each in skipped if found is not None and not _same(each, found)]
        warnings = self._passed_over(passed, flaws)
        if found is None and skipped:
            found, detail = skipped[0], await self._browsing.is_here(skipped[0])
            warnings = (f"the set {found.id} is no good to be restored: {self._why_not(found, flaws)}",)
        if found is None:
            what = f"{request.server}:{shown_path(path)} as of {format_instant(until_ns)}"
            raise NotFound(kind="set", name=what)
        return c.CatalogChoice(
            set=found.id,
            source=request.server,
            started=format_instant(found.started_at_ns) or "",
            ended=format_instant(found.ended_at_ns) or "",
            detail=detail,
            warnings=warnings,
        )

    def _at(self, origin: str) -> str:
        """The machine that is there now for the sets that are kept under an id."""
        now = self._keeper.state.successor_of(origin)
        return origin if now is None else now.id

    async def _check_paths(self, backup: BackupSet, paths: list[bytes]) -> None:
        try:
            await self._browsing.check_paths(backup, paths)
        except (Unavailable, CatalogAway, CatalogNotHere) as error:
            log.info("whether set %s has the paths is for the restore to find out: %s", backup.id, error)

    # --- single files ---

    async def _file_open(self, caller: Caller, request: b.FileOpen) -> b.FileOpened:
        """Raises ``NotFound``, ``PathNotInSet``, ``InvalidValue`` (not a regular file), ``Unavailable`` while no server
        reaches the device."""
        backup = await self._work.find_set(request.set)
        path = clean_path(b"/" + request.path.lstrip(b"/"))
        reply, server = await self._ask(backup, n.SetPiece(backup.device, backup.id, path, 0, 0))
        now_s = self._clock.monotonic_s()
        for handle in [handle for handle, each in self._open.items() if now_s - each.used_s > _IDLE_S]:
            del self._open[handle]
        while len(self._open) >= _MOST_OPEN:
            del self._open[min(self._open, key=lambda handle: self._open[handle].used_s)]
        handle = self._new_id()
        self._open[handle] = _Open(caller.person.id, backup, path, reply.size, server, now_s)
        state = self._keeper.state
        return b.FileOpened(
            handle=handle,
            set=backup.id,
            path=shown_path(path),
            size=reply.size,
            device=device_name(state, backup.device),
            server=state.name_of(server),
        )

    async def _file_read(self, caller: Caller, request: b.FileRead) -> b.FilePiece:
        """Raises ``NotFound`` for a file that this person has not open, and what reading raises."""
        file = self._open.get(request.handle)
        if file is None or file.person != caller.person.id:
            raise NotFound(kind="file", name=request.handle)
        if request.offset < 0 or request.length <= 0:
            raise InvalidValue(value=request.offset, what="place in a file", expected="Use numbers from 0 on")
        file.used_s = self._clock.monotonic_s()
        length = min(request.length, _LONGEST_PIECE)
        wanted = n.SetPiece(file.set.device, file.set.id, file.path, request.offset, length)
        reply, file.server = await self._ask(file.set, wanted, first=file.server)
        return b.FilePiece(reply.data)

    async def _ask(self, backup: BackupSet, request: n.SetPiece, first: str = "") -> tuple[n.SetPieceReply, str]:
        """Asks one server that reaches the device after the other, until one can answer."""
        readers = readers_of(self._keeper.state, self._live, self._links, backup.device)
        readers.sort(key=lambda each: each != first)
        last: CasoError = self._unreached(backup.device)
        for server in readers:
            try:
                return await ask(
                    self._links.get(server), "set.piece", request, n.SetPieceReply, timeout_s=_PIECE_S
                ), server
            except Unavailable as error:
                last = error
        raise last


def _same(one: BackupSet, other: BackupSet) -> bool:
    """Whether two sets are copies of each other."""
    return (one.copy_of or one.id) == (other.copy_of or other.id)
