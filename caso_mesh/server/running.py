"""An attempt that is at work on this server."""

from __future__ import annotations

import asyncio

from caso_mesh.jobs.runner import Worker
from caso_mesh.model import facts
from caso_mesh.model.jobs import Counts
from caso_mesh.model.orders import Orders
from caso_mesh.server.queue import LocalAttempt


class Running:
    """An attempt with a task of its own."""

    def __init__(self, local: LocalAttempt) -> None:
        self.local = local
        self.worker: Worker | None = None
        #: The same, also once it has ended: a process of it may be left.
        self.started: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.cancel = False
        #: Set with ``cancel``.
        self.asked_to_end = asyncio.Event()
        self.by_force = False
        #: Why, if nobody asked for it.
        self.why_over = ""
        #: Until when, by the monotonic clock, it leaves the source as it was: it is not killed before, but by force.
        self.cleans_up_until_s = 0.0
        #: Whether its worker knows that the attempt at the second device is over.
        self.alone = False
        self.published = False
        #: Codes of what the other end was refused for.
        self.turned_away: set[str] = set()
        #: The limit of bandwidth that its worker knows of, and the tickets.
        self.bandwidth = ""
        self.tickets: dict[str, bytes] = {}
        self.end: facts.AttemptEnded | None = None
        #: As its worker last reported.
        self.counts = Counts()


def any_ended(before: Orders, now: Orders) -> bool:
    """Whether attempts of the orders before are not in those of now any more."""
    return bool({each.attempt for each in before.attempts} - {each.attempt for each in now.attempts})
