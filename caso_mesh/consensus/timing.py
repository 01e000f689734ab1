"""How fast voters notice that the one in office is gone: one pace for each preset."""

from __future__ import annotations

from msgspec import Struct


class Timing(Struct, frozen=True):
    """How fast voters notice that the one in office is gone."""

    #: The unit of all that follows.
    tick_s: float
    #: A voter that hears nothing of the leader for this many ticks, and up to as many again by chance, stands for
    #: election. It must be several times the way of a message and a write to the disk.
    election_ticks: int
    #: The leader is heard at least this often: some of its words may be lost before anybody stands.
    heartbeat_ticks: int


TIMINGS: dict[str, Timing] = {
    # one machine, or one rack: an election begins after 0.5 to 1 s
    "local": Timing(tick_s=0.05, election_ticks=10, heartbeat_ticks=2),
    # one site: 1.5 to 3 s, since a disk may stall for half a second
    "lan": Timing(tick_s=0.1, election_ticks=15, heartbeat_ticks=3),
    # several sites: 5 to 10 s, since a line may stall for a second or two
    "wan": Timing(tick_s=0.25, election_ticks=20, heartbeat_ticks=4),
}
