"""What the administrator's tables must hold, worked out from the journals alone, beside the product: each fact once.

It knows nothing of cursors, copies or the order in which journals came: whatever comes of those must not show.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import msgspec

from caso_mesh.journal import Record
from caso_mesh.model import facts
from caso_mesh.model.errors import PeerMalformed
from caso_mesh.model.jobs import Counts
from caso_mesh.model.states import ATTEMPT_ACTIVE

Rows = dict[str, list[tuple[Any, ...]]]
#: A record of a server's journal, and why it was refused.
Told = tuple[str, Record, str | None]

#: Tables that are made of the journals, with the columns that must be equal. ``forgotten`` is whether the catalog of this voter
#: has forgotten a deleted set.
TABLES = {
    "attempt": "id, reporter, run, state, type, started_at_ns, ended_at_ns, seconds, counts, set_id, failure, predicted, found, catalogued, kind",
    "exception": "attempt, path, reason, detail, reporter",
    "log_line": "attempt, at_ns, level, text, server",
    "run_wait": "run, source, reporter, since_ns, reason, fields",
    "backup_set": "id, data, source, server, device, attempt, ended_at_ns, bytes_stored",
    "catalog_detail": "set_id, digest, size",
    "catalog_keeper": "server",
    "catalog_kept": "set_id, server",
    "medium": "server, label, data",
    "alert": "id, raised_at_ns, server, alert, category, object, text, cleared_at_ns",
    "alert_end": "server, id, at_ns",
    "audit": "at_ns, server, who, what, category, outcome, source, fields, chain, seq, changed",
    "audit_chain": "chain, server, incarnation, first, seq, head",
    "audit_link": "chain, seq, at_ns, stays, entry, link",
    "audit_floor": "before_ns",
    "set_gone": "set_id, device, request",
    "set_lock": "set_id, device, until_ns",
    "missing_sets": "device, at_ns, data",
    "erased_vault": "vault, device",
    "notice_sent": "recipient, key, message, at_ns, given_up",
    "attempt_total": "kind, type, state, attempts, bytes_read, bytes_stored, seconds",
    "file_systems": "server, at_ns, data",
    "local_run": "id, server, created_at_ns, closed_at_ns, data, list",
}
#: What each voter has of its own: how far it is with catalogs.
OWN = {"catalog_here"}
_pack = msgspec.msgpack.encode


def held(c: sqlite3.Connection) -> Rows:
    """What a voter's tables hold."""
    return {
        table: sorted(c.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
        for table, columns in TABLES.items()
    }


def worked_out(told: Iterable[Told]) -> Rows:
    """What they must hold. Facts of one journal come in its order, of several in any."""
    every = [(server, record, _decode(record)) for server, record, refused in told if refused is None]
    by_kind: dict[type, list[tuple[str, Record, Any]]] = {}
    for server, record, fact in every:
        by_kind.setdefault(type(fact), []).append((server, record, fact))

    def of(kind: type) -> list[tuple[str, Record, Any]]:
        return by_kind.get(kind, [])

    rows: dict[str, Iterable[tuple[Any, ...]]] = {
        "attempt": (attempts := _attempts(every)),
        "attempt_total": _totals(attempts),
        "exception": [
            (fact.attempt, each.path, each.reason, each.detail, server)
            for server, _, fact in of(facts.AttemptExceptions)
            for each in fact.exceptions
        ],
        "log_line": [
            (fact.attempt, line.at_ns, line.level, line.text, server)
            for server, _, fact in of(facts.JobLog)
            for line in fact.lines
        ],
        "run_wait": _last(
            ((fact.run, fact.source, server, fact.since_ns), (fact.reason.value, _pack(fact.fields)))
            for server, _, fact in of(facts.RunWaits)
        ),
        "medium": _last(
            ((server, fact.medium.label), (_pack(fact.medium),)) for server, _, fact in of(facts.MediumChanged)
        ),
        "notice_sent": _earliest(of(facts.NoticesSent)),
        "file_systems": _last(
            ((server,), (at.at_ns, _pack(fact.systems))) for server, at, fact in of(facts.FileSystems)
        ),
        "local_run": _last(
            ((fact.run.id, server), (fact.run.created_at_ns, fact.run.closed_at_ns, _pack(fact), fact.list))
            for server, _, fact in of(facts.LocalRun)
        ),
        # of several administrators' words the newest
        "missing_sets": _last(
            sorted(((fact.device,), (at.at_ns, _pack(fact.sets))) for _, at, fact in of(facts.SetsMissing))
        ),
        "erased_vault": {(fact.vault, fact.device) for _, _, fact in of(facts.VaultErased)},
        **_sets(of),
        **_alerts(of),
        **_audit(of),
    }
    return {table: sorted(rows[table], key=repr) for table in TABLES}


def _decode(record: Record) -> Any:
    try:
        return facts.decode(record.kind, record.data)
    except PeerMalformed:
        return None


def _last(pairs: Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """Of what is told under one key what was told last."""
    return [(*key, *value) for key, value in dict(pairs).items()]


def _attempts(every: Iterable[tuple[str, Record, Any]]) -> list[tuple[Any, ...]]:
    """A server speaks of an attempt for itself; its first end is the end."""
    found: dict[tuple[str, str], list[Any]] = {}
    for server, record, fact in every:
        if not isinstance(fact, facts.AttemptStarted | facts.AttemptVerifying | facts.AttemptEnded):
            continue
        key = (fact.attempt, server)
        if isinstance(fact, facts.AttemptVerifying) and key not in found:
            continue
        row = found.setdefault(key, ["queued", *[None] * 11])
        over = row[0] not in {state.value for state in ATTEMPT_ACTIVE}
        match fact:
            case facts.AttemptStarted(type=type_) if row[0] == "queued":
                row[0:3] = "running", type_.value if type_ else None, record.at_ns
            case facts.AttemptVerifying() if row[0] == "running":
                row[0] = "verifying"
            case facts.AttemptEnded() if not over:
                row[0], row[1] = fact.state.value, fact.type.value if fact.type else row[1]
                row[3:] = (
                    record.at_ns,
                    fact.seconds,
                    _pack(fact.counts),
                    fact.set,
                    _pack(fact.failure) if fact.failure else None,
                    _pack(fact.predicted) if fact.predicted else None,
                    _pack(fact.found) if fact.found else None,
                    _pack(fact.catalogued) if fact.catalogued else None,
                    fact.kind.value if fact.kind else "unknown",
                )
            case _:
                pass
    return [(id_, server, id_.rpartition("#")[0], *row) for (id_, server), row in found.items()]


def _totals(attempts: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """By kind, type and state; of several ends of an attempt the earliest counts."""
    ended: dict[str, tuple[Any, ...]] = {}
    for row in sorted((row for row in attempts if row[6] is not None), key=lambda row: (row[6], row[1]), reverse=True):
        ended[row[0]] = row
    found: dict[tuple[str, str, str], list[Any]] = {}
    for row in ended.values():
        counts = msgspec.msgpack.decode(row[8], type=Counts)
        total = found.setdefault((row[14], row[4] or "", row[3]), [0, 0, 0, 0.0])
        for number, each in enumerate((1, counts.bytes_read, counts.bytes_stored, round(row[7] * 1024) / 1024)):
            total[number] += each
    return [(*key, *total) for key, total in found.items()]


def _earliest(told: list[tuple[str, Record, Any]]) -> list[tuple[Any, ...]]:
    """Of several administrators that told of one notice the earliest."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for _, at, fact in told:
        for key in (fact.message, *fact.keys):
            place, value = (fact.recipient, key), (at.at_ns, fact.message, fact.given_up)
            found[place] = min(found.get(place, value), value)
    return [(*place, message, at_ns, given_up) for place, (at_ns, message, given_up) in found.items()]


def _sets(of: Callable[[type], list[tuple[str, Record, Any]]]) -> Mapping[str, Iterable[tuple[Any, ...]]]:
    """A set is there until its device says that it is gone, whichever comes first; one that was found again, though it was known that it
    was gone, is there."""
    gone: dict[tuple[str, str], str] = {}
    for _, _, fact in of(facts.SetDeleted):
        gone[fact.set, fact.device] = gone.get((fact.set, fact.device)) or fact.request
    erased = {(fact.vault, fact.device) for _, _, fact in of(facts.VaultErased)}
    told = [fact.set for _, _, fact in (*of(facts.SetPublished), *of(facts.SetFound))]
    for each in told:
        if (each.vault, each.device) in erased:
            gone.setdefault((each.id, each.device), "")
    sets = {
        fact.set.id: fact.set for _, _, fact in of(facts.SetPublished) if (fact.set.id, fact.set.device) not in gone
    }
    details: dict[str, tuple[str, bytes, int]] = {}
    for _, _, fact in of(facts.CatalogDetail):
        # the first that is not lost
        if fact.set in sets and not details.get(fact.set, ("", b"", 0))[2]:
            details[fact.set] = (fact.set, fact.digest if fact.size else b"", fact.size)
    for _, _, fact in of(facts.SetFound):
        if (fact.set.vault, fact.set.device) in erased or (fact.unless_gone and (fact.set.id, fact.set.device) in gone):
            continue
        sets.setdefault(fact.set.id, fact.set)
        details.setdefault(fact.set.id, (fact.set.id, b"", 0))
    locks: dict[tuple[str, str], int | None] = {}
    for _, _, fact in of(facts.SetLocked):
        key = (fact.set, fact.device)
        longest = locks.get(key, 0)
        locks[key] = None if longest is None or fact.until_ns is None else max(longest, fact.until_ns)
    return {
        "backup_set": [
            (
                each.id,
                _pack(each),
                each.source,
                each.server,
                each.device,
                each.attempt,
                each.ended_at_ns,
                each.bytes_stored,
            )
            for each in sets.values()
        ],
        "catalog_detail": details.values(),
        **_kept(of(facts.CatalogAtServer), sets),
        "set_gone": [(*key, request) for key, request in gone.items()],
        "set_lock": [(*key, until) for key, until in locks.items()],
    }


def _kept(told: list[tuple[str, Record, Any]], sets: Container[str]) -> Mapping[str, Iterable[tuple[Any, ...]]]:
    """Which servers keep catalogs, and those of which sets, as each told last."""
    kept: dict[str, set[str]] = {}
    keepers: set[str] = set()
    for server, _, fact in told:
        if fact.began or fact.ended:
            kept[server] = set()
            keepers.discard(server)
        if fact.began:
            keepers.add(server)
        kept[server] = kept.get(server, set()).union(fact.sets).difference(fact.gone)
    return {
        "catalog_keeper": [(server,) for server in keepers],
        "catalog_kept": [(set_id, server) for server, ids in kept.items() for set_id in ids if set_id in sets],
    }


def _alerts(of: Callable[[type], list[tuple[str, Record, Any]]]) -> Mapping[str, Iterable[tuple[Any, ...]]]:
    """The first that was told under an id, and the earliest end, whoever told it."""
    ends: dict[tuple[str, str], int] = {}
    for server, record, fact in of(facts.AlertCleared):
        key = (fact.of or server, fact.id)
        ends[key] = min(ends.get(key, record.at_ns), record.at_ns)
    raised = {(server, fact.id): (record, fact) for server, record, fact in reversed(of(facts.AlertRaised))}
    return {
        "alert": [
            (
                id_,
                _when(at, fact),
                server,
                fact.alert.value,
                fact.category,
                fact.object,
                fact.text,
                ends.get((server, id_)),
            )
            for (server, id_), (at, fact) in raised.items()
        ],
        "alert_end": [(*key, at_ns) for key, at_ns in ends.items()],
    }


def _when(at: Record, fact: facts.AlertRaised) -> int:
    """An alert is as old as what it tells of, by a clock that may be ahead of that of whoever told it."""
    return min(fact.happened_at_ns or at.at_ns, at.at_ns)


def _audit(of: Callable[[type], list[tuple[str, Record, Any]]]) -> Mapping[str, Iterable[tuple[Any, ...]]]:
    """What is older than the latest trim is gone, whenever it comes; what tells of a trim stays."""
    floor = max((fact.before_ns for _, at, fact in of(facts.AuditTrimmed) if fact.before_ns <= at.at_ns), default=None)
    return {
        "audit": [
            (
                at.at_ns,
                server,
                fact.who,
                fact.what,
                fact.category,
                fact.outcome,
                fact.source,
                _pack(fact.fields),
                _chain(server, at.incarnation)[:16],
                at.seq,
                _pack(fact.changed),
            )
            for server, at, fact in of(facts.Audit)
            if floor is None or at.at_ns >= floor or fact.what == "audit.trim"
        ],
        **_chains(of(facts.Audit)),
        "audit_floor": [] if floor is None else [(floor,)],
    }


def _chains(told: list[tuple[str, Record, Any]]) -> Mapping[str, Iterable[tuple[Any, ...]]]:
    """Entries of one incarnation of a journal hang together, whether they are trimmed or not."""
    chains: dict[bytes, list[Any]] = {}
    links = []
    for server, at, fact in told:
        first = _chain(server, at.incarnation)
        row = (at.at_ns, server, fact.who, fact.what, fact.category, fact.outcome, fact.source)
        entry = _digest(b"caso-mesh audit entry 1\x00" + _pack((*row, _pack(fact.fields), _pack(fact.changed))))
        known = chains.setdefault(first[:16], [server, at.incarnation, at.seq, 0, first])
        known[3], known[4] = at.seq, _digest(known[4] + at.seq.to_bytes(8, "big") + entry)
        links.append((first[:16], at.seq, at.at_ns, int(fact.what == "audit.trim"), entry, known[4]))
    return {"audit_chain": [(chain, *row) for chain, row in chains.items()], "audit_link": links}


def _chain(server: str, incarnation: str) -> bytes:
    return _digest(b"caso-mesh audit chain 1\x00" + _pack((server, incarnation)))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def difference(one: Rows, other: Rows) -> str | None:
    """What two are not equal in."""
    for table in TABLES:
        if one[table] != other[table]:
            only_one = [row for row in one[table] if one[table].count(row) > other[table].count(row)]
            only_other = [row for row in other[table] if other[table].count(row) > one[table].count(row)]
            return f"{table}: {only_one[:2]} against {only_other[:2]}"
    return None
