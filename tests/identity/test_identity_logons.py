"""Secrets of logons: each copy opens on its own server only, for its own logon, mesh and version."""

from __future__ import annotations

import os

import pytest

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.logons import open_logon, seal_logon
from caso_mesh.model.errors import SealBroken

BETA, GAMMA = NodeKeys.create(), NodeKeys.create()
BOUND = {"mesh": "m1", "name": "db", "version": "v1"}


def copies() -> dict[str, bytes]:
    keys = {each.id: each.encryption_key for each in (BETA, GAMMA)}
    return seal_logon("s3cret ÄÖ", keys, **BOUND, randomness=os.urandom)


def test_each_server_opens_its_own_copy_and_no_other():
    sealed = copies()
    for keys, other in ((BETA, GAMMA), (GAMMA, BETA)):
        assert open_logon(keys, sealed[keys.id], **BOUND) == "s3cret ÄÖ"
        with pytest.raises(SealBroken):
            open_logon(keys, sealed[other.id], **BOUND)
    assert all(b"s3cret" not in copy for copy in sealed.values())


@pytest.mark.parametrize("changed", [{"mesh": "m2"}, {"name": "db2"}, {"version": "v0"}])
def test_a_copy_that_is_passed_off_as_that_of_another_logon_does_not_open(changed):
    with pytest.raises(SealBroken):
        open_logon(BETA, copies()[BETA.id], **{**BOUND, **changed})


def test_nothing_is_sealed_to_a_key_that_everybody_could_open():
    with pytest.raises(SealBroken):
        seal_logon("x", {"node": bytes(32)}, **BOUND, randomness=os.urandom)
