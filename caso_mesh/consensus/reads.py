"""Reads that wait for a majority to confirm that the leader still leads (Raft thesis, section 6.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from msgspec import Struct

from caso_mesh.consensus.quorum import committed_index


class ReadState(Struct, frozen=True):
    """Whoever has applied ``index`` sees all that was committed before the read with ``token`` was asked for."""

    token: int
    index: int


class Reads:
    """Reads are numbered; a heartbeat carries the number of the last one, and its reply confirms all up to it."""

    def __init__(self) -> None:
        self._waiting: deque[ReadState] = deque()
        self._answered = 0
        self._confirmed: dict[str, int] = {}

    @property
    def round(self) -> int:
        """What heartbeats carry; 0 if nothing waits."""
        return self._answered + len(self._waiting) if self._waiting else 0

    def add(self, read: ReadState) -> None:
        self._waiting.append(read)

    def confirm(self, node: str, read_round: int) -> None:
        self._confirmed[node] = max(self._confirmed.get(node, 0), read_round)

    def take(self, voters: Collection[str]) -> list[ReadState]:
        """The reads that a majority of ``voters`` has confirmed since the last call."""
        reached = committed_index(voters, self._confirmed) or 0
        found = []
        while self._waiting and self._answered < reached:
            found.append(self._waiting.popleft())
            self._answered += 1
        return found
