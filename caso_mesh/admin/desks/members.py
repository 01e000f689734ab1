"""Who belongs to the mesh: servers that join, vote, are watched and get their orders; operators; the keys of all of them."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.admin.desks.means import Custody, Means
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.enrolment import Enrolment
from caso_mesh.admin.granting import Granting
from caso_mesh.admin.join_secrets import JoinSecrets
from caso_mesh.admin.kits import Kits
from caso_mesh.admin.logons import Logons
from caso_mesh.admin.operators import Operators
from caso_mesh.admin.ordering import Ordering
from caso_mesh.admin.ports import Answer, NodeAnswer
from caso_mesh.admin.rotation import Rotation
from caso_mesh.admin.servers import Servers
from caso_mesh.admin.voting import Voting
from caso_mesh.admin.watching import ServerWatch
from caso_mesh.consensus.port import Replicated
from caso_mesh.discovery.sighting import Discovery
from caso_mesh.wire.network import Network


class MembersDesk:
    """``addresses``: of the server in office; ``version``: of its program."""

    def __init__(
        self,
        means: Means,
        custody: Custody,
        *,
        consensus: Replicated,
        network: Network,
        discovery: Discovery | None,
        addresses: Callable[[], tuple[str, ...]],
        version: str,
    ) -> None:
        keeper, tables, live, links = means.keeper, means.tables, means.live, means.links
        submit, alarms, own, clock, randomness = means.submit, means.alarms, means.own, means.clock, means.randomness
        self.watch = ServerWatch(
            keeper=keeper,
            tables=tables,
            live=live,
            links=links,
            submit=submit,
            alarms=alarms,
            own=own,
            addresses=addresses,
            version=version,
            clock=clock,
        )
        self.ordering = Ordering(
            keeper=keeper, links=links, keys=custody.keys, live=live, clock=clock, randomness=randomness
        )
        self._rotation = Rotation(
            keeper=keeper,
            submit=submit,
            own=own,
            authority=custody.authority,
            next_authority=custody.next_authority,
            holds=self.ordering.holds,
            clock=clock,
            randomness=randomness,
        )
        secrets = JoinSecrets(keeper=keeper, clock=clock, randomness=randomness)
        self._enrolment = Enrolment(
            keeper=keeper,
            submit=submit,
            facts=means.facts,
            secrets=secrets,
            links=links,
            network=network,
            discovery=discovery,
            keys=custody.keys,
            authority=custody.authority,
            id_key=custody.id_key,
            orders_of=self.ordering.orders_of,
            addresses=addresses,
            server_name=means.name,
            noted=self._rotation.note,
            clock=clock,
            randomness=randomness,
        )
        self._operators = Operators(
            keeper=keeper,
            submit=submit,
            facts=means.facts,
            secrets=secrets,
            authority=custody.authority,
            addresses=addresses,
            noted=self._rotation.note,
            clock=clock,
            randomness=randomness,
        )
        self._servers = Servers(
            keeper=keeper,
            links=links,
            submit=submit,
            enrolment=self._enrolment,
            own=own,
            votes=lambda node: node in consensus.leadership().voters,
            silent_s=self.watch.silent_s,
        )
        self._voting = Voting(
            keeper=keeper,
            consensus=consensus,
            links=links,
            submit=submit,
            authority=custody.authority,
            own=own,
            preset=consensus.preset,
            founders=consensus.founders,
            view=self._servers.view,
            clock=clock,
            randomness=randomness,
        )
        self._kits = Kits(
            keeper=keeper,
            submit=submit,
            links=links,
            alarms=alarms,
            keys=custody.keys,
            server_name=means.name,
            authority=custody.authority,
            id_key=custody.id_key,
            root_key=custody.root_key,
            drop_root_key=custody.drop_root_key,
            clock=clock,
            randomness=randomness,
        )
        self._granting = Granting(keeper=keeper, live=live, links=links, submit=submit)
        self._logons = Logons(keeper=keeper, links=links, submit=submit, alarms=alarms)

    def duties(self) -> dict[str, Duty]:
        return {
            "ordering": self.ordering.run,
            "enrolment": self._enrolment.run,
            "watching servers": self.watch.run,
            "recovery kits": self._kits.run,
            "voters": self._voting.run,
            "keys of replaced servers": self._granting.run,
            "secrets of logons": self._logons.run,
            "rotation of the CA": self._rotation.run,
        }

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            **self._enrolment.handlers(),
            **self._operators.handlers(),
            **self._rotation.handlers(),
            **self._servers.handlers(),
            **self._voting.handlers(),
            **self._kits.handlers(),
            **self._logons.handlers(),
        }

    def node_answers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes and newcomers, by name."""
        return {**self._enrolment.node_handlers(), "enrol.operator": self._operators.admit}
