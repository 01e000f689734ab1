"""The end of a backup at the device: everything durable, the catalog's detail, leave to publish, the set, its check."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from caso_mesh.catalog.segment import SegmentWriter, chain_for, chain_of, from_entry
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Published, Verifying
from caso_mesh.jobs.shrinking import check_not_shrunk
from caso_mesh.jobs.storing import Base, Writing, device_of, newest
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, SourceException
from caso_mesh.model.errors import CasoError, DataDamaged, DeviceError, DeviceVanished, Misuse, ObjectMissing
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.states import AttemptState, BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.tree import changes
from caso_mesh.vault.vault import Vault

#: Damaged files that are named in a message.
_NAMED = 3


@contextmanager
def first_detail(task: Task, vault: Vault, filters: bytes) -> Iterator[SegmentWriter | None]:
    """The catalog's detail of a set that will be the first of its chain: to be filled while the tree is written, so that
    it need not be read again. None where there is an earlier set, or nobody wants any."""
    chain = chain_for(task.order.kept_as, filters, device_of(task).vault, _roots(task))
    if not task.segment_path or newest(vault, lambda each: chain_of(each) == chain) is not None:
        yield None
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(task.segment_path)
    with SegmentWriter(task.segment_path, set_id=task.set, chain=chain) as detail:
        yield detail


def publish(
    task: Task,
    desk: Desk,
    work: Writing,
    base: Base,
    *,
    root: bytes,
    filters: bytes,
    started_at_ns: int,
    detail: SegmentWriter | None = None,
    copy_of: str | None = None,
) -> Published:
    """Adds the set of a tree whose pieces are all in the session. Raises ``Canceled`` until the daemon has agreed.

    ``copy_of``: the set of the same reading on the first device. ``detail`` has all its entries already. What it returns is to be said once the session is closed.
    """
    device = device_of(task)
    check_not_shrunk(task, desk, work.vault, filters)
    work.session.flush()
    desk.flush()
    tally = desk.tally
    tally.bytes_stored = work.session.bytes_stored
    backup = BackupSet(
        id=task.set,
        mesh=device.mesh,
        vault=device.vault,
        source=task.order.kept_as,
        source_name=task.source_name,
        server=task.server,
        server_name=task.server_name,
        device=device.device,
        device_name=device.name,
        medium=task.medium,
        media_set=task.media_set,
        type=base.type,
        job=task.order.job,
        run=task.order.run,
        attempt=task.order.attempt,
        started_at_ns=started_at_ns,
        ended_at_ns=max(started_at_ns, desk.clock.now_ns()),
        roots=_roots(task),
        filters=filters,
        root=root,
        parent=base.parent.id if base.parent else None,
        files=tally.files,
        entries=tally.entries,
        bytes=tally.bytes,
        bytes_read=tally.bytes_read,
        bytes_stored=tally.bytes_stored,
        exceptions=tally.exceptions,
        copy_of=copy_of,
    )
    return _publish(task, desk, work, backup, detail)


def publish_copy(task: Task, desk: Desk, work: Writing, first: BackupSet) -> Published:
    """As ``publish``, of a set whose tree is that of ``first`` on another device: it has its source, times and type, and
    is counted on its own."""
    return _publish_again(task, desk, work, first, copy_of=first.copy_of or first.id)


def publish_synthetic(task: Task, desk: Desk, work: Writing, first: BackupSet) -> Published:
    """As ``publish``, of a full set whose tree is that of ``first`` on the same device: it has its source and times, and
    is counted on its own."""
    return _publish_again(task, desk, work, first, made_of=first.id, type=BackupType.FULL)


def _publish_again(task: Task, desk: Desk, work: Writing, first: BackupSet, **changes: Any) -> Published:
    device = device_of(task)
    work.session.flush()
    desk.flush()
    tally = desk.tally
    tally.bytes_stored = work.session.bytes_stored
    backup = msgspec.structs.replace(
        first,
        id=task.set,
        mesh=device.mesh,
        vault=device.vault,
        server=task.server,
        server_name=task.server_name,
        device=device.device,
        device_name=device.name,
        medium=task.medium,
        media_set=task.media_set,
        job=task.order.job,
        run=task.order.run,
        attempt=task.order.attempt,
        parent=None,
        files=tally.files,
        entries=tally.entries,
        bytes=tally.bytes,
        bytes_read=tally.bytes_read,
        bytes_stored=tally.bytes_stored,
        **changes,
    )
    return _publish(task, desk, work, backup, None)


def _publish(task: Task, desk: Desk, work: Writing, backup: BackupSet, detail: SegmentWriter | None) -> Published:
    digest, size = detail.finish() if detail is not None else write_segment(task, work.vault, backup)
    desk.ask_publish(backup.id)
    work.session.publish(backup)
    desk.log("info", f"published the set {backup.id}")
    return Published(backup, digest, size)


def _roots(task: Task) -> tuple[bytes, ...]:
    spec = task.order.spec
    if not isinstance(spec, BackupSpec):
        raise Misuse("only a backup publishes a set")
    return tuple(root.strip(b"/") for each in spec.sources if each.server == task.order.source for root in each.roots)


def write_segment(task: Task, vault: Vault, backup: BackupSet) -> tuple[bytes, int]:
    """The catalog's detail of a set that is about to be published: its digest and size; nothing without a path."""
    if not task.segment_path:
        return b"", 0
    chain = chain_of(backup)
    base = newest(vault, lambda each: each.id != backup.id and chain_of(each) == chain)
    try:
        return _write_changes(task.segment_path, vault, backup, base)
    except DeviceVanished:
        raise
    except (DataDamaged, DeviceError, ObjectMissing):
        if base is None or vault.holds_all(base):
            raise
        # the older tree is lost, not the new one: a detail without a base says it all
        return _write_changes(task.segment_path, vault, backup, None)


