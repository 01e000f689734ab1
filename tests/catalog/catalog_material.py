"""Sets, trees and segments for the tests of the catalog."""

from __future__ import annotations

import fnmatch
import io
import sqlite3
from collections.abc import Iterable
from typing import Any

from caso_mesh.catalog import index
from caso_mesh.catalog.segment import CatalogEntry, SegmentReader, SegmentWriter, chain_of
from caso_mesh.model.entries import EntryType, path_key
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet

Tree = dict[bytes, CatalogEntry]


def make_set(
    set_id: str,
    *,
    source: str = "node-a",
    roots: tuple[bytes, ...] = (b"srv",),
    ended: int = 0,
    filters: bytes = b"filters",
) -> BackupSet:
    return BackupSet(
        id=set_id,
        mesh="mesh",
        vault="vault",
        source=source,
        source_name=source,
        server="node-m",
        server_name="media",
        device="device",
        device_name="disk",
        medium="MEDIA-000001",
        media_set="keep-4-weeks",
        type=BackupType.INCREMENTAL,
        job="job",
        run="job@1",
        attempt="job@1#1",
        started_at_ns=ended - 1,
        ended_at_ns=ended,
        roots=roots,
        filters=filters,
        root=b"root",
        parent=None,
        files=0,
        entries=0,
        bytes=0,
        bytes_read=0,
        bytes_stored=0,
        exceptions=0,
    )


def file(path: bytes, size: int = 1, modified: tuple[int, int] = (1000, 0), **more: object) -> CatalogEntry:
    return CatalogEntry(path, EntryType.FILE, size, modified, 0o644, **more)  # type: ignore[arg-type]


def folder(path: bytes) -> CatalogEntry:
    return CatalogEntry(path, EntryType.DIRECTORY, 0, (500, 5), 0o755)


def tree(*entries: CatalogEntry) -> Tree:
    """The entries with a folder for each that has none above it."""
    found = {entry.path: entry for entry in entries}
    for entry in entries:
        at = entry.path.rpartition(b"/")[0]
        while at:
            found.setdefault(at, folder(at))
            at = at.rpartition(b"/")[0]
    return found


def raw_segment(
    backup_set: BackupSet, entries: Iterable[CatalogEntry], removed: Iterable[bytes] = (), base: str | None = None
) -> bytes:
    out = io.BytesIO()
    writer = SegmentWriter(out, set_id=backup_set.id, chain=chain_of(backup_set), base=base)
    records: list[tuple[bytes, CatalogEntry | None]] = [(entry.path, entry) for entry in entries]
    records += [(path, None) for path in removed]
    for path, entry in sorted(records, key=lambda record: path_key(record[0])):
        if entry is None:
            writer.remove(path)
        else:
            writer.add(entry)
    digest, size = writer.finish()
    data = out.getvalue()
    assert size == len(data) and len(digest) == 32
    return data


def full(backup_set: BackupSet, listing: Tree) -> SegmentReader:
    return SegmentReader(raw_segment(backup_set, listing.values()))


def changes(backup_set: BackupSet, base: str, before: Tree, after: Tree, *, tops_only: bool = False) -> SegmentReader:
    removed = [path for path in before if path not in after]
    if tops_only:
        removed = [path for path in removed if not any(path.startswith(top + b"/") for top in removed)]
    changed = [entry for path, entry in after.items() if before.get(path) != entry]
    return SegmentReader(raw_segment(backup_set, changed, removed, base))


def connect() -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    for migration in index.MIGRATIONS:
        if callable(migration):
            migration(conn)
        else:
            conn.executescript(migration)
    return conn


def listing(conn: sqlite3.Connection, set_id: str) -> Tree:
    """Everything in a set, by walking its folders from the top."""
    found: Tree = {}
    waiting = [b""]
    while waiting:
        at = waiting.pop()
        for entry in index.list_folder(conn, set_id, at):
            assert entry.path.rpartition(b"/")[0] == at
            found[entry.path] = entry
            if entry.type is EntryType.DIRECTORY:
                waiting.append(entry.path)
    return found


def find(
    conn: sqlite3.Connection,
    glob: str | bytes,
    *,
    limit: int = 1000,
    after: tuple[str, bytes] | None = None,
    **wanted: Any,
) -> list[index.Match]:
    """What a search finds that has all the time it needs."""
    found = index.find(conn, glob, index.Wanted(**wanted), limit=limit, after=after)
    assert not found.is_cut_off
    return found.matches


def matches(glob: str | bytes, path: bytes, *, ignore_case: bool = False) -> bool:
    """Whether a search for ``glob`` is to find ``path``."""
    pattern = glob if isinstance(glob, str) else glob.decode("utf-8", "surrogateescape")
    text = path.decode("utf-8", "surrogateescape")
    if ignore_case:
        pattern, text = pattern.lower(), text.lower()
    if fnmatch.fnmatchcase(text, pattern) or fnmatch.fnmatchcase("/" + text, pattern):
        return True
    return "/" not in pattern and fnmatch.fnmatchcase(text.rpartition("/")[2], pattern)
