"""Snapshots of ZFS datasets (zfs-snapshot(8)), read below ``.zfs/snapshot`` of the dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence

from caso_mesh.sources.mounts import Mount
from caso_mesh.sources.snapshot_kinds import PREFIX, Plan, Run, Unsuitable, run_program


class Zfs:
    """See ``snapshot_kinds.Kind``."""

    name = "zfs"

    def __init__(self, run: Run = run_program) -> None:
        self._run = run

    def plan(self, path: bytes, mount: Mount, name: str, folder: bytes) -> Plan:
        if mount.kind != "zfs":
            raise Unsuitable(f"it lies on {mount.kind}")
        if mount.root != b"/":
            raise Unsuitable("only a part of its dataset is mounted there")
        at = os.path.join(mount.point, b".zfs/snapshot", name.encode())
        return Plan(self.name, name, what=f"{mount.source}@{name}", of=mount.source, top=mount.point, at=at)

    def create(self, plan: Plan, hold: int) -> None:
        self._run(["zfs", "snapshot", plan.what], hold=hold)

    def check(self, plan: Plan) -> None:
        return  # it holds its blocks until it is destroyed

    def remove(self, plan: Plan, hold: int) -> None:
        if plan.name.startswith(PREFIX) and plan.what in self._names(plan.what.partition("@")[0]):
            self._run(["zfs", "destroy", plan.what], hold=hold)

    def leftovers(self, prefix: str, mounts: Sequence[Mount]) -> list[Plan]:
        found: list[Plan] = []
        for dataset in sorted({mount.source for mount in mounts if mount.kind == "zfs"}):
            for what in self._names(dataset):
                of, _, name = what.partition("@")
                if name.startswith(prefix):
                    found.append(Plan(self.name, name, what, of, b"", b""))
        return found

    def _names(self, dataset: str) -> list[str]:
        """The snapshots of one dataset."""
        return self._run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name", "-d", "1", dataset]).split()
