"""What lies in a device, put before the administrator page by page: the part that all work has in common that takes in
what is there."""

from __future__ import annotations

from collections.abc import Sequence

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Consults
from caso_mesh.jobs.storing import device_of
from caso_mesh.jobs.task import Task
from caso_mesh.model.device_work import PAGE, DeviceCompared, DeviceFound, OpenSession
from caso_mesh.model.importing import as_here
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.records import SessionRecord
from caso_mesh.vault.vault import Vault

#: Lines of one kind in the job log.
MOST_LINES = 200


def sets_in(task: Task, vault: Vault, desk: Desk) -> list[BackupSet]:
    """All sound sets, deleted ones too, by id. Those of another mesh by the names that they have here."""
    foreign = device_of(task).foreign
    found = list[BackupSet]()
    for each in vault.sets(deleted=True):
        desk.check()
        found.append(each if foreign is None else as_here(each, foreign.device))
        desk.tally.entries = len(found)
    return sorted(found, key=lambda each: each.id)


def compare(
    task: Task,
    desk: Desk,
    vault: Vault,
    sets: Sequence[BackupSet],
    gone: set[str],
    sessions: Sequence[SessionRecord] = (),
) -> list[DeviceCompared]:
    """What the administrator says to each page. Raises what ``Desk.consult`` raises."""
    said, after, at = list[DeviceCompared](), "", 0
    while True:
        page = tuple(sets[at : at + PAGE])
        at += len(page)
        last = at >= len(sets)
        found = DeviceFound(
            attempt=task.order.attempt,
            after=after,
            sets=page,
            deleted=tuple(each.id for each in page if each.id in gone),
            locks={each.id: lock.until_ns for each in page if (lock := vault.holds.lock_of(each.id)) is not None},
            last=last,
            sessions=tuple(OpenSession(each.writer, each.session, each.server, each.attempt) for each in sessions)
            if last
            else (),
        )
        answer = desk.consult(Consults(found=found)).compared
        if answer is not None:
            said.append(answer)
        if last:
            return said
        after = page[-1].id


def tell_news(desk: Desk, said: Sequence[DeviceCompared]) -> int:
    """Logs what nobody knew; how many sets were not known."""
    news = {
        "is here, and nobody knew of it: it is in the catalog from now on": [e for a in said for e in a.added],
        "is deleted here, which nobody knew": [e for a in said for e in a.deleted],
        "is known with another content; that stays": [e for a in said for e in a.differ],
        "was made for another device and is passed over": [e for a in said for e in a.foreign],
    }
    for text, ids in news.items():
        for each in ids[:MOST_LINES]:
            desk.log("warning", f"the set {each} {text}")
        if len(ids) > MOST_LINES:
            desk.log("warning", f"so it is of {len(ids) - MOST_LINES} more")
    return sum(len(answer.added) for answer in said)
