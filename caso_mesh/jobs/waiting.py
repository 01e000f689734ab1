"""Waiting for another thread in a way that a jumping clock can know of."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: +1 when a thread begins to work, -1 when it ends or only waits for somebody else.
Busy = Callable[[int], None]


def no_clock(change: int) -> None:
    """Nobody counts."""


class Waiting:
    """A condition whose waiters do not count as busy.

    Whoever notifies makes them busy again before it goes on itself, so that there is no moment at which work is under
    way and nobody counts as busy: an event loop with a virtual clock would jump then.
    """

    def __init__(self, busy: Busy = no_clock) -> None:
        self._busy = busy
        self._condition = threading.Condition()
        self._asleep = 0
        self._round = 0

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Waits until ``predicate`` holds or, once, for ``timeout_s``; whether it holds. It is asked after each
        ``notify``, and must be quick."""
        with self._condition:
            while not predicate():
                if timeout_s is not None and timeout_s <= 0:
                    return False
                round_ = self._round
                self._asleep += 1
                self._busy(-1)
                self._condition.wait_for(lambda round_=round_: self._round != round_, timeout_s)  # type: ignore[misc]
                if self._round == round_:
                    self._asleep -= 1
                    self._busy(1)
                    return predicate()
            return True

    def notify(self) -> None:
        """Something that a predicate looks at has changed."""
        with self._condition:
            self._round += 1
            if self._asleep:
                self._busy(self._asleep)
                self._asleep = 0
            self._condition.notify_all()
