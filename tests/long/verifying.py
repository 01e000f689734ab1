"""Every set of a mesh is verified, a few commands at a time."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.process import ProcessMesh

_AT_ONCE = 4


def verify_all(mesh: ProcessMesh, sets: Iterable[str]) -> None:
    """Each is sound."""
    waiting = list(sets)
    while waiting:
        begun = [mesh.begin("alpha", "verify", set_id, "--wait") for set_id in waiting[:_AT_ONCE]]
        del waiting[:_AT_ONCE]
        for each in begun:
            verified = each.end()
            assert verified.status == 0, str(verified)
            assert verified.document["state"] == "succeeded", str(verified)
