"""A backup that reads from snapshots, if its order asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caso_mesh.jobs.backup import Wanted
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import Misuse
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.sources.places import Places
from caso_mesh.sources.snapshots import frozen


@contextmanager
def snapshots(task: Task, desk: Desk, wanted: Wanted) -> Iterator[Places | None]:
    """Where what is wanted is read while what is inside runs. Raises ``SnapshotFailed``."""
    spec = task.order.spec
    if not isinstance(spec, BackupSpec):
        raise Misuse("only a backup reads from snapshots")
    with frozen(
        wanted.folders,
        mode=spec.snapshot,
        place=task.snapshots,
        attempt=task.order.attempt,
        server=task.server_name,
        log=desk.log,
    ) as places:
        yield places
