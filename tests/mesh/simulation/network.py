"""The network of a simulated mesh: cuts and slow ways by the names of servers, whichever life they are in, and deaths."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from caso_mesh.wire.memory import Conditions, MemoryEndpoint, MemoryNetwork

_USUAL = Conditions(delay_s=0.001, jitter_s=0.004)


class SimNetwork(MemoryNetwork):
    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, conditions=_USUAL, silence_s=6.0)
        self._ways: set[tuple[str, str]] = set()
        self._slow: dict[tuple[str, str], Conditions] = {}

    def is_cut(self, a: MemoryEndpoint, b: MemoryEndpoint) -> bool:
        return (a.name, b.name) in self._ways

    def conditions(self, a: MemoryEndpoint, b: MemoryEndpoint) -> Conditions:
        return self._slow.get((a.name, b.name), _USUAL)

    def reaches(self, a: str, b: str) -> bool:
        return (a, b) not in self._ways

    def is_well(self, a: str, b: str) -> bool:
        """Whether two servers reach each other as on a good day."""
        return not ({(a, b), (b, a)} & self._ways) and (a, b) not in self._slow

    def cut_ways(self, ways: Iterable[tuple[str, str]]) -> None:
        """Nothing goes these ways any more."""
        self._ways |= set(ways)
        for wire in tuple(self._wires):
            if wire.is_cut:
                wire.was_cut()

    def heal_ways(self, ways: Iterable[tuple[str, str]] | None = None) -> None:
        """These ways, or all."""
        self._ways -= set(self._ways if ways is None else ways)
        for wire in tuple(self._wires):
            wire.was_healed()

    def slow_down(self, a: str, b: str, conditions: Conditions | None) -> None:
        """Both ways between two servers; ``None``: as usual again."""
        for way in ((a, b), (b, a)):
            if conditions is None:
                self._slow.pop(way, None)
            else:
                self._slow[way] = conditions

    def all_well(self) -> None:
        """No way is slow any more."""
        self._slow.clear()

    def reset_between(self, a: str, b: str) -> None:
        """Links between two servers break at once."""
        for wire in tuple(self._wires):
            if {end.name for end in wire.ends} == {a, b}:
                wire.break_now()

    def die(self, endpoint: MemoryEndpoint, *, silently: bool) -> None:
        """The process of an endpoint is gone. What it had sent still arrives, then an end; or nothing at all, as when the
        machine lost power, and the others find out by the silence."""
        for listener in self._listeners.values():
            if listener.endpoint is endpoint:
                listener.closed = True
        for wire in tuple(self._wires):
            if endpoint not in wire.ends:
                continue
            for way in wire.directions:
                if way.sender is endpoint:
                    if not silently:
                        way.end()
                    way.send = _gone  # type: ignore[method-assign]
                    way.end = _nothing  # type: ignore[method-assign]
            if silently:
                asyncio.get_running_loop().call_later(self._silence_s, wire.break_now)


async def _gone(message: bytes) -> None:
    raise ConnectionResetError("the process of this end is gone")


def _nothing() -> None:
    return
