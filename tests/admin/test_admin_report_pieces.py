"""A report about a large mesh is made beside the loop of the office: what it goes through there between two turns is little,
however many servers there are, and nothing that its thread leaves behind is looked at by the loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.whatif import NOON, SECOND, site

from caso_mesh.admin.gathering import Gathering
from caso_mesh.admin.live import Heard, Live
from caso_mesh.admin.reporting import Reporting
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.admin.what_if import beside_the_loop
from caso_mesh.control.dues import verdict_of
from caso_mesh.control.forecast import forecast
from caso_mesh.control.foretold import Away, Forecast
from caso_mesh.control.state import ControlState
from caso_mesh.database import Database
from caso_mesh.model import nodes as n
from caso_mesh.model.reports import ReportShow
from caso_mesh.planning.choosing import Flaws

SERVERS = 600
#: Of what is asked about each server, between two turns of the loop.
MOST = 150
ASKED = ("settings_of", "pools_of", "name_of", "devices_of")


class Asked:
    """How often each was asked on the loop between two turns of it, at most."""

    def __init__(self) -> None:
        self.worst = dict.fromkeys(ASKED, 0)
        self.now = dict.fromkeys(ASKED, 0)

    def turn(self) -> None:
        """The loop goes on."""
        self.now = dict.fromkeys(ASKED, 0)

    def once(self, name: str) -> None:
        self.now[name] += 1
        self.worst[name] = max(self.worst[name], self.now[name])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found, loop = Asked(), threading.get_ident()

    def counted(name: str) -> Any:
        real = getattr(ControlState, name)

        def ask(self: ControlState, *given: Any) -> Any:
            if threading.get_ident() == loop:
                found.once(name)
            return real(self, *given)

        return ask

    for name in ASKED:
        monkeypatch.setattr(ControlState, name, counted(name))
    return found


class Retaining:
    async def flaws(self) -> Flaws:
        return Flaws()

    def away(self, sets: Any) -> set[str]:
        return set()

    async def verdicts(self, sets: Any, away: Any) -> dict[str, Any]:
        return {}


async def reporting_of(state: ControlState, known: Any, tables: Tables) -> Reporting:
    live = Live()
    for id in state.servers:
        reports = tuple(n.DeviceReport(device.id, 10**12, 10**13, 0) for device in state.devices_of(id))
        live.heard[id] = Heard(0.0, n.Heartbeat(NOON, None, (), (), reports, ()))

    async def knows() -> Any:
        return known

    links: Any = SimpleNamespace(nodes=lambda: list(state.servers), linked=lambda node: True)
    keeper: Any = SimpleNamespace(state=state)
    retaining: Any = Retaining()
    calendar: Any = SimpleNamespace(now_ns=lambda: NOON)
    gathering = Gathering(
        keeper=keeper, tables=tables, live=live, links=links, retaining=retaining, known=knows, own=min(state.servers)
    )
    return Reporting(keeper=keeper, gathering=gathering, calendar=calendar)


async def test_no_report_goes_through_all_servers_between_two_turns_of_the_loop(asked: Asked, tmp_path: Path) -> None:
    """With 3,000 servers some held the loop for 60 ms: for all were asked what holds for them in one go."""
    state, known = site(SERVERS, SERVERS)
    async with Database.open(tmp_path / "tables.db", MIGRATIONS, durable=False) as database:
        reporting = await reporting_of(state, known, Tables(database))
        over = False

        async def turning() -> None:
            while not over:
                asked.turn()
                await asyncio.sleep(0)

        turns = asyncio.create_task(turning())
        for name in ("managed-media-servers", "machines-backed-up", "resource-protection", "overnight-summary"):
            asked.worst = dict.fromkeys(ASKED, 0)
            report = await reporting.report(ReportShow(name, limit=10))
            assert report.tables, name
            most = {each: count for each, count in asked.worst.items() if count > MOST}
            assert (name, most) == (name, {})
        over = True
        await turns


def test_what_a_thread_left_is_not_looked_at_by_the_loop() -> None:
    """The first thing that the loop did after a night of 3,000 runs was to look at millions of new objects for a second."""
    looked: list[int] = []

    def look(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looked.append(sum(len(gc.get_objects(each)) for each in range(info["generation"] + 1)))

    gc.collect()
    with beside_the_loop():
        left = [[number] for number in range(200_000)]
    gc.callbacks.append(look)
    try:
        more = [[number] for number in range(5_000)]
    finally:
        gc.callbacks.remove(look)
    assert gc.isenabled()
    assert (len(left), len(more)) == (200_000, 5_000)
    assert looked, "garbage is looked for again"
    assert looked[0] < 50_000, looked


def test_a_night_that_was_foretold_leaves_no_garbage_behind() -> None:
    """Each plan of it left a circle with all rows in it: after three nights of 3,000 servers garbage was looked for during four
    seconds, in which nobody else went on."""
    state, known = site(30, 30)

    def foretold() -> Forecast:
        times = {"now_ns": NOON, "from_ns": NOON, "until_ns": NOON + 86400 * SECOND}
        return forecast(state.draft(), known, Away(), **times)

    foretold()
    gc.collect()
    gc.disable()
    try:
        assert len(foretold().parts) >= 30
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_verdict_of_the_rules_leaves_no_garbage_behind() -> None:
    """Each left a circle that held the whole draft of a night to come."""
    state, _ = site(3, 3)
    jobs = state.job_list()
    verdict_of(state, jobs[0], NOON + 3600 * SECOND)
    gc.collect()
    gc.disable()
    try:
        for job in jobs:
            verdict_of(state, job, NOON + 3600 * SECOND)
        assert gc.collect() == 0
    finally:
        gc.enable()
