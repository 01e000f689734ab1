"""Charts as SVG: stacked columns and stacked bars. Colours are those of the page, told apart by colour-blind people, too; what
is bad is hatched, what is doubtful dotted. Each chart has its figures as a table beside it, for whoever cannot see it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caso_mesh.model.reports import Chart, ChartKind, Kind, Tone
from caso_mesh.reports import shown
from caso_mesh.reports.markup import Markup, tag

_WIDTH, _HEIGHT = 600, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 10, 34
_BAR, _BAR_LABEL, _CHARACTER = 24, 170, 6.6
#: Series that are neither good nor bad take these in turn.
_PLAIN = ("c1", "c2", "c3", "c4", "c5", "c6")


def drawing(chart: Chart, number: int) -> Markup:
    """A chart as a figure; ``number`` is its place on the page, by which ids differ."""
    classes = series_classes(chart)
    drawn = _columns(chart, number, classes) if chart.kind is ChartKind.COLUMNS else _bars(chart, number, classes)
    legend = None
    if len(chart.series) > 1 or chart.series[0].tone is not Tone.PLAIN:
        legend = tag(
            "p",
            [
                tag(
                    "span",
                    tag("svg", _sample(each, number), width=14, height=14, aria_hidden="true"),
                    " ",
                    series.title,
                )
                for each, series in zip(classes, chart.series, strict=True)
            ],
            class_="legend",
        )
    return tag("figure", tag("figcaption", chart.title), drawn, legend, _figures(chart))


def series_classes(chart: Chart) -> list[str]:
    """The style of each series."""
    plain = iter(_PLAIN * (1 + len(chart.series) // len(_PLAIN)))
    bad = iter(("bad", *("worse" for _ in chart.series)))
    styles: list[str] = []
    for series in chart.series:
        match series.tone:
            case Tone.PLAIN:
                styles.append(next(plain))
            case Tone.BAD:
                styles.append(next(bad))
            case tone:
                styles.append(tone.value)
    return styles


def ticks(largest: float, unit: Kind) -> list[float]:
    """Round values from 0 to ``largest`` at least, some four of them."""
    if largest <= 0:
        return [0.0, 1.0]
    least = 1.0 if unit in {Kind.COUNT, Kind.BYTES} else 0.0
    raw = largest / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = max(least, next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= raw * 0.999))
    if unit in {Kind.COUNT, Kind.BYTES}:
        step = math.ceil(step)
    return [step * place for place in range(math.ceil(largest / step - 1e-9) + 1)]


def _axis(value: float, unit: Kind) -> str:
    if unit is Kind.COUNT:
        return f"{value:g}"
    return shown.value(value, unit, shown.zone("UTC"))


def _spoken(chart: Chart) -> str:
    return (
        f"{chart.title}: a chart of {', '.join(series.title.lower() for series in chart.series)}; its figures follow."
    )


def _frame(chart: Chart, number: int, height: float, *parts: object) -> Markup:
    return tag(
        "svg",
        tag("title", chart.title, id=f"t{number}"),
        tag("desc", _spoken(chart), id=f"d{number}"),
        tag("defs", _patterns(number)),
        parts,
        viewBox=f"0 0 {_WIDTH} {height:g}",
        role="img",
        aria_labelledby=f"t{number} d{number}",
        class_="chart",
    )


def _patterns(number: int) -> list[Markup]:
    line = tag("path", d="M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2", class_="mark")
    dot = tag("circle", cx=2, cy=2, r=1, class_="dot")
    cross = tag("path", d="M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2 M-1,5 l2,2 M0,0 l6,6 M5,-1 l2,2", class_="mark")
    return [
        tag("pattern", line, id=f"bad{number}", width=6, height=6, patternUnits="userSpaceOnUse"),
        tag("pattern", cross, id=f"worse{number}", width=6, height=6, patternUnits="userSpaceOnUse"),
        tag("pattern", dot, id=f"warning{number}", width=4, height=4, patternUnits="userSpaceOnUse"),
    ]


def _block(style: str, number: int, title: str | None, x: float, y: float, width: float, height: float) -> list[Markup]:
    """A piece of a column or bar, with its pattern over it."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{max(0.0, width):.1f}", "height": f"{max(0.0, height):.1f}"}
    tip = tag("title", title) if title is not None else None
    made = [tag("rect", tip, class_=f"s-{style}", **place)]
    if style in {"bad", "worse", "warning"}:
        made.append(tag("rect", tip, fill=f"url(#{style}{number})", **place))
    return made


