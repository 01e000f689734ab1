"""What history says of a part of a run, whatever kind of job it is."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from caso_mesh.model.jobs import BackupSpec, DrillSpec, RestoreSpec, Run, kind_of, set_read
from caso_mesh.planning.history import History, Prediction

#: Nothing is known.
UNKNOWN = Prediction()


class StoredSet(Struct, frozen=True):
    """A backup set as far as placement needs it: on which device and medium (label) it lies, and what all its files come
    to."""

    id: str
    device: str
    bytes: int
    ended_at_ns: int = 0
    medium: str = ""


def predicted(history: History, run: Run, source: str, set_of: Callable[[str], StoredSet | None]) -> Prediction:
    """What the part of ``source`` (node id) will come to. ``set_of`` gives a set by its id, if that is known."""
    spec = run.spec
    if isinstance(spec, BackupSpec):
        return history.predict(run.job, source, spec.type)
    backup = set_of(set_read(spec, source) or "")
    if backup is None:
        return UNKNOWN
    return history.predict_of_set(kind_of(spec), run.job, source, backup.device, bytes_of(run, backup))


def bytes_of(run: Run, backup: StoredSet) -> int:
    """How much of a set a run is about; 0 if that is not known beforehand."""
    in_part = isinstance(run.spec, DrillSpec) or (
        isinstance(run.spec, RestoreSpec) and bool(run.spec.paths or run.spec.selection)
    )
    return 0 if in_part else backup.bytes
