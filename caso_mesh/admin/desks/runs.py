"""Runs of jobs: opened when they are due, delegated, followed and asked about; and the policies that they come from. The same
in the office of the mesh and in that of a server over its own work."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.delegation import Delegation
from caso_mesh.admin.desks.catalogs import CatalogsDesk
from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.reach import Reach
from caso_mesh.admin.due import DueRuns
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.error_rules import ErrorRules
from caso_mesh.admin.flaws import flaws_of
from caso_mesh.admin.flooding import Flooding
from caso_mesh.admin.held import Held
from caso_mesh.admin.intake import Intake
from caso_mesh.admin.job_edits import JobEdits
from caso_mesh.admin.local_history import LocalHistory
from caso_mesh.admin.policies import Policies
from caso_mesh.admin.ports import Answer, Facts
from caso_mesh.admin.preview import Preview
from caso_mesh.admin.reasons import Reasons
from caso_mesh.admin.runs import Runs
from caso_mesh.admin.telling import Pruning, Telling
from caso_mesh.admin.work import Work
from caso_mesh.model import telling as t
from caso_mesh.model.jobs import Waiting
from caso_mesh.model.orders import Authority
from caso_mesh.model.settings import number


class RunsDesk:
    """``catalogs`` and ``local`` (what servers ran by themselves) as ``Runs``; ``clocks_differ``: nothing is pruned while those
    of servers do; ``barred`` and ``without`` as ``Delegation``; ``whose`` as ``DueRuns``."""

    def __init__(
        self,
        means: Means,
        reach: Reach,
        *,
        catalogs: CatalogsDesk | None = None,
        local: LocalHistory | None = None,
        clocks_differ: Callable[[], bool] = lambda: False,
        barred: Callable[[], Waiting | None] = lambda: None,
        without: Callable[[str, str], Authority | None] | None = None,
        whose: str = "the administrator",
    ) -> None:
        keeper, tables, live, links = means.keeper, means.tables, means.live, means.links
        submit, alarms, clock = means.submit, means.alarms, means.clock
        self._means = means
        self._catalogs = catalogs
        self._clocks_differ = clocks_differ
        self.delegation = Delegation(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            submit=submit,
            own=means.own,
            clock=clock,
            calendar=means.calendar,
            randomness=means.randomness,
            barred=barred,
            without=without,
        )
        self.due = DueRuns(
            keeper=keeper,
            tables=tables,
            live=live,
            submit=submit,
            alarms=alarms,
            clock=clock,
            calendar=means.calendar,
            opened=self.delegation.wake,
            whose=whose,
        )
        self.pruning = Pruning(
            keeper=keeper,
            tables=tables,
            submit=submit,
            clock=clock,
            doubtful=self.is_clock_doubtful,
            steady=self.has_steady_clock,
        )
        self.work = Work(
            keeper=keeper,
            tables=tables,
            links=links,
            submit=submit,
            clock=clock,
            new_id=means.new_id,
            on_device=reach.on_device,
            flaws=lambda: flaws_of(keeper.state, tables, live),
        )
        self._edits = JobEdits(keeper=keeper, work=self.work, submit=submit, clock=clock, new_id=means.new_id)
        self.held = Held(keeper=keeper, links=links)
        self.runs = Runs(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            held=self.held,
            work=self.work,
            due=self.due,
            catalogs=catalogs.intake if catalogs else None,
            where=catalogs.where if catalogs else None,
            local=local,
        )
        self.policies = Policies(
            keeper=keeper, tables=tables, work=self.work, submit=submit, clock=clock, new_id=means.new_id
        )
        self._reasons = Reasons(keeper=keeper, tables=tables, live=live, facts=means.facts, clock=clock)
        self._telling = Telling(keeper=keeper, live=live, alarms=alarms, clock=clock)

    def is_clock_doubtful(self) -> bool:
        """Nothing is deleted, and nothing that must be in order is told, by a clock that is in doubt."""
        return self.due.doubtful or self._clocks_differ()

    def has_steady_clock(self) -> bool:
        """Whether days may be over by this clock: nobody's differs, and it was not set for ``clock-steady-s``."""
        steady_s = number(self._means.keeper.state.settings_of_mesh(), "clock-steady-s")
        return not self._clocks_differ() and self.due.has_steady_clock(steady_s)

    def facts_came(self, sets: bool) -> None:
        """Of journals, into the tables. ``sets``: of backup sets."""
        self._means.live.tell()
        if sets:
            if self._catalogs is not None:
                self._catalogs.intake.wake()
            self.delegation.facts_came()

    def intake(
        self,
        *,
        facts: Facts,
        held: Callable[[str], tuple[t.JournalPlace, ...]],
        asked_enough: Callable[[], bool],
    ) -> Intake:
        """What takes in journals for these runs. As ``Intake``."""
        means = self._means
        return Intake(
            keeper=means.keeper,
            tables=means.tables,
            live=means.live,
            facts=facts,
            submit=means.submit,
            clock=means.clock,
            changed=self.facts_came,
            no_data_path=self.delegation.no_data_path,
            linked=means.links.linked,
            held=held,
            asked_enough=asked_enough,
            flooding=Flooding(keeper=means.keeper, alarms=means.alarms, clock=means.clock),
        )

    def duties(self) -> dict[str, Duty]:
        return {
            "due runs": self.due.open,
            "late runs": self.due.close_late,
            "delegation": self.delegation.run,
            "reasons of waiting": self._reasons.run,
            "telling": self._telling.run,
            "pruning": self.pruning.run,
        }

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            **self.runs.handlers(),
            **self.policies.handlers(),
            **self._edits.handlers(),
            **ErrorRules(self._means.keeper, self._means.submit).handlers(),
            **Preview(keeper=self._means.keeper, calendar=self._means.calendar).handlers(),
        }
