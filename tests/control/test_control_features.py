"""The feature level: nothing is proposed that a voter does not understand."""

from __future__ import annotations

import pytest
from control_world import NOW, Script

from caso_mesh.control.reducer import validate
from caso_mesh.model import features
from caso_mesh.model.commands import Batch, CreatePool
from caso_mesh.model.errors import FeatureLevelTooLow
from caso_mesh.model.features import SetFeatureLevel, level_of
from caso_mesh.model.mesh import Pool

POOL = CreatePool(Pool("store", ()))


def test_a_command_of_a_later_level_is_not_proposed_before_the_mesh_is_at_it(monkeypatch):
    script = Script()
    monkeypatch.setattr(features, "SINCE", {"create-pool": 2})
    for command in (POOL, Batch((POOL,), "seed")):
        assert level_of(command) == 2
        with pytest.raises(FeatureLevelTooLow) as refused:
            validate(script.state, command, at_ns=NOW)
        assert (refused.value.fields["needed"], refused.value.fields["level"]) == (2, 1)
    script.do(SetFeatureLevel(2))
    validate(script.state, POOL, at_ns=NOW)


def test_what_was_committed_is_applied_whatever_its_level_since_every_voter_understood_it(monkeypatch):
    script = Script()
    monkeypatch.setattr(features, "SINCE", {"create-pool": 2})
    script.do(POOL)
    assert script.state.pool_named("store")


def test_the_level_never_falls_and_lies_in_the_snapshot():
    script = Script()
    script.do(SetFeatureLevel(3))
    script.do(SetFeatureLevel(2))
    assert script.state.info().feature_level == 3
    after = type(script.state)()
    after.restore(script.state.snapshot())
    assert after.info().feature_level == 3
