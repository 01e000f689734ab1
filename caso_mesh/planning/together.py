"""Which servers can do something together: those that reach each other, and whose workers speak with each other."""

from __future__ import annotations

from collections.abc import Iterable

from caso_mesh.model.dialects import Dialects, in_common
from caso_mesh.model.states import JobKind
from caso_mesh.planning.problem import Problem

_NOBODY: frozenset[str] = frozenset()
#: What sends from the media server to the other end; all else goes the other way.
_GOES_BACK = frozenset({JobKind.RESTORE, JobKind.DRILL})


class Together:
    """Of the servers of one round, by node id."""

    def __init__(self, problem: Problem) -> None:
        self._rows = {row.id: row for row in problem.servers}
        cut: dict[str, set[str]] = {}
        for source, server in problem.no_data_path:
            cut.setdefault(source, set()).add(server)
        self._cut = {source: frozenset(servers) for source, servers in cut.items()}
        self._shut = problem.shut
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

    def shut(self, kind: JobKind, source: str) -> frozenset[str]:
        """The media servers to which, or from which, a job for the files of a server would send, and nothing is sent now. A
        test run moves nothing."""
        if not self._shut or kind is JobKind.TEST_RUN:
            return _NOBODY
        if kind in _GOES_BACK:
            return frozenset(self._shut) - {source}
        return frozenset(self._rows) - {source} if source in self._shut else _NOBODY

    def barred(self, kind: JobKind, source: str) -> frozenset[str]:
        """The media servers that cannot be had now for the files of a server, since no way leads there, or nothing is sent."""
        return self.cut_off(source) | self.shut(kind, source)

    def senders(self, kind: JobKind, source: str, media: Iterable[str]) -> Iterable[str]:
        """Who would send something, of a server and the media servers that a job for its files may have."""
        return media if kind in _GOES_BACK else (source,)

    def shut_until(self, senders: Iterable[str]) -> tuple[list[str], int] | None:
        """Of some servers those that send nothing now, and when the first of them does again; ``None`` if all send."""
        found = sorted(set(senders) & self._shut.keys())
        return (found, min(self._shut[id] for id in found)) if found else None

    def apart(self, one: str, other: str) -> bool:
        """Whether two servers do nothing together for which ``one`` would send something."""
        return other in self.cut_off(one) or other in self.foreign(one) or (one in self._shut and one != other)

    def oldest(self, servers: Iterable[str]) -> set[str]:
        """Of some servers those with the oldest workers: the first to be upgraded."""
        rows = [row for row in map(self._rows.get, servers) if row is not None]
        newest = min((row.bulk.newest for row in rows), default=0)
        return {row.id for row in rows if row.bulk.newest == newest}
