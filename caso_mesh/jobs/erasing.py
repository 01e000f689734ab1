"""Erasing a device: this server looks itself whether anything speaks against it, asks the administrator in office, and then empties
the vault and begins a new one (``vault.erasing``)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import Struct

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Began, Consults
from caso_mesh.jobs.storing import BackendFor, device_of, open_vault
from caso_mesh.jobs.task import DeviceAccess, Task
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.device_work import MayErase, OpenSession
from caso_mesh.model.errors import ClocksDiffer, DataDamaged, DeviceVanished, Misuse, Protected
from caso_mesh.model.storage import BackupSet, MediaSet
from caso_mesh.model.units import format_instant, format_size
from caso_mesh.planning.media import may_delete_at, protection_end_ns
from caso_mesh.vault.backend import Backend
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.erasing import Erasure, NewVault, erase, header_below, read_erasure
from caso_mesh.vault.vault import Vault

#: Clocks that differ by more delete nothing.
MOST_DIFFERENCE_S = 30.0
_END_OF_TIME = "the end of time"


class _There(Struct, frozen=True):
    """What will be erased."""

    sets: int
    sessions: tuple[OpenSession, ...]


def raw_folder(access: DeviceAccess) -> FolderBackend:
    """The folder of a device, whatever lies in it. Raises ``DeviceVanished``."""
    return FolderBackend(access.path, access.name, marker=None)


def run_erase(task: Task, desk: Desk, backend_for: BackendFor, raw: BackendFor = raw_folder) -> None:
    """Raises ``Protected``, ``InUse``, ``LastGood``, ``ClocksDiffer``, ``DataDamaged`` (a hold that cannot be read), ``Unavailable``
    without an administrator, before anything has gone; ``DeviceVanished`` if neither its vault nor an unfinished erase of it lies there;
    and what the device raises."""
    desk.say(Began())
    spec, access = task.order.spec, device_of(task)
    assert isinstance(spec, EraseSpec)
    backend = raw(access)
    try:
        begun = _has_begun(task, spec, access, backend)
        there = _There(0, ()) if begun else _look(task, desk, backend_for)
        asked = MayErase(task.order.attempt, access.vault, there.sets, there.sessions)
        grant = desk.consult(Consults(erase=asked)).grant
        if grant is None:
            raise Misuse("an administrator that lets a device be erased says so")
        _check_clock(task, desk, grant.now_ns)
        desk.total_bytes = sum(size for _, size in backend.list(""))
        desk.check()
        desk.log("info", "nothing speaks against it: from now on nothing of it can be used")
        objects, size = _empty(task, desk, backend, spec, access, grant.recipients)
    finally:
        close = getattr(backend, "close", None)
        if close is not None:
            close()
    desk.log("info", f"{objects} objects of {format_size(size)} are gone; the vault {spec.becomes} is empty")


def _has_begun(task: Task, spec: EraseSpec, access: DeviceAccess, backend: Backend) -> bool:
    """Whether an earlier attempt had gone past the point where the old vault can be used. Raises ``DeviceVanished``."""
    begun = task.erase is not None and task.erase.begun
    erasure, header = read_erasure(backend), header_below(backend)
    known = {access.vault, spec.becomes}
    if erasure is not None:
        if erasure.vault not in known:
            raise DeviceVanished(device=access.name, detail=f"{access.path} holds another vault, which is being erased")
        return True
    if header is None and begun and any(True for _ in backend.list("")):
        # On a device without any room there was none for the mark, which comes when something has gone. A folder with nothing
        # of a vault in it is the place where a disk is to be mounted.
        return True
    if header is None or header.vault not in known or (header.vault == spec.becomes and not begun):
        raise DeviceVanished(device=access.name, detail=f"{access.path} holds another vault or none")
    return header.vault == spec.becomes  # it was done, and nobody lived to tell


def _look(task: Task, desk: Desk, backend_for: BackendFor) -> _There:
    """Whether anything in the vault speaks against it."""
    with open_vault(task, desk, backend_for, writes=False) as vault:
        sets = list(vault.sets(deleted=True))
        alive = [each for each in sets if not vault.holds.is_gone(each.id)]
        now_ns = desk.clock.now_ns()
        for each in alive:
            desk.check()
            _check_lock(vault, each, now_ns)
            _check_protection(task, each, sets, now_ns)
        sessions = vault.open_sessions()
    desk.log("info", f"{len(alive)} sets will be gone, {len(sets) - len(alive)} are deleted already")
    return _There(
        len(alive), tuple(OpenSession(each.writer, each.session, each.server, each.attempt) for each in sessions)
    )


def _check_lock(vault: Vault, backup: BackupSet, now_ns: int) -> None:
    unreadable = vault.holds.unreadable(backup.id)
    if unreadable is not None:
        raise DataDamaged(object=unreadable, detail="it may be a lock, so its set is not deleted")
    lock = vault.holds.lock_of(backup.id)
    if lock is not None and lock.locks_at(now_ns):
        raise Protected(set=backup.id, until=format_instant(lock.until_ns) or _END_OF_TIME)


def _check_protection(task: Task, backup: BackupSet, known: Sequence[BackupSet], now_ns: int) -> None:
    """By the last write to the medium: of all sets on it, deleted ones too, and what this server wrote itself."""
    plan = task.erase
    assert plan is not None
    media_set: MediaSet | None = next((each for each in plan.media_sets if each.name == backup.media_set), None)
    if media_set is None:
        raise Protected(set=backup.id, until=f"its media set {backup.media_set} is known again")
    place = (backup.server, backup.medium)
    written = [each.ended_at_ns for each in known if (each.server, each.medium) == place]
    until_ns = protection_end_ns(max(plan.last_writes.get(backup.medium, 0), *written), media_set)
    if not may_delete_at(until_ns, now_ns):
        raise Protected(set=backup.id, until=format_instant(until_ns) or _END_OF_TIME)


def _check_clock(task: Task, desk: Desk, admin_ns: int) -> None:
    apart_s = abs(desk.clock.now_ns() - admin_ns) / 1e9
    if apart_s > MOST_DIFFERENCE_S:
        raise ClocksDiffer(server=task.server_name, other="the administrator", seconds=round(apart_s))


def _empty(
    task: Task, desk: Desk, backend: Backend, spec: EraseSpec, access: DeviceAccess, recipients: dict[str, bytes]
) -> tuple[int, int]:
    def gone(size: int) -> None:
        desk.check()
        desk.tally.entries += 1
        desk.tally.bytes += size

    erase(
        backend,
        Erasure(access.vault, spec.becomes, task.order.attempt),
        NewVault(
            vault=spec.becomes,
            mesh=access.mesh,
            chunker=ChunkerParameters(seed=task.chunker_seed),
            recipients=recipients,
            key_id=task.set,
            id_key=task.id_key,
        ),
        randomness=os.urandom,
        on_object=gone,
    )
    return desk.tally.entries, desk.tally.bytes
