"""The tables of one voter follow those of another: the one in office is followed by all, and asks all when it begins."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from caso_mesh.admin.audit_proof import digests
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.identity.roster import Peer
from caso_mesh.journal import Record
from caso_mesh.journal.replica import Arrived
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model.audit_chain import AuditDigests, AuditSpans
from caso_mesh.model.errors import (
    CasoError,
    DataDamaged,
    JournalChainBroken,
    JournalGap,
    NotFound,
    Refused,
    StateTooNew,
    Unavailable,
)
from caso_mesh.wire.typed import Callee, ask

log = logging.getLogger(__name__)

#: How long one question may wait for something new, and how much longer its answer may take.
_WAIT_S, _SLACK_S = 20.0, 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
#: How often what was taken in is made to survive a loss of power, and records that all voters hold are pruned.
_SETTLE_EACH_S = 15.0
_COPY_PIECE, _COPY_S = 1 << 20, 300.0


class Followed:
    """Answers voters that follow the tables of this one. ``copies`` is a folder for copies of the tables. ``applied``: see
    ``ReplicaPiece``."""

    def __init__(
        self,
        tables: Tables,
        may: Callable[[Peer], bool],
        followers: Followers,
        copies: Path,
        applied: Callable[[], int] = lambda: 0,
    ) -> None:
        self._tables = tables
        self._may = may
        self._followers = followers
        self._copies = copies
        self._applied = applied
        self._digests: dict[Path, bytes] = {}

    def handlers(self) -> dict[str, Callable[[Peer, Any, Any], Awaitable[Any]]]:
        return {
            "replica.begin": self._begin,
            "replica.pull": self._pull,
            "replica.floors": self._floors,
            "replica.copy": self._copy,
            "replica.audit": self._audit,
        }

    async def _begin(self, peer: Peer, request: t.ReplicaBegin, link: Any) -> t.ReplicaPlace:
        self._check(peer)
        place = await self._tables.place_behind((each.server, each.incarnation, each.seq) for each in request.heads)
        if place.pruned and 0 < request.schema < len(MIGRATIONS):
            log.warning("%s runs an earlier version and cannot take over these tables: upgrade it", peer.name)
            raise StateTooNew(state="the tables of the administrator", found=len(MIGRATIONS), known=request.schema)
        self._followers.began(peer.id)
        return t.ReplicaPlace(place.life, place.arrival, place.pruned)

    async def _floors(self, peer: Peer, request: q.Nothing, link: Any) -> t.ReplicaFloors:
        self._check(peer)
        return t.ReplicaFloors(tuple(t.ReplicaHead(*each) for each in await self._tables.floors()))

    async def _audit(self, peer: Peer, request: AuditSpans, link: Any) -> AuditDigests:
        self._check(peer)
        return await self._tables.ask(lambda c: digests(c, request))

    async def _copy(self, peer: Peer, request: t.ReplicaCopy, link: Any) -> t.ReplicaCopyPiece:
        """The copy stays until it was read to its end, or is asked for again."""
        self._check(peer)
        path = self._copies / f"copy-{peer.id}.db"
        if request.offset == 0:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            await self._tables.copy_to(path)
            self._digests[path] = await asyncio.to_thread(_digest, path)
        if path not in self._digests:
            raise NotFound(kind="copy", name=peer.name)
        size, data = await asyncio.to_thread(_piece, path, request.offset)
        digest = self._digests[path]
        if request.offset + len(data) >= size:
            del self._digests[path]
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return t.ReplicaCopyPiece(size, digest, data)

    async def _pull(self, peer: Peer, request: t.ReplicaPull, link: Any) -> t.ReplicaPiece:
        self._check(peer)
        deadline = asyncio.get_running_loop().time() + min(max(request.wait_s, 0.0), _WAIT_S)
        while True:
            generation = self._tables.generation
            life, found = await self._tables.arrived(request.place.arrival)
            if life != request.place.life:
                # not the tables that were followed: whoever asks begins anew
                return t.ReplicaPiece(t.ReplicaPlace(life, 0), ())
            self._followers.said(peer.id, request.settled)
            left = deadline - asyncio.get_running_loop().time()
            if found or left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self._tables.wait_for_change(generation)
            except TimeoutError:
                break
        records = tuple(t.ReplicaRecord(each.server, _sent(each.record), each.refused) for each in found)
        last = found[-1].arrival if found else request.place.arrival
        return t.ReplicaPiece(t.ReplicaPlace(life, last), records, self._applied())

    def _check(self, peer: Peer) -> None:
        if not self._may(peer):
            raise Refused(detail=f"{peer.name} is no voter: the tables are not for it")


class Following:
    """``link()`` is the one to the voter that is followed; it raises ``NoAdmin`` while there is none. ``changed()`` is
    called when something came. ``copies``: a folder for a copy of the tables. ``trace_since_ns``: from when on the hashes
    of pruned records are kept. ``taking_over`` is shared by all that follow with the same tables: one takes over at once."""

    def __init__(
        self,
        tables: Tables,
        changed: Callable[[], None],
        copies: Path,
        trace_since_ns: Callable[[], int] = lambda: 0,
        taking_over: asyncio.Lock | None = None,
    ) -> None:
        self._tables = tables
        self._changed = changed
        self._taking_over = taking_over or asyncio.Lock()
        self._copies = copies
        self._trace_since_ns = trace_since_ns
        self._settled = 0
        self._settle_at_s = 0.0
        self._applied = 0
        self._led = asyncio.Event()

    async def applied(self) -> int:
        """How far the log must be applied here to know of every run that these tables tell of; waits until one in office
        has said so."""
        await self._led.wait()
        return self._applied

    async def run(self, link: Callable[[], Callee], wait: Callable[[], Awaitable[None]]) -> None:
        """Follows whoever ``link`` leads to. Never returns."""
        pause_s, told = _FIRST_PAUSE_S, ""
        while True:
            await wait()
            try:
                callee = link()
                place = await self._begin(callee)
                life = place.life
                while link() is callee and place.life == life:
                    place = await self._step(callee, place, _WAIT_S)
                    pause_s = _FIRST_PAUSE_S
            except StateTooNew as error:
                # a voter that was away, or is new, while the others run a later version
                if told != str(error):
                    told = str(error)
                    log.error("this voter has no tables of its own before it is upgraded: %s", error)
            except CasoError as error:
                log.debug("following: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def catch_up(self, callee: Callee) -> None:
        """Takes what another voter has now. Raises what the link raises."""
        place = await self._begin(callee)
        while True:
            after = await self._step(callee, place, 0.0)
            if after == place or after.life != place.life:
                return
            place = after

    async def _begin(self, callee: Callee) -> t.ReplicaPlace:
        self._settled, self._settle_at_s = 0, 0.0
        self._led.clear()  # what is taken over may tell of later runs
        place = await self._place(callee)
        if not place.pruned:
            return place
        async with self._taking_over:
            # what these tables hold may be another's copy by now, which goes further than this one's
            place = await self._place(callee)
            if place.pruned:
                await self._take_over(callee)
                place = await self._place(callee)
        if place.pruned:
            raise Unavailable(what="The tables of the administrator")
        return place

    async def _place(self, callee: Callee) -> t.ReplicaPlace:
        """Where to go on behind what these tables hold; ``pruned`` if that is not there any more."""
        heads = tuple(t.ReplicaHead(*each) for each in await self._tables.heads())
        return await ask(callee, "replica.begin", t.ReplicaBegin(heads, len(MIGRATIONS)), t.ReplicaPlace)

    async def _take_over(self, callee: Callee) -> None:
        """Becomes a copy of the other one's tables, with what only these held."""
        path = self._copies / "taken.db"
        digest, announced, offset, size = hashlib.sha256(), b"", 0, 1
        await asyncio.to_thread(path.unlink, missing_ok=True)
        try:
            while offset < size:
                request = t.ReplicaCopy(offset)
                piece = await ask(callee, "replica.copy", request, t.ReplicaCopyPiece, timeout_s=_COPY_S)
                if not piece.data:
                    raise DataDamaged(object="the copy of another voter's tables", detail="it ends too early")
                await asyncio.to_thread(_append, path, piece.data)
                digest.update(piece.data)
                offset, size, announced = offset + len(piece.data), piece.size, piece.digest
            if digest.digest() != announced:
                raise DataDamaged(object="the copy of another voter's tables", detail="its digest differs")
            kept = await self._tables.replace_from(path)
        finally:
            for left in self._copies.glob("taken.db*"):
                await asyncio.to_thread(left.unlink, missing_ok=True)
        log.warning("these tables are a copy of another voter's (%d bytes), and %d records of their own", size, kept)
        self._changed()

    async def _settle(self, callee: Callee, place: t.ReplicaPlace) -> None:
        """Now and then: what came until ``place`` survives a loss of power, and what others pruned goes here as well."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._settle_at_s or place.arrival == self._settled:
            return
        self._settle_at_s = now_s + _SETTLE_EACH_S
        await self._tables.settle()
        self._settled = place.arrival
        found = await ask(callee, "replica.floors", q.Nothing(), t.ReplicaFloors)
        floors = [(each.server, each.incarnation, each.seq) for each in found.floors]
        if floors:
            await self._tables.prune_as(floors, self._trace_since_ns())

    async def _step(self, callee: Callee, place: t.ReplicaPlace, wait_s: float) -> t.ReplicaPlace:
        await self._settle(callee, place)
        request = t.ReplicaPull(place, min(wait_s, _SETTLE_EACH_S), self._settled)
        piece = await ask(callee, "replica.pull", request, t.ReplicaPiece, timeout_s=wait_s + _SLACK_S)
        if piece.applied:
            self._applied = max(self._applied, piece.applied)
            self._led.set()
        if piece.records:
            arrived = [Arrived(0, each.server, _held(each.record), each.refused) for each in piece.records]
            try:
                await self._tables.follow(arrived)
            except (JournalGap, JournalChainBroken) as error:
                log.warning("what another voter holds does not continue what is held here: %s", error)
                raise
            self._changed()
        return piece.place


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _piece(path: Path, offset: int) -> tuple[int, bytes]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(min(max(offset, 0), size))
        return size, file.read(_COPY_PIECE)


def _append(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
        file.write(data)


def _sent(record: Record) -> t.JournalRecord:
    return t.JournalRecord(record.incarnation, record.seq, record.at_ns, record.kind, record.data, record.hash)


def _held(record: t.JournalRecord) -> Record:
    return Record(record.incarnation, record.seq, record.at_ns, record.kind, record.data, record.hash)
