"""Rotating the mesh's certification authority: a new root and issuing certificate, announced to everybody, then switched to.

First everybody learns to trust the new issuing certificate; after the overlap it begins to sign. What the old one has signed is
then renewed by itself, and believed for eight days more. In urgent cases both go as quickly as those who are connected can.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from caso_mesh.admin.ports import Answer, Caller, Submit, done_before
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.certificates import fingerprint, signed_by
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import AnnounceCa, FinishCa, NoteCa, SwitchCa
from caso_mesh.model.errors import CasoError, Conflict, InvalidValue
from caso_mesh.model.mesh import Anchor, CaRotation
from caso_mesh.model.units import format_instant

log = logging.getLogger(__name__)

_LOOK_S = 1.0
#: Shorter than what a certificate lives, who is away for a while would be shut out; longer, nobody waits for.
_SHORTEST_OVERLAP_S, _LONGEST_OVERLAP_S = 7 * 86400.0, 90 * 86400.0
#: A server that is connected has taken its orders by then; who was given a certificate has stored it.
_TAKEN_S, _SETTLE_S = 30.0, 60.0


class NextAuthority(Protocol):
    """Where an authority lies on this server until it is switched to. Each blocks."""

    def save(self, authority: Authority) -> None: ...

    def take(self, issuing: bytes) -> Authority | None:
        """Makes the one with that certificate (DER) the one in use, and gives it; ``None`` if it is not here."""
        ...


class Rotation:
    """``authority`` is the one that this office issues with: it becomes the next one. ``holds(server, certificate)``: whether
    a linked server has taken orders with that anchor. ``steady``: whether the clock may decide that days have passed: who is
    shut out by a wrong one has to join again."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        submit: Submit,
        own: str,
        authority: Authority,
        next_authority: NextAuthority,
        holds: Callable[[str, bytes], bool],
        steady: Callable[[], bool],
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._keeper = keeper
        self._submit = submit
        self._own = own
        self._authority = authority
        self._next = next_authority
        self._holds = holds
        self._steady = steady
        self._clock = clock
        self._randomness = randomness

    def handlers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {"ca.rotate": self._rotate, "ca.show": self._show}

    async def _rotate(self, caller: Caller, request: q.CaRotate) -> v.CaView:
        """Raises ``InvalidValue``, ``Conflict`` while another one is not finished."""
        if done_before(self._keeper, caller) is not None:
            return self._view()
        overlap_s = 0.0 if request.urgent else request.overlap_s
        if not request.urgent and not _SHORTEST_OVERLAP_S <= request.overlap_s <= _LONGEST_OVERLAP_S:
            raise InvalidValue(value=request.overlap_s, what="overlap", expected="It lies between 7 and 90 days")
        state, now_ns = self._keeper.state, self._clock.now_ns()
        if state.rotation is not None and state.rotation.stage == "switched":
            raise Conflict(detail="The last rotation is not finished: some have certificates of the old authority")
        info = state.info()
        made = Authority.create(
            mesh_id=info.id, mesh_name=info.name, voter=self._own, now_ns=now_ns, randomness=self._randomness
        )
        # kept first: what is announced must be here when it is switched to
        await asyncio.to_thread(self._next.save, made)
        switch_at_ns = now_ns + int(overlap_s * 1e9)
        command = AnnounceCa(made.root, made.issuing, self._own, switch_at_ns, urgent=request.urgent)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return self._view()

    async def _show(self, caller: Caller, request: q.Nothing) -> v.CaView:
        return self._view()

    # --- the duty ---

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                await self._step()
            except CasoError as error:
                log.info("rotation of the CA: %s", error)
            await asyncio.sleep(_LOOK_S)

    async def _step(self) -> None:
        rotation = self._keeper.state.rotation
        if rotation is None:
            return
        now_ns = self._clock.now_ns()
        if rotation.stage != "announced":
            await self._settle(rotation)
        if rotation.stage == "announced" and rotation.by == self._own:
            late = now_ns >= rotation.switch_at_ns + int(_TAKEN_S * 1e9)
            due = late or (now_ns >= rotation.switch_at_ns and not self._untold(rotation))
            if due and (rotation.urgent or self._steady()):
                await self._submit(SwitchCa(rotation.issuing), request_id=f"switch-ca-{_short(rotation)}")
                switched = self._keeper.state.rotation
                if switched is not None:
                    await self._settle(switched)
        elif rotation.stage == "switched" and rotation.until_ns is not None:
            settled = rotation.urgent and now_ns - rotation.noted_at_ns >= _SETTLE_S * 1e9
            over = now_ns >= rotation.until_ns and self._steady()
            if over or (settled and not self._lacking(rotation)):
                await self._submit(FinishCa(rotation.issuing), request_id=f"finish-ca-{_short(rotation)}")

    async def _settle(self, rotation: CaRotation) -> None:
        """The authority of this server is the one that is listed for it; also if an end came right after the switch."""
        if rotation.by != self._own or self._authority.issuing == rotation.issuing:
            return
        if any(
            each.certificate == self._authority.issuing and each.voter == self._own
            for each in self._keeper.state.anchors
        ):
            return  # it was made a voter anew since
        taken = await asyncio.to_thread(self._next.take, rotation.issuing)
        if taken is None:
            log.error("the keys of the new certification authority are not on this server any more; rotate again")
            return
        self._authority.become(taken)

    async def note(self, *ids: str) -> None:
        """These servers or operators were given certificates, or have heard of the new authority."""
        rotation = self._keeper.state.rotation
        if rotation is None or rotation.stage == "finished" or set(ids) <= set(rotation.noted):
            return
        if (
            rotation.stage == "switched" and self._authority.issuing == rotation.issuing
        ) or rotation.stage == "announced":
            await self._submit(NoteCa(ids))

    # --- who lacks it ---

    def _untold(self, rotation: CaRotation) -> list[str]:
        """The names of servers that do not trust the new authority yet."""
        servers = self._keeper.state.server_list()
        return [server.name for server in servers if not self._holds(server.id, rotation.issuing)]

    def _lacking(self, rotation: CaRotation) -> list[str]:
        """The names of who does not know the new authority yet, or after the switch has no certificate of it."""
        state = self._keeper.state
        if rotation.stage == "finished":
            return []
        noted = set(rotation.noted)
        announced = rotation.stage == "announced"
        lacking = [server.name for server in state.server_list() if server.id not in noted]
        if announced:
            lacking = self._untold(rotation)
        for operator in state.operator_list():
            # what lies in a state folder is looked after by its server
            if operator.id not in noted and not (announced and operator.home is not None):
                lacking.append(operator.name)
        if not announced:
            # another voter has its old issuing certificate until it is there to take a new one
            new = {rotation.issuing, *_signed_by(state.anchors, rotation.issuing)}
            held = {each.voter for each in state.anchors if each.certificate in new}
            lacking += [f"{server.name} as a voter" for server in state.voters() if server.id not in held]
        return lacking

    def _view(self) -> v.CaView:
        state = self._keeper.state
        rotation = state.rotation
        root = state.anchors[0].certificate if state.anchors else b""
        if rotation is None:
            return v.CaView(fingerprint(root).hex(), "never", None, None, None, None, ())
        return v.CaView(
            root=fingerprint(root).hex(),
            rotation=rotation.stage,
            announced=format_instant(rotation.announced_at_ns),
            switch_at=format_instant(rotation.switched_at_ns or rotation.switch_at_ns),
            until=format_instant(rotation.until_ns),
            finished=format_instant(rotation.finished_at_ns),
            lacking=tuple(self._lacking(rotation)),
        )


def _short(rotation: CaRotation) -> str:
    return fingerprint(rotation.issuing).hex()[:24]


def _signed_by(anchors: tuple[Anchor, ...], issuing: bytes) -> list[bytes]:
    return [each.certificate for each in anchors if signed_by(each.certificate, issuing)]
