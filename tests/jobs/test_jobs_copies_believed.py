"""An issuing key outlives the vote that it came with: what it attests later contradicts the copies that others made."""

from __future__ import annotations

from typing import Any

import pytest
from control.control_world import Script, server
from msgspec import structs

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.identity.authority import Authority, create_ca_key, public_key_of_key
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.mesh_copy import MeshCopy, attest, check
from caso_mesh.jobs.copies_believed import Read, disputes, newest, read, roster
from caso_mesh.model.commands import Prune, RemoveServer, SetVoter
from caso_mesh.model.errors import DataDamaged, MeshCopiesDiffer
from caso_mesh.model.features import ANCHORS_ABOVE, SetFeatureLevel
from caso_mesh.model.mesh import Anchor
from caso_mesh.model.orders import Authority as Place

DAY = 86400 * 1_000_000_000
MESH = "mesh-1"


class Seat:
    """A server's keys, and its issuing certificate once it votes."""

    def __init__(self, name: str) -> None:
        self.name, self.keys = name, NodeKeys.create()
        self.authority: Authority | None = None

    @property
    def issuing(self) -> bytes:
        assert self.authority is not None
        return self.authority.issuing

    def row(self, **fields: Any) -> Any:
        row = server(self.name, **fields)
        return structs.replace(row, id=self.keys.id, public_key=self.keys.public_key)


class Mesh:
    """alpha founded it; who else votes was given an issuing certificate by somebody who did."""

    def __init__(self) -> None:
        self.script = Script()
        self.alpha = Seat("alpha")
        self.alpha.authority = Authority.create(
            mesh_id=MESH, mesh_name="home", voter=self.alpha.keys.id, now_ns=self.script.at_ns
        )
        self.root = self.alpha.authority.root
        anchors = (Anchor(self.root), Anchor(self.alpha.issuing, self.alpha.keys.id))
        self.script.state.write(
            [
                Put("anchors", "", anchors),
                Put("servers", "node-alpha", None),
                Put("servers", self.alpha.keys.id, self.alpha.row(voter=True)),
            ]
        )

    @property
    def state(self) -> ControlState:
        return self.script.state

    def joins(self, name: str, by: Seat) -> Seat:
        seat = Seat(name)
        self.state.write([Put("servers", seat.keys.id, seat.row())])
        self.votes(seat, by)
        return seat

    def votes(self, seat: Seat, by: Seat) -> None:
        key = create_ca_key()
        seat.authority = below(by, key, seat.keys.id, self.script.at_ns)
        self.script.do(SetVoter(seat.keys.id, True, seat.issuing))

    def copy(self, by: Seat, term: int, state: ControlState | None = None, **fields: Any) -> Read:
        """As it would be read; ``state``: what it says the mesh is."""
        copies = read([self.attested(by, term, state, **fields)], notes := [])
        assert notes == []
        return copies[0]

    def attested(self, by: Seat, term: int, state: ControlState | None = None, **fields: Any) -> Any:
        told, authority = state or self.state, by.authority
        assert authority is not None
        signing, encryption = by.keys.to_bytes()
        copy = MeshCopy(
            mesh=MESH, mesh_name="home", made_at_ns=self.script.at_ns, place=Place(1, term, self.script.index),
            control=told.snapshot(), admin=by.keys.id, admin_name=by.name, signing_key=signing, encryption_key=encryption,
            root=self.root, issuing=by.issuing, issuing_key=authority.issuing_key_bytes(),
        )  # fmt: skip
        anchors = tuple(each for anchor in told.anchors for each in (anchor.certificate, *anchor.above))
        made = attest(structs.replace(copy, **fields), authority, anchors)
        return check(made, mesh=MESH, root=self.root, name="mesh/1")

    def days(self, days: float) -> None:
        self.script.at_ns += int(days * DAY)

    def forged(self, *voters: Seat) -> ControlState:
        """The mesh as somebody would like it to be."""
        state = ControlState()
        state.restore(self.state.snapshot())
        anchors = (Anchor(self.root), *(Anchor(each.issuing, each.keys.id) for each in voters))
        rows = [Put("servers", each.keys.id, each.row(voter=True)) for each in voters]
        gone = [Put("removed", each.keys.id, None) for each in voters]
        state.write([Put("anchors", "", (*anchors, *state.anchors)), *rows, *gone])
        return state


def below(by: Seat, key: Any, voter: str, now_ns: int) -> Authority:
    assert by.authority is not None
    issuing = by.authority.issue_issuing(public_key_of_key(key), voter=voter, mesh_name="home", now_ns=now_ns)
    return Authority(root=by.authority.root, issuing=issuing, issuing_key=key)


def changed_hands(mesh: Mesh) -> list[Read]:
    """Copies of honest administrators while the voters are replaced one after another."""
    beta = mesh.joins("beta", by=mesh.alpha)
    mesh.days(3)
    copies = [mesh.copy(mesh.alpha, 1), mesh.copy(beta, 2)]
    gamma = mesh.joins("gamma", by=beta)
    mesh.script.do(RemoveServer(mesh.alpha.keys.id, admin=beta.keys.id))
    mesh.days(30)
    copies.append(mesh.copy(beta, 2))
    mesh.script.do(SetVoter(beta.keys.id, False))
    copies.append(mesh.copy(gamma, 5))
    mesh.days(2)
    mesh.votes(beta, by=gamma)
    copies.append(mesh.copy(beta, 6))
    return copies


