"""The same report as text, CSV, JSON and HTML: exact where machines read it, harmless whatever names look like."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from msgspec.structs import replace
from report_world import DAY, HOSTILE, NOW, hostile_site, site

from caso_mesh.model.errors import NotFound
from caso_mesh.model.reports import Chart, ChartKind, Column, Kind, Report, Series, Table, Tone
from caso_mesh.model.units import format_instant
from caso_mesh.reports import catalogue, document, drawing, page, sheets, text
from caso_mesh.reports.markup import escaped, tag

NAMES = [each.name for each in catalogue.REPORTS]


def small(*rows: tuple[object, ...]) -> Report:
    columns = (Column("name", "Name"), Column("size", "Size", Kind.BYTES), Column("at", "At", Kind.INSTANT))
    return Report(
        name="r", title="R", answers="What?", mesh="home", made="2026-01-16T06:00:00Z", begins="2026-01-15T06:00:00Z",
        until="2026-01-16T06:00:00Z", zone="Europe/Berlin", verdict="So.", tables=(Table("t", "T", columns, rows),),  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_report_has_all_forms_and_says_the_same_in_each(name: str) -> None:
    report = catalogue.made(name, site())
    assert report.verdict in text.render(report)
    assert str(escaped(report.verdict)) in page.render(report)
    told = json.loads(document.render(report))
    assert (told["format"], told["name"], told["verdict"]) == (1, name, report.verdict)
    for table, sheet, shown in zip(report.tables, sheets.sheets(report), told["tables"], strict=True):
        read = list(csv.reader(io.StringIO(sheet.text, newline="")))
        assert read[0] == [column.name for column in table.columns] == list(dict.fromkeys(read[0]))
        assert len(read) - 1 == len(table.rows) == len(shown["rows"])
        assert all(list(row) == read[0] for row in shown["rows"])


@pytest.mark.parametrize("name", NAMES)
def test_every_report_can_be_made_of_nothing_at_all(name: str) -> None:
    empty = dict.fromkeys(("runs", "sets", "ages", "devices", "media", "media_sets", "servers", "alerts", "audit", "resources", "workload"), ())  # fmt: skip
    report = catalogue.made(name, site(**empty))
    assert report.verdict
    assert all(table.empty for table in report.tables)
    assert page.render(report)
    assert text.render(report)
    assert not any(table.rows for table in report.tables if table.name != "media_sets")


@pytest.mark.parametrize("name", NAMES)
def test_every_report_says_something_of_the_site(name: str) -> None:
    report = catalogue.made(name, site())
    assert any(table.rows for table in report.tables)
    assert all(len(row) == len(table.columns) for table in report.tables for row in table.rows)
    assert all(len(series.values) == len(chart.labels) for chart in report.charts for series in chart.series)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_gets_out_of_the_place_where_it_stands(name: str) -> None:
    report = catalogue.made(name, hostile_site())
    shown = page.render(report)
    assert "<script" not in shown
    assert "<img" not in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    for line in text.render(report).splitlines():
        assert line.isprintable(), line
    for sheet in sheets.sheets(report):
        for row in csv.reader(io.StringIO(sheet.text, newline="")):
            assert not [cell for cell in row if cell[:1] in {"=", "+", "@", "\t", "\r"}]
    cells = [cell for table in report.tables for row in table.rows for cell in row]
    assert any(HOSTILE in str(cell) for cell in cells), "nothing hostile was in it"


def test_a_sheet_is_as_the_standard_of_csv_says() -> None:
    """RFC 4180: lines end in CR LF, a quote is doubled, what holds a comma, a quote or a line break is quoted."""
    (sheet,) = sheets.sheets(small(('a"b,c\nd', 1_500_000, "2026-01-16T01:00:00Z"), ("plain", None, None)))
    assert sheet.text == 'name,size,at\r\n"a""b,c\nd",1500000,2026-01-16T01:00:00Z\r\nplain,,\r\n'


@pytest.mark.parametrize("bad", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(bad: str) -> None:
    assert sheets.guarded(bad) == f"'{bad}"
    assert sheets.guarded("a=1") == "a=1"
    (sheet,) = sheets.sheets(small(("x", -5, None)))
    assert sheet.text.endswith("x,-5,\r\n"), "a number is no text"


def test_markup_is_made_of_text_by_escaping_all_of_it() -> None:
    assert tag("p", "<b>&\"'", title='"x" y') == '<p title="&quot;x&quot; y">&lt;b&gt;&amp;&quot;&#x27;</p>'
    assert tag("p", tag("b", "x"), None, ["y", None]) == "<p><b>x</b>y</p>"
    assert escaped("a\x00b\ud800\u200f") == "a\\x00b\\ud800\\u200f"


def test_times_of_day_are_those_of_the_zone_and_machines_read_utc() -> None:
    report = small(("x", 0, "2026-01-16T01:00:00Z"))
    assert "2026-01-16 02:00" in text.render(report)
    assert "2026-01-16 02:00" in re.sub(r"</?span[^>]*>", "", page.render(report))
    assert json.loads(document.render(report))["tables"][0]["rows"][0]["at"] == "2026-01-16T01:00:00Z"


def test_rows_beyond_the_limit_are_counted_not_shown() -> None:
    report = catalogue.made("failed-jobs", site(limit=1))
    (table,) = report.tables
    assert (len(table.rows), table.more) == (1, 2)
    assert "... and 2 more" in text.render(report)
    assert "... and 2 more" in page.render(report)


@pytest.mark.parametrize("largest", [0.0, 0.3, 1.0, 3.0, 7.0, 12.0, 99.0, 1234.0, 5e12])
@pytest.mark.parametrize("unit", [Kind.COUNT, Kind.BYTES, Kind.SECONDS, Kind.PERCENT])
def test_the_marks_of_an_axis_are_few_and_reach_beyond_the_largest_value(largest: float, unit: Kind) -> None:
    marks = drawing.ticks(largest, unit)
    assert marks[0] == 0
    assert marks[-1] >= largest
    assert 2 <= len(marks) <= 7
    assert marks == sorted(set(marks))


def test_a_chart_tells_good_from_bad_by_more_than_a_colour() -> None:
    series = (Series("Good", (3.0,), Tone.GOOD), Series("Failed", (1.0,), Tone.BAD), Series("Missed", (1.0,), Tone.BAD))
    drawn = drawing.drawing(Chart("c", "C", ChartKind.COLUMNS, Kind.COUNT, ("2026-01-16",), series), 3)
    assert 'fill="url(#bad3)"' in drawn
    assert 'fill="url(#worse3)"' in drawn
    assert drawing.series_classes(Chart("c", "C", ChartKind.BARS, Kind.COUNT, (), series)) == ["good", "bad", "worse"]
    assert "<td" in drawn, "its figures are there for whoever cannot see it"


def test_a_device_of_another_mesh_is_well_and_the_kit_of_that_mesh_is_the_one_to_keep() -> None:
    first, *others = site().devices
    came = replace(first, state="imported", kits=0, mesh="meadow")
    sets = [replace(row, source="berta@meadow") if row.device == came.name else row for row in site().sets]
    told = site(devices=(came, *others), sets=tuple(sets))
    assert not any(came.name in need.text for need in catalogue.made("device-summary", told).needs)
    needs = [need.text for need in catalogue.made("media-required-for-recovery", told).needs]
    assert (
        f"Only a recovery kit of meadow opens {came.name} once this mesh is gone: keep it, or copy what matters"
        in needs
    )
    assert not any("No recovery kit opens vault-b" in text for text in needs)
    (machines,) = catalogue.made("machines-backed-up", told).tables
    assert {row[1] for row in machines.rows if row[0] == "berta@meadow"} == {"of another mesh"}


def test_a_report_that_there_is_not_is_named() -> None:
    with pytest.raises(NotFound, match='no report "nonsense"'):
        catalogue.named("nonsense")


def test_the_period_stands_in_every_form() -> None:
    report = catalogue.made("jobs-summary", site())
    assert (report.begins, report.until) == (format_instant(NOW - 14 * DAY), format_instant(NOW))
    assert "2026-01-02 07:00 to 2026-01-16 07:00" in text.render(report)
