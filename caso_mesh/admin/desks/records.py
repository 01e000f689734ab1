"""The records of the mesh: what servers tell of what happened, what other voters hold of it, and how long it is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from caso_mesh.admin.asking import Asking
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.keeping import Followers, Keeping
from caso_mesh.admin.ports import NodeAnswer
from caso_mesh.admin.relaying import Relaying
from caso_mesh.consensus.port import Consensus


class RecordsDesk:
    """``followers``: what other voters hold; ``copies``: the folder for copies of their tables."""

    def __init__(
        self, means: Means, runs: RunsDesk, *, consensus: Consensus, followers: Followers, copies: Path
    ) -> None:
        keeper = means.keeper
        self.keeping = Keeping(
            keeper=keeper,
            consensus=consensus,
            tables=means.tables,
            followers=followers,
            own=means.own,
            clock=means.clock,
            doubtful=runs.is_clock_doubtful,
        )
        self._asking = asking = Asking(
            tables=means.tables,
            links=means.links,
            voters=lambda: [voter.id for voter in keeper.state.voters()],
            own=means.own,
            changed=partial(runs.facts_came, True),
            copies=copies,
        )
        self.intake = runs.intake(
            facts=means.facts,
            held=self.keeping.held,
            asked_enough=lambda: asking.enough(consensus.leadership().voters),
        )
        self._relaying = Relaying(keeper, means.links)

    def duties(self) -> dict[str, Duty]:
        return {"what other voters hold": self._asking.run, "keeping records": self.keeping.run}

    def node_answers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes, by name."""
        return {**self.intake.handlers(), **self._relaying.handlers()}
