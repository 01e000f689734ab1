"""What a fact means: the rows it makes. Called in the transaction that stores the fact itself, so once."""

from __future__ import annotations

import sqlite3

import msgspec

from caso_mesh.model import facts
from caso_mesh.model.ids import job_of_run, run_of_attempt
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState

_ACTIVE = tuple(state.value for state in ATTEMPT_ACTIVE)


def interpret(c: sqlite3.Connection, server: str, at_ns: int, fact: facts.Fact | facts.UnknownFact) -> None:
    """Writes what ``fact`` of ``server`` (node id), recorded at ``at_ns``, means."""
    match fact:
        case facts.AttemptStarted(attempt=attempt, type=type_):
            _attempt(c, attempt, server)
            c.execute(
                "UPDATE attempt SET state = ?, type = ?, started_at_ns = coalesce(started_at_ns, ?)"
                " WHERE id = ? AND state = 'queued'",
                (AttemptState.RUNNING.value, type_.value if type_ else None, at_ns, attempt),
            )
        case facts.AttemptVerifying(attempt=attempt):
            c.execute(
                "UPDATE attempt SET state = ? WHERE id = ? AND state = 'running'",
                (AttemptState.VERIFYING.value, attempt),
            )
        case facts.AttemptEnded():
            _ended(c, server, at_ns, fact)
        case facts.AttemptExceptions(attempt=attempt, exceptions=exceptions):
            c.executemany(
                "INSERT INTO exception VALUES (?, ?, ?, ?)",
                [(attempt, each.path, each.reason, each.detail) for each in exceptions],
            )
        case facts.JobLog(attempt=attempt, lines=lines):
            c.executemany(
                "INSERT INTO log_line VALUES (?, ?, ?, ?, ?)",
                [(attempt, line.at_ns, line.level, line.text, server) for line in lines],
            )
        case facts.SetPublished(set=backup):
            c.execute(
                "INSERT OR REPLACE INTO backup_set VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
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
        case facts.CatalogDetail(set=set_id, digest=digest, size=size):
            c.execute(
                "INSERT OR IGNORE INTO catalog_detail VALUES (?, ?, ?, ?, 'pending')", (set_id, server, digest, size)
            )
        case facts.MediumChanged(medium=medium):
            c.execute("INSERT OR REPLACE INTO medium VALUES (?, ?)", (medium.label, msgspec.msgpack.encode(medium)))
        case facts.AlertRaised():
            c.execute(
                "INSERT OR IGNORE INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (fact.id, at_ns, server, fact.alert.value, fact.category, fact.object, fact.text),
            )
        case facts.AlertCleared(id=id_):
            c.execute("UPDATE alert SET cleared_at_ns = ? WHERE id = ?", (at_ns, id_))
        case facts.Audit():
            c.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    at_ns,
                    server,
                    fact.who,
                    fact.what,
                    fact.category,
                    fact.outcome,
                    fact.source,
                    msgspec.msgpack.encode(fact.fields),
                ),
            )
        case facts.ServerStarted() | facts.JournalBegun() | facts.Publishing() | facts.UnknownFact():
            pass


def _attempt(c: sqlite3.Connection, attempt: str, server: str) -> None:
    run = run_of_attempt(attempt)
    c.execute(
        "INSERT OR IGNORE INTO attempt (id, run, job, reporter, state) VALUES (?, ?, ?, ?, 'queued')",
        (attempt, run, job_of_run(run), server),
    )


def _ended(c: sqlite3.Connection, server: str, at_ns: int, fact: facts.AttemptEnded) -> None:
    # the first end is the end: what a restarted daemon says of an attempt it had already ended changes nothing
    _attempt(c, fact.attempt, server)
    c.execute(
        "UPDATE attempt SET state = ?, type = coalesce(?, type), ended_at_ns = ?, seconds = ?, counts = ?, set_id = ?,"
        f" failure = ? WHERE id = ? AND state IN ({', '.join('?' * len(_ACTIVE))})",
        (
            fact.state.value,
            fact.type.value if fact.type else None,
            at_ns,
            fact.seconds,
            msgspec.msgpack.encode(fact.counts),
            fact.set,
            msgspec.msgpack.encode(fact.failure) if fact.failure else None,
            fact.attempt,
            *_ACTIVE,
        ),
    )