def write_detail(path: str, vault: Vault, backup: BackupSet, earlier: Sequence[BackupSet]) -> tuple[bytes, int]:
    """The catalog's detail of a set that was published long ago, against the newest of ``earlier`` in its chain, whose
    detail exists: its digest and size. Raises ``DataDamaged``, ``ObjectMissing``, ``DeviceError``."""
    chain = chain_of(backup)
    mine = [each for each in earlier if chain_of(each) == chain]
    return _write_changes(path, vault, backup, max(mine, key=lambda each: each.started_at_ns, default=None))


def _write_changes(path: str, vault: Vault, backup: BackupSet, base: BackupSet | None) -> tuple[bytes, int]:
    if os.path.exists(path):
        os.unlink(path)
    old = vault.tree(base.root) if base is not None else None
    with SegmentWriter(
        path, set_id=backup.id, chain=chain_of(backup), base=base.id if base is not None else None
    ) as segment:
        for removed, entry in _records(changes(old, vault.tree(backup.root))):
            if entry is not None:
                segment.add(from_entry(entry))
            elif removed is not None:
                segment.remove(removed)
        return segment.finish()


def _records(
    differences: Iterator[tuple[Entry | None, Entry | None]],
) -> Iterator[tuple[bytes | None, Entry | None]]:
    """(removed path, None) or (None, entry), in path order; of a removed folder only the top."""
    gone = b"\x00"
    for before, after in differences:
        if after is not None:
            if before is None or from_entry(before) != from_entry(after):
                yield None, after
        elif before is not None and not before.path.startswith(gone):
            gone = before.path + b"/"
            yield before.path, None


def check_published(desk: Desk, vault: Vault, backup: BackupSet) -> None:
    """Reads back what a set promises. Raises ``DataDamaged``; the files hit are exceptions."""
    desk.state = AttemptState.VERIFYING
    desk.say(Verifying())
    desk.log("info", f"verifies the set {backup.id}")
    verify(desk, vault, backup, alone=False)
    desk.log("info", "verified: every byte that the set promises was read back")


def verify(desk: Desk, vault: Vault, backup: BackupSet, *, alone: bool = True) -> None:
    """As ``check_published``, without saying so. ``alone``: it is all there is to do, so it counts what it reads."""

    def progress(done: int, total: int) -> None:
        desk.check()
        desk.total_bytes = total
        if alone:
            desk.tally.bytes = done
            desk.tally.read(max(0, done - desk.tally.bytes_read))

    if alone:
        desk.total_bytes, desk.total_files = backup.bytes, backup.files
    damage = vault.verify_set(backup, on_progress=progress)
    if alone:
        desk.tally.files, desk.tally.entries = backup.files, backup.entries
    desk.check()
    if not damage:
        return
    for path, error in damage:
        desk.exception(SourceException(path, "damaged", error.message))
    raise name_damage(backup, damage)


def name_damage(backup: BackupSet, damage: Sequence[tuple[bytes, CasoError]]) -> DataDamaged:
    """What is damaged in a set: the first few files by name."""
    named = ["/" + path.decode("utf-8", "backslashreplace") for path, _ in damage if path]
    files = f": {', '.join(named[:_NAMED])}{' ...' if len(named) > _NAMED else ''}" if named else ""
    return DataDamaged(object=f"the set {backup.id}", detail=f"{len(damage)} places{files}")
