"""A planner that remembers comes to the plans of the one that does not."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from planning.problems import NOW, SECOND, SERVERS, device, devices, part, parts, problems, server, servers

from caso_mesh.planning.placement import OVERDUE_NS, Problem, place
from caso_mesh.planning.planner import Planner

replace = msgspec.structs.replace


def changed(draw, problem: Problem) -> Problem:
    """What one event makes of the tables; rows that it does not touch stay the same objects."""
    match draw(st.sampled_from(["part", "part", "placed", "server", "device", "speed", "grace"])):
        case "part":
            number = draw(st.integers(0, 15))
            others = [row for row in problem.parts if row.run != f"r{number}"]
            new = [draw(parts(number))] if draw(st.booleans()) else []
            return replace(problem, parts=tuple(draw(st.permutations([*others, *new]))))
        case "placed":
            # as it is in the office: what was assigned is active at the next round
            given_out = {(one.run, one.source): one for one in place(problem, NOW).assignments}
            waiting = tuple(row for row in problem.parts if (row.run, row.source) not in given_out)
            running = [one.server for one in given_out.values()]
            busy = [one.device for one in given_out.values()]
            return replace(
                problem,
                parts=waiting,
                servers=tuple(replace(row, running=row.running + running.count(row.id)) for row in problem.servers),
                devices=tuple(replace(row, running=row.running + busy.count(row.id)) for row in problem.devices),
            )
        case "server":
            new = draw(servers(draw(st.sampled_from(SERVERS))))
            return replace(problem, servers=tuple(new if row.id == new.id else row for row in problem.servers))
        case "device":
            new = draw(devices(draw(st.sampled_from(["d0", "d1", "d2"]))))
            return replace(problem, devices=tuple(new if row.id == new.id else row for row in problem.devices))
        case "speed":
            return replace(problem, speeds=tuple((name, "d0", draw(st.floats(0.1, 4))) for name in SERVERS))
    return replace(problem, in_grace=not problem.in_grace)


@given(problems(), st.data())
@settings(deadline=None, max_examples=60)
def test_after_any_events_a_planner_comes_to_the_plan_that_is_made_from_nothing(problem, data):
    planner, now = Planner(), NOW
    for _ in range(6):
        plan, fresh = planner.plan(problem, now), place(problem, now)
        assert plan.assignments == fresh.assignments
        assert dict(plan.waiting) == dict(fresh.waiting)
        now += data.draw(st.sampled_from([0, SECOND, 2 * SECOND, OVERDUE_NS, -SECOND, -OVERDUE_NS]))
        problem = changed(data.draw, problem)


def test_a_planner_takes_what_became_overdue_before_what_is_longer():
    problem = Problem(
        (server("src"), server("a")),
        (device("d", "a", running=1),),
        (part("old", due_at_ns=NOW, predicted_s=1.0), part("new", due_at_ns=NOW + OVERDUE_NS, predicted_s=9.0)),
    )
    planner = Planner()
    assert planner.plan(problem, NOW + OVERDUE_NS).assignments == ()
    idle = replace(problem, devices=(device("d", "a"),))
    assert [one.run for one in planner.plan(idle, NOW + OVERDUE_NS).assignments] == ["new"]
    assert [one.run for one in planner.plan(idle, NOW + OVERDUE_NS + 1).assignments] == ["old"]
