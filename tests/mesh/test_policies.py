"""Policies through a whole mesh: lists and policies make jobs, which run, wait, give way and start each other."""

from __future__ import annotations

from typing import Any

import pytest
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import EntryDoc, PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import CasoError
from caso_mesh.model.listing import CatalogFind

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
        # for a minute after it was noticed, which takes up to half a minute, that a clock was set nothing is opened
        for each in mesh.clocks.values():
            each.wall_offset_s += left_s - 120
    await wait_for_async(
        lambda: clock.monotonic_s() + clock.wall_offset_s >= at_s, HOUR, every_s=5, what=f"January {day}"
    )


async def runs_of(mesh: Any, job: str) -> list[tuple[str, str]]:
    """Due time and state of the runs of a job, oldest first."""
    detail = await mesh.call("alpha", "job.show", q.JobName(job), o.JobDetail)
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
    shown = await mesh.call("alpha", "job.show", q.JobName("home.nightly.daily"), o.JobDetail)
    assert (shown.origin.policy, shown.origin.selection, shown.origin.template) == ("nightly", "home", "daily")
    assert (shown.schedule, shown.zone, shown.next_due) == ("daily 22:00", "Europe/Berlin", "2025-01-06T21:00:00Z")
    for day in (6, 7, 8):
        await until(mesh, day, 21, 3)
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


