"""Sets that an inventory did not find on their device, in the tables: by device, as the last inventory of it says."""

from __future__ import annotations

import json
import sqlite3

import msgspec

from caso_mesh.model import facts

TABLE = "CREATE TABLE missing_sets (device TEXT PRIMARY KEY, at_ns INTEGER NOT NULL, data BLOB NOT NULL) STRICT;"


def write(c: sqlite3.Connection, at_ns: int, fact: facts.SetsMissing) -> None:
    """Of what several administrators told the newest word counts, in whichever order it comes."""
    c.execute(
        "INSERT INTO missing_sets VALUES (?, ?, ?) ON CONFLICT (device) DO UPDATE"
        " SET at_ns = excluded.at_ns, data = excluded.data WHERE (excluded.at_ns, excluded.data) > (at_ns, data)",
        (fact.device, at_ns, msgspec.msgpack.encode(fact.sets)),
    )


def read(c: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """By device (id), those that are still known."""
    found: dict[str, frozenset[str]] = {}
    known = "SELECT id FROM backup_set WHERE id IN (SELECT value FROM json_each(?))"
    for device, data in c.execute("SELECT device, data FROM missing_sets").fetchall():
        told = msgspec.msgpack.decode(data, type=tuple[str, ...])
        sets = frozenset(row[0] for row in c.execute(known, (json.dumps(told),))) if told else frozenset[str]()
        if sets:
            found[device] = sets
    return found
