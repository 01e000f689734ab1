"""Device and media data location: a field of each server; on the server itself it goes with a distributed catalog only."""

from __future__ import annotations

import pytest
from control_world import Script

from caso_mesh.control.catalogs import distributed, mode_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.catalogs import CatalogMode
from caso_mesh.model.commands import SetDataLocation, SetSetting
from caso_mesh.model.errors import REFUSED, DataLocationRefused, InvalidValue, NotFound
from caso_mesh.model.features import level_of
from caso_mesh.model.states import DataLocation

BETA = "node-beta"


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta")
    return script


def test_device_and_media_data_are_on_the_administrator_and_may_be_said_to_be(mesh):
    assert mesh.state.server_named("beta").data_location is DataLocation.ADMIN
    mesh.do(SetDataLocation(BETA, DataLocation.ADMIN))
    other = ControlState()
    other.restore(mesh.state.snapshot())
    assert other.server_named("beta").data_location is DataLocation.ADMIN
    with pytest.raises(NotFound):
        mesh.do(SetDataLocation("node-nobody", DataLocation.ADMIN))


@pytest.mark.parametrize("mode", ["centralized", "replicated"])
def test_on_the_server_they_are_refused_with_the_reason_unless_the_catalog_is_distributed(mesh, mode):
    mesh.do(SetSetting("catalog-mode", mode))
    with pytest.raises(DataLocationRefused, match=f"with the catalog mode {mode}") as refused:
        mesh.do(SetDataLocation(BETA, DataLocation.SERVER))
    assert refused.value.exit_status == REFUSED
    assert mesh.state.server_named("beta").data_location is DataLocation.ADMIN
    mesh.do(SetSetting("catalog-mode", "distributed", server=BETA))
    mesh.do(SetDataLocation(BETA, DataLocation.SERVER))
    assert mesh.state.server_named("beta").data_location is DataLocation.SERVER


def test_while_they_are_on_the_server_its_catalog_is_distributed_whatever_others_are_told(mesh):
    mesh.do(SetSetting("catalog-mode", "distributed"))
    mesh.do(SetDataLocation(BETA, DataLocation.SERVER))
    with pytest.raises(DataLocationRefused, match="with the catalog mode replicated"):
        mesh.do(SetSetting("catalog-mode", "replicated", server=BETA))
    mesh.do(SetSetting("catalog-mode", "centralized"))
    assert mode_of(mesh.state, BETA) is CatalogMode.DISTRIBUTED
    assert distributed(mesh.state) == {BETA: BETA}
    assert mesh.state.settings_of(BETA)["catalog-mode"] == "distributed"
    assert mesh.state.settings_with_origin(BETA)["catalog-mode"] == ("distributed", "data-location")
    mesh.do(SetDataLocation(BETA, DataLocation.ADMIN))
    assert mode_of(mesh.state, BETA) is CatalogMode.CENTRALIZED
    assert distributed(mesh.state) == {}


def test_a_mode_is_one_of_three_words_the_narrower_scope_wins_and_who_left_has_none(mesh):
    with pytest.raises(InvalidValue) as wrong:
        mesh.do(SetSetting("catalog-mode", "elsewhere"))
    assert "centralized, distributed, replicated" in wrong.value.hint
    mesh.do(SetSetting("catalog-mode", "replicated"))
    mesh.do(SetSetting("catalog-mode", "distributed", server=BETA))
    assert (mode_of(mesh.state, BETA), distributed(mesh.state)) == (CatalogMode.DISTRIBUTED, {BETA: BETA})
    assert mode_of(mesh.state, "node-gone") is CatalogMode.CENTRALIZED


def test_voters_of_before_are_not_handed_what_they_would_judge_otherwise():
    assert level_of(SetSetting("catalog-mode", "distributed")) == 3
    assert level_of(SetSetting("stalled-after-s", 90.0)) == 1
    assert level_of(SetDataLocation(BETA, DataLocation.SERVER)) == 3
    assert level_of(SetDataLocation(BETA, DataLocation.ADMIN)) == 2
