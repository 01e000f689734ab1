"""Reports that are made by themselves: once for each time that they are due, whoever is in office."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world

from caso_mesh.admin.sending_reports import message_of
from caso_mesh.model import requests as q
from caso_mesh.model.errors import AlreadyExists, InUse, InvalidSchedule, InvalidValue, NotFound, UsageError
from caso_mesh.model.features import level_of
from caso_mesh.model.jobs import CronSchedule
from caso_mesh.model.notices import DeleteRecipient, Message, PutRecipient, Recipient
from caso_mesh.model.report_schedules import (
    NoteReport,
    PutReportSchedule,
    ReportForm,
    ReportSchedule,
    ReportScheduleEdit,
    ReportScheduleList,
    ReportScheduleName,
)
from caso_mesh.model.reports import Report

pytestmark = pytest.mark.jumping
MINUTE = 60.0


class Post:
    """An outbox: what was posted, and who has not got it yet."""

    def __init__(self) -> None:
        self.posted: list[Message] = []
        self.waiting: tuple[str, ...] = ()

    async def post(self, message: Message, keys: tuple[str, ...] = ()) -> tuple[str, ...]:
        if message.type != "report":
            return ()
        if not self.posted or self.posted[-1].key != message.key:
            self.posted.append(message)
        return self.waiting

    def keys(self) -> list[str]:
        return [each.key for each in self.posted]


async def ready(w: World) -> Post:
    """In office, with an outbox that is looked at, also of later offices; there is one recipient."""
    box, make = Post(), w.make_office

    def made() -> Any:
        office = make()
        office.reports.outbox.post = box.post  # type: ignore[method-assign]
        return office

    w.make_office = made  # type: ignore[method-assign]
    await w.another_office()
    await w.submit(PutRecipient(Recipient("ann", "ann@example.org", "", 0), new=True))
    return box


def edit(name: str = "mornings", schedule: str = "*/10 * * * *", **fields: Any) -> ReportScheduleEdit:
    return ReportScheduleEdit(
        **{"name": name, "report": "overnight-summary", "schedule": schedule, "to": ("ann",)} | fields
    )


async def at(w: World, minutes: float) -> None:
    await w.until(lambda: w.clock.monotonic_s() >= minutes * MINUTE, minutes * MINUTE + 60)


async def test_a_report_is_sent_once_for_each_time_that_it_is_due(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        box = await ready(w)
        view = await w.ask("report.schedule", edit(zone="Europe/Berlin", forms=("html", "csv")))
        assert view.next_due == "2025-01-06T00:10:00Z"
        await at(w, 9.5)
        assert box.posted == []
        await at(w, 11)
        (message,) = box.posted
        due_ns = int(message.key.rpartition("-")[2])
        assert message.key == f"report-mornings-{due_ns}"
        assert (due_ns // 10**9) % 600 == 0
        assert message.recipients == ("ann",)
        assert w.state.report_schedules["mornings"].last_due_at_ns == due_ns
        await at(w, 21)
        assert len(set(box.keys())) == 2
        listed = await w.ask("report.scheduled", q.Nothing())
        assert isinstance(listed, ReportScheduleList)
        assert listed.schedules[0].last_due == "2025-01-06T00:20:00Z"


async def test_the_next_administrator_posts_what_has_not_arrived_and_nothing_else(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        box = await ready(w)
        box.waiting = ("ann",)
        await w.ask("report.schedule", edit())
        await at(w, 11)
        assert len(box.posted) == 1
        assert w.state.report_schedules["mornings"].last_due_at_ns is None, "nobody has it yet"
        await w.another_office()
        await at(w, 12)
        assert set(box.keys()) == {box.posted[0].key}, "another key would be another report"
        box.waiting = ()
        await w.until(lambda: w.state.report_schedules["mornings"].last_due_at_ns)
        await w.another_office()
        await at(w, 15)
        assert len(set(box.keys())) == 1


async def test_of_what_was_due_while_nobody_was_in_office_the_last_one_is_sent(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        box = await ready(w)
        await w.ask("report.schedule", edit())
        await w.stop()
        await at(w, 45)
        await w.another_office()
        await w.until(lambda: w.state.report_schedules["mornings"].last_due_at_ns, 600)
        (message,) = box.posted
        assert (int(message.key.rpartition("-")[2]) // 10**9) % 3600 == 40 * 60


async def test_a_report_that_cannot_be_made_is_an_alert_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        box = await ready(w)
        await w.ask("report.schedule", edit(server="gamma"))
        await w.ask("device.remove", q.DeviceName("dgamma"))
        await w.ask("pool.set", q.PoolEdit("p", ("beta",)))
        await w.ask("server.remove", q.ServerName("gamma"))
        await at(w, 11)
        (alert,) = w.facts.alerts("report-failed")
        assert (alert.object, "gamma" in alert.text) == ("mornings", True)
        assert box.posted == []
        await at(w, 15)
        assert len(w.facts.alerts("report-failed")) == 1
        await w.ask("report.schedule", edit(replace=True))
        await at(w, 21)
        assert len(box.posted) == 1


async def test_a_schedule_that_means_nothing_is_refused_when_it_is_made(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await ready(w)
        for fields, error in (
            ({"report": "nonsense"}, NotFound), ({"to": ("bob",)}, NotFound), ({"to": ()}, UsageError),
            ({"schedule": "now and then"}, InvalidSchedule), ({"forms": ("pdf",)}, InvalidValue), ({"forms": ()}, UsageError),
            ({"server": "nobody"}, NotFound), ({"days": 0.0}, InvalidValue), ({"replace": True}, NotFound),
        ):  # fmt: skip
            with pytest.raises(error):
                await w.ask("report.schedule", edit(**fields))
        await w.ask("report.schedule", edit())
        with pytest.raises(AlreadyExists):
            await w.ask("report.schedule", edit())
        with pytest.raises(InUse, match="report mornings"):
            await w.submit(DeleteRecipient("ann"))
        await w.ask("report.unschedule", ReportScheduleName("mornings"))
        await w.submit(DeleteRecipient("ann"))
        with pytest.raises(NotFound):
            await w.ask("report.unschedule", ReportScheduleName("mornings"))


def test_what_is_sent_holds_what_was_asked_for() -> None:
    row = ReportSchedule("x", "failed-jobs", CronSchedule("0 7 * * *", "UTC"), ("ann",), (ReportForm.TEXT,))
    bad = "\r\nBcc: x@y \udcff"
    report = Report(
        name="failed-jobs", title="Failed jobs", answers="?", mesh="home", made="2026-01-16T06:00:00Z",
        begins="2026-01-15T06:00:00Z", until="2026-01-16T06:00:00Z", zone="UTC", verdict=f"It failed: {bad}", good=False,
    )  # fmt: skip
    plain = message_of(row, report, 5)
    assert (plain.key, plain.html, plain.attachments) == ("report-x-5", None, ())
    assert plain.subject.startswith("! Failed jobs: It failed")
    assert "\n" not in plain.subject
    assert plain.data["verdict"] == report.verdict
    row = ReportSchedule("x", "failed-jobs", row.schedule, ("ann",), (ReportForm.HTML, ReportForm.JSON))
    full = message_of(row, report, 5)
    assert full.html is not None and full.html.startswith("<!doctype html>")
    assert [each.name for each in full.attachments] == ["failed-jobs-2026-01-16.json", "failed-jobs-2026-01-16.html"]
    assert all(each.data for each in full.attachments)


def test_these_commands_wait_until_all_voters_know_them() -> None:
    row = ReportSchedule("x", "failed-jobs", CronSchedule("0 7 * * *", "UTC"), ("ann",))
    assert {level_of(PutReportSchedule(row, new=True)), level_of(NoteReport("x", 1))} == {3}
