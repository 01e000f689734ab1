"""The replicated log behind one narrow port (``propose``, ``committed``, ``leadership``): the pure core of Raft, its store, and
what drives it.

It must not know what a command means.
"""

from caso_mesh.consensus.copy import Copy, read_log
from caso_mesh.consensus.opening import elected, open_replicated
from caso_mesh.consensus.outbox import Transport
from caso_mesh.consensus.port import MAX_COMMAND, Consensus, Entry, Leadership, Position, Replicated, Snapshot
from caso_mesh.model.presets import TIMINGS, Timing

__all__ = [
    "MAX_COMMAND",
    "TIMINGS",
    "Consensus",
    "Copy",
    "Entry",
    "Leadership",
    "Position",
    "Replicated",
    "Snapshot",
    "Timing",
    "Transport",
    "elected",
    "open_replicated",
    "read_log",
]
