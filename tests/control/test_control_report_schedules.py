"""Reports that are sent by themselves in the file of the mesh."""

from __future__ import annotations

import pytest
from control.control_world import Script
from control.test_control_plan import apply, plan_of
from msgspec.structs import replace

from caso_mesh.control.exporting import written
from caso_mesh.model.report_schedules import NoteReport, ReportForm

PEOPLE = """
[recipient.ann]
mail = "ann@example.org"

[recipient_group.ops]
members = ["ann"]
"""
FILE = f"""
[pool.west]
{PEOPLE}
[selection.office]
paths = ["alpha:/srv"]

[report_schedule.mornings]
report = "overnight-summary"
schedule = "daily 07:00"
zone = "Europe/Berlin"
to = ["ops", "ann", "ops"]

[report_schedule.weekly]
report = "failed-jobs"
schedule = "0 8 * * 1"
to = ["ann"]
forms = ["csv", "json"]
days = 7
server = "alpha"
pool = "west"
selection = "office"
"""


@pytest.fixture
def mesh() -> Script:
    return Script()


def test_a_file_makes_them_of_what_it_makes_itself_and_again_changes_nothing(mesh: Script) -> None:
    assert apply(mesh, FILE)[-2:] == ["create report schedule mornings", "create report schedule weekly"]
    assert apply(mesh, FILE) == []
    mornings, weekly = mesh.state.report_schedules["mornings"], mesh.state.report_schedules["weekly"]
    assert (mornings.to, mornings.forms, mornings.schedule.zone) == (
        ("ops", "ann"),
        (ReportForm.HTML,),
        "Europe/Berlin",
    )
    assert (weekly.forms, weekly.days, weekly.schedule.zone) == ((ReportForm.CSV, ReportForm.JSON), 7.0, "UTC")
    assert (weekly.server, weekly.pool, weekly.selection) == ("alpha", "west", "office")


def test_an_export_makes_them_elsewhere(mesh: Script) -> None:
    apply(mesh, FILE)
    text = written(mesh.state)
    assert "days = 7\n" in text and apply(mesh, text) == []
    other = Script()
    apply(other, text)
    assert written(other.state) == text


def test_what_was_sent_is_no_change_and_a_change_says_what_it_is(mesh: Script) -> None:
    apply(mesh, FILE)
    mesh.do(NoteReport("mornings", mesh.at_ns))
    assert apply(mesh, FILE) == []
    before = mesh.state.report_schedules["mornings"]
    later = FILE.replace("daily 07:00", "daily 08:00").replace("days = 7\n", "")
    plan = plan_of(mesh, later)
    assert [step.change.details for step in plan.steps] == [
        ('schedule: "daily 07:00" -> "daily 08:00"',),
        ("days: 7 -> as usual",),
    ]
    assert mesh.state.report_schedules["mornings"] == before, "a plan alone does nothing"
    assert apply(mesh, later) == ["change report schedule mornings", "change report schedule weekly"]
    now = mesh.state.report_schedules["mornings"]
    assert replace(now, schedule=before.schedule, last_due_at_ns=before.last_due_at_ns) == before


def test_every_mistake_is_told_with_its_line(mesh: Script) -> None:
    wrong = """\
[report_schedule.a]
report = "no-such-report"
schedule = "now and then"
zone = "Europe/Nowhere"
to = ["ann", "bob"]
forms = ["html", "pdf"]
days = 0
server = "nobody"
pool = "nowhere"
selection = "nothing"
colour = "red"

[report_schedule.b]
report = "failed-jobs"
to = []

[report_schedule.c]
report = "failed-jobs"
schedule = "99 99 * * *"
to = ["ann"]
forms = []

[report_schedule."D E"]
report = "failed-jobs"
schedule = "daily 07:00"
to = ["ann"]
"""
    plan = plan_of(mesh, wrong + PEOPLE)
    told = sorted((mistake.line, mistake.place.rpartition(".")[2]) for mistake in plan.mistakes)
    assert told == [
        (2, "report"), (3, "schedule"), (4, "zone"), (5, "to"), (6, "forms"), (7, "days"), (8, "server"), (9, "pool"),
        (10, "selection"), (11, "colour"), (13, "schedule"), (15, "to"), (19, "schedule"), (21, "forms"),
        (23, "D E"),
    ]  # fmt: skip


def test_a_recipient_that_the_file_gets_wrong_is_told_once(mesh: Script) -> None:
    plan = plan_of(mesh, FILE.replace("ann@example.org", "nobody"))
    assert [mistake.place for mistake in plan.mistakes] == ["recipient.ann.mail"]
