"""Devices are looked at every few seconds, and what is new is told at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from caso_mesh.model.nodes import DeviceReport
from caso_mesh.model.settings import BY_NAME
from caso_mesh.server.survey import Survey

pytestmark = pytest.mark.jumping
HEARTBEAT_S = 5.0


async def test_a_device_that_lost_its_vault_is_told_within_a_heartbeat() -> None:
    """It was shown as online for ten seconds after its folder had been emptied."""
    assert BY_NAME["heartbeat-interval-s"].default == HEARTBEAT_S
    report, told, loop = DeviceReport("d1", 100, 1000, 0), list[float](), asyncio.get_running_loop()

    class Storage:
        async def reports(self, devices: Any) -> tuple[DeviceReport, ...]:
            return (report,)

    storage: Any = Storage()
    orders: Any = SimpleNamespace(devices=[])
    survey = Survey(storage=storage, orders=lambda: orders, node="n", news=lambda: told.append(loop.time()))
    looking = asyncio.create_task(survey.run())
    try:
        await asyncio.sleep(2 * HEARTBEAT_S + 0.1)
        told.clear()
        report, gone_s = DeviceReport("d1", 0, 0, 0, problem="device-vanished"), loop.time()
        await asyncio.sleep(HEARTBEAT_S)
        assert len(told) == 1, "once, and not with each look"
        assert told[0] - gone_s <= HEARTBEAT_S
        assert survey.reports == (report,)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
