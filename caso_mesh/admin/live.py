"""What the administrator in office has seen since it took office: heartbeats, space, progress. Never decided upon
without the clock, never kept: another administrator sees it anew within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from msgspec import Struct

from caso_mesh.model.jobs import Progress, Waiting
from caso_mesh.model.nodes import DeviceReport, Heartbeat
from caso_mesh.model.states import WaitReason

#: What a server that is back did while it was away is waited for at most so long before others do it again.
NEWS_S = 60.0


class Heard(Struct, frozen=True):
    """The last heartbeat of a server, by the monotonic clock of this administrator."""

    at_s: float
    beat: Heartbeat


class Live:
    """Tables by id."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}
        #: Since when a server tells what it did before it was back, by the monotonic clock.
        self._telling_s: dict[str, float] = {}
        #: When any message of a server came last, by the monotonic clock.
        self.heard_at_s: dict[str, float] = {}
        self.progress: dict[str, Progress] = {}
        self.waiting: Mapping[tuple[str, str], Waiting] = {}
        #: Since when parts wait for the reason that they have, by what is kept of that (``reasons``).
        self.waits_since: dict[tuple[str, str], tuple[WaitReason, int]] = {}
        self.redundant: dict[str, tuple[str, ...]] = {}
        #: Sets that are not where they are believed to be, by device.
        self.missing: dict[str, frozenset[str]] = {}
        #: Whether runs that are due at once are being opened.
        self.opening = False
        #: Why runs waited that are being closed as missed.
        self.missed_for: dict[str, Waiting] = {}
        #: Set by whatever a server says that is not known to be alive.
        self.returned = asyncio.Event()
        self._news = asyncio.Event()

    def returns(self, server: str, now_s: float) -> None:
        """A server that was given up says something: until its heartbeat knows better, it has more to tell."""
        self._telling_s[server] = now_s
        self.returned.set()

    def hear(self, server: str, beat: Heartbeat, now_s: float) -> None:
        """A heartbeat has come."""
        self.heard[server] = Heard(now_s, beat)
        if beat.telling:
            self._telling_s.setdefault(server, now_s)
        else:
            self._telling_s.pop(server, None)

    def telling(self, now_s: float) -> tuple[str, ...]:
        """Servers that are back and whose facts of before are on their way, and not for too long."""
        return tuple(sorted(id for id, since_s in self._telling_s.items() if now_s - since_s < NEWS_S))

    def since_ns(self, run: str, source: str) -> int | None:
        """Since when a part waits for what it waits for now; ``None`` if it does not, or has only begun to."""
        waits, known = self.waiting.get((run, source)), self.waits_since.get((run, source))
        return known[1] if waits is not None and known is not None and known[0] is waits.reason else None

    def tell(self) -> None:
        """Facts or catalogs came: whoever follows a run looks again."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def next_news(self) -> asyncio.Event:
        """Is set at the next ``tell``."""
        return self._news

    def report_of(self, device: str, server: str) -> DeviceReport | None:
        """What a server last said of a device."""
        heard = self.heard.get(server)
        if heard is None:
            return None
        for report in heard.beat.devices:
            if report.device == device:
                return report
        return None
