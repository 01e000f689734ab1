"""Bars that move: one for each part of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from caso_mesh.cli import output
from caso_mesh.model import outcomes as o
from caso_mesh.model.units import format_duration, format_size


class Bars:
    """Bars on a terminal: percent where it is known, else a pulse; files, bytes, rate, time left and the path."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        self._open = True
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            _Field("percent", justify="right"),
            _Field("counts"),
            _Field("left"),
            _Field("doing", ratio=1),
            console=output.console(stream),
            expand=True,
            transient=True,
        )
        self._progress.start()

    def update(self, progress: o.RunProgress) -> None:
        for part in progress.parts:
            key = part.source or part.job
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task("", total=None, percent="", counts="", left="", doing="")
            self._progress.update(
                self._tasks[key],
                description=output.clean(title(part)),
                total=None if part.percent is None else 100.0,
                completed=part.percent or 0.0,
                percent="" if part.percent is None else f"{part.percent:.0f} %",
                counts=counts(part),
                left=self._left(key, part.percent),
                doing=output.clean(part.path or part.reason_text or ""),
            )

    def close(self) -> None:
        """Takes the bars away. May be called twice."""
        if self._open:
            self._open = False
            self._progress.stop()

    def _left(self, key: str, percent: float | None) -> str:
        """By how fast the percents came: unchanged files pass without being read, so bytes say little."""
        if percent is None or percent >= 100.0:
            return ""
        now = self._clock()
        since, first = self._begun.setdefault(key, (now, percent))
        if percent <= first:
            return ""
        return f"{format_duration((100.0 - percent) * (now - since) / (percent - first))} left"


class _Field(ProgressColumn):
    """A field of the task as text, cut at the edge of the screen."""

    def __init__(self, name: str, *, justify: str = "left", ratio: int | None = None) -> None:
        self._name = name
        super().__init__(Column(no_wrap=True, overflow="ellipsis", ratio=ratio, justify=justify))  # type: ignore[arg-type]

    def render(self, task: Task) -> Text:
        return Text(str(task.fields[self._name]), overflow="ellipsis", no_wrap=True)


def title(part: o.JobView) -> str:
    """Which part of which run, and in what state."""
    way = " -> ".join(each for each in (part.source, part.device or part.server) if each)
    return f"{part.kind} {way} {part.state}"


def counts(part: o.JobView) -> str:
    """Files, bytes and rate."""
    if not part.files and not part.bytes:
        return ""
    rate = f", {format_size(int(part.rate))}/s" if part.rate > 0 else ""
    return f"{part.files} files, {format_size(part.bytes)}{rate}"
