"""Finding names: trigrams over blocks of names.

The names that first appear in a folder are indexed together, in blocks of ``BLOCK``: the index says which blocks may hold
a name, the names of the block's range are then read and compared. That is smaller than one document for each name, and
quicker where a trigram is common. Names that are gone leave their block as it is (a block that holds nothing costs
one vain look); when more than half are gone, the index is built anew.

https://www.sqlite.org/fts5.html#the_trigram_tokenizer, with ``detail=none``: a question is a conjunction of trigrams.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from caso_mesh.catalog import blocks as versions
from caso_mesh.catalog.folders import next_id

BLOCK = 32
#: Most trigrams of one question: more hardly select better.
_TRIGRAMS = 24
#: Of more than so many the rarest are taken, as the first few blocks show them.
_RAREST, _SAMPLE = 6, 50
#: So many names may be gone before the index is worth building anew.
_TOLERATED = 10_000


class NameWriter:
    """Collects names that appear for the first time, folder by folder."""

    def __init__(self) -> None:
        self._blocks: list[tuple[int, list[bytes]]] = []

    def add_all(self, folder: int, names: list[bytes]) -> None:
        """``names`` in order, of one folder."""
        for at in range(0, len(names), BLOCK):
            self._blocks.append((folder, names[at : at + BLOCK]))

    def flush(self, conn: sqlite3.Connection) -> None:
        if not self._blocks:
            return
        # The id of a block that is gone may still be in the index, so it is never given again.
        begin = next_id(conn, "name_block")
        conn.executemany(
            "INSERT INTO name_block (id, folder, lowest, highest) VALUES (?, ?, ?, ?)",
            ((begin + at, folder, names[0], names[-1]) for at, (folder, names) in enumerate(self._blocks)),
        )
        conn.executemany(
            "INSERT INTO name_text (rowid, names) VALUES (?, ?)",
            (
                (begin + at, f"/{b'/'.join(names).decode('latin-1')}/")
                for at, (_folder, names) in enumerate(self._blocks)
            ),
        )
        conn.execute(
            "UPDATE name_count SET indexed = indexed + ?", (sum(len(names) for _folder, names in self._blocks),)
        )
        self._blocks.clear()


def count_gone(conn: sqlite3.Connection, number: int) -> None:
    conn.execute("UPDATE name_count SET gone = gone + ?", (number,))


def wants_rebuild(conn: sqlite3.Connection) -> bool:
    indexed, gone = conn.execute("SELECT indexed, gone FROM name_count").fetchone()
    return bool(gone > _TOLERATED and 2 * gone > indexed)


def rebuild(conn: sqlite3.Connection) -> None:
    """Build the index anew from the names there are."""
    conn.execute("INSERT INTO name_text (name_text) VALUES ('delete-all')")
    conn.execute("DELETE FROM name_block")
    conn.execute("UPDATE name_count SET indexed = 0, gone = 0")
    writer = NameWriter()
    count = 0
    for (top,) in conn.execute("SELECT root FROM source").fetchall():
        chains = [
            row[0]
            for row in conn.execute(
                "SELECT c.id FROM chain c JOIN source s ON s.id = c.source WHERE s.root = ?", (top,)
            )
        ]
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            waiting.extend(row[0] for row in conn.execute("SELECT id FROM folder WHERE parent = ?", (folder,)))
            names: set[bytes] = set()
            for chain in chains:
                for key in versions.keys(conn, chain, folder):
                    names.update(versions.load_names(conn, key.id))
            writer.add_all(folder, sorted(names))
            count += len(names)
            if count > 50_000:
                writer.flush(conn)
                count = 0
    writer.flush(conn)


def trigrams(piece: bytes) -> list[str]:
    """Trigrams that every block has which holds ``piece``; none if it is too short."""
    text = piece.decode("latin-1")
    found = list(dict.fromkeys(text[at : at + 3] for at in range(len(text) - 2)))
    step = -(-len(found) // _TRIGRAMS) if found else 1
    return found[::step]


def _question(conn: sqlite3.Connection, piece: bytes) -> str:
    """Of many trigrams the rarest: they select as well, and the frequent ones are what takes long."""
    found = ['"' + each.replace('"', '""') + '"' for each in trigrams(piece)]
    if len(found) > _RAREST:
        found.sort(key=lambda each: _rareness(conn, each), reverse=True)
    return " AND ".join(found[:_RAREST])


def _rareness(conn: sqlite3.Connection, quoted: str) -> int:
    """How many blocks there are, about, for each few that have it."""
    query = "SELECT rowid FROM name_text WHERE name_text MATCH ? LIMIT 1 OFFSET ?"
    row = conn.execute(query, (quoted, _SAMPLE)).fetchone()
    return versions.LATEST if row is None else int(row[0])


def first(conn: sqlite3.Connection, piece: bytes, most: int) -> list[int]:
    """The blocks that may hold ``piece``, up to ``most``."""
    query = "SELECT rowid FROM name_text WHERE name_text MATCH ? LIMIT ?"
    return [row[0] for row in conn.execute(query, (_question(conn, piece), most))]


def ranges(
    conn: sqlite3.Connection, piece: bytes, known: Sequence[int] | None, most: int
) -> Iterator[tuple[int, bytes, bytes]]:
    """Folder, lowest and highest name of each block that may hold ``piece``, up to ``most``; ``known``: what ``first`` gave,
    if that was all."""
    if known is not None:
        yield from conn.execute(
            "SELECT b.folder, b.lowest, b.highest FROM json_each(?) t CROSS JOIN name_block b ON b.id = t.value",
            (json.dumps(known),),
        )
        return
    yield from conn.execute(
        "SELECT b.folder, b.lowest, b.highest FROM name_text t JOIN name_block b ON b.id = t.rowid"
        " WHERE name_text MATCH ? LIMIT ?",
        (_question(conn, piece), most),
    )


def count_below(conn: sqlite3.Connection, piece: bytes, most: int) -> int:
    """How many folders may have ``piece`` in their path, counted up to ``most``."""
    query = (
        "WITH RECURSIVE below(id) AS (SELECT * FROM (SELECT rowid FROM folder_text WHERE folder_text MATCH ?1 LIMIT ?2)"
        " UNION ALL SELECT f.id FROM below JOIN folder f ON f.parent = below.id LIMIT ?2) SELECT count(*) FROM below"
    )
    return int(conn.execute(query, (_question(conn, piece), most)).fetchone()[0])


def folders(conn: sqlite3.Connection, piece: bytes, most: int) -> Iterator[int]:
    """Folders that may have ``piece`` in their own name, up to ``most``."""
    query = "SELECT rowid FROM folder_text WHERE folder_text MATCH ? LIMIT ?"
    for row in conn.execute(query, (_question(conn, piece), most)):
        yield row[0]


__all__ = [
    "BLOCK",
    "NameWriter",
    "count_below",
    "count_gone",
    "first",
    "folders",
    "ranges",
    "rebuild",
    "trigrams",
    "wants_rebuild",
]
