"""Why parts of a run wait now, and since when."""

from __future__ import annotations

from caso_mesh.admin.live import Live
from caso_mesh.admin.present import reason_ends, reason_text
from caso_mesh.control.state import ControlState
from caso_mesh.model import outcomes as o
from caso_mesh.model.jobs import Run
from caso_mesh.model.states import RunState
from caso_mesh.model.units import format_instant


def run_waits(state: ControlState, run: Run, live: Live) -> tuple[o.RunWait, ...]:
    """Why parts of a run wait."""
    ready = (part.source for part in run.parts if part.state is RunState.READY)
    found = ((source, live.waiting.get((run.id, source))) for source in ready)
    return tuple(
        o.RunWait(
            source=state.name_of(source),
            reason=waits.reason.value,
            reason_fields=waits.fields,
            reason_text=reason_text(waits),
            reason_ends=reason_ends(waits),
            reason_since=format_instant(live.since_ns(run.id, source)),
        )
        for source, waits in found
        if waits is not None
    )
