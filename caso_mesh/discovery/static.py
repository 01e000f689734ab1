"""Peers whose addresses were given by a person, for networks that multicast does not cross."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from caso_mesh.discovery.board import Board
from caso_mesh.discovery.sighting import Gone, Sighting, split_address


class StaticPeers:
    """The addresses of the configuration and of ``peer add``, each a sighting without node id. ``Discovery``.

    Raises ``InvalidValue`` for an address that is not HOST:PORT.
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._board = Board()
        for address in addresses:
            self.add(address)

    async def announce(self, sighting: Sighting) -> None:
        """Does nothing: static peers learn of us by their own configuration or by our dialling them."""

    def sightings(self) -> AsyncIterator[Sighting | Gone]:
        return self._board.watch()

    def add(self, address: str) -> None:
        """Adds a peer; one that is there already changes nothing. Raises ``InvalidValue``."""
        split_address(address)
        self._board.publish(
            Sighting(
                mesh=None,
                node="",
                name="",
                addresses=(address,),
                version="",
                instance=address,
                discovered_by="static",
            )
        )

    def remove(self, address: str) -> None:
        """Takes a peer off; its ``Gone`` has the address as its instance."""
        self._board.remove(address)

    def addresses(self) -> list[str]:
        return sorted(sighting.instance for sighting in self._board.seen())
