"""A test run: whether a backup would work, and what it would come to. Files are walked, not read; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from caso_mesh.devices.port import RESERVE
from caso_mesh.jobs.backup import SETTLE_NS, Earlier, Known, Wanted, check_mounted, wanted_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.reading import needs_reading
from caso_mesh.jobs.shrinking import check_not_shrunk
from caso_mesh.jobs.storing import BackendFor, choose_base, device_of, newest, open_vault, signer_of
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import TYPE_NUMBERS, EntryType
from caso_mesh.model.errors import ContainsNoData, DeviceFull, Misuse
from caso_mesh.model.host_commands import is_reserved
from caso_mesh.model.jobs import BackupSpec, Predicted, TestRunSpec
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_duration, format_size
from caso_mesh.sources.unchanged import Same
from caso_mesh.sources.walk import Walker
from caso_mesh.vault.vault import Vault

_SECOND = 1_000_000_000
_FILE, _FOLDER = TYPE_NUMBERS[EntryType.FILE], TYPE_NUMBERS[EntryType.DIRECTORY]
#: So many of the newest sets tell how fast a device is filled.
_NEWEST = 20
#: After so many names the daemon is heard.
_OFTEN = 1024


class Measure(Struct, frozen=True):
    """What really would run, the set that change is measured against, and whether all is read nevertheless: a full
    reads what has not changed, and stores none of it again."""

    type: BackupType
    last: BackupSet | None
    reads_all: bool


class Surveyed(Struct, frozen=True):
    """What a walk came to, beside what it counted: bytes that are new or have changed, and how long the walk took."""

    bytes_new: int
    seconds: float


def tried(task: Task) -> BackupSpec:
    """The backup that a test run is about."""
    spec = task.order.spec
    if not isinstance(spec, TestRunSpec):
        raise Misuse("a test run needs a test run's spec")
    return spec.backup


# --- the source's end ---


def survey(desk: Desk, wanted: Wanted, known: Known | None, on_pause: Callable[[], object] = lambda: None) -> Surveyed:
    """Walks what a backup would read, and counts it in the desk's tally; ``known`` as for ``backup.run_backup``. Raises
    ``ContainsNoData``, ``Canceled``."""
    began_s = desk.clock.monotonic_s()
    check_mounted(desk, wanted.folders)
    if wanted.dumps:
        desk.log("info", f"not predicted, since only the commands could tell: {', '.join(wanted.dumps)}")
    walker = Walker(
        wanted.folders,
        wanted.filters,
        on_exception=desk.exception,
        on_note=lambda note: None,
        previous=None if known is None else Earlier(known.tree, desk),
        settled_before=None if known is None else divmod(known.start_ns, _SECOND),
    )
    tally, bytes_new, content = desk.tally, 0, bool(wanted.dumps)
    for number, found in enumerate(walker.found()):
        if not number % _OFTEN:
            desk.check()
            on_pause()
        if isinstance(found, Same):
            before = found.before
            path, is_file, size = before.path, before.type == _FILE, before.size
            content = content or before.type != _FOLDER
        else:
            entry = found.entry
            path, is_file = entry.path, entry.type is EntryType.FILE
            size = entry.size if entry.hardlink is None else 0
            content = content or entry.type is not EntryType.DIRECTORY
        if not path or is_reserved(path):
            continue
        desk.path = path
        tally.entries += 1
        if is_file:
            tally.files += 1
            tally.bytes += size
            if not isinstance(found, Same) and needs_reading(found):
                # holes are not read; a file system that has not placed the file yet tells of no blocks
                bytes_new += min(found.state.size, found.state.blocks * 512 or found.state.size)
    if not content:
        raise ContainsNoData(paths=list(wanted.roots))
    return Surveyed(bytes_new, desk.clock.monotonic_s() - began_s)


# --- the device's end ---


def bytes_per_second(sets: Iterable[BackupSet], server: str, source: str) -> float | None:
    """How fast ``server`` read ``source`` to a device that holds ``sets``, or if it never did, any source; or any server.
    Of the newest sets the one that read most tells: there all that is not reading weighs least."""
    timed = [each for each in sets if each.bytes_read and each.ended_at_ns > each.started_at_ns]
    ways: tuple[Callable[[BackupSet], bool], ...] = (
        lambda each: (each.server, each.source) == (server, source),
        lambda each: each.server == server,
        lambda each: True,
    )
    for fits in ways:
        mine = sorted(filter(fits, timed), key=lambda each: each.started_at_ns)[-_NEWEST:]
        if mine:
            most = max(mine, key=lambda each: each.bytes_read)
            return most.bytes_read * _SECOND / (most.ended_at_ns - most.started_at_ns)
    return None


def predict(files: int, size: int, surveyed: Surveyed, rate: float | None, *, reads_all: bool) -> Predicted:
    """``rate``: bytes per second, if that is known. The walk takes as long again in the backup."""
    seconds: float | None = surveyed.seconds
    read = size if reads_all else surveyed.bytes_new
    if read:
        seconds = None if rate is None else surveyed.seconds + read / rate
    return Predicted(files, size, surveyed.bytes_new, seconds)


def fits(size: int, free: int, total: int) -> bool:
    """Whether ``size`` bytes can be added to a device (``total`` 0: it does not tell)."""
    return not total or size <= free - total * RESERVE


def measure(task: Task, desk: Desk, vault: Vault) -> Measure:
    """By what the backup would be measured. Raises ``StateMissing``, ``StateDamaged`` if this server could not sign a
    set."""
    signer_of(task)
    source, digest, avoid = task.order.kept_as, wanted_of(task).digest, task.order.avoid
    base = choose_base(vault, desk, source=source, filters=digest, type_=tried(task).type, avoid=avoid)
    last = base.parent
    if last is None:
        last = newest(vault, lambda each: each.source == source and each.filters == digest and each.id not in avoid)
        if last is not None and not vault.holds_all(last):
            last = None
    return Measure(base.type, last, reads_all=base.parent is None)


def conclude(
    task: Task,
    desk: Desk,
    vault: Vault,
    measured: Measure,
    surveyed: Surveyed,
    on_predicted: Callable[[Predicted], None],
) -> None:
    """Says what is predicted out of what was found. Raises what the backup would end with: ``ContainsNoData``,
    ``DeviceFull``."""
    tally, device = desk.tally, device_of(task)
    rate = bytes_per_second(
        (each for each in vault.sets() if each.copy_of is None and each.made_of is None),
        task.server,
        task.order.kept_as,
    )
    found = predict(tally.files, tally.bytes, surveyed, rate, reads_all=measured.reads_all)
    on_predicted(found)
    time = "in unknown time" if found.seconds is None else f"in about {format_duration(found.seconds)}"
    desk.log(
        "info",
        f"predicted: {found.files} files of {format_size(found.bytes)}, {format_size(found.bytes_new)} new, {time}",
    )
    check_not_shrunk(task, desk, vault, wanted_of(task).digest)
    free, total = vault.space()
    if not fits(found.bytes_new, free, total):
        desk.log("error", f"{device.name} has {format_size(free)} free, less than what may have to be stored")
        raise DeviceFull(device=device.name)


def run_here(task: Task, desk: Desk, backend_for: BackendFor, on_predicted: Callable[[Predicted], None]) -> None:
    """Both ends on one server."""
    with open_vault(task, desk, backend_for, writes=False) as vault:
        measured = measure(task, desk, vault)
        desk.say(Began(measured.type))
        last, known = measured.last, None
        if last is not None:
            known = Known(vault.tree(last.root), last.started_at_ns - SETTLE_NS)
            desk.total_bytes, desk.total_files = last.bytes, last.files
        conclude(task, desk, vault, measured, survey(desk, wanted_of(task), known), on_predicted)
