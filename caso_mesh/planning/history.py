"""What history tells of a run to come: how long it will take, how much it will store, and how fast servers are.

The time of a backup is taken as the product of what the job needs and what the place (a server with a device) makes of
it; both are found by sweeping medians out of the table of logarithms, in turns (J. W. Tukey, "Exploratory Data
Analysis", 1977: median polish), so that one night that went wrong changes little. Runs about a set (restores, verifications, copies) take as long as they
took before; those that never ran, by the bytes of the set, as long as their like on the same device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from statistics import median

from msgspec import Struct

from caso_mesh.model.states import BackupType, JobKind

#: So many of the last backups of a kind count.
_LAST = 7
#: What takes less says nothing of how fast a place is.
_SHORTEST_S = 2.0
#: A place is judged by so many backups of jobs that ran at another place, too.
_FEWEST = 3
_SWEEPS = 6
#: Nothing is believed to be faster or slower by more than this.
_FASTEST = 16.0

#: So many predictions about sets are kept.
_REMEMBERED = 20_000

_Kind = tuple[str, str, BackupType]
_OfSet = tuple[JobKind, str, str]
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


class SetSample(Struct, frozen=True):
    """One run about a set that succeeded: of which job and source, the device that the set was on, the bytes of the set (0
    if they say nothing of how long it took), and what a copy stored on which device."""

    kind: JobKind
    job: str
    source: str
    device: str
    seconds: float
    bytes: int
    bytes_stored: int = 0
    stored_on: str = ""


class Prediction(Struct, frozen=True):
    """``seconds`` on a server of speed 1, ``elsewhere_s`` where nothing of the source is stored yet; ``None`` = nobody
    knows. ``bytes``: what will be stored where sets of the source are, ``elsewhere_bytes`` where none are."""

    seconds: float | None = None
    elsewhere_s: float | None = None
    bytes: int = 0
    elsewhere_bytes: int = 0

    def takes_s(self, *, holds: bool, speed: float) -> float | None:
        """Seconds on a server and device of a speed; ``holds``: that device has sets of the source."""
        elsewhere = self.elsewhere_s is not None and not holds
        seconds = self.elsewhere_s if elsewhere else self.seconds
        return None if seconds is None else seconds / speed

    def stores(self, *, holds: bool) -> int:
        """Bytes."""
        return self.bytes if holds else self.elsewhere_bytes


class History:
    """What was learnt of ``samples`` and ``of_sets``, newest first."""

    def __init__(self, samples: Iterable[Sample] = (), of_sets: Iterable[SetSample] = ()) -> None:
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
        self._new_bytes: dict[str, int] = {}
        for (_, source, _), size in self._bytes.items():
            self._new_bytes[source] = max(size, self._new_bytes.get(source, 0))
        self._predictions: dict[_Kind, Prediction] = {}
        self._learn_of_sets(tuple(of_sets))

    def _learn_of_sets(self, samples: Sequence[SetSample]) -> None:
        by_job: dict[_OfSet, list[SetSample]] = {}
        by_device: dict[tuple[JobKind, str], list[SetSample]] = {}
        for sample in samples:
            for same in (
                by_job.setdefault((sample.kind, sample.job, sample.source), []),
                by_device.setdefault((sample.kind, sample.device), []),
                by_device.setdefault((sample.kind, ""), []),
            ):
                if len(same) < _LAST:
                    same.append(sample)
        first = {(each.source, each.stored_on): each for each in samples if each.stored_on}
        self._set_seconds = {key: median(each.seconds for each in same) for key, same in by_job.items()}
        self._set_bytes = {
            key: round(median(later))
            for key, same in by_job.items()
            if (later := [each.bytes_stored for each in same if each is not first.get((each.source, each.stored_on))])
        }
        #: Seconds for a byte, and for what is so little that the bytes do not count, by kind and device (empty = any).
        self._paces = {place: _pace(same) for place, same in by_device.items()}
        self._set_predictions: dict[tuple[_OfSet, str, int], Prediction] = {}

    def typical_s(self) -> float | None:
        """What a run takes of which nothing is known; ``None`` while nothing at all is."""
        known = [*self._seconds.values(), *self._set_seconds.values()]
        return median(known) if known else None

    def speed_of(self, server: str, device: str) -> float:
        """How fast backups run there; 1 where that is not known."""
        return self.speeds.get((server, device), 1.0)

    def predict_of_set(self, kind: JobKind, job: str, source: str, device: str, size: int) -> Prediction:
        """Of a run about a set of ``size`` bytes on ``device``; the same object for the same question."""
        key = ((kind, job, source), device, size)
        found = self._set_predictions.get(key)
        if found is None:
            seconds = self._set_seconds.get(key[0])
            if seconds is None:
                pace = self._paces.get((kind, device)) or self._paces.get((kind, ""))
                seconds = None if pace is None else max(pace[1], pace[0] * size) or None
            copies, stores = kind is JobKind.DUPLICATE, kind in {JobKind.DUPLICATE, JobKind.SYNTHETIC}
            found = Prediction(
                seconds,
                # a copy of a set for which there was none yet: what was new in the set
                bytes=self._set_bytes.get(key[0], self._new_bytes.get(source, 0) if copies else 0) if stores else 0,
                elsewhere_bytes=size if copies else 0,
            )
            if len(self._set_predictions) > _REMEMBERED:
                self._set_predictions.clear()
            self._set_predictions[key] = found
        return found

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


def _pace(samples: Sequence[SetSample]) -> tuple[float, float]:
    """Seconds for a byte, and the least seconds: of those that took little, or whose bytes tell nothing."""
    telling = [each.seconds / each.bytes for each in samples if each.seconds >= _SHORTEST_S and each.bytes]
    short = [each.seconds for each in samples if each.seconds < _SHORTEST_S or not each.bytes]
    return (median(telling) if telling else 0.0, median(short) if short else 0.0)
