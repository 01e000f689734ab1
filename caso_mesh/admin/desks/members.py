"""Who belongs to the mesh: servers that join and vote, and operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from caso_mesh.admin.desks.keys import KeysDesk
from caso_mesh.admin.desks.means import Custody, Means
from caso_mesh.admin.desks.servers import ServersDesk
from caso_mesh.admin.duties import Duty
from caso_mesh.admin.enrolment import Enrolment
from caso_mesh.admin.join_links import JoinLinks
from caso_mesh.admin.join_secrets import JoinSecrets
from caso_mesh.admin.operators import Operators
from caso_mesh.admin.ports import Answer, NodeAnswer
from caso_mesh.admin.servers import Servers
from caso_mesh.admin.voting import Voting
from caso_mesh.consensus.port import Replicated
from caso_mesh.discovery.sighting import Discovery
from caso_mesh.wire.network import Network


class MembersDesk:
    """``addresses``: of the server in office."""

    def __init__(
        self,
        means: Means,
        custody: Custody,
        servers: ServersDesk,
        keys: KeysDesk,
        *,
        consensus: Replicated,
        network: Network,
        discovery: Discovery | None,
        static: Callable[[], Sequence[str]],
        addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        keeper, links, submit, own = means.keeper, means.links, means.submit, means.own
        clock, randomness = means.clock, means.randomness
        secrets = JoinSecrets(keeper=keeper, clock=clock, randomness=randomness)
        self._enrolment = Enrolment(
            keeper=keeper,
            submit=submit,
            facts=means.facts,
            secrets=secrets,
            links=links,
            network=network,
            discovery=discovery,
            static=static,
            keys=custody.keys,
            authority=custody.authority,
            id_key=custody.id_key,
            orders_of=servers.ordering.orders_of,
            addresses=addresses,
            server_name=means.name,
            noted=keys.rotation.note,
            knows=servers.watch.knows,
            unopened=keys.granting.unopened,
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
            noted=keys.rotation.note,
            clock=clock,
            randomness=randomness,
        )
        self._join_links = JoinLinks(keeper=keeper, submit=submit, clock=clock)
        self._servers = Servers(
            keeper=keeper,
            links=links,
            submit=submit,
            enrolment=self._enrolment,
            own=own,
            votes=lambda node: node in consensus.leadership().voters,
            silent_s=servers.watch.silent_s,
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
            knows=servers.ordering.knows,
            clock=clock,
            randomness=randomness,
        )

    def duties(self) -> dict[str, Duty]:
        return {"enrolment": self._enrolment.run, "voters": self._voting.run}

    def answers(self) -> dict[str, Answer]:
        """Calls of people, by name."""
        return {
            **self._enrolment.handlers(),
            **self._operators.handlers(),
            **self._join_links.handlers(),
            **self._servers.handlers(),
            **self._voting.handlers(),
        }

    def node_answers(self) -> dict[str, NodeAnswer]:
        """Calls of nodes and newcomers, by name."""
        return {**self._enrolment.node_handlers(), "enrol.operator": self._operators.admit}
