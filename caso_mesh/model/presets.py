"""Presets: the kind of network that a server is in. Each value is explained where it is declared.

A preset moves the defaults of settings (``settings.py``) and sets what cannot be a setting: how a server judges its
links, which it must do before it knows any setting, and the pace of elections, which is that of the first server.
"""

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

    @property
    def election_s(self) -> tuple[float, float]:
        """The shortest and the longest silence before a voter stands."""
        return self.tick_s * self.election_ticks, 2 * self.tick_s * self.election_ticks


TIMINGS: dict[str, Timing] = {
    # one machine, or one rack: an election begins after 0.5 to 1 s
    "local": Timing(tick_s=0.05, election_ticks=10, heartbeat_ticks=2),
    # one site: 1.5 to 3 s, since a disk may stall for half a second
    "lan": Timing(tick_s=0.1, election_ticks=15, heartbeat_ticks=3),
    # several sites: 5 to 10 s, since a line may stall for a second or two
    "wan": Timing(tick_s=0.25, election_ticks=20, heartbeat_ticks=4),
}

#: After so many seconds of silence a server pings the peer of a link, and gives the link up when half of them pass
#: without an answer. Over a line that a backup fills, or that loses packets, an answer may take seconds: a link that is
#: given up too soon is dialled again over the same line.
LINK_SILENCE_S: dict[str, float] = {"local": 10.0, "lan": 10.0, "wan": 20.0}

#: What each is for.
PRESETS: dict[str, str] = {
    "local": "one machine or one rack: trying out, tests, failover in a second",
    "lan": "one site, which is the default",
    "wan": "another site: behind slow lines, lines that lose packets, or a router. Such a server becomes a voter only when "
    "it is asked to",
}
