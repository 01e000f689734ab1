"""What leaves for people: messages to who is told, and reports, asked for or sent by a schedule."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.desks.means import Means
from caso_mesh.admin.desks.runs import RunsDesk
from caso_mesh.admin.desks.sets import SetsDesk
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.gathering import Gathering
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.notices import Notices
from caso_mesh.admin.notifying import Notifying
from caso_mesh.admin.outbox import Outbox
from caso_mesh.admin.overnight import overnight
from caso_mesh.admin.ports import Answer
from caso_mesh.admin.reporting import Reporting
from caso_mesh.admin.sending_reports import SendingReports
from caso_mesh.consensus.port import Consensus
from caso_mesh.model.logons import Credentials


class ReportsDesk:
    """``followers`` as ``Notifying``, ``credentials`` of a logon of this server (its name) as ``Outbox``."""

    def __init__(
        self,
        means: Means,
        runs: RunsDesk,
        sets: SetsDesk,
        *,
        consensus: Consensus,
        followers: Followers,
        credentials: Callable[[str], Credentials],
    ) -> None:
        keeper, tables, links, alarms, clock = means.keeper, means.tables, means.links, means.alarms, means.clock
        self.outbox = Outbox(
            keeper=keeper,
            tables=tables,
            facts=means.facts,
            alarms=alarms,
            credentials=credentials,
            server=means.name,
            clock=clock,
            randomness=means.randomness,
        )
        gathering = Gathering(
            keeper=keeper,
            tables=tables,
            live=means.live,
            links=links,
            retaining=sets.retaining,
            known=runs.delegation.known,
            own=means.own,
        )
        self._reporting = reporting = Reporting(keeper=keeper, gathering=gathering, calendar=means.calendar)
        self._notifying = Notifying(
            keeper=keeper,
            consensus=consensus,
            tables=tables,
            followers=followers,
            outbox=self.outbox,
            alarms=alarms,
            summary=lambda since_ns, until_ns: overnight(reporting, since_ns),
            own=means.own,
            clock=clock,
            calendar=means.calendar,
        )
        self._sending = SendingReports(
            keeper=keeper,
            reporting=reporting,
            outbox=self.outbox,
            submit=means.submit,
            alarms=alarms,
            calendar=means.calendar,
            doubtful=lambda: runs.due.doubtful,
        )
        self._notices = Notices(keeper=keeper, submit=means.submit, outbox=self.outbox, server=means.name, clock=clock)

    def duties(self) -> dict[str, Duty]:
        return {
            "notification": self._notifying.run,
            "sending of messages": self.outbox.run,
            "reports": self._sending.run,
            "messages that try a way": self._notices.once.run,
        }

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {**self._notices.handlers(), **self._reporting.handlers(), **self._sending.handlers()}
