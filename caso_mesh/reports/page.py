"""A report as one HTML page that needs nothing else: no script, no request, light and dark, for screen and paper.

The answer comes first, then what needs somebody, then figures, charts and tables. All text goes through ``markup``.
"""

from __future__ import annotations

from caso_mesh.model.reports import Cell, Column, Figure, Kind, Need, Report, Table, Tone
from caso_mesh.reports import shown
from caso_mesh.reports.drawing import drawing
from caso_mesh.reports.markup import Markup, escaped, join, tag
from caso_mesh.reports.style import STYLE

#: What states of runs, servers, devices and alerts look like: their tone, and a sign beside the word.
_STATES: dict[str, Tone] = {
    **dict.fromkeys(("succeeded", "online", "enabled", "active", "appendable", "covered", "in time", "backed up"), Tone.GOOD),
    **dict.fromkeys(
        ("failed", "timed-out", "missed", "no-communication", "offline", "error", "attention-required", "unprotected",
         "overdue", "read-only", "no backup", "never backed up", "none any more"),
        Tone.BAD,
    ),
    **dict.fromkeys(
        ("succeeded-with-exceptions", "stalled", "paused", "disabled", "on-hold", "warning", "partly-covered", "unknown",
         "left the mesh"),
        Tone.WARNING,
    ),
}  # fmt: skip
_SIGNS = {Tone.GOOD: "\u2713", Tone.WARNING: "!", Tone.BAD: "\u2715", Tone.PLAIN: "\u2022"}
#: Nothing may be fetched, and nothing may run, whatever a name looks like.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: A longer text of a cell has room for some words in each line.
_SHORT = 34
#: A longer word, such as the id of a run or a path, may break anywhere.
_WORD = 16
#: A name as short as this is not broken at its hyphens.
_NAME = 12


def render(report: Report) -> str:
    """The page, with a line break at its end."""
    at = shown.zone(report.zone)
    period = f"{shown.moment(report.begins, at)} to {shown.moment(report.until, at)}"
    tone = Tone.PLAIN if report.good is None else Tone.GOOD if report.good else Tone.BAD
    head = tag(
        "head",
        _void("meta", charset="utf-8"),
        _void("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        _void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _void("meta", name="color-scheme", content="light dark"),
        _void("link", rel="icon", href="data:,"),
        tag("title", f"{report.title} - {report.mesh}"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", report.title),
            tag(
                "p",
                tag("b", report.mesh), f" \u00b7 {period} ({report.zone})",
                f" \u00b7 only of {', '.join(report.limits)}" if report.limits else None,
            ),
        ),
        tag(
            "main",
            tag("p", tag("span", _SIGNS[tone], class_="sign", aria_hidden="true"), report.verdict,
                class_=f"verdict t-{tone.value}"),
            _needs(report.needs),
            _figures(report),
            tag("div", [drawing(chart, number) for number, chart in enumerate(report.charts)], class_="charts")
            if report.charts
            else None,
            [_table(table, report) for table in report.tables],
        ),
        tag(
            "footer",
            [tag("p", note) for note in report.notes],
            tag("p", f"{report.answers} Made by caso-mesh at {shown.moment(report.made, at)} ({report.zone}). "),
        ),
    )  # fmt: skip
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _void(name: str, /, **attributes: object) -> Markup:
    return Markup(tag(name, **attributes).removesuffix(f"</{name}>"))


def _needs(needs: tuple[Need, ...]) -> Markup | None:
    if not needs:
        return None
    rows = [
        tag(
            "li",
            tag("span", _SIGNS[need.tone], class_="sign", aria_hidden="true"),
            tag("span", need.text, tag("code", need.command) if need.command else None),
            class_=f"t-{need.tone.value}",
        )
        for need in needs
    ]
    return tag("section", tag("h2", "What needs you"), tag("ul", rows, class_="needs"))


def _figures(report: Report) -> Markup | None:
    if not report.figures:
        return None
    return tag("dl", [_figure(figure, report) for figure in report.figures], class_="figures")


def _figure(figure: Figure, report: Report) -> Markup:
    value = shown.value(figure.value, figure.kind, shown.zone(report.zone))
    return tag("div", tag("dt", figure.title), tag("dd", value), class_=f"t-{figure.tone.value}")


def _table(table: Table, report: Report) -> Markup:
    if not table.rows:
        return tag("section", tag("h2", table.title), tag("p", table.empty, class_="empty"))
    heads = [tag("th", column.title, scope="col", class_=_class(column)) for column in table.columns]
    rows = [
        tag("tr", [_cell(cell, column, report) for cell, column in zip(row, table.columns, strict=True)])
        for row in table.rows
    ]
    return tag(
        "section",
        tag("h2", table.title),
        tag(
            "div",
            tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows)),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=table.title,
        ),
        tag("p", f"... and {table.more} more", class_="empty") if table.more else None,
    )


def _class(column: Column) -> str | None:
    return "n" if shown.is_number(column.kind) else "i" if column.kind is Kind.INSTANT else None


def _cell(cell: Cell, column: Column, report: Report) -> Markup:
    text = shown.value(cell, column.kind, shown.zone(report.zone))
    if cell is None or cell == "" or (cell == 0 and column.kind is Kind.COUNT):
        return tag("td", tag("span", text, class_="nothing"), class_=_class(column))
    if column.kind is Kind.STATE:
        tone = _STATES.get(text, Tone.PLAIN)
        sign = tag("span", _SIGNS[tone], class_="sign", aria_hidden="true")
        return tag("td", tag("span", sign, text, class_=f"state t-{tone.value}"))
    if column.kind is Kind.COMMAND:
        return tag("td", tag("code", text))
    if column.kind is Kind.INSTANT:
        day, _, time = text.partition(" ")
        return tag("td", tag("span", day, class_="d"), f" {time}", class_="i")
    return tag("td", join([escaped(text)]), class_=_wrapping(text) if column.kind is Kind.TEXT else _class(column))


def _wrapping(text: str) -> str | None:
    if len(text) > _SHORT and " " in text:
        return "w"
    return "l" if any(len(word) > _WORD for word in text.split()) else "d" if len(text) <= _NAME else None
