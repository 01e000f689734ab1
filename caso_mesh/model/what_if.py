"""What is asked of a night to come, and what it will be like."""

from __future__ import annotations

from msgspec import Struct


class WhatIf(Struct, frozen=True):
    """What a night to come would be like ``without`` some servers, and ``without_devices``. It begins at ``from_ns``
    (without it: now) and ends at ``until_ns``, or without it when it is ``morning`` (``HH:MM`` in ``zone``, or without it
    in that of most schedules) for the ``days``-th time. ``limit``: at most so many runs are told one by one."""

    without: tuple[str, ...] = ()
    without_devices: tuple[str, ...] = ()
    from_ns: int | None = None
    until_ns: int | None = None
    morning: str = "08:00"
    zone: str | None = None
    days: int = 1
    limit: int = 1000


class WhatIfRun(Struct, frozen=True):
    """What would become of a part of a run. ``state`` is the run's at its end; ``ready``: it would still wait when all else
    is over, ``delegated``: it would still run. ``begins``, ``ends``, ``server`` and ``device`` are those of its attempts;
    ``guessed``: nothing is known of how long it takes. ``reason``, ``reason_text``: why it would wait when it is ready, or
    why it would never start. ``usual_...``: the same with everything there; ``None`` if that is the question."""

    run: str
    job: str
    kind: str
    selection: str | None
    source: str
    due: str
    state: str
    begins: str | None
    ends: str | None
    server: str | None
    device: str | None
    bytes_stored: int
    guessed: bool
    reason: str | None
    reason_text: str | None
    usual_state: str | None = None
    usual_begins: str | None = None
    usual_ends: str | None = None


class WhatIfList(Struct, frozen=True):
    """What would become of a selection list (``kind`` ``list``), or of a job that was made of none (``job``): how many of
    its ``runs`` (parts of runs, superseded ones not counted) are ``done`` by the end, and how many are ``missed``,
    ``failed`` or ``late`` (later than that, or never). ``because``: why the first of those. ``away``: its sources that
    would not be there. ``usual``: whether all of it is done in time with everything there."""

    name: str
    kind: str
    runs: int
    done: int
    missed: int
    failed: int
    late: int
    ends: str | None
    because: str | None
    away: tuple[str, ...]
    usual: bool | None = None


class WhatIfServer(Struct, frozen=True):
    """``away``: it would not be there, or is not now. ``runs`` that it would write or read for others, ``seconds`` of them
    all together, and which part that is of what it may do at once (``load``, percent)."""

    name: str
    away: bool
    runs: int
    seconds: float
    load: float


class WhatIfDevice(Struct, frozen=True):
    """``runs``, ``seconds`` and ``load`` as of a server. ``free_bytes`` now and at the end, as predicted. ``full``: when it
    would take nothing more, being low on space. ``bytes_a_day``: what the schedules of four weeks will store on it;
    ``days_until_full`` after the end, if nothing is deleted."""

    name: str
    away: bool
    runs: int
    seconds: float
    load: float
    bytes_stored: int
    free_bytes: int | None
    free_bytes_then: int | None
    full: str | None
    bytes_a_day: int
    days_until_full: float | None
    usual_full: str | None = None


class WhatIfView(Struct, frozen=True):
    """``verdict`` in words; ``good``: all is done in time, and no device is full. ``ends``: when the last run ends that
    ends at all; ``later_s`` than ``usual_ends``, with everything there. ``until`` is the end of the night in ``zone``.
    ``guessed``: so many runs of which nothing is known, which count as ``typical_s`` each. ``more``: not all runs are
    told. ``notes``: what it stands on."""

    verdict: str
    good: bool
    ends: str | None
    usual_ends: str | None
    later_s: float | None
    begins: str
    until: str
    zone: str
    without: tuple[str, ...]
    without_devices: tuple[str, ...]
    runs_total: int
    lists: tuple[WhatIfList, ...]
    servers: tuple[WhatIfServer, ...]
    devices: tuple[WhatIfDevice, ...]
    runs: tuple[WhatIfRun, ...]
    more: bool
    guessed: int
    typical_s: float
    notes: tuple[str, ...] = ()
