"""Pages of reports in a real browser: nothing complained of, nothing asked of anybody, whatever the names look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from report_browser import CHROMIUM, browser
from report_world import hostile_site, site

from caso_mesh.model.reports import Report
from caso_mesh.reports import catalogue, page

#: What a page must not have got, and whether it is wider than its window.
_LOOK = """
({
  scripts: document.querySelectorAll('script, iframe, object, embed, form, img, a').length,
  handlers: [...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on/i.test(a.name))).length,
  wide: document.documentElement.scrollWidth > window.innerWidth,
  verdict: document.querySelector('.verdict')?.textContent,
  title: document.title,
  charts: [...document.querySelectorAll('svg.chart')].every(e => e.getAttribute('aria-labelledby').split(' ')
            .every(id => document.getElementById(id)?.textContent)),
  tables: [...document.querySelectorAll('section')].length,
  background: getComputedStyle(document.body).backgroundColor,
})
"""


def written(folder: Path, report: Report, name: str) -> str:
    path = folder / f"{name}.html"
    path.write_text(page.render(report), "utf-8", errors="backslashreplace")
    return path.as_uri()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_every_page_opens_in_a_browser_without_a_complaint_and_asks_nobody(tmp_path: Path) -> None:
    with browser() as shown:
        for each in catalogue.REPORTS:
            url = written(tmp_path, catalogue.made(each.name, site()), each.name)
            light = shown.open(url, _LOOK)
            assert light.console == [], each.name
            assert light.asked == [], each.name
            found = light.found
            assert (found["scripts"], found["handlers"], found["wide"]) == (0, 0, False), each.name
            assert found["title"] == f"{each.title} - home"
            assert found["verdict"]
            assert found["charts"]
            assert found["tables"]
            url = written(tmp_path, catalogue.made(each.name, hostile_site()), f"{each.name}-hostile")
            hostile = shown.open(url, _LOOK, dark=True, width=500)
            assert hostile.found["background"] != found["background"], "dark looks as light"
            assert not hostile.found["wide"], f"{each.name} on a narrow screen"
            assert hostile.console == [], each.name
            assert hostile.asked == [], each.name
            assert (hostile.found["scripts"], hostile.found["handlers"]) == (0, 0), each.name
            assert "<script>" in hostile.found["title"], "the name is not even shown"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_no_table_is_cut_in_a_window_as_people_have_them(tmp_path: Path) -> None:
    """The last column of the overnight summary lay behind the edge, and nothing said that it could be scrolled to."""
    cut = """
[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)
"""
    told = site()
    long = "agrco5fjovyabcs5u5dspdngki@20260116T020000Z"
    told = replace(
        told,
        runs=tuple(
            replace(row, run=long, error_text=row.error_text and f"{row.error_text}: {long}") for row in told.runs
        ),
        sets=tuple(replace(row, id=f"{number}{long[:25]}") for number, row in enumerate(told.sets)),
        alerts=tuple(replace(row, text=f"{row.text}: /srv/{long}/{long}") for row in told.alerts),
    )
    with browser() as shown:
        for each in catalogue.REPORTS:
            for material in (site(), told):
                url = written(tmp_path, catalogue.made(each.name, material), each.name)
                for width in (1000, 1400, 1920):
                    assert shown.open(url, cut, width=width).found == [], f"{each.name} at {width} px"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_the_browser_of_the_tests_notices_what_it_is_to_notice(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<title>x</title><img src='file:///nowhere.png'><script>console.error('a'); nowhere()</script>")
    with browser() as shown:
        opened = shown.open(path.as_uri(), _LOOK)
    assert len(opened.console) >= 2
    assert opened.asked == ["file:///nowhere.png"]
    assert opened.found["scripts"] == 2
