"""Who is seen now, and streams of the changes: shared by all ways of discovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, ValuesView

from caso_mesh.discovery.sighting import Gone, Sighting

#: Servers that are remembered; a flood of announcements beyond it is dropped.
LIMIT = 4096


class _Reader:
    """Events not yet taken by one reader: the last one of each server, oldest first."""

    def __init__(self) -> None:
        self.waiting: dict[str, Sighting | Gone] = {}
        self.filled = asyncio.Event()

    def add(self, key: str, event: Sighting | Gone) -> None:
        self.waiting.pop(key, None)
        self.waiting[key] = event
        self.filled.set()


class Board:
    """Sightings by server (node id, or the address of a static peer), to be used inside one event loop."""

    def __init__(self) -> None:
        self._seen: dict[str, Sighting] = {}
        self._readers: set[_Reader] = set()

    def seen(self) -> ValuesView[Sighting]:
        return self._seen.values()

    def publish(self, sighting: Sighting) -> bool:
        """False if there is no room for one more server."""
        key = sighting.node or sighting.instance
        if key not in self._seen and len(self._seen) >= LIMIT:
            return False
        if self._seen.get(key) != sighting:
            self._seen[key] = sighting
            self._tell(key, sighting)
        return True

    def remove(self, key: str, instance: str | None = None) -> None:
        """Takes off whom ``key`` names; with ``instance`` only if it still is that one."""
        sighting = self._seen.get(key)
        if sighting is not None and instance in (None, sighting.instance):
            del self._seen[key]
            self._tell(key, Gone(sighting.node, sighting.instance))

    def watch(self) -> AsyncIterator[Sighting | Gone]:
        """The stream of ``Discovery.sightings``. It begins when it is first asked, with all who are seen then."""
        return self._watch()

    async def _watch(self) -> AsyncIterator[Sighting | Gone]:
        reader = _Reader()
        for key, sighting in self._seen.items():
            reader.add(key, sighting)
        self._readers.add(reader)
        try:
            while True:
                await reader.filled.wait()
                while reader.waiting:
                    yield reader.waiting.pop(next(iter(reader.waiting)))
                reader.filled.clear()
        finally:
            self._readers.discard(reader)

    def _tell(self, key: str, event: Sighting | Gone) -> None:
        for reader in self._readers:
            reader.add(key, event)