def _sample(style: str, number: int) -> list[Markup]:
    return _block(style, number, None, 1, 1, 12, 12)


def _columns(chart: Chart, number: int, classes: Sequence[str]) -> Markup:
    sums = [sum(series.values[place] for series in chart.series) for place in range(len(chart.labels))]
    marks = ticks(max(sums, default=0.0), chart.unit)
    high, wide = _HEIGHT - _TOP - _BOTTOM, _WIDTH - _LEFT - _RIGHT

    def y_of(value: float) -> float:
        return _TOP + high * (1 - value / marks[-1])

    parts: list[object] = []
    for mark in marks:
        y = f"{y_of(mark):.1f}"
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", _axis(mark, chart.unit), x=_LEFT - 6, y=y, dy="0.35em", class_="right"))
    step = wide / max(1, len(chart.labels))
    each = max(1, math.ceil(len(chart.labels) / 12))
    for place, label in enumerate(chart.labels):
        x, below = _LEFT + place * step, 0.0
        for style, series in zip(classes, chart.series, strict=True):
            value = series.values[place]
            if value > 0:
                title = f"{label}, {series.title}: {_axis(value, chart.unit)}"
                top, bottom = y_of(below + value), y_of(below)
                gap = min(4.0, step * 0.2)
                parts += _block(style, number, title, x + gap / 2, top, step - gap, bottom - top)
                below += value
        if place % each == 0:
            parts.append(tag("text", _short(label), x=f"{x + step / 2:.1f}", y=_HEIGHT - _BOTTOM + 16, class_="middle"))
    return _frame(chart, number, _HEIGHT, parts)


def _short(label: str) -> str:
    """A day without its year, an hour without its day."""
    if len(label) == 10 and label[4] == "-":
        return label[5:]
    return label.rpartition(" ")[2] if label.endswith(":00") and label[2:3] == "-" else label


def _bars(chart: Chart, number: int, classes: Sequence[str]) -> Markup:
    sums = [sum(series.values[place] for series in chart.series) for place in range(len(chart.labels))]
    largest = max(sums, default=0.0) or 1.0
    space = 84
    wide = _WIDTH - _BAR_LABEL - space
    parts: list[object] = []
    for place, label in enumerate(chart.labels):
        y, x = place * _BAR + 4, float(_BAR_LABEL)
        most = int((_BAR_LABEL - 10) / _CHARACTER)
        name = label if len(label) <= most else label[: most - 1] + "\u2026"
        tip = tag("title", label) if name != label else None
        parts.append(
            tag("text", name, tip, x=_BAR_LABEL - 8, y=f"{y + _BAR / 2 - 2:.1f}", dy="0.35em", class_="right label")
        )
        for style, series in zip(classes, chart.series, strict=True):
            value = series.values[place]
            if value > 0:
                width = wide * value / largest
                title = f"{label}, {series.title}: {_axis(value, chart.unit)}"
                parts += _block(style, number, title, x, y, width, _BAR - 6)
                x += width
        parts.append(
            tag("text", _axis(sums[place], chart.unit), x=f"{x + 6:.1f}", y=f"{y + _BAR / 2 - 2:.1f}", dy="0.35em")
        )
    return _frame(chart, number, len(chart.labels) * _BAR + 8, parts)


def _figures(chart: Chart) -> Markup:
    at = shown.zone("UTC")
    head = tag(
        "tr", tag("th", "", scope="col"), [tag("th", each.title, scope="col", class_="n") for each in chart.series]
    )
    rows = [
        tag(
            "tr",
            tag("th", label, scope="row"),
            [tag("td", shown.value(_whole(each.values[place]), chart.unit, at), class_="n") for each in chart.series],
        )
        for place, label in enumerate(chart.labels)
        if any(each.values[place] for each in chart.series)
    ]
    return tag(
        "details",
        tag("summary", "Figures of this chart"),
        tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll"),
    )


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
