"""Who votes: the mesh grows to three voters by itself, people add and remove more, and the log's members follow.

The control state says who has a seat (``Server.voter``): its issuing certificate is a trust anchor. The replicated log
says who of them decides. A server gets its seat first, is sent the whole log as a learner, and votes when it has it
and all voters have heard of each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

from caso_mesh.admin.once import Remembered
from caso_mesh.admin.ports import Answer, Caller, Links, Submit, done_before
from caso_mesh.consensus.port import Consensus
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.certificates import public_key_of, signed_by
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import SetVoter
from caso_mesh.model.errors import (
    CasoError,
    Conflict,
    FeatureLevelTooLow,
    InvalidValue,
    ServerNotLinked,
    Unavailable,
    WrongState,
)
from caso_mesh.model.features import FEATURE_LEVEL, SetFeatureLevel
from caso_mesh.model.mesh import Server
from caso_mesh.model.states import Liveness
from caso_mesh.model.voters import VoterList, VoterRow
from caso_mesh.wire.typed import ask

log = logging.getLogger(__name__)

#: So many voters a mesh has by itself, once there are as many servers.
WANTED = 3
#: A learner that lacks no more entries than this may vote.
_CAUGHT_UP = 64
_LOOK_S, _PAUSE_S = 1.0, 2.0


class _HandedOver(Struct, frozen=True):
    """In ``term``, ``by`` (a node id) was asked to hand the office over to ``to``."""

    by: str
    to: str
    term: int


class Voting:
    """``preset`` is the pace of the voters, ``founders`` those at the beginning of the log, ``view`` shows a server by its id.
    ``knows``: whether a linked server has heard of others."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        consensus: Consensus,
        links: Links,
        submit: Submit,
        authority: Authority,
        own: str,
        preset: str,
        founders: tuple[str, ...],
        view: Callable[[str], v.ServerView],
        knows: Callable[[str, Collection[str]], bool],
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._keeper = keeper
        self._consensus = consensus
        self._links = links
        self._submit = submit
        self._remembered = Remembered(keeper=keeper, submit=submit)
        self._authority = authority
        self._own = own
        self._preset = preset
        self._founders = founders
        self._view = view
        self._knows = knows
        self._clock = clock
        self._randomness = randomness
        self._changing = asyncio.Lock()
        #: The issuing certificates that other voters took in this term.
        self._seated: dict[str, bytes] = {}

    def handlers(self) -> dict[str, Answer]:
        return {
            "voter.add": self._add,
            "voter.remove": self._remove,
            "voter.list": self._list,
            "admin.transfer": self._transfer,
        }

    # --- people ---

    async def _list(self, caller: Caller, request: q.Nothing) -> VoterList:
        """Those with a seat, and those whose seat is about to end, by name."""
        state, leadership = self._keeper.state, self._consensus.leadership()
        seats = {server.id for server in state.voters()} | self._members()
        rows = [self._row(node) for node in sorted(seats, key=lambda node: (state.name_of(node), node))]
        return VoterList(
            voters=tuple(rows),
            majority=len(leadership.voters) // 2 + 1,
            there=sum(row.state == "votes" and row.connected for row in rows),
            feature_level=state.info().feature_level,
        )

    def _row(self, node: str) -> VoterRow:
        leadership, server = self._consensus.leadership(), self._keeper.state.servers.get(node)
        own = node == self._own
        return VoterRow(
            server=self._keeper.state.name_of(node),
            state="votes" if node in leadership.voters else "catching-up" if node in leadership.learners else "waits",
            admin=own,
            connected=own or self._links.linked(node),
            address=server.addresses[0] if server is not None and server.addresses else "",
            behind=0 if own else self._consensus.lacks(node),
            feature_level=self._level_of(node),
        )

    async def _add(self, caller: Caller, request: q.ServerName) -> v.ServerView:
        server = self._keeper.state.server_named(request.name)
        if done_before(self._keeper, caller) is not None:
            return self._view(server.id)
        if not server.voter:
            if not self._links.linked(server.id):
                raise ServerNotLinked(server=server.name)
            async with self._changing:
                await self._give_seat(server, wanted=True)
                await self._consensus.set_member(server.id, "learner")
        view = self._view(server.id)
        await self._remembered.keep(caller, v.Done())
        return view

    async def _remove(self, caller: Caller, request: q.ServerName) -> v.ServerView:
        server = self._keeper.state.server_named(request.name)
        if done_before(self._keeper, caller) is not None:
            return self._view(server.id)
        if server.id == self._own:
            raise Conflict(detail=f"{server.name} is in office: hand it over first (caso-mesh admin transfer)")
        async with self._changing:
            if server.id in self._members():
                await self._consensus.set_member(server.id, "none")
            command = SetVoter(server.id, voter=False, never_admin=True)
            await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._view(server.id)

    async def _transfer(self, caller: Caller, request: q.AdminTransfer) -> v.Done:
        """To whom is committed before it is done: by whom the answer comes, if it is asked for again, is another server."""
        term = self._consensus.leadership().term
        asked = self._remembered.of(caller, _HandedOver)
        if asked is None:
            asked = await self._remembered.keep(caller, _HandedOver(self._own, self._next(request.to), term))
        elif asked.term != term and (self._own != asked.to if request.to is not None else self._own == asked.by):
            own, to = self._keeper.state.name_of(self._own), self._keeper.state.name_of(asked.to)
            raise Conflict(
                detail=f"{own} is in office: it changed hands since {to} was to take it. Ask once more if it still should"
            )
        if asked.term == term and asked.to != self._own:
            await self._consensus.transfer(asked.to)
        return v.Done()

    def _next(self, name: str | None) -> str:
        """The node id of who is to take the office. ``WrongState`` for one that does not vote."""
        leadership = self._consensus.leadership()
        if name is not None:
            node = self._keeper.state.server_named(name).id
            if node != self._own and node not in leadership.voters:
                raise WrongState(kind="server", name=name, state=f"no voter (caso-mesh voter add {name})")
            return node
        others = [node for node in leadership.voters if node != self._own and self._links.linked(node)]
        if not others:
            raise InvalidValue(value="nobody", what="next administrator", expected="There is no other voter linked")
        return min(others, key=lambda each: (self._lacks(each), each))

    # --- the office's duty ---

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                async with self._changing:
                    changed = await self._step()
            except CasoError as error:
                log.info("voters: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            if not changed:
                await asyncio.sleep(_LOOK_S)

    async def _step(self) -> bool:
        """The next thing that is to be done; whether there was one."""
        seats = {server.id: server for server in self._keeper.state.voters()}
        leadership = self._consensus.leadership()
        for node in leadership.learners + leadership.voters:
            if node not in seats and node != self._own:
                await self._consensus.set_member(node, "none")
                return True
        for node, server in sorted(seats.items()):
            if node not in self._members() and node != self._own and self._links.linked(node):
                await self._give_seat(server)
                await self._consensus.set_member(node, "learner")
                return True
        for anchor in self._keeper.state.anchors:
            seated = seats.get(anchor.voter or "")
            if seated is not None and seated.id != self._own and self._links.linked(seated.id):
                taken = self._seated.get(seated.id) == anchor.certificate
                if self._rotated() and (not taken or self._is_old(anchor.certificate)):
                    await self._give_seat(seated)
                    return True
        if len(seats) < WANTED:
            newcomer = next(iter(self._eligible()), None)
            if newcomer is not None:
                await self._give_seat(newcomer)
                await self._consensus.set_member(newcomer.id, "learner")
                return True
        return await self._promote(len(seats)) or await self._raise_level(seats)

    async def _raise_level(self, seats: Iterable[str]) -> bool:
        """The mesh is at the feature level of its oldest voter, once each of them is linked and has said its own."""
        levels = [self._level_of(node) for node in {*seats, *self._members()}]
        level = min((each or 0 for each in levels), default=0)
        if level <= self._keeper.state.info().feature_level:
            return False
        log.info("every voter understands feature level %d: the mesh is at it from now on", level)
        await self._submit(SetFeatureLevel(level))
        return True

    def _level_of(self, node: str) -> int | None:
        """What a server's software understands; ``None`` while it is not linked."""
        if node == self._own:
            return FEATURE_LEVEL
        greeting = self._links.greeting_of(node)
        return None if greeting is None else greeting.feature_level

    async def _promote(self, seats: int) -> bool:
        """Two voters are worse than one: without either, nothing is decided. So the second one waits for the third."""
        leadership = self._consensus.leadership()
        if seats < WANTED:
            for node in leadership.voters:
                if node != self._own and len(leadership.voters) == 2:
                    await self._consensus.set_member(node, "learner")
                    return True
            return False
        ready = [
            node
            for node in leadership.learners
            if self._lacks(node) <= _CAUGHT_UP
            and self._links.linked(node)
            and self._knows(node, {*leadership.voters, node})
        ]
        # whoever votes before it has heard of the others does not let them in: without this office nobody could be elected
        together = {*leadership.voters, *ready}
        if any(self._links.linked(node) and not self._knows(node, together) for node in together):
            return False
        voters = len(leadership.voters)
        # an even number is only passed through: nobody begins a step that cannot be followed by the next
        if not ready or (voters % 2 and len(ready) < 2):
            return False
        log.info("%s votes from now on", self._keeper.state.name_of(ready[0]))
        await self._consensus.set_member(ready[0], "voter")
        return True

    def _members(self) -> set[str]:
        leadership = self._consensus.leadership()
        return {*leadership.voters, *leadership.learners}

    def _lacks(self, node: str) -> float:
        lacks = self._consensus.lacks(node)
        return float("inf") if lacks is None else lacks

    def _eligible(self) -> list[Server]:
        """Servers that may become voters by themselves, in the order in which they joined."""
        found = [
            server
            for server in self._keeper.state.server_list()
            if not server.voter
            and not server.never_admin
            and server.preset != "wan"
            and server.liveness is Liveness.ALIVE
            and self._links.linked(server.id)
            and (self._level_of(server.id) or 1) >= self._keeper.state.info().feature_level
        ]
        return sorted(found, key=lambda server: (server.joined_at_ns, server.id))

    def _rotated(self) -> bool:
        """Whether the CA was rotated: then each voter is given its certificate once in a term, whatever it has."""
        rotation = self._keeper.state.rotation
        return rotation is not None and rotation.stage != "announced"

    def _is_old(self, issuing: bytes) -> bool:
        """Whether an issuing certificate is of the authority before the last rotation: it is not the new one, nor signed by
        who was signed by it."""
        rotation = self._keeper.state.rotation
        if rotation is None or not self._rotated():
            return False
        above, anchors = [issuing], [each.certificate for each in self._keeper.state.anchors]
        while above[-1] != rotation.issuing:
            signer = next((each for each in anchors if each not in above and signed_by(above[-1], each)), None)
            if signer is None:
                return True
            above.append(signer)
        return False

    async def _give_seat(self, server: Server, *, wanted: bool = False) -> None:
        """``FeatureLevelTooLow`` for a server whose software does not understand all that may be decided here."""
        try:
            await self._offer_seat(server, wanted=wanted)
        except Unavailable as error:
            # it may have heard only then that an earlier seat is over, and the key that it had named went with that one
            log.info("%s is offered its seat once more: %s", server.name, error)
            await self._offer_seat(server, wanted=wanted)

    async def _offer_seat(self, server: Server, *, wanted: bool) -> None:
        """Its issuing certificate is listed first: whatever it issues one day is believed from its first day on."""
        link = self._links.get(server.id)
        level, needed = self._level_of(server.id) or 1, self._keeper.state.info().feature_level
        if level < needed:
            raise FeatureLevelTooLow(what=f"the software of {server.name}", needed=needed, level=level)
        prepared = await ask(link, "voter.prepare", t.VoterPrepare(), t.VoterPrepared)
        listed = next((a.certificate for a in self._keeper.state.anchors if a.voter == server.id), None)
        if listed is None or public_key_of(listed) != prepared.public_key or self._is_old(listed):
            listed = self._authority.issue_issuing(
                prepared.public_key,
                voter=server.id,
                mesh_name=self._keeper.state.info().name,
                now_ns=self._clock.now_ns(),
                randomness=self._randomness,
            )
        await self._submit(SetVoter(server.id, True, listed, never_admin=False if wanted else None))
        become = t.VoterBecome(
            root=self._authority.root,
            issuing=listed,
            lineage=self._keeper.leadership.lineage,
            preset=self._preset,
            founders=self._founders,
            authority=self._keeper.authority,
        )
        await ask(link, "voter.become", become, v.Done)
        self._seated[server.id] = listed
