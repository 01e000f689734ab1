"""What is known against sets, put together for ``planning.choosing``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial

from caso_mesh.admin import missing_sets
from caso_mesh.admin.live import Live
from caso_mesh.admin.tables import Tables
from caso_mesh.control.damages import Look, Questions, answered, damages, looks, questions
from caso_mesh.control.state import ControlState
from caso_mesh.planning.choosing import Flaws

#: Asked whenever a set is chosen: nothing of it is remembered.
FlawsNow = Callable[[], Awaitable[Flaws]]


async def flaws_of(state: ControlState, tables: Tables, live: Live) -> Flaws:
    """All that is known now."""
    told = looks(state)
    missing, more = await tables.ask(partial(_told, asked=questions(state)))
    redundant = frozenset(each for ids in live.redundant.values() for each in ids)
    return Flaws(missing, damages([*told, *more]), redundant)


def _told(c: sqlite3.Connection, asked: Questions) -> tuple[frozenset[str], list[Look]]:
    """What inventories did not find, and what attempts found damaged. As the tables say: who has just come into office has
    not looked at them yet."""
    missing = frozenset(each for sets in missing_sets.read(c).values() for each in sets)
    sql = "SELECT id, attempt FROM backup_set WHERE attempt IN (SELECT value FROM json_each(?))"
    made = dict(c.execute(sql, (json.dumps(sorted(asked.made)),)))
    sql = (
        "SELECT DISTINCT attempt, path FROM exception"
        " WHERE attempt IN (SELECT value FROM json_each(?)) AND reason = 'damaged'"
    )
    paths: dict[str, list[bytes]] = {}
    for attempt, path in c.execute(sql, (json.dumps(sorted(asked.read)),)):
        paths.setdefault(attempt, []).append(path)
    return missing, answered(asked, made, paths)
