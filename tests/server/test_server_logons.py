"""A server opens its own copies of secrets, and seals them to others of the roster for the administrator."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.logons import open_logon, seal_logon
from caso_mesh.model import nodes as n
from caso_mesh.model.errors import NoLogon, NotFound, Refused
from caso_mesh.model.logons import LogonOrder
from caso_mesh.model.mesh import RosterRow
from caso_mesh.server.logons import Logons

BETA, GAMMA = NodeKeys.create(), NodeKeys.create()
BOUND = {"mesh": "m1", "name": "db", "version": "v1"}
ADMIN, OTHER = SimpleNamespace(id="admin", name="alpha"), SimpleNamespace(id=GAMMA.id, name="gamma")


def logons(*, sealed: bool = True) -> Logons:
    copy = seal_logon("s3cret", {BETA.id: BETA.encryption_key}, **BOUND, randomness=os.urandom)[BETA.id]
    rows = tuple(
        RosterRow(keys.id, name, "node", keys.public_key, keys.encryption_key)
        for name, keys in (("beta", BETA), ("gamma", GAMMA))
    )
    orders = SimpleNamespace(
        logons=(LogonOrder("db", "backup", "v1", copy if sealed else b""),),
        roster=SimpleNamespace(rows=rows, mesh=SimpleNamespace(id="m1")),
    )
    return Logons(BETA, "beta", lambda: orders, lambda node: node == "admin", os.urandom)


def test_a_command_is_given_user_and_secret_and_neither_is_ever_printed():
    found = logons().credentials("db")
    assert (found.user, found.secret) == ("backup", "s3cret")
    assert "s3cret" not in f"{found!r} {found} {[found]}"


@pytest.mark.parametrize("name", ["db", "other"])
def test_a_server_without_a_copy_says_so(name):
    with pytest.raises(NoLogon) as refused:
        logons(sealed=False).credentials(name)
    assert refused.value.fields == {"server": "beta", "logon": name}


async def test_a_secret_is_sealed_to_another_server_of_the_roster_by_its_key_there():
    reply = await logons().grant(ADMIN, n.LogonGrant("db", "v1", (GAMMA.id,)), None)
    assert open_logon(GAMMA, reply.copies[GAMMA.id], **BOUND) == "s3cret"


@pytest.mark.parametrize(
    ("peer", "request_", "error"),
    [
        (OTHER, n.LogonGrant("db", "v1", (GAMMA.id,)), Refused),
        (ADMIN, n.LogonGrant("db", "v1", ("somebody",)), NotFound),
        (ADMIN, n.LogonGrant("db", "v2", (GAMMA.id,)), NoLogon),
        (ADMIN, n.LogonGrant("other", "v1", (GAMMA.id,)), NoLogon),
    ],
)
async def test_a_secret_is_sealed_for_nobody_but_the_administrator_and_to_nobody_off_the_roster(peer, request_, error):
    with pytest.raises(error):
        await logons().grant(peer, request_, None)
