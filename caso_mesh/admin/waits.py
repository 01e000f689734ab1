"""Why parts of runs waited, in the administrator's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from caso_mesh.model import facts
from caso_mesh.model.jobs import Waiting
from caso_mesh.model.states import WaitReason

#: Of one part of a run, the newest. Whoever tells them tells the later ones more rarely.
_MOST = 100
_KNOWN = frozenset(reason.value for reason in WaitReason)


class WaitRow(Struct, frozen=True):
    """Why a part of a run began to wait at an instant."""

    run: str
    source: str
    since_ns: int
    waiting: Waiting


def write(c: sqlite3.Connection, server: str, fact: facts.RunWaits) -> None:
    """What ``server`` (node id), in office, tells."""
    c.execute(
        "INSERT OR REPLACE INTO run_wait VALUES (?, ?, ?, ?, ?, ?)",
        (fact.run, fact.source, server, fact.since_ns, fact.reason.value, msgspec.msgpack.encode(fact.fields)),
    )
    c.execute(
        "DELETE FROM run_wait WHERE run = ? AND source = ? AND rowid IN (SELECT rowid FROM run_wait"
        " WHERE run = ? AND source = ? ORDER BY since_ns DESC, reporter LIMIT -1 OFFSET ?)",
        (fact.run, fact.source, fact.run, fact.source, _MOST),
    )


def read(c: sqlite3.Connection, runs: Sequence[str]) -> list[WaitRow]:
    """Those of some runs, in the order of their beginnings."""
    found: list[WaitRow] = []
    for start in range(0, len(runs), 500):
        piece = runs[start : start + 500]
        marks = ", ".join("?" * len(piece))
        sql = f"SELECT run, source, since_ns, reason, fields FROM run_wait WHERE run IN ({marks})"
        for run, source, since_ns, reason, fields in c.execute(sql, tuple(piece)):
            if reason in _KNOWN:  # else a later version wrote these tables
                why = Waiting(WaitReason(reason), msgspec.msgpack.decode(fields))
                found.append(WaitRow(run, source, since_ns, why))
    return sorted(found, key=lambda each: each.since_ns)
