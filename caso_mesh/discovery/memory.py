"""Discovery without a network: none at all, and one in memory for tests and simulations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from caso_mesh.discovery.board import Board
from caso_mesh.discovery.sighting import Gone, Sighting
from caso_mesh.model.errors import Misuse


class NoDiscovery:
    """Nobody is found, nobody is told. ``Discovery``."""

    async def announce(self, sighting: Sighting) -> None:
        """Nobody hears it."""

    def sightings(self) -> AsyncIterator[Sighting | Gone]:
        return self._silence()

    async def _silence(self) -> AsyncIterator[Sighting | Gone]:
        await asyncio.Event().wait()
        yield Gone("", "")  # never reached; it makes this a generator


class MemoryHub:
    """The network of ``MemoryDiscovery``: all that are on it hear each other at once."""

    def __init__(self) -> None:
        self._members: list[MemoryDiscovery] = []

    def _join(self, member: MemoryDiscovery) -> None:
        self._members.append(member)

    def _leave(self, member: MemoryDiscovery) -> None:
        self._members.remove(member)

    def _others(self, member: MemoryDiscovery) -> list[MemoryDiscovery]:
        return [other for other in self._members if other is not member]


class MemoryDiscovery:
    """One node on a ``MemoryHub``. Uses no clock, so it works under a loop with virtual time. ``Discovery``."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._board = Board()
        self._announced: Sighting | None = None
        self._closed = False
        hub._join(self)
        for other in hub._others(self):
            if other._announced is not None:
                self._board.publish(other._announced)

    async def announce(self, sighting: Sighting) -> None:
        if self._closed:
            raise Misuse("the discovery was closed")
        if self._announced is not None and self._announced.node != sighting.node:
            self._say_goodbye()
        self._announced = sighting
        for other in self._hub._others(self):
            other._board.publish(sighting)

    def sightings(self) -> AsyncIterator[Sighting | Gone]:
        return self._board.watch()

    def close(self, *, goodbye: bool = True) -> None:
        """Leaves the hub; without ``goodbye`` as a killed daemon does, which others go on seeing. May be repeated."""
        if self._closed:
            return
        self._closed = True
        self._hub._leave(self)
        if goodbye:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._announced is not None:
            for other in self._hub._others(self):
                other._board.remove(self._announced.node, self._announced.instance)
