"""Backup sets for measuring catalogs: the same seed makes the same names, changes and segments.

Several sources, each a full listing and then incrementals. Names are those of documents, photos, mail, code, logs and
packages; few folders are large, most are small. Most changes come in few folders, the rest anywhere.
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Iterable

from msgspec import Struct

from caso_mesh.catalog.segment import CatalogEntry, SegmentWriter, chain_of
from caso_mesh.model.entries import EntryType, path_key
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet

#: How much of all versions each source has; the first one's full listing of 5 million is one of a million files.
_SHARES = (0.27, 0.15, 0.12, 0.1, 0.09, 0.08, 0.06, 0.05, 0.05, 0.03)
#: What part of a source's versions is in its full listing.
_FULL = 0.75
#: What part of a set's changes: in folders where much changes, of new files, of those in new folders; of removals
#: beside the changes.
_CLUSTERED, _NEW, _NEW_FOLDER, _REMOVED = 0.6, 0.3, 0.1, 0.1
_ROOT = b"srv"

_WORDS = [
    (a + b).encode()
    for a in ("re", "in", "bud", "con", "da", "pro", "ser", "li", "mo", "ta", "qua", "ze", "over", "trans", "mar", "pla")
    for b in ("port", "voice", "get", "fig", "ta", "ject", "ver", "brary", "dule", "ble", "rter", "nith", "log", "x",
              "ning", "mer", "sion", "tal", "count", "ket")
]  # fmt: skip
_ENDS = [b"txt", b"pdf", b"docx", b"xlsx", b"odt", b"csv"]
_CODE = [b"py", b"js", b"ts", b"c", b"h", b"json", b"md"]
_ACCENTS = ["é", "ü", "ß", "ñ", "日本", "ø"]


class Made(Struct, frozen=True):
    """One set: ``kind`` full or incremental; ``versions`` and ``removed`` are the records of its segment."""

    number: int
    source: int
    kind: str
    versions: int
    removed: int
    segment_bytes: int


class Material(Struct, frozen=True):
    """``files`` and ``folders`` are some that the last set of each source has, as (source, path); ``alive`` is how many
    entries the first source's last set has."""

    versions: int
    sets: list[Made]
    files: list[tuple[int, bytes]]
    folders: list[tuple[int, bytes]]
    alive: int


def set_of(number: int, source: int, kind: str) -> BackupSet:
    """The record of a set; each ends a minute after the one before."""
    ended = 1_700_000_000_000_000_000 + number * 60_000_000_000
    return BackupSet(
        id=f"set{number:04d}", mesh="mesh", vault="vault", source=f"node-{source}", source_name=f"server-{source}",
        server="node-m", server_name="media", device="device", device_name="disk", medium="MEDIA-000001",
        media_set="keep-4-weeks", type=BackupType.FULL if kind == "full" else BackupType.INCREMENTAL, job="job",
        run=f"job@{number}", attempt=f"job@{number}#1", started_at_ns=ended - 30_000_000_000, ended_at_ns=ended,
        roots=(_ROOT,), filters=b"", root=b"root", parent=None, files=0, entries=0, bytes=0, bytes_read=0,
        bytes_stored=0, exceptions=0,
    )  # fmt: skip


