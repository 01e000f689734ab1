"""A backup that finds next to nothing where there was much is no good backup: a mount is missing, or somebody deleted it."""

from __future__ import annotations

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.storing import newest
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import ContainsNoData, Misuse
from caso_mesh.model.jobs import backup_of
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_size
from caso_mesh.vault.vault import Vault

#: Over 90 % less than last time.
_TIMES = 10
#: With fewer bytes than that last time, bytes tell nothing: one file may be all of them.
_FEWEST_BYTES = 1_000_000


def has_shrunk(files: int, size: int, last: BackupSet) -> bool:
    """Whether ``files`` of ``size`` bytes are over 90 % less than what the last set has."""
    return files * _TIMES < last.files or (last.bytes >= _FEWEST_BYTES and size * _TIMES < last.bytes)


def check_not_shrunk(task: Task, desk: Desk, vault: Vault, filters: bytes) -> None:
    """Compares what was found with the newest good set of the same source, paths and filters on this device. Raises
    ``ContainsNoData``, unless the order allows it."""
    spec = backup_of(task.order.spec)
    if spec is None:
        raise Misuse("only a backup finds something")
    source, avoid = task.order.kept_as, task.order.avoid
    last = newest(vault, lambda each: each.source == source and each.filters == filters and each.id not in avoid)
    tally = desk.tally
    if last is None or not has_shrunk(tally.files, tally.bytes, last):
        return
    before = f"{last.files} files of {format_size(last.bytes)} in the set {last.id}"
    text = f"found {tally.files} files of {format_size(tally.bytes)}, over 90 % less than last time: {before}"
    if spec.allow_shrink:
        desk.log("warning", text)
        return
    desk.log("error", text)
    raise ContainsNoData(paths=[b"/" + root.lstrip(b"/") for root in last.roots])
