"""What lies in ``tests/golden/catalog-N.db.gz``, catalogs whose tables are those of step N of ``index.MIGRATIONS``.

Each was made by ``fill`` with the program of its time, then vacuumed; the sets ``gone`` and ``first`` were removed again.
"""

from __future__ import annotations

import sqlite3

from catalog_material import Tree, changes, file, folder, full, make_set, tree

from caso_mesh.catalog import index
from caso_mesh.model.storage import BackupSet

_FLAT = [file(b"srv/flat/%03d" % number, size=number) for number in range(150)]
_FIRST = tree(file(b"srv/a"), file(b"srv/b", size=5), file(b"srv/d/e/f"), file("srv/größe".encode()), *_FLAT)
_SECOND = {path: entry for path, entry in _FIRST.items() if path not in {b"srv/a", b"srv/flat/007"}}
_SECOND |= tree(file(b"srv/b", size=6), file(b"srv/d/e/g", fingerprint=b"12345678"), file(b"srv/\xff"))
_SECOND |= {path: file(path, size=9000) for path in (b"srv/flat/%03d" % number for number in range(0, 150, 4))}
_THIRD = tree(file(b"srv/a", size=7), file(b"srv/d"), folder(b"srv/new"), *_FLAT)

#: By the id of its set: the record, the set it was measured against, and the tree.
SETS: dict[str, tuple[BackupSet, str | None, Tree]] = {
    "first": (make_set("first", ended=1), None, _FIRST),
    "second": (make_set("second", ended=2), "first", _SECOND),
    "gone": (make_set("gone", ended=3), "second", _THIRD),
    "third": (make_set("third", ended=4), "gone", _FIRST | tree(file(b"srv/late"))),
    "fourth": (make_set("fourth", ended=5), None, _THIRD),
    "fifth": (make_set("fifth", ended=6), "second", _SECOND),
    "share": (make_set("share", ended=7, roots=(b"srv", b"usr/share")), None, _FIRST | tree(file(b"usr/share/x"))),
    "other": (make_set("other", ended=8, source="node-b"), None, tree(file(b"srv/of-b"), *_FLAT)),
}
REMOVED = ("gone", "first")


def fill(conn: sqlite3.Connection) -> None:
    for record, base, wanted in SETS.values():
        index.add_set(conn, record)
        segment = full(record, wanted) if base is None else changes(record, base, SETS[base][2], wanted)
        index.ingest(conn, segment)
    for name in REMOVED:
        index.remove_set(conn, name)
    index.add_set(conn, make_set("without", ended=9))