def test_copies_of_voters_that_took_turns_are_all_believed() -> None:
    copies = changed_hands(Mesh())
    assert disputes(copies) == []
    assert newest(copies, None) is copies[-1].copy
    notes: list[str] = []
    assert len(roster(copies, notes)) == 3 and notes == []


@pytest.mark.parametrize("how", ["its own right", "a right that it made", "an end of its vote"])
def test_a_copy_by_the_key_of_a_voter_that_had_been_removed_is_not_believed_unasked(how: str) -> None:
    """Its place was higher than that of all others: a mesh was rebuilt out of it, as the server said that had been stolen."""
    mesh = Mesh()
    beta = mesh.joins("beta", by=mesh.alpha)
    mesh.days(3)
    if how == "an end of its vote":
        mesh.script.do(SetVoter(beta.keys.id, False))
    else:
        mesh.script.do(RemoveServer(beta.keys.id, admin=mesh.alpha.keys.id))
    mesh.days(30)
    honest = mesh.copy(mesh.alpha, 9)
    mesh.days(1)
    forger = beta
    if how == "a right that it made":
        forger = Seat("delta")
        forger.authority = below(beta, create_ca_key(), forger.keys.id, mesh.script.at_ns)
    forged = mesh.copy(forger, 99, mesh.forged(beta, forger))
    for copies in ([honest, forged], read([forged.attested, honest.attested], [])):
        with pytest.raises(MeshCopiesDiffer, match=r"by the right of beta, which by the copy of alpha") as refused:
            newest(copies, None)
        assert {text.split()[0] for text in refused.value.fields["servers"]} == {"alpha", forger.name}
        assert newest(copies, "alpha") is copies[0].copy
        assert newest(copies, forger.keys.id[:13]) is copies[1].copy
        with pytest.raises(MeshCopiesDiffer, match="none is by omega"):
            newest(copies, "omega")
    # who is in one of them alone vouches for nothing
    forged.state.write([Put("servers", "evil", structs.replace(Seat("evil").row(), id="evil"))])
    notes: list[str] = []
    assert mesh.alpha.keys.id in roster([honest, forged], notes)
    assert forger is beta or forger.keys.id not in roster([honest, forged], notes)
    assert any("contradict each other" in line for line in notes)


def test_a_term_has_one_administrator() -> None:
    mesh = Mesh()
    beta = mesh.joins("beta", by=mesh.alpha)
    with pytest.raises(MeshCopiesDiffer, match="in the same term"):
        newest([mesh.copy(mesh.alpha, 4), mesh.copy(beta, 4)], None)


def test_who_names_another_server_as_the_administrator_is_not_read() -> None:
    mesh = Mesh()
    beta = mesh.joins("beta", by=mesh.alpha)
    notes: list[str] = []
    lie = mesh.attested(beta, 7, admin=mesh.alpha.keys.id, admin_name="alpha")
    assert read([lie], notes) == []
    assert notes == [
        f"a copy of the mesh: {DataDamaged(object='the copy of the mesh', detail='its keys are not those of its administrator').message}"
    ]


def test_a_mesh_whose_first_server_left_long_ago_makes_copies_that_its_kit_believes() -> None:
    """Eight days after its first server had left nobody could have rebuilt a mesh, or joined it by a link: what its other voters had
    got from that one hung on nothing any more."""
    mesh = Mesh()
    beta = mesh.joins("beta", by=mesh.alpha)
    gamma = mesh.joins("gamma", by=beta)
    mesh.script.do(RemoveServer(mesh.alpha.keys.id, admin=beta.keys.id))
    mesh.days(9)
    mesh.script.do(Prune(0))
    assert mesh.alpha.issuing not in {anchor.certificate for anchor in mesh.state.anchors}
    assert mesh.attested(gamma, 3).chain == (gamma.issuing, beta.issuing, mesh.alpha.issuing)
    mesh.script.do(SetVoter(beta.keys.id, False))
    mesh.days(9)
    mesh.script.do(Prune(0))
    assert mesh.attested(gamma, 4).chain == (gamma.issuing, beta.issuing, mesh.alpha.issuing)
    assert {anchor.certificate for anchor in mesh.state.anchors} == {mesh.root, gamma.issuing}


def test_as_long_as_a_voter_of_before_is_there_anchors_stay_as_it_knows_them() -> None:
    mesh = Mesh()
    beta = mesh.joins("beta", by=mesh.alpha)
    info = structs.replace(mesh.state.info(), feature_level=ANCHORS_ABOVE - 1)
    mesh.state.write([Put("mesh", "", info)])
    mesh.script.do(RemoveServer(mesh.alpha.keys.id, admin=beta.keys.id))
    mesh.days(7)
    mesh.script.do(Prune(0))
    assert len(mesh.state.anchors) == 3
    mesh.script.do(SetFeatureLevel(ANCHORS_ABOVE))
    mesh.days(2)
    mesh.script.do(Prune(0))
    assert [anchor.above for anchor in mesh.state.anchors] == [(), (mesh.alpha.issuing,)]
