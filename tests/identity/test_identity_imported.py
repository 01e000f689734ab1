"""What opens a device of another mesh, sealed to servers of this one."""

from __future__ import annotations

import os

import pytest

from caso_mesh.identity.imported import MOST_KEYS, ForeignKeys, open_foreign, seal_foreign
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.errors import InvalidValue, SealBroken

BETA, GAMMA = NodeKeys.create(), NodeKeys.create()
SERVERS = {"beta": BETA.encryption_key, "gamma": GAMMA.encryption_key}


def keys(count: int) -> ForeignKeys:
    return ForeignKeys(b"i" * 32, {f"{number:026d}": os.urandom(32) for number in range(count)})


@pytest.mark.parametrize("count", [1, 60, 61, 62, MOST_KEYS])
def test_each_server_opens_its_own_copy_however_many_content_keys_there_are(count: int) -> None:
    """More than 60 were refused: so many fit into a secret that is wrapped itself."""
    found = keys(count)
    copies = seal_foreign(found, SERVERS, vault="v", randomness=os.urandom)
    assert open_foreign(BETA.unwrap, copies["beta"], vault="v", node="beta") == found
    assert open_foreign(GAMMA.unwrap, copies["gamma"], vault="v", node="gamma") == found
    assert all(key not in copy for copy in copies.values() for key in found.content_keys.values())
    # with servers by the dozen a command holds them yet
    assert max(map(len, copies.values())) < 64 * 1024


@pytest.mark.parametrize("count", [1, 200])
def test_a_copy_opens_for_its_server_and_its_vault_only_and_as_a_whole(count: int) -> None:
    copies = seal_foreign(keys(count), SERVERS, vault="v", randomness=os.urandom)
    beta = copies["beta"]
    wrong = [
        (GAMMA, beta, "v", "beta"),
        (BETA, copies["gamma"], "v", "beta"),
        (BETA, beta, "another", "beta"),
        (BETA, beta, "v", "gamma"),
        *((BETA, beta[:at] + bytes([beta[at] ^ 1]) + beta[at + 1 :], "v", "beta") for at in range(0, len(beta), 97)),
        *((BETA, beta[:size], "v", "beta") for size in (0, 1, 40, 82, 100, len(beta) - 1)),
    ]
    for server, copy, vault, node in wrong:
        with pytest.raises(SealBroken):
            open_foreign(server.unwrap, copy, vault=vault, node=node)


def test_the_pieces_of_two_copies_do_not_open_together() -> None:
    one, other = (seal_foreign(keys(100), SERVERS, vault="v", randomness=os.urandom)["beta"] for _ in range(2))
    with pytest.raises(SealBroken):
        open_foreign(BETA.unwrap, one[:82] + other[82:], vault="v", node="beta")


def test_more_content_keys_than_the_control_state_has_room_for_are_refused() -> None:
    with pytest.raises(InvalidValue, match="1001"):
        seal_foreign(keys(MOST_KEYS + 1), SERVERS, vault="v", randomness=os.urandom)
