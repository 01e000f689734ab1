"""Which servers can do something together: those that reach each other, and whose workers speak with each other."""

from __future__ import annotations

from collections.abc import Iterable

from caso_mesh.model.dialects import Dialects, in_common
from caso_mesh.planning.problem import Problem

_NOBODY: frozenset[str] = frozenset()


class Together:
    """Of the servers of one round, by node id."""

    def __init__(self, problem: Problem) -> None:
        self._rows = {row.id: row for row in problem.servers}
        cut: dict[str, set[str]] = {}
        for source, server in problem.no_data_path:
            cut.setdefault(source, set()).add(server)
        self._cut = {source: frozenset(servers) for source, servers in cut.items()}
        spoken = {row.bulk for row in problem.servers}
        self._all_speak = all(in_common(one, other) is not None for one in spoken for other in spoken)
        self._foreign: dict[Dialects, frozenset[str]] = {}

    def cut_off(self, server: str) -> frozenset[str]:
        """Those that cannot reach a server, nor it them."""
        return self._cut.get(server, _NOBODY)

    def foreign(self, server: str) -> frozenset[str]:
        """Those whose workers have no version of the bulk dialogue in common with those of a server."""
        row = self._rows.get(server)
        if row is None or self._all_speak:
            return _NOBODY
        found = self._foreign.get(row.bulk)
        if found is None:
            found = self._foreign[row.bulk] = frozenset(
                each.id for each in self._rows.values() if in_common(row.bulk, each.bulk) is None
            )
        return found

    def apart(self, one: str, other: str) -> bool:
        """Whether two servers do nothing together."""
        return other in self.cut_off(one) or other in self.foreign(one)

    def oldest(self, servers: Iterable[str]) -> set[str]:
        """Of some servers those with the oldest workers: the first to be upgraded."""
        rows = [row for row in map(self._rows.get, servers) if row is not None]
        newest = min((row.bulk.newest for row in rows), default=0)
        return {row.id for row in rows if row.bulk.newest == newest}
