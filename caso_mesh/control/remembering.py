"""Calls whose effect does not lie in the control state: what each came to is kept with the other requests."""

from __future__ import annotations

from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Context, Effect
from caso_mesh.model.remembering import RememberCall


def remember_call(state: ControlState, command: RememberCall, context: Context) -> Effect:
    return Effect(command.result)
