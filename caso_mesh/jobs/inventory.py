"""Looking what lies in a device: names and heads, no content; and comparing it with what the administrator believes.

The administrator names sets that it believed to be there. They are looked for once more *after* that, so that a set that
was published while this one listed is never called missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Began, Consults
from caso_mesh.jobs.storing import BackendFor, device_of, open_vault
from caso_mesh.jobs.task import Task
from caso_mesh.model.device_jobs import Inventoried
from caso_mesh.model.device_work import PAGE, DeviceCompared, DeviceFound, DeviceLacks, OpenSession
from caso_mesh.model.entries import SourceException
from caso_mesh.model.importing import as_here
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_size
from caso_mesh.vault.records import SessionRecord
from caso_mesh.vault.vault import Vault

#: So many missing sets are told of; what lacks more is no device that anything is restored from.
MOST_MISSING = 10_000
#: Lines of one kind in the job log.
_MOST_LINES = 200


def run_inventory(task: Task, desk: Desk, backend_for: BackendFor, on_found: Callable[[Inventoried], None]) -> None:
    """Missing sets and objects that cannot be read are exceptions. Raises ``DeviceVanished`` if another vault lies there,
    ``NoKey``, what the device raises, and ``Unavailable`` without an administrator."""
    desk.say(Began())
    with open_vault(task, desk, backend_for, writes=False) as vault:
        sets = _sets(vault, desk)
        sessions = vault.open_sessions()
        foreign = device_of(task).foreign
        if foreign is not None:
            # known here by other names; and who worked there is no business of this mesh
            sets, sessions = [as_here(each, foreign.device) for each in sets], []
        stock = vault.stock(desk.check)
        gone = {each.id for each in sets if vault.holds.is_gone(each.id)}
        free, total = vault.space()
        desk.log(
            "info",
            f"{len(sets) - len(gone)} sets, {len(gone)} deleted ones, {stock.counts['packs']} packs of"
            f" {format_size(stock.pack_bytes)}, {stock.counts['writers']} writers; {format_size(free)} of"
            f" {format_size(total)} free",
        )
        media = _tell_media(desk, [each for each in sets if each.id not in gone])
        said = _compare(task, desk, vault, sets, gone, sessions)
        missing = _look_again(desk, vault, [each for answer in said for each in answer.missing])
        desk.consult(Consults(lacks=DeviceLacks(task.order.attempt, tuple(missing[:MOST_MISSING]))))
        abandoned = {each for answer in said for each in answer.abandoned}
        dead = [each for each in sessions if each.attempt in abandoned]
        added = _tell_news(desk, said)
        _tell_sessions(desk, sessions, abandoned)
        for each in missing:
            desk.exception(SourceException(f"sets/{each}".encode(), "set-missing", "it is believed to be here"))
        problems = vault.problems()
        for line in problems:
            name, _, detail = line.partition(": ")
            desk.exception(SourceException(name.encode("utf-8", "surrogateescape"), "unreadable", detail))
        unreadable = len(problems) + stock.strange
        if stock.counts["damage"]:
            desk.log("warning", f"{stock.counts['damage']} records of damage: what they name is never reused")
        if stock.strange:
            names = ", ".join(stock.named)
            desk.log("warning", f"{stock.strange} objects have names that no object of a vault has: {names}")
        on_found(
            Inventoried(
                sets=len(sets) - len(gone),
                deleted=len(gone),
                missing=len(missing),
                added=added,
                unreadable=unreadable,
                media=media,
                writers=stock.counts["writers"],
                sessions=len(sessions),
                abandoned=len(dead),
                packs=stock.counts["packs"],
                pack_bytes=stock.pack_bytes,
                free_bytes=free,
                total_bytes=total,
            )
        )


def _sets(vault: Vault, desk: Desk) -> list[BackupSet]:
    found = []
    for each in vault.sets(deleted=True):
        desk.check()
        found.append(each)
        desk.tally.entries = len(found)
    return sorted(found, key=lambda each: each.id)


def _tell_media(desk: Desk, sets: Sequence[BackupSet]) -> tuple[str, ...]:
    counts, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for each in sets:
        counts[each.medium, each.media_set] += 1
        sizes[each.medium, each.media_set] += each.bytes_stored
    for (label, media_set), count in sorted(counts.items())[:_MOST_LINES]:
        desk.log("info", f"medium {label} ({media_set}): {count} sets, {format_size(sizes[label, media_set])} stored")
    return tuple(sorted({label for label, _ in counts}))


def _compare(
    task: Task,
    desk: Desk,
    vault: Vault,
    sets: Sequence[BackupSet],
    gone: set[str],
    sessions: Sequence[SessionRecord],
) -> list[DeviceCompared]:
    """What the administrator says, page by page."""
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


def _look_again(desk: Desk, vault: Vault, named: Sequence[str]) -> list[str]:
    if not named:
        return []
    there = {each.id for each in _sets(vault, desk)}
    return sorted(set(named) - there)


def _tell_news(desk: Desk, said: Sequence[DeviceCompared]) -> int:
    """How many sets were not known."""
    news = {
        "is here, and nobody knew of it: it is in the catalog from now on": [e for a in said for e in a.added],
        "is deleted here, which nobody knew": [e for a in said for e in a.deleted],
        "is known with another content; that stays": [e for a in said for e in a.differ],
        "was made for another device and is passed over": [e for a in said for e in a.foreign],
    }
    for text, ids in news.items():
        for each in ids[:_MOST_LINES]:
            desk.log("warning", f"the set {each} {text}")
        if len(ids) > _MOST_LINES:
            desk.log("warning", f"so it is of {len(ids) - _MOST_LINES} more")
    return sum(len(answer.added) for answer in said)


def _tell_sessions(desk: Desk, sessions: Sequence[SessionRecord], abandoned: set[str]) -> None:
    for each in sessions[:_MOST_LINES]:
        if each.attempt in abandoned:
            text = f"the session of the attempt {each.attempt} has no end, and nobody is at work for it"
            desk.log("warning", f"{text}: the next backup of that server to this device ends it")
        else:
            desk.log("info", f"the attempt {each.attempt} is at work here")
