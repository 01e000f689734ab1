"""Load balancing, measured: simulated nights against a lower bound and against simpler rules."""

from __future__ import annotations

from statistics import fmean

import pytest
from bench import placing
from bench.night import FirstAvailable, Night, Work, history_of, lower_bound, nights, ours, simulate

from caso_mesh.model.jobs import Target, TargetKind
from caso_mesh.model.states import DeviceState, ServerState
from caso_mesh.planning.placement import DeviceRow, Problem, ServerRow, place
from caso_mesh.planning.planner import Planner

ANY = Target(TargetKind.ANY)
ONLY_A = Target(TargetKind.DEVICE, "disk-a")


def night(*work: tuple[Target, float], speeds: dict[str, float] | None = None) -> Night:
    names = ("a", "b", "client")
    servers = tuple(
        ServerRow(name, name, ServerState.ENABLED, True, concurrency=1, source_concurrency=9) for name in names
    )
    devices = tuple(DeviceRow(f"disk-{x}", f"disk-{x}", DeviceState.ONLINE, (x,), concurrency=1) for x in "ab")
    runs = tuple(Work(f"r{number}", "client", *each) for number, each in enumerate(work))
    return Night("by hand", servers, devices, (), runs, speeds or {})


def test_no_night_is_shorter_than_its_longest_run_nor_than_its_work_divided_by_the_slots_that_may_do_it():
    assert lower_bound(night((ANY, 10.0), (ANY, 2.0))) == 10.0
    assert lower_bound(night((ANY, 4.0), (ANY, 4.0), (ANY, 4.0))) == 6.0
    assert lower_bound(night((ONLY_A, 4.0), (ONLY_A, 5.0), (ANY, 1.0))) == 9.0
    assert lower_bound(night((ANY, 6.0), (ANY, 6.0), speeds={"a": 0.5})) == pytest.approx(8.0)
    assert lower_bound(night((ONLY_A, 6.0), (ANY, 6.0), speeds={"a": 0.5})) == 12.0


def test_a_night_is_simulated_to_the_second():
    assert simulate(night((ANY, 3.0), (ANY, 5.0), (ANY, 4.0)), FirstAvailable()) == 7.0
    assert simulate(night((ONLY_A, 3.0), (ONLY_A, 5.0), (ANY, 4.0)), ours) == 8.0
    assert simulate(night((ONLY_A, 3.0), speeds={"a": 0.5}), ours) == 6.0


@pytest.mark.parametrize("seed", [0, 1])
def test_nights_end_within_a_tenth_of_the_lower_bound_on_average_and_never_later_than_by_first_available_device(seed):
    ratios = []
    for one in nights(seed):
        took = simulate(one, ours, history_of(one, seed))
        assert took <= simulate(one, FirstAvailable()), one.name
        ratios.append(took / lower_bound(one))
    assert fmean(ratios) <= 1.10


def test_one_slot_and_one_run_more_are_looked_at_alone_and_lead_to_the_same_plan_as_everything_anew():
    table = placing.problem(placing.TARGETS["50 pools"], shared=False)
    planner = Planner()
    table, plan = placing.settled(table, planner)
    after = placing.event(table, placing.random.Random(7), 1)
    assert planner.plan(after, placing.NOW).assignments == place(after, placing.NOW).assignments
    assert isinstance(after, Problem)
    assert len(plan.assignments) > 1000
