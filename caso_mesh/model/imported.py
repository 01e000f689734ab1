"""A device that servers of another mesh wrote: what is kept of that mesh, so that its sets can be read here."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Imported(Struct, frozen=True):
    """``mesh`` is the id of the mesh that it came from, ``mesh_name`` its name as it is shown here, which no other such mesh
    has. ``names``: of its servers (node ids) whose files or sets are on the device. ``signers``: the public keys of those that
    signed something there; empty where no copy of that mesh knew the server, so that its signature cannot be checked.
    ``copies``: what opens the device, sealed to servers of this mesh (by node id), and to nobody else. ``listed``: its sets are in the
    records of this mesh."""

    mesh: str
    mesh_name: str
    names: dict[str, str]
    signers: dict[str, bytes]
    copies: dict[str, bytes]
    listed: bool = False

    def shown(self, node: str, name: str) -> str:
        """A server of that mesh for people; ``name`` if the node id is not known. No server of this mesh has such a name."""
        return f"{self.names.get(node, name)}@{self.mesh_name}"


def distinct(found: Mapping[str, str]) -> dict[str, str]:
    """The names of servers by node id, such that none is there twice: machines that had one after the other get four
    characters of their ids."""
    names = [*found.values()]
    return {node: f"{name}-{node[:4]}" if names.count(name) > 1 else name for node, name in sorted(found.items())}
