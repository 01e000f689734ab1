"""Snapshots of btrfs subvolumes (btrfs-subvolume(8)). A snapshot lies in the top folder of the subvolume that it is of."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from caso_mesh.sources.landmarks import SNAPSHOT_NAME
from caso_mesh.sources.mounts import Mount
from caso_mesh.sources.places import SUBVOLUME
from caso_mesh.sources.snapshot_kinds import Plan, Run, ToolFailed, Unsuitable, run_program


class Btrfs:
    """See ``snapshot_kinds.Kind``."""

    name = "btrfs"

    def __init__(self, run: Run = run_program) -> None:
        self._run = run

    def plan(self, path: bytes, mount: Mount, name: str, folder: bytes) -> Plan:
        if mount.kind != "btrfs":
            raise Unsuitable(f"it lies on {mount.kind}")
        top = _top_of(path, mount.point)
        at = os.path.join(top, b"." + name.encode())
        return Plan(self.name, name, what=os.fsdecode(at), of=os.fsdecode(top), top=top, at=at)

    def create(self, plan: Plan, hold: int) -> None:
        self._run(["btrfs", "subvolume", "snapshot", "-r", plan.of, plan.what], hold=hold)

    def check(self, plan: Plan) -> None:
        return  # it shares with its origin whatever room the file system has

    def remove(self, plan: Plan, hold: int) -> None:
        if not _is_own(os.fsencode(plan.what)):
            return
        # "--commit-after": it must not be there again after a power failure, when nobody knows of it any more
        self._run(["btrfs", "subvolume", "delete", "--commit-after", plan.what], hold=hold)

    def leftovers(self, prefix: str, mounts: Sequence[Mount]) -> list[Plan]:
        """Only in subvolumes that are mounted: of others there are records."""
        found: list[Plan] = []
        for top in sorted({mount.point for mount in mounts if mount.kind == "btrfs"}):
            try:
                names = os.listdir(top)
            except OSError as error:
                raise ToolFailed(f"{os.fsdecode(top)}: {error.strerror}") from None
            for name in sorted(names):
                at = os.path.join(top, name)
                if name.startswith(b"." + prefix.encode()) and _is_own(at):
                    plan = Plan(self.name, os.fsdecode(name[1:]), os.fsdecode(at), os.fsdecode(top), top, at)
                    found.append(plan)
        return found


def _is_own(path: bytes) -> bool:
    """Whether a subvolume with a name of ours is there."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    named = os.path.basename(path).startswith(SNAPSHOT_NAME)
    return named and stat.S_ISDIR(status.st_mode) and status.st_ino == SUBVOLUME


def _top_of(path: bytes, point: bytes) -> bytes:
    """The top folder of the subvolume that ``path`` lies on, as far as it is seen below the mount point."""
    at = path
    while True:
        status = os.stat(at, follow_symlinks=False)
        if status.st_ino == SUBVOLUME and stat.S_ISDIR(status.st_mode):
            return at
        if at in {point, b"/"}:
            raise Unsuitable("only a part of its subvolume is mounted there")
        at = os.path.dirname(at)
