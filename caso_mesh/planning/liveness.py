"""Who is silent: what the administrator in office concludes from the messages it hears, and those it does not.

Silence is measured by the monotonic clock; the wall clock serves for what people read, and for the silence that was
known before this administrator took office, so that a change of administrator does not restart the count.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from caso_mesh.model.states import Liveness

#: Heartbeats that the administrator hears in a second, of all servers together: with more servers each beats more rarely.
HEARTBEATS_PER_S = 20.0
#: A server is never called stalled before it has missed this many of them: one lost message stalls nobody.
_BEATS_MISSED = 4

_RANK = {Liveness.ALIVE: 0, Liveness.STALLED: 1, Liveness.NO_COMMUNICATION: 2}
_SECOND = 1_000_000_000


def heartbeat_interval_s(setting_s: float, servers: int) -> float:
    """How often each of ``servers`` beats: as ``heartbeat-interval-s`` says, and more rarely as their number grows, so
    that the administrator hears at most ``HEARTBEATS_PER_S``."""
    return max(setting_s, servers / HEARTBEATS_PER_S)


def stalled_after_s(setting_s: float, servers: int) -> float:
    """How long a server may be silent: as ``stalled-after-s`` says, but no shorter than four of the intervals that the
    number of servers makes necessary."""
    return max(setting_s, _BEATS_MISSED * servers / HEARTBEATS_PER_S)


class Watched(Struct, frozen=True):
    """A server as the control state has it, with its limits. ``no_communication_after_s`` counts from the moment it
    is stalled."""

    server: str
    liveness: Liveness
    silent_since_ns: int | None
    stalled_after_s: float
    no_communication_after_s: float


class Heard(Struct, frozen=True):
    """Any message of a server came in, at a monotonic instant."""

    server: str
    at_s: float


class Tick(Struct, frozen=True):
    """Time has passed: the monotonic clock and the wall clock at one moment."""

    now_s: float
    now_ns: int


class Transition(Struct, frozen=True):
    """What should be committed. ``silent_since_ns`` is when the server was last heard; ``None`` if it is alive."""

    server: str
    liveness: Liveness
    silent_since_ns: int | None


class Watch:
    """The watch of one administrator over all servers but its own, from the moment it took office.

    Nobody whom this office has not heard yet is declared anything before its own ``stalled_after_s`` has passed since
    then. A transition is told again at each tick until ``watch`` brings rows that have it.
    """

    def __init__(self, *, office_s: float, office_ns: int) -> None:
        self._office_s = office_s
        self._office_ns = office_ns
        self._rows: dict[str, Watched] = {}
        self._heard: dict[str, float] = {}

    def watch(self, rows: Iterable[Watched]) -> None:
        """The servers to be watched from now on, as committed; others are forgotten."""
        self._rows = {row.server: row for row in rows}
        self._heard = {server: at_s for server, at_s in self._heard.items() if server in self._rows}

    def handle(self, event: Heard | Tick) -> list[Transition]:
        """Transitions that follow, in the order of node ids."""
        if isinstance(event, Heard):
            return self._hear(event)
        found = (self._judge(self._rows[server], event) for server in sorted(self._rows))
        return [transition for transition in found if transition is not None]

    def silent_for_s(self, server: str, now_s: float) -> float | None:
        """How long a server has been silent, ``None`` if it is not watched or was never there."""
        row = self._rows.get(server)
        last_s = None if row is None else self._last_s(row)
        return None if last_s is None else max(0.0, now_s - last_s)

    def grace_over(self, server: str, now_s: float) -> bool:
        """Whether this office may judge a server: it has heard it, or has waited long enough for it."""
        row = self._rows.get(server)
        return row is not None and (server in self._heard or now_s >= self._office_s + row.stalled_after_s)

    def _hear(self, event: Heard) -> list[Transition]:
        row = self._rows.get(event.server)
        if row is None:
            return []
        self._heard[event.server] = max(event.at_s, self._heard.get(event.server, event.at_s))
        return [] if row.liveness is Liveness.ALIVE else [Transition(row.server, Liveness.ALIVE, None)]

    def _judge(self, row: Watched, tick: Tick) -> Transition | None:
        last_s = self._last_s(row)
        if last_s is None or not self.grace_over(row.server, tick.now_s):
            return None
        silent_s = tick.now_s - last_s
        if silent_s >= row.stalled_after_s + row.no_communication_after_s:
            found = Liveness.NO_COMMUNICATION
        elif silent_s >= row.stalled_after_s:
            found = Liveness.STALLED
        else:
            found = Liveness.ALIVE
        heard = row.server in self._heard
        if found is Liveness.ALIVE:
            # Its return was told when it was heard; said again in case that was not committed.
            return Transition(row.server, found, None) if heard and row.liveness is not found else None
        if _RANK[found] <= _RANK[row.liveness]:
            return None
        if row.silent_since_ns is not None and not heard:
            return Transition(row.server, found, row.silent_since_ns)
        return Transition(row.server, found, tick.now_ns - round(silent_s * _SECOND))

    def _last_s(self, row: Watched) -> float | None:
        """When a server was last heard, by the monotonic clock of this office. One that is in no-communication
        without a date was never there: there is nothing to be said of it before it comes."""
        heard = self._heard.get(row.server)
        if heard is not None:
            return heard
        if row.silent_since_ns is not None:
            return self._office_s - max(0.0, (self._office_ns - row.silent_since_ns) / _SECOND)
        return None if row.liveness is Liveness.NO_COMMUNICATION else self._office_s
