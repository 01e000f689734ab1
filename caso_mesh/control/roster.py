"""The rows of the roster, out of the tables of servers, operators and pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from caso_mesh.model.mesh import Operator, Pool, RosterRow, Server, row_of
from caso_mesh.model.states import Role


def rows_of(
    servers: Mapping[str, Server], pools: Mapping[str, Pool], operators: Iterable[Operator]
) -> tuple[RosterRow, ...]:
    """Nodes by name, then operators as they are given."""
    nodes = [row_of(server) for server in sorted(servers.values(), key=lambda server: server.name)]
    people = [
        RosterRow(
            operator.id,
            operator.name,
            "operator",
            operator.public_key,
            role=operator.role,
            server_roles=_server_roles(operator, servers, pools),
        )
        for operator in operators
    ]
    return (*nodes, *people)


def _server_roles(
    operator: Operator, servers: Mapping[str, Server], pools: Mapping[str, Pool]
) -> tuple[tuple[str, Role], ...]:
    """On single servers: its own, and those by way of pools, as they are now."""
    by_pool = [(server, role) for name, role in operator.pool_roles for server in sorted(pools[name].servers)]
    held = dict.fromkeys((*operator.server_roles, *by_pool))
    # what is left of machines that were replaced is under their ids
    former = [(old, role) for server, role in held for old in servers[server].succeeds]
    return tuple(dict.fromkeys((*held, *former)))
