"""Tables of medians, each with its ratio to the best peer."""

from __future__ import annotations

import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.metering import Measured
from bench.rounds import PHASES, Series

#: The better of these is what ratios refer to.
REFERENCES = ("restic", "borg")

_COLUMNS: tuple[tuple[str, Callable[[Measured], float], str], ...] = (
    ("wall s", lambda each: each.wall_s, "{:.2f}"),
    ("CPU s", lambda each: each.cpu_s, "{:.2f}"),
    ("peak MB", lambda each: each.peak_bytes / 1e6, "{:.0f}"),
)


def machine() -> str:
    """What it was measured on."""
    model = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores {model}, Linux {platform.release()}, load at the end {load:.1f}"


def spread(series: Mapping[str, Series], phase: str) -> float:
    """The worst max/min of the wall time of one product."""
    worst = 1.0
    for each in series.values():
        walls = [one.wall_s for one in each.measured.get(phase, [])]
        if walls and min(walls) > 0:
            worst = max(worst, max(walls) / min(walls))
    return worst


def medians(series: Series) -> dict[str, dict[str, float]]:
    """By phase: median of wall seconds, CPU seconds, peak megabytes."""
    return {
        phase: {title: median(map(value, series.measured[phase])) for title, value, _ in _COLUMNS}
        for phase in PHASES
        if phase in series.measured
    }


def best(numbers: Mapping[str, dict[str, dict[str, float]]], phase: str, title: str) -> float | None:
    """The smaller number of the references."""
    found = [numbers[name][phase][title] for name in REFERENCES if phase in numbers.get(name, {})]
    return min(found) if found else None


def tables(kind: str, series: Mapping[str, Series], phases: Sequence[str]) -> str:
    """Markdown: medians; in brackets how many times as much as the better of restic and borg."""
    numbers = {name: medians(each) for name, each in series.items()}
    shown = [phase for phase in phases if any(phase in each for each in numbers.values())]
    lines: list[str] = []
    for title, _, form in _COLUMNS:
        lines.append(f"| {kind}: {title} | " + " | ".join(shown) + " |")
        lines.append("|---" * (len(shown) + 1) + "|")
        for name, each in numbers.items():
            cells = []
            for phase in shown:
                if phase not in each:
                    cells.append("-")
                    continue
                value, reference = each[phase][title], best(numbers, phase, title)
                cells.append(form.format(value) + (f" ({value / reference:.2f})" if reference else ""))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    stored = {
        name: {phase: median(found) / 1e6 for phase, found in each.stored.items()} for name, each in series.items()
    }
    columns = [phase for phase in ("first", "churn") if any(phase in each for each in stored.values())]
    lines.append(f"| {kind}: stored MB after | " + " | ".join(columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, each in stored.items():
        cells = []
        for phase in columns:
            found = [stored[peer][phase] for peer in REFERENCES if phase in stored.get(peer, {})]
            ratio = f" ({each[phase] / min(found):.2f})" if found and phase in each else ""
            cells.append(f"{each[phase]:.0f}{ratio}" if phase in each else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    worst = ", ".join(f"{phase} {spread(series, phase):.2f}" for phase in shown)
    lines.append(f"Worst max/min of the wall time of one product: {worst}")
    lines.extend(f"{name}: {problem}" for name, each in series.items() for problem in each.problems)
    return "\n".join(lines)


def document(kind: str, series: Mapping[str, Series], made: Any) -> dict[str, Any]:
    """The same for machines, with every single number."""
    return {
        "kind": kind,
        "files": made.files,
        "bytes": made.bytes,
        "worst_max_min": {phase: spread(series, phase) for phase in PHASES},
        "products": {
            name: {
                "medians": medians(each),
                "stored_bytes": each.stored,
                "problems": each.problems,
                "rounds": {
                    phase: [[one.wall_s, one.cpu_s, one.peak_bytes] for one in found]
                    for phase, found in each.measured.items()
                },
            }
            for name, each in series.items()
        },
    }
