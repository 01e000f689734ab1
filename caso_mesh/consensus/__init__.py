"""The replicated log behind one narrow port (``propose``, ``committed``, ``leadership``), with its log store.

It must not know what a command means.
"""

from caso_mesh.consensus.port import MAX_COMMAND, Consensus, Entry, Leadership, Position, Snapshot
from caso_mesh.consensus.single import open_single_voter

__all__ = [
    "MAX_COMMAND",
    "Consensus",
    "Entry",
    "Leadership",
    "Position",
    "Snapshot",
    "open_single_voter",
]
