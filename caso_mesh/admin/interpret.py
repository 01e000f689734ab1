"""What a fact means: the rows it makes. Called in the transaction that stores the fact itself, so once.

A server speaks for itself only. What it says of sets, media and alerts of others is refused; the fact stays in the copy
of its journal, and means nothing.
"""

from __future__ import annotations

import sqlite3

import msgspec

from caso_mesh.admin import (
    alert_rows,
    audit_rows,
    catalog_details,
    erased_vaults,
    kept_catalogs,
    local_runs,
    missing_sets,
    totals,
    waits,
)
from caso_mesh.journal import Record
from caso_mesh.model import facts
from caso_mesh.model.ids import SET_ID, run_of_attempt
from caso_mesh.model.resources import MOST_FILE_SYSTEMS
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState
from caso_mesh.model.storage import BackupSet

_ACTIVE = tuple(state.value for state in ATTEMPT_ACTIVE)
_LONGEST_ATTEMPT = 400


def interpret(c: sqlite3.Connection, server: str, record: Record, fact: facts.Fact | facts.UnknownFact) -> str | None:
    """Writes what ``fact`` of ``server`` (node id), which ``record`` holds, means; or says why it means nothing."""
    at_ns = record.at_ns
    match fact:
        case facts.AttemptStarted(attempt=attempt, type=type_):
            _attempt(c, attempt, server)
            c.execute(
                "UPDATE attempt SET state = ?, type = ?, started_at_ns = coalesce(started_at_ns, ?)"
                " WHERE id = ? AND reporter = ? AND state = 'queued'",
                (AttemptState.RUNNING.value, type_.value if type_ else None, at_ns, attempt, server),
            )
        case facts.AttemptVerifying(attempt=attempt):
            c.execute(
                "UPDATE attempt SET state = ? WHERE id = ? AND reporter = ? AND state = 'running'",
                (AttemptState.VERIFYING.value, attempt, server),
            )
        case facts.AttemptEnded():
            _ended(c, server, at_ns, fact)
        case facts.AttemptExceptions(attempt=attempt, exceptions=exceptions):
            c.executemany(
                "INSERT INTO exception VALUES (?, ?, ?, ?, ?)",
                [(attempt, each.path, each.reason, each.detail, server) for each in exceptions],
            )
        case facts.JobLog(attempt=attempt, lines=lines):
            c.executemany(
                "INSERT INTO log_line VALUES (?, ?, ?, ?, ?)",
                [(attempt, line.at_ns, line.level, line.text, server) for line in lines],
            )
        case facts.RunWaits():
            waits.write(c, server, fact)
        case facts.LocalRun():
            return local_runs.write(c, server, fact)
        case facts.SetPublished():
            return _published(c, server, fact)
        case facts.SetFound(set=backup, unless_gone=True) if _is_gone(c, backup):
            pass
        case facts.SetFound(set=backup, server=reader):
            return _found(c, backup, reader)
        case facts.SetDeleted() | facts.SetLocked():
            return _held(c, fact)
        case facts.VaultErased():
            erased_vaults.write(c, fact)
        case facts.SetsMissing():
            missing_sets.write(c, at_ns, fact)
        case facts.CatalogDetail():
            return _detail(c, server, fact)
        case facts.CatalogAtServer():
            return kept_catalogs.write(c, server, fact)
        case facts.MediumChanged(medium=medium):
            if medium.server != server:
                return f"the medium {medium.label[:64]} of another server"
            data = msgspec.msgpack.encode(medium)
            c.execute("INSERT OR REPLACE INTO medium VALUES (?, ?, ?)", (server, medium.label, data))
        case facts.AlertRaised():
            alert_rows.raised(c, server, at_ns, fact)
        case facts.AlertCleared():
            alert_rows.cleared(c, server, at_ns, fact)
        case facts.NoticesSent():
            c.executemany(
                # of several administrators' words the earliest counts, in whichever order they come
                "INSERT INTO notice_sent VALUES (?, ?, ?, ?, ?) ON CONFLICT (recipient, key) DO UPDATE SET"
                " message = excluded.message, at_ns = excluded.at_ns, given_up = excluded.given_up"
                " WHERE (excluded.at_ns, excluded.message, excluded.given_up) < (at_ns, message, given_up)",
                [(fact.recipient, key, fact.message, at_ns, fact.given_up) for key in (fact.message, *fact.keys)],
            )
        case facts.Audit():
            audit_rows.write(c, server, record, fact)
        case facts.AuditTrimmed():
            return audit_rows.trim(c, at_ns, fact)
        case facts.FileSystems(systems=systems):
            # of several incarnations of a journal the newest word counts, in whichever order they come
            c.execute(
                "INSERT INTO file_systems VALUES (?, ?, ?) ON CONFLICT (server) DO UPDATE"
                " SET at_ns = excluded.at_ns, data = excluded.data WHERE excluded.at_ns >= at_ns",
                (server, at_ns, msgspec.msgpack.encode(systems[:MOST_FILE_SYSTEMS])),
            )
        case (
            facts.ServerStarted()
            | facts.JournalBegun()
            | facts.Publishing()
            | facts.CopyTaken()
            | facts.AlertAnswered()
            | facts.UnknownFact()
        ):
            pass
    return None


