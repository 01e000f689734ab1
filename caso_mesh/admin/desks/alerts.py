"""Alerts: seen and answered by people, answered by rule where nobody does, and raised over backups that grow old."""

from __future__ import annotations

from caso_mesh.admin.ageing import Ageing
from caso_mesh.admin.alert_calls import AlertCalls
from caso_mesh.admin.answering import Answering
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.ports import Answer


class AlertsDesk:
    def __init__(self, means: Means, runs: RunsDesk) -> None:
        keeper, tables, clock = means.keeper, means.tables, means.clock
        self.calls = AlertCalls(keeper=keeper, tables=tables, submit=means.submit, clock=clock)
        self.answering = Answering(
            keeper=keeper,
            tables=tables,
            facts=means.facts,
            submit=means.submit,
            clock=clock,
            doubtful=runs.is_clock_doubtful,
        )
        self.ageing = Ageing(
            keeper=keeper,
            tables=tables,
            live=means.live,
            alarms=means.alarms,
            clock=clock,
            doubtful=lambda: runs.due.doubtful,
        )

    def duties(self) -> dict[str, Duty]:
        return {"ages of backups": self.ageing.run, "answers that nobody gives": self.answering.run}

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return self.calls.handlers()
