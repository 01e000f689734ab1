"""Which catalogs servers keep by themselves, in the administrator's tables: each as its server last told."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from caso_mesh.model import facts
from caso_mesh.model.storage import BackupSet

TABLE = """
CREATE TABLE catalog_keeper (server TEXT PRIMARY KEY) STRICT;
CREATE TABLE catalog_kept (set_id TEXT NOT NULL, server TEXT NOT NULL, PRIMARY KEY (set_id, server)) STRICT;
CREATE INDEX catalog_kept_by_server ON catalog_kept (server);
"""
_decode = msgspec.msgpack.Decoder(BackupSet).decode
_PAGE = 5000


class Counted(Struct, frozen=True):
    """Of the sets that some nodes made: how many there are, of how many the catalog is here, at the server, at both, on
    its way to here, damaged."""

    sets: int = 0
    here: int = 0
    kept: int = 0
    both: int = 0
    neither: int = 0
    damaged: int = 0


def write(c: sqlite3.Connection, server: str, fact: facts.CatalogAtServer) -> str | None:
    """What ``server`` (node id) tells of the catalogs that it keeps. Of a set that is deleted it means nothing."""
    if fact.began or fact.ended:
        c.execute("DELETE FROM catalog_kept WHERE server = ?", (server,))
        c.execute("DELETE FROM catalog_keeper WHERE server = ?", (server,))
    if fact.began:
        c.execute("INSERT INTO catalog_keeper VALUES (?)", (server,))
    c.executemany(
        "INSERT OR IGNORE INTO catalog_kept SELECT id, ? FROM backup_set WHERE id = ?",
        [(server, set_id) for set_id in fact.sets],
    )
    c.executemany(
        "DELETE FROM catalog_kept WHERE set_id = ? AND server = ?", [(set_id, server) for set_id in fact.gone]
    )
    return None


def forget(c: sqlite3.Connection, set_id: str) -> None:
    """A set is deleted."""
    c.execute("DELETE FROM catalog_kept WHERE set_id = ?", (set_id,))


def keepers(c: sqlite3.Connection) -> set[str]:
    """The servers that keep catalogs."""
    return {row[0] for row in c.execute("SELECT server FROM catalog_keeper")}


def keepers_of(c: sqlite3.Connection, set_id: str) -> set[str]:
    return {row[0] for row in c.execute("SELECT server FROM catalog_kept WHERE set_id = ?", (set_id,))}


def kept_of(c: sqlite3.Connection, keepers: Mapping[str, str]) -> set[str]:
    """The sets of ``keepers`` (set -> server) of which that server has the catalog."""
    found: set[str] = set()
    for set_id, server in keepers.items():
        if c.execute("SELECT 1 FROM catalog_kept WHERE set_id = ? AND server = ?", (set_id, server)).fetchone():
            found.add(set_id)
    return found


def to_drop(c: sqlite3.Connection, keeper_of: Mapping[str, str], limit: int) -> list[tuple[str, str]]:
    """Sets whose catalogs are here, which ``keeper_of`` (who made them -> who is to keep them) keeps as well, each with
    that server."""
    found: list[tuple[str, str]] = []
    for maker, keeper in sorted(keeper_of.items()):
        rows = c.execute(
            "SELECT k.set_id FROM catalog_kept k JOIN backup_set b ON b.id = k.set_id JOIN catalog_here h"
            " ON h.set_id = k.set_id WHERE k.server = ? AND b.server = ? AND h.state = 'here'"
            " ORDER BY b.ended_at_ns LIMIT ?",
            (keeper, maker, limit - len(found)),
        )
        found += [(row[0], keeper) for row in rows]
        if len(found) >= limit:
            break
    return found


def drop(c: sqlite3.Connection, set_id: str, keeper: str) -> bool:
    """The catalog of a set is not here any more, if ``keeper`` has it; whether it has."""
    return bool(
        c.execute(
            "DELETE FROM catalog_here WHERE set_id = ?1 AND state = 'here'"
            " AND EXISTS (SELECT 1 FROM catalog_kept WHERE set_id = ?1 AND server = ?2)",
            (set_id, keeper),
        ).rowcount
    )


class Keeper(Struct):
    """A server that keeps catalogs of sets of ``sources`` that ``makers`` (node ids) made. ``alone``: of some that are not here, ``too``: of
    some that are."""

    makers: set[str]
    sources: set[str]
    alone: bool = False
    too: bool = False


def keeping(c: sqlite3.Connection, sources: Collection[str] | None) -> dict[str, Keeper]:
    """By id, the servers that keep catalogs; only of sets of ``sources``."""
    found: dict[str, Keeper] = {}
    rows = c.execute(
        "SELECT DISTINCT k.server, b.server, b.source, h.state IS 'here' FROM catalog_kept k"
        " JOIN backup_set b ON b.id = k.set_id LEFT JOIN catalog_here h ON h.set_id = k.set_id"
    )
    for server, maker, source, here in rows:
        if sources is None or source in sources:
            keeper = found.setdefault(server, Keeper(set(), set()))
            keeper.makers.add(maker)
            keeper.sources.add(source)
            keeper.too, keeper.alone = keeper.too or bool(here), keeper.alone or not here
    return found


def assigned(c: sqlite3.Connection, makers: Sequence[str], keeper: str, after: str) -> list[tuple[str, bool]]:
    """A page of the sets that some nodes made, by id, each with whether ``keeper`` is known to have its catalog."""
    marks = ", ".join("?" * len(makers))
    rows = c.execute(
        f"SELECT b.id, k.set_id IS NOT NULL FROM backup_set b LEFT JOIN catalog_kept k ON k.set_id = b.id AND k.server = ?"
        f" WHERE b.server IN ({marks}) AND b.id > ? ORDER BY b.id LIMIT {_PAGE}",
        (keeper, *makers, after),
    )
    return [(set_id, bool(kept)) for set_id, kept in rows]


def records(
    c: sqlite3.Connection, makers: Collection[str], set_ids: Sequence[str]
) -> tuple[list[BackupSet], list[str]]:
    """Of some sets the records of those that ``makers`` made, and those that are deleted."""
    marks = ", ".join("?" * len(set_ids))
    rows = c.execute(f"SELECT data FROM backup_set WHERE id IN ({marks})", tuple(set_ids))
    found = [backup for row in rows if (backup := _decode(row[0])).server in makers]
    gone = c.execute(
        f"SELECT DISTINCT set_id FROM set_gone WHERE set_id IN ({marks}) AND set_id NOT IN (SELECT id FROM backup_set)",
        tuple(set_ids),
    )
    return found, [row[0] for row in gone]


def held_here(c: sqlite3.Connection, keeper: str, set_ids: Sequence[str]) -> list[str]:
    """Of some sets those whose catalogs are here and, as far as is known, not at ``keeper``: nothing drops them here before
    that one says again that it has them."""
    marks = ", ".join("?" * len(set_ids))
    rows = c.execute(
        f"SELECT set_id FROM catalog_here WHERE state = 'here' AND set_id IN ({marks})"
        " AND set_id NOT IN (SELECT set_id FROM catalog_kept WHERE server = ?) ORDER BY set_id",
        (*set_ids, keeper),
    )
    return [row[0] for row in rows]


def count(c: sqlite3.Connection, makers: Sequence[str], keeper: str) -> Counted:
    marks = ", ".join("?" * len(makers))
    row = c.execute(
        "SELECT count(*), coalesce(sum(here), 0), coalesce(sum(kept), 0), coalesce(sum(here AND kept), 0),"
        " coalesce(sum(NOT here AND NOT kept), 0), coalesce(sum(damaged), 0) FROM (SELECT h.state IS 'here' AS here,"
        " h.state IS 'damaged' AS damaged, k.set_id IS NOT NULL AS kept FROM backup_set b LEFT JOIN catalog_here h"
        " ON h.set_id = b.id LEFT JOIN catalog_kept k ON k.set_id = b.id AND k.server = ?"
        f" WHERE b.server IN ({marks}))",
        (keeper, *makers),
    ).fetchone()
    return Counted(*row)
