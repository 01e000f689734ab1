"""Reads roots from read-only snapshots of what they lie on, and leaves none of them behind.

Before a snapshot is taken, a *record* of it is durable in the state folder, locked as long as its maker (and every program
that it started) lives. A record that nobody holds belongs to the dead: whoever sweeps removes its snapshot. Names begin
with the mesh and the server, so that snapshots are found by their names as well, should the records be lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
from msgspec import Struct

from caso_mesh.model.errors import SnapshotFailed
from caso_mesh.model.states import SnapshotMode
from caso_mesh.sources import mounts
from caso_mesh.sources.btrfs import Btrfs
from caso_mesh.sources.filters import is_below, merged_roots
from caso_mesh.sources.lvm import Lvm
from caso_mesh.sources.mounts import Mount
from caso_mesh.sources.places import Places
from caso_mesh.sources.snapshot_kinds import PREFIX, Kind, Plan, ToolFailed, Unsuitable, inside
from caso_mesh.sources.zfs import Zfs

Log = Callable[[Literal["info", "warning"], str], None]
Table = Callable[[], list[Mount]]
MountOf = Callable[[bytes, Sequence[Mount]], Mount | None]

#: In their order of trying: btrfs may lie on a logical volume.
KINDS: tuple[Kind, ...] = (Btrfs(), Zfs(), Lvm())
_ID, _ATTEMPT = 13, 48


class SnapshotPlace(Struct, frozen=True):
    """Where this server keeps its records (and mounts what must be mounted), and how the names of its snapshots begin."""

    folder: str
    prefix: str


def snapshot_place(folder: str, mesh: str, node: str) -> SnapshotPlace:
    """Of a server (``node``: its id) of a mesh."""
    return SnapshotPlace(folder, f"{PREFIX}{_plain(mesh)[:_ID]}.{_plain(node)[:_ID]}.")


def snapshot_name(place: SnapshotPlace, attempt: str, serial: int) -> str:
    """A name that LVM, ZFS and file systems take: whose it is, of which attempt, and the how manieth."""
    text = _plain(attempt)
    if len(text) > _ATTEMPT:
        digest = hashlib.sha256(attempt.encode()).hexdigest()[:8]
        text = f"{text[: _ATTEMPT - 9]}.{digest}"
    return f"{place.prefix}{text}.{serial}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", text)


@contextmanager
def frozen(
    roots: Sequence[bytes],
    *,
    mode: SnapshotMode,
    place: SnapshotPlace | None,
    attempt: str,
    server: str,
    log: Log,
    kinds: Sequence[Kind] = KINDS,
    table: Table = mounts.mounted,
    mount_of: MountOf = mounts.mount_of,
) -> Iterator[Places | None]:
    """What is inside reads ``roots`` at the places it is given, ``None`` for all as they are. ``place`` ``None``: this
    server's own file allows no snapshots.

    Raises ``SnapshotFailed`` where one is required and cannot be had, and if one did not last until the end.
    """
    if mode is SnapshotMode.NEVER or not roots:
        yield None
        return
    taking = _Taking(roots, mode, place, attempt, server, log, kinds)
    try:
        places = taking.take(table, mount_of)
        yield places
        taking.check()
    finally:
        taking.remove()


class _Taken:
    def __init__(self, plan: Plan, kind: Kind, record: _Record) -> None:
        self.plan = plan
        self.kind = kind
        self.record = record


class _Taking:
    """The snapshots of one attempt."""

    def __init__(
        self,
        roots: Sequence[bytes],
        mode: SnapshotMode,
        place: SnapshotPlace | None,
        attempt: str,
        server: str,
        log: Log,
        kinds: Sequence[Kind],
    ) -> None:
        self._roots = merged_roots(roots, nested=True)
        self._required = mode is SnapshotMode.REQUIRED
        self._place = place
        self._attempt = attempt
        self._server = server
        self._log = log
        self._kinds = kinds
        #: By kind and what they are of; ``None``: there is none.
        self._taken: dict[tuple[str, str], _Taken | None] = {}

    def take(self, table: Table, mount_of: MountOf) -> Places | None:
        """One snapshot of each file system that roots lie on. Raises ``SnapshotFailed``."""
        if self._place is None or os.geteuid() != 0:
            why = "snapshots need root" if self._place is not None else "its own file does not allow snapshots"
            for root in self._roots:
                self._live(root, why)
            return None
        sweep(self._place, self._log, kinds=self._kinds, table=table)
        redirects: dict[bytes, bytes] = {}
        seams: set[bytes] = set()
        stand_ins: list[bytes] = []
        mounted = table()
        for root in self._roots:
            # links in its folders are followed, it itself is not: as the walk does
            folder, _, name = root.rpartition(b"/")
            real = os.path.join(os.path.realpath(folder or b"/"), name)
            try:
                if stat.S_ISLNK(os.stat(real, follow_symlinks=False).st_mode):
                    continue
                taken = self._of(root, real, mount_of(real, mounted))
            except OSError as error:
                self._live(root, error.strerror or str(error))
                continue
            if taken is None:
                redirects[root] = real  # also where it lies in another root that is read from a snapshot
                continue
            if taken.plan.kind == Btrfs.name:
                stand_ins.append(root)
            redirects[root] = inside(real, taken.plan.top, taken.plan.at)
            below = (mount.point for mount in mounted if mount.point != real and is_below(mount.point, real))
            seams.update(os.path.join(root, os.path.relpath(point, real)) for point in below)
        made = [taken for taken in self._taken.values() if taken is not None]
        if not made:
            return None
        devices = {os.stat(each.plan.at).st_dev: os.stat(each.plan.top).st_dev for each in made}
        return Places(
            redirects,
            seams=seams,
            devices=devices,
            stand_ins=stand_ins,
            on_live=lambda path: self._log("info", f"{_shown(path)} lies on another file system: it is read as it is"),
        )

    def _live(self, root: bytes, detail: str) -> None:
        if self._required:
            raise SnapshotFailed(path=_shown(root), server=self._server, detail=detail)
        self._log("warning", f"{_shown(root)} is read as it is, without a snapshot: {detail}")

    def _of(self, root: bytes, real: bytes, mount: Mount | None) -> _Taken | None:
        """The snapshot of what a root lies on; without one that was said."""
        assert self._place is not None
        name = snapshot_name(self._place, self._attempt, len(self._taken))
        why = "what it lies on is not known"
        for kind in self._kinds if mount is not None else ():
            assert mount is not None
            try:
                plan = kind.plan(real, mount, name, os.fsencode(self._place.folder))
                key = (plan.kind, plan.of)
                if key not in self._taken:
                    self._taken[key] = None
                    self._taken[key] = self._create(kind, plan)
                    self._log("info", f"takes a read-only {plan.kind} snapshot of {plan.of} ({plan.name})")
                taken = self._taken[key]
                if taken is not None:
                    return taken
                why = f"there is no snapshot of {plan.of}"
                break
            except Unsuitable as error:
                why = str(error)
                if mount.kind == kind.name:
                    break
            except ToolFailed as error:
                why = str(error)
                break
        self._live(root, why)
        return None

    def _create(self, kind: Kind, plan: Plan) -> _Taken:
        assert self._place is not None
        record = _Record.make(self._place.folder, plan)
        try:
            kind.create(plan, record.fd)
        except ToolFailed:
            self._remove(_Taken(plan, kind, record))
            raise
        except BaseException:
            record.close()  # whoever sweeps looks what is there
            raise
        return _Taken(plan, kind, record)

    def check(self) -> None:
        """All was read. Raises ``SnapshotFailed`` if a snapshot did not last so long."""
        for taken in self._taken.values():
            if taken is not None:
                try:
                    taken.kind.check(taken.plan)
                except ToolFailed as error:
                    raise SnapshotFailed(path=taken.plan.of, server=self._server, detail=str(error)) from None

    def remove(self) -> None:
        """What cannot be removed now stays recorded."""
        for taken in self._taken.values():
            if taken is not None:
                self._remove(taken)
        self._taken.clear()

    def _remove(self, taken: _Taken) -> None:
        try:
            taken.kind.remove(taken.plan, taken.record.fd)
        except (ToolFailed, OSError) as error:
            taken.record.close()
            what = f"the {taken.plan.kind} snapshot {taken.plan.what}"
            self._log(
                "warning", f"{what} could not be removed; it is tried again before the next one is taken: {error}"
            )
        else:
            taken.record.drop()


# --- what the dead left ----------------------------------------------------------------------------------------------


def sweep(
    place: SnapshotPlace,
    log: Log,
    *,
    kinds: Sequence[Kind] = KINDS,
    table: Table = mounts.mounted,
) -> list[str]:
    """Removes the snapshots of this server that no living attempt reads: their names. What fails is told and stays."""
    known = {kind.name: kind for kind in kinds}
    left: dict[str, Plan] = {}
    mounted: list[Mount] = []
    try:
        mounted = table()
    except OSError as error:
        log("warning", f"what is mounted cannot be read: {error.strerror}")
    for kind in kinds:
        try:
            left |= {plan.name: plan for plan in kind.leftovers(place.prefix, mounted)}
        except (ToolFailed, OSError) as error:
            log("warning", f"{kind.name} snapshots cannot be listed: {error}")
    names = {name for name in _listed(place.folder) if name.startswith(place.prefix)}
    removed: list[str] = []
    for name in sorted(names | left.keys()):
        record = _Record.take(place.folder, name)
        if record is None:
            continue
        plan = record.plan() or left.get(name)
        try:
            if plan is not None and plan.kind in known and plan.name.startswith(place.prefix):
                known[plan.kind].remove(plan, record.fd)
                removed.append(plan.name)
                log("info", f"removed the {plan.kind} snapshot {plan.what}, which an interrupted backup had left")
        except (ToolFailed, OSError) as error:
            record.close()
            log("warning", f"the snapshot {name} could not be removed: {error}")
        else:
            record.drop()
    return removed


def _listed(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.endswith(".mounted")]
    except OSError:
        return []


class _Record:
    """A file that says what was to be made, locked by who makes it."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self.fd = fd

    @classmethod
    def make(cls, folder: str, plan: Plan) -> _Record:
        """A record of what shall be made, durable when it returns. Raises ``OSError``."""
        while (record := cls.take(folder, plan.name)) is None:
            continue  # somebody sweeps, and has taken it for one that was left
        fd = record.fd
        try:
            os.ftruncate(fd, 0)
            os.write(fd, msgspec.msgpack.encode(plan))
            os.fsync(fd)
            above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(above)
            finally:
                os.close(above)
        except BaseException:
            record.drop()
            raise
        return record

    @classmethod
    def take(cls, folder: str, name: str) -> _Record | None:
        """The record of that name (a new one for a snapshot without), if nobody holds it."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        record = cls(path, fd)
        if os.fstat(fd).st_nlink == 0:  # somebody else has just swept it
            record.close()
            return None
        return record

    def plan(self) -> Plan | None:
        """What it says; nothing if its maker died before it had written that, and so before anything was made."""
        try:
            return msgspec.msgpack.decode(os.pread(self.fd, 1 << 16, 0), type=Plan)
        except msgspec.MsgspecError:
            return None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def drop(self) -> None:
        """The snapshot is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self.close()


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
