"""A day of a small site on real daemons: what was due was done, once, whatever went wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import netns
import pytest
from long.day_judging import judge
from long.day_plan import SERVERS
from long.day_story import Day
from mesh.process import ProcessMesh
from mesh.site import SiteMesh


@pytest.fixture
def site_mesh(tmp_path) -> Iterator[ProcessMesh]:
    """On machines of their own, where there can be any; else on one."""
    with contextlib.ExitStack() as stack:
        if netns.unavailable() is None and netns.Site.can_drop():
            mesh: ProcessMesh = SiteMesh(tmp_path / "mesh", stack.enter_context(netns.Site(len(SERVERS))))
        else:
            mesh = ProcessMesh(tmp_path / "mesh")
        try:
            yield mesh
        finally:
            try:
                mesh.stop()
            finally:
                mesh.show_logs()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_day_of_a_small_site_on_real_daemons(site_mesh: ProcessMesh) -> None:
    """An hour of it takes nine seconds, all of it five minutes: it is lived through in real time, on a machine that has
    some to spare."""
    began_s = time.monotonic()
    day = Day(site_mesh, 7)
    day.live()
    judge(day)
    print(f"a day in {time.monotonic() - began_s:.0f} s; in office {day.offices}; away {day.away}")