async def test_on_a_night_with_both_the_incremental_gives_way_to_the_full_which_is_then_verified(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    await make(
        mesh,
        tree,
        ("when full succeeds start check",),
        full=TemplateDoc("full", to="server:beta", schedule="fri 22:00"),
        daily=TemplateDoc("incremental", to="server:beta", schedule="daily 22:00"),
        check=TemplateDoc("verify"),
    )
    request = q.SchedulePreview("home", 5.0)
    rows = (await mesh.call("alpha", "schedule.preview", request, v.PreviewList)).runs
    assert [(row.due[:10], row.template, row.state, row.by) for row in rows[-3:]] == [
        ("2025-01-09", "daily", "scheduled", None),
        ("2025-01-10", "daily", "superseded", "home.nightly.full"),
        ("2025-01-10", "full", "scheduled", None),
    ]
    assert rows[-1].starts == ("when full succeeds start check",)
    await until(mesh, 9, 21, 2)
    await until(mesh, 10, 21, 5)
    assert (await runs_of(mesh, "home.nightly.daily"))[-2:] == [
        ("2025-01-09T21:00:00Z", "succeeded"),
        ("2025-01-10T21:00:00Z", "superseded"),
    ]
    assert await runs_of(mesh, "home.nightly.full") == [("2025-01-10T21:00:00Z", "succeeded")]
    assert [state for _, state in await runs_of(mesh, "home.nightly.check")] == ["succeeded"]
    check = await mesh.call("alpha", "job.show", q.JobName("home.nightly.check"), o.JobDetail)
    full = await mesh.call("alpha", "job.show", q.JobName("home.nightly.full"), o.JobDetail)
    daily = await mesh.call("alpha", "job.show", q.JobName("home.nightly.daily"), o.JobDetail)
    assert check.runs[0].note == f"started by {full.runs[0].run}"
    assert check.runs[0].sets[0].set == full.runs[0].sets[0].set, "what was just written is read back"
    assert daily.runs[0].note == f"superseded by {full.runs[0].run}"
    sets = sorted(await mesh.sets(), key=lambda row: row.ended)
    assert [row.type for row in sets] == ["full", "full"], "the first incremental had nothing to build on"


async def test_an_incremental_builds_on_the_newest_set_of_its_list_whichever_template_made_it(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = await memory_mesh(1)
    await mesh.add_device("alpha")
    await make(
        mesh,
        tree,
        full=TemplateDoc("full", to="any"),
        daily=TemplateDoc("incremental", to="any"),
        other=TemplateDoc("differential", to="any"),
    )
    types = []
    for template in ("full", "daily", "other", "daily"):
        (tree / template).write_bytes(template.encode())
        run = await mesh.call("alpha", "job.run", q.JobName(f"home.nightly.{template}"), o.Submitted)
        result = await mesh.result(run.run)
        assert result.state == "succeeded", result
        types.append(result.type)
    assert types == ["full", "incremental", "differential", "incremental"]
    listed = (await mesh.call("alpha", "selection.show", q.Named("home"), v.SelectionView)).definition
    edited = q.SelectionSet("home", SelectionDoc(paths=listed.paths, exclude=("full",)))
    await mesh.call("alpha", "selection.set", edited, v.SelectionView)
    run = await mesh.call("alpha", "job.run", q.JobName("home.nightly.daily"), o.Submitted)
    assert (await mesh.result(run.run)).type == "full", "of another selection nothing is there to build on"


async def test_patterns_of_an_entry_hold_below_it_alone(memory_mesh, tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / "data" / name
        (folder / "sub").mkdir(parents=True)
        for file in ("a.txt", "a.tmp", "sub/b.txt", "sub/b.tmp"):
            (folder / file).write_bytes(file.encode())
    mesh = await memory_mesh(1)
    await mesh.add_device("alpha")
    listed = SelectionDoc(
        entries=(
            EntryDoc(f"alpha:{tmp_path}/data/one", exclude=("*.tmp",)),
            EntryDoc(f"alpha:{tmp_path}/data/two", include=("*.tmp",)),
        )
    )
    await mesh.call("alpha", "selection.create", q.SelectionCreate("home", listed), v.SelectionView)
    policy = PolicyDoc({"full": TemplateDoc("full", to="any")})
    await mesh.call("alpha", "policy.create", q.PolicyCreate("p", policy), v.PolicyView)
    await mesh.call("alpha", "associate", q.AssociationEdit("home", "p"), v.PolicyView)
    run = await mesh.call("alpha", "job.run", q.JobName("home.p.full"), o.Submitted)
    result = await mesh.result(run.run)
    found = await mesh.call("alpha", "catalog.find", CatalogFind(b"*.t[xm][tp]"), b.MatchList)
    paths = sorted(match.path.removeprefix(f"{tmp_path}/data/") for match in found.matches)
    assert result.state == "succeeded"
    assert paths == ["one/a.txt", "one/sub/b.txt", "two/a.tmp", "two/sub/b.tmp"]


async def test_a_file_that_is_applied_makes_jobs_that_run_and_says_what_is_wrong_at_the_servers(memory_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    text = f"""
[selection.home]
paths = ["alpha:{tree}"]
[policy.nightly.templates.full]
type = "full"
to = "server:beta"
schedule = "daily 22:00"
[associations]
home = ["nightly"]
"""
    wrong = (
        text.replace(f'"alpha:{tree}"', f'"alpha:{tree}", "alpha:{tree}/not-there",\n    "alpha:{tree}/nor-there"')
        .replace('schedule = "daily 22:00"', 'schedule = "once 2025-01-01T00:00"\npre = "no-such"\nmedia_set = "none"')
        .replace("[associations]", f'[job.logs]\npaths = ["alpha:{tree}/no-log"]\nto = "any"\nschedule = "daily 22:00"\n[associations]')
    )  # fmt: skip
    refused = await mesh.call("alpha", "config.apply", q.ConfigApply(wrong), v.Applied)
    assert (refused.applied, [(each.line, each.place) for each in refused.mistakes]) == (
        False,
        [
            (3, "selection.home"),
            (4, "selection.home"),
            (9, "policy.nightly.templates.full"),
            (10, "policy.nightly.templates.full.media_set"),
            (12, "job.logs"),
        ],
    )
    assert (await mesh.call("alpha", "selection.list", q.Nothing(), v.SelectionViews)).selections == ()
    tried = await mesh.call("alpha", "config.apply", q.ConfigApply(text, dry_run=True), v.Applied)
    assert (tried.applied, len(tried.changes)) == (False, 3)
    assert await mesh.jobs() == ()
    done = await mesh.call("alpha", "config.apply", q.ConfigApply(text), v.Applied)
    assert (done.applied, done.changes) == (True, tried.changes)
    exported = await mesh.call("alpha", "config.export", q.Nothing(), v.Exported)
    again = await mesh.call("alpha", "config.apply", q.ConfigApply(exported.text), v.Applied)
    assert again.changes == ()
    over = '[policy.past.templates.once]\ntype = "full"\nto = "any"\nschedule = "once 2025-01-01T00:00"\n'
    told = await mesh.call("alpha", "config.apply", q.ConfigApply(over), v.Applied)
    assert (told.applied, len(told.changes)) == (True, 1), "as the export of a mesh has it in which it ran by now"
    assert "past.once" in told.warnings[0]
    assert "is over" in told.warnings[0]
    run = await mesh.call("alpha", "job.run", q.JobName("home.nightly.full"), o.Submitted)
    assert (await mesh.result(run.run)).state == "succeeded"
