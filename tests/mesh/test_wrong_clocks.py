"""Clocks that are wrong by days, of the administrator and of a member, while links are made: who may work with whom is no
matter of whose clock is right, and nothing is left of it when all are."""

from __future__ import annotations

import asyncio

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v

pytestmark = pytest.mark.jumping
_DAY_S = 86400.0


async def differing(mesh: MemoryMesh) -> set[str]:
    rows = (await mesh.call("alpha", "alert.list", q.AlertListRequest(), v.AlertList)).alerts
    return {row.object for row in rows if row.category == "clock-differs"}


@pytest.mark.parametrize("days", [-1, 1])
@pytest.mark.parametrize("wrong", ["alpha", "beta"])
async def test_a_clock_that_is_wrong_by_a_day_is_told_of_and_keeps_nobody_away(memory_mesh, wrong: str, days: int):
    """Behind by a day a server took the certificates of all who had theirs renewed since for not valid yet: as the
    administrator it was without a mesh, as a member without the administrator, and no alert told why."""
    mesh: MemoryMesh = await memory_mesh(2)
    mesh.clocks[wrong].wall_offset_s = days * _DAY_S
    await mesh.stop("beta")
    await mesh.run("beta")
    await mesh.hang_up()
    await mesh.wait_connected("beta")

    async def told() -> bool:
        return await differing(mesh) == {"beta"}

    await wait_for_async(told, 120.0, what="the administrator tells that the clocks differ", every_s=1.0)


async def test_an_administrator_whose_clock_was_days_ahead_is_back_when_it_is_right(memory_mesh):
    """It had renewed its own certificate by that clock, and was believed by nobody, itself included, for all those days."""
    mesh: MemoryMesh = await memory_mesh(2)
    mesh.clocks["alpha"].wall_offset_s = 9 * _DAY_S
    for name in ("alpha", "beta"):
        await mesh.stop(name)
    alpha = await mesh.run("alpha")
    await wait_for_async(lambda: alpha.in_office, what="alpha is in office")
    await mesh.run("beta")
    await asyncio.sleep(60.0)
    mesh.clocks["alpha"].wall_offset_s = 0.0
    await mesh.hang_up()
    await mesh.wait_connected("beta", timeout_s=120.0)
