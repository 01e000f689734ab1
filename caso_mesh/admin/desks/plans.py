"""What shall be: the file of the mesh, jobs copied to servers, and what would come of a change."""

from __future__ import annotations

from caso_mesh.admin.applying import Applying
from caso_mesh.admin.copies import Copies
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.ports import Answer
from caso_mesh.admin.what_if import WhatIf


class PlansDesk:
    """It has no duty."""

    def __init__(self, means: Means, runs: RunsDesk) -> None:
        keeper, submit, clock, new_id = means.keeper, means.submit, means.clock, means.new_id
        self._applying = Applying(keeper=keeper, policies=runs.policies, submit=submit, clock=clock, new_id=new_id)
        self._copies = Copies(keeper=keeper, submit=submit, clock=clock, new_id=new_id)
        self._what_if = WhatIf(keeper=keeper, known=runs.delegation.known, calendar=means.calendar)

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            **self._applying.handlers(),
            **self._copies.handlers(),
            **self._what_if.handlers(),
        }
