"""How much of what one server tells is taken in a time, so that one that tells without end, by a fault or on purpose, neither
fills the disks of the voters nor holds up the others.

Each server has an allowance, which is full again within a day: twice as much as may wait at it for an administrator
(``journal-limit-mb``), so that an honest one that was away for weeks is within half of it. When less than half of it is left, log lines that
are neither warnings nor errors mean nothing any more; with a quarter of it left no log line and no exception does; and when nothing is left,
the server has to wait. Alerts of one category are counted by themselves.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

_DAY_S, _HOUR_S = 86400.0, 3600.0
#: Of the allowance: what is left when lines are left out, and when all is that nothing hangs on; and when a flood is over.
_THIN, _BARE, _OVER = 1 / 2, 1 / 4, 3 / 4
#: Alerts of one category that a server may raise in an hour.
ALERTS = 100


class Weight(IntEnum):
    """What may be left out of what is told, the lightest first."""

    DETAIL = 0
    LOG = 1
    NEEDED = 2


class _Meter(Struct):
    left: float
    at_s: float


class _Alerts(Struct):
    until_s: float
    count: int = 0


class Floods:
    """Of all servers, by node id. ``allowance``: bytes; ``now_s``: of a monotonic clock."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}
        self._alerts: dict[tuple[str, str], _Alerts] = {}
        #: Servers of whose telling something was left out, or that had to wait, since their allowance was large.
        self.flooding: dict[str, int] = {}

    def must_wait(self, server: str, allowance: float, now_s: float) -> bool:
        """Whether nothing of its allowance is left."""
        if self._left(server, allowance, now_s) > 0:
            return False
        self.flooding.setdefault(server, 0)
        return True

    def is_left_out(self, server: str, weight: Weight, size: int, allowance: float, now_s: float) -> bool:
        """Counts something of ``size`` bytes: whether it is too much."""
        left = self._left(server, allowance, now_s)
        self._meters[server].left = left - size
        limit = {Weight.DETAIL: _THIN, Weight.LOG: _BARE}.get(weight)
        if limit is None or left > limit * allowance:
            return False
        self.flooding[server] = self.flooding.get(server, 0) + 1
        return True

    def is_one_too_many(self, server: str, category: str, now_s: float) -> bool:
        """Counts an alert: whether there were enough of its category in this hour."""
        found = self._alerts.get((server, category))
        if found is None or found.until_s <= now_s:
            self._alerts = {key: each for key, each in self._alerts.items() if each.until_s > now_s}
            found = self._alerts[server, category] = _Alerts(now_s + _HOUR_S)
        found.count += 1
        if found.count <= ALERTS:
            return False
        self.flooding[server] = self.flooding.get(server, 0) + 1
        return True

    def over(self, allowance_of: dict[str, float], now_s: float) -> list[str]:
        """Servers whose flood is over: they are not remembered any more."""
        busy = {server for (server, _), each in self._alerts.items() if each.count > ALERTS and each.until_s > now_s}
        found = [
            server
            for server in self.flooding
            if server not in busy
            and self._left(server, allowance_of.get(server, 0.0), now_s) >= _OVER * allowance_of.get(server, 0.0)
        ]
        for server in found:
            del self.flooding[server]
        return found

    def _left(self, server: str, allowance: float, now_s: float) -> float:
        meter = self._meters.setdefault(server, _Meter(allowance, now_s))
        meter.left = min(allowance, meter.left + (now_s - meter.at_s) * allowance / _DAY_S)
        meter.at_s = now_s
        return meter.left
