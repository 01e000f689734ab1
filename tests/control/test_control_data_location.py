"""Device and media data location: a field of each server, on the administrator until catalogs can be distributed."""

from __future__ import annotations

import pytest
from control_world import Script

from caso_mesh.control.state import ControlState
from caso_mesh.model.commands import SetDataLocation
from caso_mesh.model.errors import REFUSED, DataLocationRefused, NotFound
from caso_mesh.model.states import DataLocation


@pytest.fixture
def mesh() -> Script:
    script = Script()
    script.admit("beta")
    return script


def test_device_and_media_data_are_on_the_administrator_and_may_be_said_to_be(mesh):
    assert mesh.state.server_named("beta").data_location is DataLocation.ADMIN
    mesh.do(SetDataLocation("node-beta", DataLocation.ADMIN))
    other = ControlState()
    other.restore(mesh.state.snapshot())
    assert other.server_named("beta").data_location is DataLocation.ADMIN
    with pytest.raises(NotFound):
        mesh.do(SetDataLocation("node-nobody", DataLocation.ADMIN))


def test_device_and_media_data_on_the_server_are_refused_with_the_reason(mesh):
    with pytest.raises(DataLocationRefused, match="distributed catalog") as refused:
        mesh.do(SetDataLocation("node-beta", DataLocation.SERVER))
    assert refused.value.exit_status == REFUSED
    assert mesh.state.server_named("beta").data_location is DataLocation.ADMIN
