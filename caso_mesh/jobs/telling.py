"""What the job log of every attempt tells: what begins, and how it ended, with figures."""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.jobs.task import Task
from caso_mesh.model.device_jobs import CatalogSpec, EraseSpec, InventorySpec
from caso_mesh.model.jobs import (
    BackupSpec,
    Counts,
    DrillSpec,
    DuplicateSpec,
    RestoreSpec,
    SyntheticSpec,
    TestRunSpec,
    VerifySpec,
    kind_of,
)
from caso_mesh.model.states import OF_DEVICE
from caso_mesh.model.units import escape_path, format_duration, format_size

#: Paths that are named in one line.
_NAMED = 5
#: Rates over less time say nothing.
_SHORTEST_S = 0.5


def begins(task: Task) -> str:
    """One line for the beginning of an attempt, as this end of it sees it."""
    order, here = task.order, task.server_name
    far = task.far.name if task.far is not None else here
    match order.spec, order.end:
        case BackupSpec() as spec, "source":
            return f"begins: {here} reads {_shown(_roots(task, spec))} for {far}"
        case BackupSpec() as spec, _:
            where = f"{task.source_name}:{_shown(_roots(task, spec))}"
            return f"begins: {spec.type.value} backup of {where} to {_device(task)}, medium {task.medium}, at {here}"
        case RestoreSpec() as spec, "source":
            return f"begins: {here} takes what {far} restores out of the set {spec.set}"
        case RestoreSpec() as spec, _:
            chosen = spec.chosen()
            what = f"{len(chosen)} paths, {_shown(chosen)}," if spec.selection else _shown(chosen) or "everything"
            place = "where it came from" if spec.base is None else _path(spec.base)
            return f"begins: restore of {what} out of the set {spec.set} on {_device(task)} to {far}, {place}"
        case DrillSpec() as spec, "source":
            return f"begins: {here} takes a sample that {far} restores out of the set {spec.set}"
        case DrillSpec() as spec, _:
            return f"begins: restore drill of the set {spec.set} on {_device(task)} to scratch at {far}"
        case TestRunSpec(backup=spec), "source":
            return f"begins: {here} walks {_shown(_roots(task, spec))} for a test run at {far}"
        case TestRunSpec(backup=spec), _:
            where = f"{task.source_name}:{_shown(_roots(task, spec))}"
            return f"begins: test run of a backup of {where} to {_device(task)} at {here}; nothing is moved"
        case DuplicateSpec() as spec, "source":
            return f"begins: {here} reads the set {spec.set_of(order.source)} for {far}, which stores a copy"
        case DuplicateSpec() as spec, _:
            what = f"the set {spec.set_of(order.source)} of {task.source_name}"
            return f"begins: copy of {what} to {_device(task)}, medium {task.medium}, at {here}, read by {far}"
        case SyntheticSpec() as spec, _:
            what = f"the set {spec.set_of(order.source)} of {task.source_name}"
            return f"begins: synthetic full of {what} on {_device(task)}, medium {task.medium}, at {here}"
        case VerifySpec() as spec, _:
            return f"begins: verification of the set {spec.set} on {_device(task)} at {here}"
        case EraseSpec(), _:
            return f"begins: {_device(task)} is erased at {here}"
        case InventorySpec(), _:
            return f"begins: inventory of {_device(task)} at {here}"
        case CatalogSpec(), _:
            return f"begins: the catalog of {_device(task)} is made anew at {here}"


def ended(task: Task, how: str, counts: Counts, seconds: float) -> str:
    """One line for the end of an attempt; ``how`` it ended, in a word or two."""
    if kind_of(task.order.spec) in OF_DEVICE:
        return f"ended, {how}, in {format_duration(seconds)}"
    figures = [f"{counts.files} files", f"{counts.entries} entries", format_size(counts.bytes)]
    match task.order.spec:
        case BackupSpec() | DuplicateSpec() | SyntheticSpec():
            figures += [f"{format_size(counts.bytes_read)} read", f"{format_size(counts.bytes_stored)} stored"]
        case RestoreSpec() | DrillSpec():
            figures[2] += " restored"
        case TestRunSpec():
            figures[2] += " found"
        case _:
            figures[2] += " checked"
    if counts.exceptions:
        figures.append(f"{counts.exceptions} exceptions")
    moved = counts.bytes_read or counts.bytes
    rate = f", {format_size(round(moved / seconds))}/s" if seconds >= _SHORTEST_S and moved else ""
    return f"ended, {how}: {', '.join(figures)} in {format_duration(seconds)}{rate}"


def _device(task: Task) -> str:
    return f"the device {task.device.name}" if task.device is not None else "a device"


def _roots(task: Task, spec: BackupSpec) -> tuple[bytes, ...]:
    return tuple(root for each in spec.sources if each.server == task.order.source for root in each.roots)


def _shown(paths: Sequence[bytes]) -> str:
    return ", ".join(_path(path) for path in paths[:_NAMED]) + (" ..." if len(paths) > _NAMED else "")


def _path(path: bytes) -> str:
    return escape_path(b"/" + path.lstrip(b"/"))
