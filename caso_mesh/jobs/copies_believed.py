"""Which copies of the mesh are believed: each is attested by a voter, but one that was a voter once may have been removed since.

Its issuing key went with it, and still makes what hangs on the root. What it cannot change are the copies that others made: they
tell who voted when they were made, and a later one is by a voter of then, or by one that these have made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from msgspec import Struct

from caso_mesh.control.state import ControlState
from caso_mesh.identity.certificates import issued_at_ns, voter_of
from caso_mesh.identity.mesh_copy import Attested, MeshCopy
from caso_mesh.model.errors import DataDamaged, MeshCopiesDiffer, StateDamaged, StateTooNew
from caso_mesh.model.ids import SHORT_NODE_ID, node_id
from caso_mesh.model.mesh import RosterRow
from caso_mesh.model.units import format_instant

#: Clocks of two servers may differ by so much.
_CLOCKS_NS = 3600 * 1_000_000_000


class Read(Struct, frozen=True):
    """A copy that can be read, and what the mesh was then."""

    attested: Attested
    state: ControlState

    @property
    def copy(self) -> MeshCopy:
        return self.attested.copy

    @property
    def order(self) -> tuple[object, ...]:
        return (self.copy.place, self.copy.made_at_ns)


def read(found: Iterable[Attested], notes: list[str]) -> list[Read]:
    """Those that this program can read and whose keys are those of the administrator that they name, the newest last; what is
    wrong with others is added to ``notes``."""
    copies: list[Read] = []
    for each in found:
        state = ControlState()
        try:
            each.copy.node_keys()
            each.copy.authority()
            state.restore(each.copy.control)
        except (StateTooNew, StateDamaged, DataDamaged) as error:
            notes.append(f"a copy of the mesh: {error.message}")
            continue
        copies.append(Read(each, state))
    # they come newest object first: of two of one place and time that one counts
    copies.reverse()
    return sorted(copies, key=lambda each: each.order)


def disputes(copies: Sequence[Read]) -> list[str]:
    """What is in the way of believing all of them, one line each; ``copies`` as ``read`` gives them."""
    found = []
    for earlier, later in combinations(copies, 2):
        why = _dispute(earlier, later)
        if why is not None and why not in found:
            found.append(why)
    return found


def newest(copies: Sequence[Read], made_by: str | None) -> MeshCopy:
    """The newest copy; ``made_by``: a person says whose copies count (a server's name, or how its id begins). ``copies`` must not
    be empty. Raises ``MeshCopiesDiffer`` if they contradict each other."""
    wanted = [
        each
        for each in copies
        if made_by is None or made_by == each.copy.admin_name or each.copy.admin.startswith(made_by)
    ]
    found = disputes(wanted)
    if found or not wanted:
        servers = {f"{each.copy.admin_name} ({each.copy.admin[:SHORT_NODE_ID]})": None for each in reversed(copies)}
        raise MeshCopiesDiffer(detail="; ".join(found) or f"none is by {made_by}", servers=list(servers))
    return wanted[-1].copy


def roster(copies: Sequence[Read], notes: list[str]) -> dict[str, bytes]:
    """Public keys of servers by node id, as the newest copy knows them; of copies that contradict each other what all of them
    know."""
    if not copies:
        return {}
    found = disputes(copies)
    notes += [f"copies of the mesh contradict each other: {why}" for why in found]
    known = [_keys(each.state) for each in (copies if found else copies[-1:])]
    return {node: key for node, key in known[-1].items() if all(node in each for each in known)}


def _keys(state: ControlState) -> dict[str, bytes]:
    rows: tuple[RosterRow, ...] = (*state.roster().former, *state.roster().rows)
    return {row.id: row.public_key for row in rows if row.kind == "node" and node_id(row.public_key) == row.id}


def _dispute(earlier: Read, later: Read) -> str | None:
    """Why not both are true."""
    one, other = earlier.copy, later.copy
    made = f"{one.admin_name} at {format_instant(one.made_at_ns)}"
    claims = f"{other.admin_name} ({other.admin[:SHORT_NODE_ID]}) made a copy at {format_instant(other.made_at_ns)}"
    if one.admin != other.admin and (one.place.lineage, one.place.term) == (other.place.lineage, other.place.term):
        return f"{claims}, in the same term as {made}"
    voters = {anchor.certificate for anchor in earlier.state.anchors if anchor.voter is not None}
    for certificate in later.attested.chain:
        if certificate in voters:
            return None
        voter = voter_of(certificate) or "?"
        if voter in earlier.state.removed:
            return f"{claims}, by the right of {earlier.state.removed[voter]}, which by the copy of {made} had been removed"
        if issued_at_ns(certificate) < one.made_at_ns - _CLOCKS_NS:
            return f"{claims}, by the right of {earlier.state.name_of(voter)}, which by the copy of {made} was no voter any more"
    return None
