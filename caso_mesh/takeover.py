"""A voter made the administrator by hand, without a majority: loud, and fenced by a new lineage against the old one's return."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from msgspec import Struct

from caso_mesh.config import load_config
from caso_mesh.consensus import Snapshot, open_replicated, read_log
from caso_mesh.control.recovery import take_over as change_hands
from caso_mesh.control.reducer import apply
from caso_mesh.control.state import ControlState
from caso_mesh.identity.claims import sign_claim
from caso_mesh.identity.store import IdentityStore
from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.commands import decode
from caso_mesh.model.errors import NothingToGoOnFrom, StateMissing
from caso_mesh.model.ids import make_id_source
from caso_mesh.model.states import AlertKind
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.membership import is_member


class TakenOver(Struct, frozen=True):
    """The server that is the administrator now, and the lineage that its orders carry."""

    server: str
    lineage: int


async def take_over(state: Path, *, clock: Clock, randomness: Randomness = os.urandom) -> TakenOver:
    """Makes the server of ``state``, which holds a copy of the replicated log, the only voter of a new lineage: its copy
    counts from now on, to its last entry. Its daemon is stopped. Interrupted at any place, it may be repeated.

    Raises ``StateMissing`` (no member), ``NothingToGoOnFrom`` (it holds no copy, or one that has not arrived yet),
    ``StateLocked`` (the daemon runs), ``StateDamaged``.
    """
    folder = StateFolder(state)
    if not is_member(folder):
        raise StateMissing(state=state)
    with folder.locked():
        config, identity = load_config(folder.config), IdentityStore(folder.identity)
        if not folder.consensus.exists():
            raise NothingToGoOnFrom(
                server=config.server, detail="it is no voter, and keeps no copy of the replicated log"
            )
        node = identity.load_keys().id
        held = await read_log(folder.consensus)
        control = ControlState()
        if held.snapshot is not None:
            control.restore(held.snapshot.data)
        place = held.snapshot or Snapshot(0, 0, b"")
        for entry in held.entries:
            if entry.index > place.index and entry.kind == "command":
                apply(control, decode(entry.data), lineage=held.lineage, term=entry.term, index=entry.index)
        if control.mesh is None or node not in control.servers:
            detail = "it was given a vote, and the replicated log has not arrived yet"
            raise NothingToGoOnFrom(server=config.server, detail=detail)
        last = held.entries[-1] if held.entries else place
        operator = await asyncio.to_thread(lambda: identity.load_operator().key.id)
        claim = sign_claim(identity.load_keys().signing, mesh=control.info().id, lineage=held.lineage + 1)
        change_hands(control, admin=node, operator=operator, now_ns=clock.now_ns(), claim=claim)
        draft = folder.consensus.with_name("consensus.new.db")
        _unlink(draft)
        start = Snapshot(last.index, last.term, control.snapshot())
        opening = open_replicated(draft, node, lineage=held.lineage + 1, preset=held.preset, start=start)
        async with opening:
            pass
        # what is left of the old file must not be taken for the new one's
        for left in folder.path.glob(f"{folder.consensus.name}-*"):
            left.unlink()
        draft.replace(folder.consensus)
        await _tell(folder, config.server, node, held.lineage + 1, clock, randomness)
    return TakenOver(config.server, held.lineage + 1)


async def _tell(
    folder: StateFolder, server: str, node: str, lineage: int, clock: Clock, randomness: Randomness
) -> None:
    new_id = make_id_source(clock.now_ns, randomness)
    fields = {"lineage": lineage}
    text = (
        f"{server} was made the administrator by hand (lineage {lineage}). What the lost one had decided and not told it "
        "is gone; what servers report of it comes back from their journals"
    )
    told: list[facts.Fact] = [
        facts.Audit("takeover", "admin.takeover", "mesh", fields=fields),
        facts.AlertRaised(new_id(), AlertKind.WARNING, "admin-taken-over", text, object=server, fields=fields),
    ]
    async with Journal.open(folder.journal, node, clock=clock, new_id=new_id) as journal:
        await journal.append([facts.encode(each) for each in told])


def _unlink(database: Path) -> None:
    for left in database.parent.glob(f"{database.name}*"):
        left.unlink()
