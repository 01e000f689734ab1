"""Looks whether the audit log is what was written: in this voter's tables, at the other voters, and against what was noted
earlier."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Sequence

from caso_mesh.admin import audit_chain, audit_rows
from caso_mesh.admin.audit_chain import Chain, Found, Look, Problem
from caso_mesh.admin.ports import Answer, Caller, Links
from caso_mesh.admin.tables import Tables
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.model import audit_chain as a
from caso_mesh.model.clock import Clock
from caso_mesh.model.errors import CasoError
from caso_mesh.model.settings import number
from caso_mesh.model.units import format_instant
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
#: How long another voter may take, and of how many chains it is asked at once.
_ASK_S, _SPANS = 60.0, 2000
#: What tells of a trim is written down a moment after it.
_TOLD_S, _LOOK_S = 20.0, 0.5
#: Problems of one answer.
_MOST_PROBLEMS = 1000


class AuditProof:
    """Answers ``audit.verify``. ``voters`` (node ids, ``own`` may be among them) hold the same as this one."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        links: Links,
        voters: Callable[[], Collection[str]],
        own: str,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._links = links
        self._voters = voters
        self._own = own
        self._clock = clock

    def handlers(self) -> dict[str, Answer]:
        """Calls by name."""
        return {"audit.verify": self._verify}

    async def _verify(self, caller: Caller, request: a.AuditVerify) -> a.AuditVerified:
        state = self._keeper.state
        keep_s = number(state.settings_of_mesh(), "audit-keep-s")
        kept_ns = self._clock.now_ns() - round(keep_s * _SECOND)
        floor_ns = await self._tables.ask(audit_rows.floor_ns)
        found = Found()
        chains = await self._tables.ask(audit_chain.chains)
        for chain in chains:
            look = Look(chain, found, kept_ns)
            while await self._tables.ask(lambda c, look=look: look.step(c, audit_rows.floor_ns(c))):  # type: ignore[misc]
                pass
        found.problems += await self._tables.ask(audit_chain.strays)
        if floor_ns >= kept_ns and not await self._is_told(floor_ns):
            text = f"entries of before {format_instant(floor_ns)} are trimmed, and none tells of that"
            found.problems.append(Problem(self._own, None, text))
        compared = await self._tables.ask(lambda c: _against(c, request.against, found))
        others = sorted(set(self._voters()) - {self._own}, key=state.name_of)
        voters = await asyncio.gather(*(self._compared(each, chains) for each in others))
        return a.AuditVerified(
            whole=not found.problems and all(each.state != "differs" for each in voters),
            entries=found.entries,
            trimmed=found.trimmed,
            aged=found.aged,
            unchained=await self._tables.ask(audit_chain.unchained),
            since=format_instant(found.since_ns),
            until=format_instant(found.until_ns),
            trimmed_before=format_instant(floor_ns) if floor_ns >= 0 else None,
            problems=tuple(
                a.AuditProblem(state.name_of(each.server), format_instant(each.at_ns), each.text)
                for each in found.problems[:_MOST_PROBLEMS]
            ),
            voters=tuple(voters),
            compared=compared,
            marks=tuple(a.AuditMark(each.server, each.incarnation, each.seq, each.head.hex()) for each in chains),
        )

    async def _is_told(self, floor_ns: int) -> bool:
        """Whether an entry tells of the trim."""
        end_s = self._clock.monotonic_s() + _TOLD_S
        while not await self._tables.ask(lambda c: audit_rows.tells_of_trim(c, floor_ns)):
            if self._clock.monotonic_s() >= end_s:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def _compared(self, voter: str, chains: Sequence[Chain]) -> a.AuditVoter:
        name = self._keeper.state.name_of(voter)
        same = 0
        try:
            for at in range(0, len(chains), _SPANS):
                part = chains[at : at + _SPANS]
                spans = await self._tables.ask(lambda c, part=part: [_span(c, each) for each in part])  # type: ignore[misc]
                request = a.AuditSpans(tuple(spans))
                theirs = await ask(self._links.get(voter), "replica.audit", request, a.AuditDigests, timeout_s=_ASK_S)
                for chain, digest in zip(part, theirs.digests, strict=True):
                    own = await self._tables.ask(
                        lambda c, chain=chain, digest=digest: audit_chain.digest(  # type: ignore[misc]
                            c, chain.server, chain.incarnation, digest.first, digest.last
                        )
                    )
                    if digest.last and own != digest.digest:
                        where = self._keeper.state.name_of(chain.server)
                        return a.AuditVoter(name, "differs", f"it holds other entries of what {where} wrote down")
                    same += digest.last > 0
                if theirs.journals > len(await self._tables.ask(audit_chain.chains)):
                    return a.AuditVoter(name, "differs", "it holds what servers wrote down of whom nothing is here")
        except (CasoError, ValueError) as error:
            log.info("the audit log is not compared with %s: %s", name, error)
            return a.AuditVoter(name, "away", str(error))
        return a.AuditVoter(name, "same", f"it holds the same of {same} of {len(chains)} journals")


def _span(c: sqlite3.Connection, chain: Chain) -> a.AuditSpan:
    first, last = audit_chain.span(c, chain.server, chain.incarnation) or (1, 0)
    return a.AuditSpan(chain.server, chain.incarnation, first, last)


def digests(c: sqlite3.Connection, request: a.AuditSpans) -> a.AuditDigests:
    """What this voter holds of what another one does."""
    found = []
    for each in request.spans[:_SPANS]:
        first, last = audit_chain.span(c, each.server, each.incarnation) or (1, 0)
        first, last = max(first, each.first), min(last, each.last)
        if first > last:
            found.append(a.AuditDigest(0, 0, b""))
        else:
            found.append(a.AuditDigest(first, last, audit_chain.digest(c, each.server, each.incarnation, first, last)))
    return a.AuditDigests(tuple(found), len(audit_chain.chains(c)))


def _against(c: sqlite3.Connection, marks: Sequence[a.AuditMark], found: Found) -> int:
    """How many marks of earlier are still right; those that are too old to be compared are neither right nor wrong."""
    right = 0
    for each in marks:
        link = audit_chain.link_at(c, each.server, each.incarnation, each.seq)
        held = audit_chain.span(c, each.server, each.incarnation)
        if link is not None and link.hex() == each.link:
            right += 1
        elif link is not None:
            found.problems.append(Problem(each.server, None, "it is not what it was when that was noted"))
        elif held is None or each.seq > held[1]:
            found.problems.append(Problem(each.server, None, "entries that were there when that was noted are missing"))
        elif each.seq >= held[0]:
            found.problems.append(Problem(each.server, None, "an entry that was noted is missing"))
    return right
