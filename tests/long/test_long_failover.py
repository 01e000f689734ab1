"""The administrator is lost again and again: killed thirty times in a row, stopped, cut off alive, gone with its disk."""

from __future__ import annotations

import pathlib
import statistics

import netns
import pytest
from bench.failover import Outcome, measure, measure_lost_disk
from mesh.process import running_mesh
from mesh.site import SiteMesh


def judge(outcome: Outcome) -> None:
    print(outcome)
    assert outcome.good, outcome
    # no target of speed: what would mean that it does not work at all
    assert statistics.median(outcome.accepted_s) < 15.0


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("way", "times"), [("kill", 30), ("pause", 15)])
def test_the_loss_of_the_administrator_loses_nothing_and_disturbs_no_job(
    tmp_path: pathlib.Path, way: str, times: int
) -> None:
    with running_mesh(tmp_path / "mesh") as mesh:
        judge(measure(mesh, times, way))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable()))
@pytest.mark.skipif(not netns.Site.can_drop(), reason="cuts need nftables")
def test_an_administrator_that_is_cut_off_alive_loses_nothing_and_disturbs_no_job(tmp_path: pathlib.Path) -> None:
    with netns.Site(5) as site:
        mesh = SiteMesh(tmp_path / "mesh", site)
        try:
            judge(measure(mesh, 15, "cut"))
        finally:
            mesh.stop()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_of_the_past_is_known_when_the_disk_of_the_administrator_is_gone(tmp_path: pathlib.Path) -> None:
    outcome = Outcome("lose-disk")
    for number in range(3):
        with running_mesh(tmp_path / f"mesh-{number}") as mesh:
            measure_lost_disk(mesh, outcome)
    judge(outcome)
