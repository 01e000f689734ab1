"""Who took a mesh over says so by its key."""

from __future__ import annotations

from msgspec.structs import replace

from caso_mesh.identity.claims import is_genuine, sign_claim
from caso_mesh.identity.keys import NodeKeys


def test_a_claim_is_of_one_server_one_mesh_and_one_lineage() -> None:
    keys, other = NodeKeys.create(), NodeKeys.create()
    claim = sign_claim(keys.signing, mesh="meadow", lineage=2)
    assert (claim.node, claim.lineage) == (keys.id, 2)
    assert is_genuine(claim, mesh="meadow", public_key=keys.public_key)
    assert not is_genuine(claim, mesh="forest", public_key=keys.public_key)
    assert not is_genuine(claim, mesh="meadow", public_key=other.public_key)
    assert not is_genuine(replace(claim, lineage=3), mesh="meadow", public_key=keys.public_key)
    assert not is_genuine(replace(claim, node=other.id), mesh="meadow", public_key=other.public_key)
    assert not is_genuine(replace(claim, signature=b""), mesh="meadow", public_key=keys.public_key)