def make(folder: pathlib.Path, versions: int, sets: int, *, seed: int = 1) -> Material:
    """Writes a segment for each set into ``folder`` (``NNNN.segment``), in the order in which they are to be taken in."""
    sources = min(len(_SHARES), max(1, sets // 2))
    scale = versions / sum(_SHARES[:sources])
    plan = [(number, source) for number, source in enumerate(_turns(sources, sets))]
    trees: dict[int, _Tree] = {}
    latest: dict[int, str] = {}
    made: list[Made] = []
    for number, source in plan:
        share = scale * _SHARES[source]
        record = set_of(number, source, "full" if source not in trees else "incremental")
        changed: dict[bytes, CatalogEntry]
        removed: list[bytes] = []
        if source not in trees:
            tree = trees[source] = _Tree(random.Random(f"{seed}/{source}"))
            changed = tree.grow(int(share * _FULL))
        else:
            later = sum(each == source for _number, each in plan) - 1
            changed, removed = trees[source].change(max(1, int(share * (1 - _FULL) / later)))
        size = write(folder / f"{number:04d}.segment", record, changed.values(), removed, latest.get(source))
        latest[source] = record.id
        made.append(Made(number, source, str(record.type), len(changed), len(removed), size))
    rng = random.Random(seed)
    files = [(source, tree.some_file(rng)) for source, tree in trees.items() for _ in range(200)]
    folders = [(source, rng.choice(tree.folders)) for source, tree in trees.items() for _ in range(200)]
    return Material(sum(each.versions for each in made), made, files, folders, trees[0].count())


def _turns(sources: int, sets: int) -> list[int]:
    """First every source's full set, then one after the other."""
    return [number % sources for number in range(sets)]


def write(
    path: pathlib.Path, record: BackupSet, entries: Iterable[CatalogEntry], removed: Iterable[bytes], base: str | None
) -> int:
    """Writes a segment; its size in bytes."""
    records: list[tuple[bytes, CatalogEntry | None, bytes]] = [(path_key(each.path), each, b"") for each in entries]
    records += [(path_key(each), None, each) for each in removed]
    records.sort(key=lambda each: each[0])
    with SegmentWriter(path, set_id=record.id, chain=chain_of(record), base=base) as writer:
        for _key, entry, gone in records:
            if entry is None:
                writer.remove(gone)
            else:
                writer.add(entry)
        return writer.finish()[1]


class _Tree:
    """What a source has: names by folder. Attributes are drawn when they are needed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._names: dict[bytes, list[bytes]] = {_ROOT: []}
        self._kinds: dict[bytes, Callable[[int], bytes]] = {_ROOT: self._document}
        self.folders = [_ROOT]
        self._serial = 0

    def count(self) -> int:
        return len(self.folders) + sum(map(len, self._names.values()))

    def some_file(self, rng: random.Random) -> bytes:
        while True:
            folder = rng.choice(self.folders)
            if self._names[folder]:
                return folder + b"/" + rng.choice(self._names[folder])

    def grow(self, entries: int) -> dict[bytes, CatalogEntry]:
        """A tree of about so many entries."""
        found = {_ROOT: self._folder(_ROOT)}
        while len(found) < entries:
            path = self._new_folder(found)
            for _ in range(min(self._many(), entries - len(found))):
                self._new_file(path, found)
        return found

    def change(self, number: int) -> tuple[dict[bytes, CatalogEntry], list[bytes]]:
        """So many entries that are new or have changed, and some paths that are gone."""
        rng = self._rng
        found: dict[bytes, CatalogEntry] = {}
        while len(found) < number:
            if rng.random() < _CLUSTERED:
                folder, several = rng.choice(self.folders), rng.randint(5, 40)
            else:
                folder, several = rng.choice(self.folders), 1
            for _ in range(several):
                if rng.random() < _NEW:
                    self._new_file(self._new_folder(found) if rng.random() < _NEW_FOLDER else folder, found)
                elif self._names[folder]:
                    path = folder + b"/" + rng.choice(self._names[folder])
                    found[path] = self._file(path)
                if len(found) >= number:
                    break
        removed = []
        for _ in range(int(number * _REMOVED)):
            folder = rng.choice(self.folders)
            names = self._names[folder]
            if names and folder + b"/" + names[-1] not in found:
                removed.append(folder + b"/" + names.pop())
        return found, removed

    def _many(self) -> int:
        """How many files a folder has: mostly few, sometimes thousands."""
        return min(20_000, int(self._rng.lognormvariate(2.3, 1.2)) + 1)

    def _new_folder(self, found: dict[bytes, CatalogEntry]) -> bytes:
        rng = self._rng
        above = rng.choice(self.folders[-200:] if rng.random() < 0.7 else self.folders)
        if above.count(b"/") > 9:
            above = _ROOT
        while True:
            name = rng.choice(_WORDS)
            if rng.random() < 0.4:
                name += b"-%d" % rng.randrange(3000)
            path = above + b"/" + name
            if path not in self._names:
                break
            above = path
        self._names[path] = []
        kinds = (self._document, self._photo, self._mail, self._code, self._log, self._package)
        self._kinds[path] = rng.choices(kinds, (30, 15, 15, 25, 5, 10))[0]
        self.folders.append(path)
        found[path] = self._folder(path)
        return path

    def _new_file(self, folder: bytes, found: dict[bytes, CatalogEntry]) -> None:
        self._serial += 1
        name = self._kinds[folder](self._serial)
        path = folder + b"/" + name
        if path in self._names:
            return
        if path not in found:
            self._names[folder].append(name)
        found[path] = self._file(path)

    def _folder(self, path: bytes) -> CatalogEntry:
        return CatalogEntry(path, EntryType.DIRECTORY, 4096, self._modified(), 0o755, 1000, 1000)

    def _file(self, path: bytes) -> CatalogEntry:
        size = int(self._rng.lognormvariate(9, 2.5))
        fingerprint = self._rng.randbytes(8)
        return CatalogEntry(path, EntryType.FILE, size, self._modified(), 0o644, 1000, 1000, fingerprint)

    def _modified(self) -> tuple[int, int]:
        return 1_500_000_000 + self._rng.randrange(200_000_000), self._rng.randrange(1_000_000_000)

    # --- names ---

    def _document(self, serial: int) -> bytes:
        rng = self._rng
        name = b"%b %b" % (rng.choice(_WORDS).capitalize(), rng.choice(_WORDS))
        chance = rng.random()
        if chance < 0.05:
            name += rng.choice(_ACCENTS).encode()
        elif chance < 0.052:
            name += b"\xe9\xff"
        return b"%b %d.%b" % (name, serial % 100_000, rng.choice(_ENDS))

    def _photo(self, serial: int) -> bytes:
        return b"IMG_%d_%06d.JPG" % (20_100_101 + self._rng.randrange(130_000), serial % 1_000_000)

    def _mail(self, serial: int) -> bytes:
        return b"%d.M%dP%d.mail,S=%d:2,S" % (1_600_000_000 + serial, self._rng.randrange(10**6), serial % 9999, serial)

    def _code(self, serial: int) -> bytes:
        rng = self._rng
        return b"%b_%b%d.%b" % (rng.choice(_WORDS), rng.choice(_WORDS), serial, rng.choice(_CODE))

    def _log(self, serial: int) -> bytes:
        return b"%b.log.%d.gz" % (self._rng.choice(_WORDS), serial)

    def _package(self, serial: int) -> bytes:
        return b"%b-%d.%d.%032x" % (self._rng.choice(_WORDS), serial % 9, serial % 30, serial * 2654435761)