def _published(c: sqlite3.Connection, server: str, fact: facts.SetPublished) -> str | None:
    backup = fact.set
    if backup.server != server:
        return f"the set {backup.id[:64]} of another server"
    if not SET_ID.match(backup.id):
        return "a set without a proper id"
    if _is_gone(c, backup) or erased_vaults.took(c, backup):
        return None
    data = msgspec.msgpack.encode(backup)
    known = c.execute("SELECT data FROM backup_set WHERE id = ?", (backup.id,)).fetchone()
    if known is not None:
        return None if known[0] == data else f"the set {backup.id}, which is known with another content"
    insert_set(c, backup)
    return None


def _is_gone(c: sqlite3.Connection, backup: BackupSet) -> bool:
    return _was_gone(c, backup.id, backup.device)


def _was_gone(c: sqlite3.Connection, set_id: str, device: str) -> bool:
    sql = "SELECT 1 FROM set_gone WHERE set_id = ? AND device = ?"
    return c.execute(sql, (set_id, device)).fetchone() is not None


def _found(c: sqlite3.Connection, backup: BackupSet, reader: str) -> str | None:
    """It lies there, if that is not older news than that it is gone; its catalog is made out of its tree, so it has no size yet."""
    if not SET_ID.match(backup.id):
        return "a set without a proper id"
    if erased_vaults.took(c, backup):
        return None
    known = c.execute("SELECT data FROM backup_set WHERE id = ?", (backup.id,)).fetchone()
    if known is None:
        insert_set(c, backup)
    elif known[0] != msgspec.msgpack.encode(backup):
        return f"the set {backup.id}, which is known with another content"
    catalog_details.found(c, backup.id, reader)
    return None


def _detail(c: sqlite3.Connection, server: str, fact: facts.CatalogDetail) -> str | None:
    owner = c.execute("SELECT server, device FROM backup_set WHERE id = ?", (fact.set,)).fetchone()
    if owner is None or owner[0] != server:
        return f"the catalog of set {fact.set[:64]}, which it has not made"
    # one that lies there again, after it was deleted, has lost what was told of its catalog, also what comes only now
    if not _was_gone(c, fact.set, owner[1]):
        catalog_details.told(c, fact)
    return None


def insert_set(c: sqlite3.Connection, backup: BackupSet) -> None:
    """A set that was not known."""
    c.execute(
        "INSERT INTO backup_set VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            backup.id,
            msgspec.msgpack.encode(backup),
            backup.source,
            backup.server,
            backup.device,
            backup.attempt,
            backup.ended_at_ns,
            backup.bytes_stored,
        ),
    )


def _held(c: sqlite3.Connection, fact: facts.SetDeleted | facts.SetLocked) -> str | None:
    """Deleted or locked. Who may say so of a device was looked at before."""
    known = c.execute("SELECT device FROM backup_set WHERE id = ?", (fact.set,)).fetchone()
    if known is not None and known[0] != fact.device:
        return f"the set {fact.set[:64]}, which lies on another device"
    if isinstance(fact, facts.SetLocked):
        # of several locks the longest counts; null is without end
        c.execute(
            "INSERT INTO set_lock VALUES (?, ?, ?) ON CONFLICT (set_id, device) DO UPDATE SET until_ns = CASE"
            " WHEN until_ns IS NULL OR excluded.until_ns IS NULL THEN NULL ELSE max(until_ns, excluded.until_ns) END",
            (fact.set, fact.device, fact.until_ns),
        )
        return None
    erased_vaults.forget(c, fact.set, fact.device, fact.request)
    return None


def _attempt(c: sqlite3.Connection, attempt: str, server: str) -> None:
    c.execute(
        "INSERT OR IGNORE INTO attempt (id, reporter, run, state) VALUES (?, ?, ?, 'queued')",
        (attempt[:_LONGEST_ATTEMPT], server, run_of_attempt(attempt[:_LONGEST_ATTEMPT])),
    )


def _ended(c: sqlite3.Connection, server: str, at_ns: int, fact: facts.AttemptEnded) -> None:
    # the first end is the end: what a restarted daemon says of an attempt it had already ended changes nothing
    _attempt(c, fact.attempt, server)
    ended = c.execute(
        "UPDATE attempt SET state = ?, type = coalesce(?, type), ended_at_ns = ?, seconds = ?, counts = ?, set_id = ?,"
        f" failure = ?, predicted = ?, found = ?, catalogued = ?, kind = ? WHERE id = ? AND reporter = ? AND state IN ({', '.join('?' * len(_ACTIVE))})",
        (
            fact.state.value,
            fact.type.value if fact.type else None,
            at_ns,
            fact.seconds,
            msgspec.msgpack.encode(fact.counts),
            fact.set,
            msgspec.msgpack.encode(fact.failure) if fact.failure else None,
            msgspec.msgpack.encode(fact.predicted) if fact.predicted else None,
            msgspec.msgpack.encode(fact.found) if fact.found else None,
            msgspec.msgpack.encode(fact.catalogued) if fact.catalogued else None,
            totals.UNKNOWN if fact.kind is None else fact.kind.value,
            fact.attempt,
            server,
            *_ACTIVE,
        ),
    )
    if ended.rowcount:
        totals.count(c, server, fact.attempt)
