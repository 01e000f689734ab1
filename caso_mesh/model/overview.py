"""The mesh at a glance: what a person wants to see first, and again every second."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.outcomes import JobView
from caso_mesh.model.views import AlertView

#: Rows of each kind in one answer.
MOST_ROWS = 500


class OverviewRequest(Struct, frozen=True):
    """``limit``: so many rows of each kind at most. ``watch``: what is shown of running attempts is reported twice a second for
    a while, as to whoever waits for a run."""

    limit: int = 10
    watch: bool = False


class AwayServer(Struct, frozen=True):
    """A server that is not as it should be: its state, or ``not-connected`` if nothing else is known against it; ``since``
    when it is silent, if it is."""

    name: str
    state: str
    since: str | None


class DueJob(Struct, frozen=True):
    at: str
    name: str


class Overview(Struct, frozen=True):
    """Of servers, runs and alerts that concern the caller. ``away``, ``running``, ``waiting``, ``alerts`` and ``due`` are the
    first of them, ``servers``, ``reasons`` and ``ended`` count all by state or reason. ``ended``: runs that ended since
    ``since``, a day ago; ``ended_badly``: names of those that failed, were missed or took too long, newest first."""

    at: str
    servers: dict[str, int]
    connected: int
    away: tuple[AwayServer, ...]
    running_total: int
    running: tuple[JobView, ...]
    rate: float
    waiting_total: int
    waiting: tuple[JobView, ...]
    reasons: dict[str, int]
    alerts_total: int
    alerts: tuple[AlertView, ...]
    since: str
    ended: dict[str, int]
    ended_badly: tuple[str, ...]
    due: tuple[DueJob, ...]
