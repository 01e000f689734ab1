"""Who was refused, in the audit log. Anybody can be refused as often as he likes: what repeats is counted, so that a flood
fills no disk, and every entry says where from."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from caso_mesh.identity.certificates import public_key_of
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError
from caso_mesh.model.ids import SHORT_NODE_ID, node_id
from caso_mesh.model.mesh import Roster
from caso_mesh.model.orders import AttemptOrder

log = logging.getLogger(__name__)

#: One entry for each who, what, outcome, host and reason in this time; so many entries of all kinds; beyond it, only their number.
_EACH_S, _WRITTEN = 60.0, 60
#: Kinds that are counted, and refusals that wait to be written: more are only a number.
_MOST_KINDS, _MOST_WAITING = 1000, 200
_LONGEST = 100


class Facts(Protocol):
    async def append(self, *new: facts.Fact) -> None: ...


class Refusals:
    """``facts`` is this server's journal: what was refused at a member travels up with it."""

    def __init__(self, facts_: Facts, clock: Clock) -> None:
        self._facts = facts_
        self._clock = clock
        self._seen: dict[tuple[str, str, str, str, str], tuple[float, int]] = {}
        self._minute = float("-inf")
        self._written = 0
        self._others = 0
        self._waiting: deque[tuple[str, str, str, str, dict[str, Any]]] = deque()
        self._arrived = asyncio.Event()

    def tell(self, who: str, what: str, outcome: str, source: str = "", fields: dict[str, Any] | None = None) -> None:
        """As ``note``, from where nobody can wait: ``run`` writes it down."""
        if len(self._waiting) >= _MOST_WAITING:
            self._others += 1
            return
        self._waiting.append((who, what, outcome, source, fields or {}))
        self._arrived.set()

    async def note(
        self, who: str, what: str, outcome: str, source: str = "", fields: dict[str, Any] | None = None
    ) -> None:
        """Writes down a refusal, sooner or later. ``outcome`` is an error's code, ``source`` HOST:PORT."""
        now_s = self._clock.monotonic_s()
        if now_s - self._minute >= _EACH_S:
            self._minute, self._written = now_s, 0
        reason = str((fields or {}).get("reason", ""))
        key = (who[:_LONGEST], what[:_LONGEST], outcome, source.rpartition(":")[0], reason[:_LONGEST])
        last_s, count = self._seen.get(key, (float("-inf"), 0))
        if now_s - last_s < _EACH_S:
            self._seen[key] = (last_s, count + 1)
            return
        if self._written >= _WRITTEN:
            self._others += 1
            return
        self._written += 1
        self._seen.pop(key, None)
        self._seen[key] = (now_s, 0)  # the newest last
        while len(self._seen) > _MOST_KINDS:
            self._others += self._seen.pop(next(iter(self._seen)))[1]
        others, self._others = self._others, 0
        counted = {"repeated": count, "others": others} if count or others else {}
        await self._write(facts.Audit(key[0], key[1], "security", outcome, source, {**(fields or {}), **counted}))

    async def run(self) -> None:
        """Writes what was told, and what was only counted once it has stopped. Never returns."""
        while True:
            try:
                async with asyncio.timeout(_EACH_S):
                    await self._arrived.wait()
            except TimeoutError:
                await self._sum_up()
            self._arrived.clear()
            while self._waiting:
                await self.note(*self._waiting.popleft())

    async def _sum_up(self) -> None:
        now_s = self._clock.monotonic_s()
        over = [key for key, (last_s, _) in self._seen.items() if now_s - last_s >= _EACH_S]
        repeated = sum(self._seen.pop(key)[1] for key in over)
        others, self._others = self._others, 0
        if repeated or others:
            fields = {"repeated": repeated, "others": others}
            await self._write(facts.Audit("several", "refusals", "security", "repeated", "", fields))

    async def _write(self, entry: facts.Audit) -> None:
        try:
            await self._facts.append(entry)
        except CasoError as error:
            log.warning(
                "not in the audit log (%s): %s of %s was refused: %s", error, entry.what, entry.who, entry.outcome
            )


class Door:
    """Who was turned away before any call: at the listener, or at the bulk channel of an attempt."""

    def __init__(self, refusals: Refusals, roster: Callable[[], Roster]) -> None:
        self.refusals = refusals
        self._roster = roster

    def at_listener(self, source: str, error: CasoError, certificate: bytes | None) -> None:
        """The listener refused somebody at HOST:PORT, or ended a link with who broke the protocol."""
        self.refusals.tell(self._shown_as(certificate), "link", error.code, source, {"detail": error.message[:500]})

    def at_attempt(self, order: AttemptOrder | None, code: str, source: str, fields: dict[str, str]) -> None:
        """A worker refused somebody, or the other end of its attempt broke the protocol; without an attempt nobody knows
        what was asked for."""
        who = "anonymous" if order is None else self._name(order.media if order.end == "source" else order.other)
        self.refusals.tell(who, "bulk", code, source, fields)

    def _shown_as(self, certificate: bytes | None) -> str:
        """Who shows a certificate, also one that was removed; what it is worth, is another matter."""
        try:
            return self._name(node_id(public_key_of(certificate))) if certificate is not None else "anonymous"
        except ValueError:
            return "anonymous"

    def _name(self, id_: str) -> str:
        roster = self._roster()
        return next((row.name for row in (*roster.rows, *roster.former) if row.id == id_), id_[:SHORT_NODE_ID])
