"""What a forecast (``forecast.py``) stands on, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from caso_mesh.control.placing import Seen
from caso_mesh.model.errors import CasoError, all_errors
from caso_mesh.model.jobs import Failure, Waiting
from caso_mesh.model.states import JobKind, RunState
from caso_mesh.planning.history import History
from caso_mesh.planning.predicting import StoredSet

#: A run of which nothing is known takes so long while nothing at all is.
_TYPICAL_S = 600.0


class Known(Struct, frozen=True, kw_only=True):
    """What the office knows beside the control state. ``seen``: as placement is told it, the ends of active attempts
    included. ``sets``: by id, those that open runs are about. ``newest``: the newest set of each job and source."""

    seen: Seen
    history: History = History()
    sets: Mapping[str, StoredSet] = {}
    newest: Mapping[tuple[str, str], StoredSet] = {}


class Away(Struct, frozen=True):
    """Servers and devices (ids) that are taken to be gone from the beginning on."""

    servers: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()


class PartForecast(Struct, frozen=True):
    """What becomes of the part of ``source`` of a run. ``state`` ``ready``: it still waits when all else is over,
    ``delegated``: it still runs then. ``begins_at_ns`` is its first attempt's, ``ends_at_ns``, ``server`` and ``device``
    the last one's. ``guessed``: nothing is known of how long it takes. ``waits``: why it did not start when it was
    ready, or why it never did."""

    run: str
    job: str
    name: str
    source: str
    kind: JobKind
    due_at_ns: int
    state: RunState
    begins_at_ns: int | None = None
    ends_at_ns: int | None = None
    server: str = ""
    device: str = ""
    stored_bytes: int = 0
    guessed: bool = False
    waits: Waiting | None = None


class Use(Struct, frozen=True):
    """One attempt, as far as it lies in the time that is looked at."""

    server: str
    device: str
    other: str
    from_ns: int
    until_ns: int


class DeviceForecast(Struct, frozen=True):
    """``free_bytes`` before and after, ``None`` = not known. ``full_at_ns``: when it first takes nothing more, being low
    on space."""

    device: str
    stored_bytes: int
    free_before: int | None
    free_after: int | None
    full_at_ns: int | None


class Forecast(Struct, frozen=True):
    """``parts`` of runs that were open at the beginning or due before ``until_ns``, by due time. ``looked_until_ns``: no
    further than this was looked. ``rounds``: how often it was placed."""

    parts: tuple[PartForecast, ...]
    devices: tuple[DeviceForecast, ...]
    uses: tuple[Use, ...]
    away: frozenset[str]
    looked_until_ns: int
    rounds: int

    def ends_at_ns(self) -> int | None:
        """When the last run ends that ends at all."""
        return max((part.ends_at_ns for part in self.parts if part.ends_at_ns is not None), default=None)


def typical_s(history: History) -> float:
    """How long a run is taken to last of which nothing is known."""
    return history.typical_s() or _TYPICAL_S


def device_forecast(
    id: str,
    stored: Mapping[str, int],
    free: tuple[Mapping[str, int], Mapping[str, int]],
    full_at_ns: Mapping[str, int],
) -> DeviceForecast:
    """Out of tables by device (id); ``free`` are those of before and after."""
    return DeviceForecast(id, stored.get(id, 0), free[0].get(id), free[1].get(id), full_at_ns.get(id))


def failure_of(error: CasoError) -> Failure:
    """An error as a record."""
    return Failure(error.code, error.fields)


def category_of(code: str) -> str:
    """The category that error-handling rules may name."""
    known = all_errors().get(code)
    return "general" if known is None else known.category
