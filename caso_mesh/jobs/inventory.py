"""Looking what lies in a device: names and heads, no content; and comparing it with what the administrator believes.

The administrator names sets that it believed to be there. They are looked for once more *after* that, so that a set that
was published while this one listed is never called missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from caso_mesh.jobs.comparing import MOST_LINES, compare, sets_in, tell_news
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.messages import Began, Consults
from caso_mesh.jobs.storing import BackendFor, device_of, open_vault
from caso_mesh.jobs.task import Task
from caso_mesh.model.device_jobs import Inventoried
from caso_mesh.model.device_work import DeviceLacks
from caso_mesh.model.entries import SourceException
from caso_mesh.model.storage import BackupSet
from caso_mesh.model.units import format_size
from caso_mesh.vault.records import SessionRecord
from caso_mesh.vault.vault import Vault

#: So many missing sets are told of; what lacks more is no device that anything is restored from.
MOST_MISSING = 10_000


def run_inventory(task: Task, desk: Desk, backend_for: BackendFor, on_found: Callable[[Inventoried], None]) -> None:
    """Missing sets and objects that cannot be read are exceptions. Raises ``DeviceVanished`` if another vault lies there,
    ``NoKey``, what the device raises, and ``Unavailable`` without an administrator."""
    desk.say(Began())
    with open_vault(task, desk, backend_for, writes=False) as vault:
        sets = sets_in(task, vault, desk)
        sessions = vault.open_sessions()
        if device_of(task).foreign is not None:
            sessions = []  # who worked there is no business of this mesh
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
        said = compare(task, desk, vault, sets, gone, sessions)
        missing = _look_again(task, desk, vault, [each for answer in said for each in answer.missing])
        desk.consult(Consults(lacks=DeviceLacks(task.order.attempt, tuple(missing[:MOST_MISSING]))))
        abandoned = {each for answer in said for each in answer.abandoned}
        dead = [each for each in sessions if each.attempt in abandoned]
        added = tell_news(desk, said)
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


def _tell_media(desk: Desk, sets: Sequence[BackupSet]) -> tuple[str, ...]:
    counts, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for each in sets:
        counts[each.medium, each.media_set] += 1
        sizes[each.medium, each.media_set] += each.bytes_stored
    for (label, media_set), count in sorted(counts.items())[:MOST_LINES]:
        desk.log("info", f"medium {label} ({media_set}): {count} sets, {format_size(sizes[label, media_set])} stored")
    return tuple(sorted({label for label, _ in counts}))


def _look_again(task: Task, desk: Desk, vault: Vault, named: Sequence[str]) -> list[str]:
    if not named:
        return []
    there = {each.id for each in sets_in(task, vault, desk)}
    return sorted(set(named) - there)


def _tell_sessions(desk: Desk, sessions: Sequence[SessionRecord], abandoned: set[str]) -> None:
    for each in sessions[:MOST_LINES]:
        if each.attempt in abandoned:
            text = f"the session of the attempt {each.attempt} has no end, and nobody is at work for it"
            desk.log("warning", f"{text}: the next backup of that server to this device ends it")
        else:
            desk.log("info", f"the attempt {each.attempt} is at work here")
