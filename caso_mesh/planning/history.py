"""What history tells of a backup to come: how long it will take, how much it will store, and how fast servers are.

The time of a backup is taken as the product of what the job needs and what the place (a server with a device) makes of
it; both are found by sweeping medians out of the table of logarithms, in turns (J. W. Tukey, "Exploratory Data
Analysis", 1977: median polish), so that one night that went wrong changes little.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log
from statistics import median

from msgspec import Struct

from caso_mesh.model.states import BackupType

#: So many of the last backups of a kind count.
_LAST = 7
#: What takes less says nothing of how fast a place is.
_SHORTEST_S = 2.0
#: A place is judged by so many backups of jobs that ran at another place, too.
_FEWEST = 3
_SWEEPS = 6
#: Nothing is believed to be faster or slower by more than this.
_FASTEST = 16.0

_Kind = tuple[str, str, BackupType]
_Place = tuple[str, str]


class Sample(Struct, frozen=True):
    """One backup that succeeded: of which job and source, where it was written, how long it took, what it stored."""

    job: str
    source: str
    type: BackupType
    server: str
    device: str
    seconds: float
    bytes_stored: int


class Prediction(Struct, frozen=True):
    """``seconds`` on a server of speed 1, ``elsewhere_s`` where nothing of the source is stored yet; ``None`` = nobody
    knows. ``bytes``: what will be stored where sets of the source are, ``elsewhere_bytes`` where none are."""

    seconds: float | None = None
    elsewhere_s: float | None = None
    bytes: int = 0
    elsewhere_bytes: int = 0


class History:
    """What was learnt of ``samples``, newest first."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        samples = tuple(samples)
        by_kind: dict[_Kind, list[Sample]] = {}
        #: The first backup of each source on each device: it stored all that there is, later ones what is new.
        first = {(sample.source, sample.device): sample for sample in samples}
        for sample in samples:
            same = by_kind.setdefault((sample.job, sample.source, sample.type), [])
            if len(same) < _LAST:
                same.append(sample)
        places = _places(by_kind)
        #: (server, device) -> how fast backups run there; 1 in the middle of all, where it is not known.
        self.speeds: dict[_Place, float] = {place: _rounded(exp(-effect)) for place, effect in places.items()}
        self._seconds = {kind: exp(_middle(same, places)) for kind, same in by_kind.items()}
        self._bytes = {
            kind: round(median(later))
            for kind, same in by_kind.items()
            if (later := [each.bytes_stored for each in same if each is not first[each.source, each.device]])
        }
        self._all_bytes: dict[str, int] = {}
        for (source, _), sample in first.items():
            self._all_bytes[source] = max(sample.bytes_stored, self._all_bytes.get(source, 0))
        self._full_s: dict[str, float] = {}
        for (_, source, type_), seconds in self._seconds.items():
            if type_ is BackupType.FULL:
                self._full_s[source] = max(seconds, self._full_s.get(source, 0.0))
        self._predictions: dict[_Kind, Prediction] = {}

    def predict(self, job: str, source: str, type: BackupType) -> Prediction:
        """The same object for the same question."""
        kind = (job, source, type)
        found = self._predictions.get(kind)
        if found is None:
            known = kind if kind in self._seconds else (job, source, BackupType.FULL)
            elsewhere = None if type in {BackupType.FULL, BackupType.COPY} else self._full_s.get(source)
            found = Prediction(
                self._seconds.get(known), elsewhere, self._bytes.get(known, 0), self._all_bytes.get(source, 0)
            )
            self._predictions[kind] = found
        return found


def _places(by_kind: dict[_Kind, list[Sample]]) -> dict[_Place, float]:
    """The logarithm of what each place makes of the time of a backup."""
    comparable = {
        kind: [each for each in same if each.seconds >= _SHORTEST_S]
        for kind, same in by_kind.items()
        if len({(each.server, each.device) for each in same if each.seconds >= _SHORTEST_S}) > 1
    }
    at: dict[_Place, list[tuple[_Kind, float]]] = {}
    for kind, same in comparable.items():
        for each in same:
            at.setdefault((each.server, each.device), []).append((kind, log(each.seconds)))
    effects = dict.fromkeys((place for place, found in at.items() if len(found) >= _FEWEST), 0.0)
    for _ in range(_SWEEPS):
        middles = {kind: _middle(same, effects) for kind, same in comparable.items()}
        effects = {place: median(seconds - middles[kind] for kind, seconds in at[place]) for place in effects}
        if effects:
            centre = median(effects.values())
            effects = {place: effect - centre for place, effect in effects.items()}
    bound = log(_FASTEST)
    return {place: max(-bound, min(bound, effect)) for place, effect in effects.items()}


def _middle(same: Iterable[Sample], effects: dict[_Place, float]) -> float:
    """The logarithm of what a kind of backup takes where the place makes no difference."""
    return median(log(max(each.seconds, 0.001)) - effects.get((each.server, each.device), 0.0) for each in same)


def _rounded(speed: float) -> float:
    """In steps of a tenth or so: what changes by less is no news."""
    return round(1.1 ** round(log(speed, 1.1)), 3)
