"""Forgetting sets, and with them the versions that no other set has."""

from __future__ import annotations

import sqlite3
from itertools import islice

from caso_mesh.catalog import blocks, folders, names, sets
from caso_mesh.catalog.joining import join

#: Names that are looked up at once.
_NAMES = 10_000


def roll_back(conn: sqlite3.Connection, chain: int, seq: int, previous: int) -> None:
    """Make the chain's current versions those of the set at ``previous`` (0: none), where ``seq`` is the place after
    it: of the latest set, which is to go, or of one that was only begun."""
    source = conn.execute("SELECT source FROM chain WHERE id = ?", (chain,)).fetchone()[0]
    chains = sets.chains_of_source(conn, source)
    for folder in _touched(conn, chain, seq):
        keys = [key for key in blocks.keys(conn, chain, folder) if key.first > previous]
        said = (name for name, _row in blocks.last_said(conn, keys))
        gone = 0
        while lost := list(islice(said, _NAMES)):
            known = blocks.known(conn, chains, folder, lost, but=(chain, previous))
            gone += len(lost) - len(known)
        conn.executemany("DELETE FROM block WHERE id = ?", [(key.id,) for key in keys])
        if gone:
            names.count_gone(conn, gone)
        folders.remove_if_empty(conn, folder, chains)
    conn.execute("DELETE FROM touched WHERE chain = ? AND seq = ?", (chain, seq))


def abandon(conn: sqlite3.Connection, chain: int) -> None:
    """Take back an unfinished taking-in of a chain, if there is one."""
    row = conn.execute("SELECT seq FROM pending WHERE chain = ?", (chain,)).fetchone()
    if row is not None:
        roll_back(conn, chain, row[0], sets.latest_seq(conn, chain))
        conn.execute("DELETE FROM pending WHERE chain = ?", (chain,))


def abandon_all(conn: sqlite3.Connection) -> None:
    """Take back all unfinished taking-in: after a restart nobody goes on with it."""
    for (chain,) in conn.execute("SELECT chain FROM pending").fetchall():
        abandon(conn, chain)


def remove_set(conn: sqlite3.Connection, set_id: str) -> None:
    """Forget a set: its record, its detail, and every version that only it had. Unknown sets are no error, so that it
    may be repeated. An unfinished taking-in of the same chain is taken back first."""
    row = conn.execute("SELECT source, chain, seq FROM backup_set WHERE set_id = ?", (set_id,)).fetchone()
    if row is None:
        return
    source, chain, seq = row
    abandon(conn, chain)
    conn.execute("DELETE FROM backup_set WHERE set_id = ?", (set_id,))
    if seq is not None:
        previous, following = conn.execute(
            "SELECT coalesce(max(CASE WHEN seq < ?1 THEN seq END), 0), min(CASE WHEN seq > ?1 THEN seq END)"
            " FROM backup_set WHERE chain = ?2",
            (seq, chain),
        ).fetchone()
        if following is None:
            roll_back(conn, chain, seq, previous)
        else:
            _remove_between(conn, source, chain, seq, previous, following)
    if conn.execute("SELECT 1 FROM backup_set WHERE chain = ? LIMIT 1", (chain,)).fetchone() is None:
        conn.execute("DELETE FROM chain WHERE id = ?", (chain,))
    if conn.execute("SELECT 1 FROM chain WHERE source = ? LIMIT 1", (source,)).fetchone() is None:
        top = conn.execute("SELECT root FROM source WHERE id = ?", (source,)).fetchone()[0]
        conn.executemany("DELETE FROM folder WHERE id = ?", [(number,) for number in folders.below(conn, top)])
        conn.execute("DELETE FROM source WHERE id = ?", (source,))


def _remove_between(conn: sqlite3.Connection, source: int, chain: int, seq: int, previous: int, following: int) -> None:
    chains = sets.chains_of_source(conn, source)
    # Only where something began with the set and with the one after it, the first may have been for this set alone.
    both = conn.execute(
        "SELECT folder FROM touched WHERE chain = ?1 AND seq = ?2"
        " INTERSECT SELECT folder FROM touched WHERE chain = ?1 AND seq = ?3",
        (chain, seq, following),
    ).fetchall()
    for (folder,) in both:
        lost = join(conn, chain, folder, previous, following)
        if lost:
            names.count_gone(conn, len(lost) - len(blocks.known(conn, chains, folder, lost)))
            folders.remove_if_empty(conn, folder, chains)
    # What happened at this place now happened between its neighbours.
    conn.execute(
        "INSERT OR IGNORE INTO touched (chain, seq, folder) SELECT chain, ?3, folder FROM touched"
        " WHERE chain = ?1 AND seq = ?2",
        (chain, seq, following),
    )
    conn.execute("DELETE FROM touched WHERE chain = ? AND seq = ?", (chain, seq))


def _touched(conn: sqlite3.Connection, chain: int, seq: int) -> list[int]:
    query = "SELECT folder FROM touched WHERE chain = ? AND seq = ?"
    return [row[0] for row in conn.execute(query, (chain, seq)).fetchall()]
