"""The morning summary in a few lines: what ran, what went wrong, what stands."""

from __future__ import annotations

from collections import Counter

from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.model.notices import Message
from caso_mesh.model.states import AlertKind, RunState
from caso_mesh.model.units import format_instant

_MOST = 30
_BAD = (RunState.FAILED, RunState.TIMED_OUT, RunState.MISSED, RunState.SUCCEEDED_WITH_EXCEPTIONS)
_LOUD = frozenset({AlertKind.ATTENTION.value, AlertKind.ERROR.value})


async def overnight(state: ControlState, tables: Tables, since_ns: int, until_ns: int) -> Message:
    """Without key and recipients."""
    own = [fact.run for _, fact in await tables.local_runs(ended=True)]
    runs = [run for run in (*state.runs.values(), *own) if since_ns <= (run.closed_at_ns or 0) < until_ns]
    counts = Counter(run.state for run in runs)
    bad = sorted((run for run in runs if run.state in _BAD), key=lambda run: run.closed_at_ns or 0)
    alerts = [row for row in await tables.alerts() if row.cleared_at_ns is None and row.id not in state.answers]
    loud = [row for row in alerts if row.alert in _LOUD]
    ends = ", ".join(f"{counts[each]} {each}" for each in RunState if counts[each]) or "nothing ran"
    verdict = "all is well" if not bad and not loud else f"{len(bad)} runs and {len(loud)} alerts want somebody"
    lines = [
        f"From {format_instant(since_ns)} to {format_instant(until_ns)}: {ends}.",
        "",
        *_some("Runs that did not end well:", [f"{run.name}: {run.state} (caso-mesh why {run.id})" for run in bad]),
        *_some("Alerts that are open:", [f"{row.alert} {row.category}: {row.text}" for row in alerts]),
    ]
    data = {"runs": {state.value: count for state, count in counts.items()}, "alerts": len(alerts)}
    return Message("", f"morning summary: {verdict}; {ends}", "\n".join(lines), data=data)


def _some(head: str, lines: list[str]) -> list[str]:
    more = [f"  ... and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return [head, *(f"  {line}" for line in lines[:_MOST]), *more, ""] if lines else []
