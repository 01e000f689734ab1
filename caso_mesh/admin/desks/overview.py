"""The mesh at a glance, in figures, and what happened in it: attempts, the stories of runs, the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection

from caso_mesh.admin.attempt_history import AttemptHistory
from caso_mesh.admin.audit_proof import AuditProof
from caso_mesh.admin.auditing import Auditing
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.measures import Measures
from caso_mesh.admin.overviews import Overviews
from caso_mesh.admin.ports import Answer
from caso_mesh.admin.story import Stories


class OverviewDesk:
    """It has no duty. ``local``: what servers ran by themselves; ``voters`` hold the same tables."""

    def __init__(
        self, means: Means, runs: RunsDesk, local: LocalHistory, *, voters: Callable[[], Collection[str]]
    ) -> None:
        keeper, tables, live, links, clock = means.keeper, means.tables, means.live, means.links, means.clock
        self.measures = Measures(keeper=keeper, tables=tables, live=live, links=links, own=means.own, clock=clock)
        self._overviews = Overviews(
            keeper=keeper, tables=tables, live=live, links=links, due=runs.due, own=means.own, clock=clock
        )
        self._attempts = AttemptHistory(
            keeper=keeper, tables=tables, live=live, held=runs.held, work=runs.work, local=local
        )
        self._stories = Stories(keeper=keeper, tables=tables, work=runs.work, due=runs.due, clock=clock, local=local)
        self._auditing = Auditing(keeper=keeper, tables=tables, facts=means.facts, clock=clock)
        self._proof = AuditProof(keeper=keeper, tables=tables, links=links, voters=voters, own=means.own, clock=clock)

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            **self._overviews.handlers(),
            **self._attempts.handlers(),
            **self._stories.handlers(),
            **self._auditing.handlers(),
            **self._proof.handlers(),
        }
