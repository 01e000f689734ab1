"""Policies through a whole mesh: lists and policies make jobs, which run, wait, give way and start each other."""

from __future__ import annotations

from typing import Any

import pytest
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import CasoError

pytestmark = pytest.mark.jumping
HOUR = 3600


async def make(mesh: Any, tree: Any, rules: tuple[str, ...] = (), *, source: str = "alpha", **templates: TemplateDoc):
    """The list ``home`` of one tree and the policy ``nightly``, associated."""
    listed = SelectionDoc(paths=(f"{source}:{tree}",))
    await mesh.call("alpha", "selection.create", q.SelectionCreate("home", listed), v.SelectionView)
    policy = PolicyDoc(templates=templates, rules=rules, zone="Europe/Berlin")
    await mesh.call("alpha", "policy.create", q.PolicyCreate("nightly", policy), v.PolicyView)
    return await mesh.call("alpha", "associate", q.AssociationEdit("home", "nightly"), v.PolicyView)


async def until(mesh: Any, day: int, hour: int, minute: int = 0) -> None:
    """Until that time (UTC) of January 2025, which begins for these meshes on the 6th, a Monday. Most of the way the
    clocks of all servers are set, as no day of heartbeats has to be lived through for it."""
    at_s = ((day - 6) * 24 + hour) * HOUR + minute * 60
    clock = mesh.clock("alpha")
    left_s = at_s - clock.monotonic_s() - clock.wall_offset_s
    if left_s > 300:
        # for a minute after a clock was set nothing is opened
        for each in mesh.clocks.values():
            each.wall_offset_s += left_s - 120
    await wait_for_async(
        lambda: clock.monotonic_s() + clock.wall_offset_s >= at_s, HOUR, every_s=5, what=f"January {day}"
    )


async def runs_of(mesh: Any, job: str) -> list[tuple[str, str]]:
    """Due time and state of the runs of a job, oldest first."""
    detail = await mesh.call("alpha", "job.show", q.JobName(job), v.JobDetail)
    return [(run.due, run.state) for run in detail.runs][::-1]


async def test_a_list_and_a_policy_make_one_job_per_template_that_runs_and_says_what_it_was_made_of(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    view = await make(
        mesh,
        tree,
        full=TemplateDoc("full", to="server:beta", schedule="last fri 22:00"),
        daily=TemplateDoc("incremental", to="server:beta", schedule="daily 22:00"),
    )
    assert view.jobs == ("home.nightly.daily", "home.nightly.full")
    shown = await mesh.call("alpha", "job.show", q.JobName("home.nightly.daily"), v.JobDetail)
    assert (shown.origin.policy, shown.origin.selection, shown.origin.template) == ("nightly", "home", "daily")
    assert (shown.schedule, shown.zone, shown.next_due) == ("daily 22:00", "Europe/Berlin", "2025-01-06T21:00:00Z")
    for day in (6, 7, 8):
        await until(mesh, day, 21, 1)
    assert await runs_of(mesh, "home.nightly.daily") == [
        ("2025-01-06T21:00:00Z", "succeeded"),
        ("2025-01-07T21:00:00Z", "succeeded"),
        ("2025-01-08T21:00:00Z", "succeeded"),
    ]
    sets = sorted(await mesh.sets(), key=lambda row: row.ended)
    assert [row.type for row in sets] == ["full", "incremental", "incremental"]
    with pytest.raises(CasoError) as refused:
        await mesh.call("alpha", "job.delete", q.JobName("home.nightly.daily"), v.Done)
    assert refused.value.code == "made-by-policy"
    assert "nightly" in refused.value.message
    assert "associate home nightly --remove" in refused.value.hint
    await mesh.call("alpha", "dissociate", q.AssociationEdit("home", "nightly"), v.PolicyView)
    assert await mesh.jobs() == ()
    assert len(await mesh.sets()) == 3, "the sets stay"
