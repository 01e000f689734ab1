"""A vault: what media servers write inside a storage device. ``docs/format.md`` has every byte of it.

Everything here is synchronous and thread-safe; lanes belong to one thread each.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import (
    CasoError,
    DataDamaged,
    DeviceError,
    DeviceVanished,
    Misuse,
    NoKey,
    NotFound,
    ObjectExists,
    ObjectMissing,
)
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.backend import Backend
from caso_mesh.vault.damage import WHOLE
from caso_mesh.vault.header import VaultHeader, create_vault, read_header
from caso_mesh.vault.holds import Holds
from caso_mesh.vault.keys import add_recipients, check_key_objects, create_content_key, load_keys
from caso_mesh.vault.names import Kind, check_id, closed_name, parse_pack, parse_session, parse_set, session_name
from caso_mesh.vault.objects import ObjectStore, Signer, VaultKeys, Verify
from caso_mesh.vault.packs import PackReader, same_claims
from caso_mesh.vault.problems import Problems
from caso_mesh.vault.reading import ChunkReader, Packed, Piece
from caso_mesh.vault.records import ClosedRecord, SessionRecord, decode_record, decode_set
from caso_mesh.vault.remembered import RememberedSets
from caso_mesh.vault.segments import SegmentStore
from caso_mesh.vault.session import Lane, Session
from caso_mesh.vault.stock import Stock, stock
from caso_mesh.vault.table import Table
from caso_mesh.vault.tree import TreeReader
from caso_mesh.vault.verifying import verify_set

__all__ = [
    "Backend",
    "BackupSet",
    "Lane",
    "Session",
    "SessionRecord",
    "Signer",
    "Vault",
    "VaultHeader",
    "VaultKeys",
    "Verify",
    "add_recipients",
    "create_content_key",
    "create_vault",
    "load_keys",
    "read_header",
]

#: Records that are looked at again before they are written down as damaged; of more than these the first look counts.
_SECOND_LOOKS = 1000
#: Ids that are looked up at once.
_BATCH = 4096

_R = TypeVar("_R", SessionRecord, ClosedRecord)


class Vault:
    """One vault, as one process sees it.

    ``cache_folder`` (bytes of the index are kept below it, by vault; None: in memory) may be shared by processes. With
    ``remembers`` sets are taken from there that were read before: for who builds on them, not for who reads them back.
    Nothing is read before ``refresh`` or a call that needs it.
    """

    def __init__(
        self,
        backend: Backend,
        header: VaultHeader,
        keys: VaultKeys,
        *,
        verify: Verify,
        cache_folder: str | None,
        remembers: bool = False,
        randomness: Randomness = os.urandom,
    ) -> None:
        keys.check()
        self.header = header
        self.keys = keys
        self._backend = backend
        self._problems = Problems()
        self._store = ObjectStore(backend, header, keys, verify=verify, randomness=randomness)
        self._packs = PackReader(self._store)
        self._segments = SegmentStore(self._store, self._packs, self._problems, cache_folder)
        self._reader = ChunkReader(self._store, self._segments, self._packs)
        self.holds = Holds(self._store, self._problems)
        self._sets: dict[str, BackupSet | None] = {}
        self._remembered: RememberedSets | None = None
        if remembers and cache_folder is not None:
            self._remembered = RememberedSets(os.path.join(cache_folder, "sets"))
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Lists again: takes in what other writers have added to the index."""
        for problem in check_key_objects(self._backend, self.header, self.keys.id_key):
            self._problems.add(problem)
        self._segments.refresh()

    def space(self) -> tuple[int, int]:
        """Bytes free on the device, and in total (0: it does not tell)."""
        return self._backend.space()

    def problems(self) -> list[str]:
        """What was found damaged or foreign so far and passed over, one line each."""
        return self._problems.all()

    # --- writing ---

    def register_writer(self, writer: str, signer: Signer) -> None:
        """Adds the registration of ``writer`` for ``signer.server``; repeated, nothing happens. Raises ``Conflict`` if
        the writer is another server's."""
        self._segments.register_writer(writer, signer)

    def open_session(
        self, *, writer: str, session: str, signer: Signer, attempt: str, parents: Sequence[str]
    ) -> Session:
        """Begins to write. The session is durable before anything of the vault is reused.

        ``writer`` is registered if it is not yet. ``parents`` are ids of sets that this session builds on; they are
        looked up after it is durable. Raises ``NotFound`` if one is not there (the session is closed again then),
        ``ObjectExists`` if there is a session of that id.
        """
        self.register_writer(writer, signer)
        record = SessionRecord(writer, check_id(session, "session"), signer.server, attempt, tuple(parents))
        self._store.write(Kind.SESSION, session_name(writer, session), msgspec.msgpack.encode(record), signer)
        self.refresh()
        opened = Session(self._store, self._segments, self._packs, self._problems, record, signer, self._note_published)
        try:
            for parent in parents:
                self.load_set(parent)
        except NotFound:
            opened.close()
            raise
        return opened

    def open_sessions(self, writer: str | None = None, *, look_at_ended: bool = True) -> list[SessionRecord]:
        """Sessions without an end, of one writer or of all: at work now, or dead. A damaged object of an ended session
        becomes a problem, and ends it all the same; without ``look_at_ended`` none of those is read."""
        found: list[SessionRecord] = []
        closed = set()
        if not look_at_ended:
            return self._unended_sessions(writer)
        for name, _ in self._backend.list("sessions/" if writer is None else f"sessions/{writer}/"):
            parsed = parse_session(name)
            if parsed is None:
                self._problems.add(f"{name}: no object of a vault has such a name")
            elif parsed[2]:
                closed.add(parsed[:2])
                self._load_session(Kind.SESSION_CLOSED, name, ClosedRecord, *parsed[:2])
            else:
                record = self._load_session(Kind.SESSION, name, SessionRecord, *parsed[:2])
                found.extend([record] if record is not None else [])
        return [record for record in found if (record.writer, record.session) not in closed]

    def _unended_sessions(self, writer: str | None) -> list[SessionRecord]:
        begun: dict[tuple[str, str], str] = {}
        ended = set()
        for name, _ in self._backend.list("sessions/" if writer is None else f"sessions/{writer}/"):
            parsed = parse_session(name)
            if parsed is not None and parsed[2]:
                ended.add(parsed[:2])
            elif parsed is not None:
                begun[parsed[:2]] = name
        records = [
            self._load_session(Kind.SESSION, name, SessionRecord, *key)
            for key, name in begun.items()
            if key not in ended
        ]
        return [record for record in records if record is not None]

    def end_session(self, writer: str, session: str, signer: Signer) -> None:
        """Ends a dead session of one's own writer: the caller knows that nobody works in it any more. Repeated,
        nothing happens. Whatever of it is worth keeping is adopted before."""
        check_id(writer, "writer")
        check_id(session, "session")
        last = 0
        for name, _ in self._backend.list(f"sets/{writer}/{session}-"):
            parsed = parse_set(name)
            if parsed is not None and parsed[:2] == (writer, session):
                last = max(last, parsed[2])
        record = msgspec.msgpack.encode(ClosedRecord(writer, session, last))
        try:
            self._store.write(Kind.SESSION_CLOSED, closed_name(writer, session), record, signer)
        except ObjectExists:
            return

    def _load_session(self, kind: Kind, name: str, record_type: type[_R], writer: str, session: str) -> _R | None:
        try:
            payload, server = self._store.read(kind, name)
            self._segments.check_signer(name, writer, server)
            record = decode_record(name, payload, record_type)
            if (record.writer, record.session) != (writer, session):
                raise DataDamaged(object=name, detail="it is the object of another session")
        except (DataDamaged, NoKey, ObjectMissing) as error:
            self._problems.add(f"{name}: {error.message}")
            return None
        return record

    # --- sets and trees ---

    def sets(self, *, deleted: bool = False) -> Iterator[BackupSet]:
        """All sound sets, by the name of their object. Others become ``problems``. Those with a tombstone are passed
        over, unless ``deleted``."""
        seen: dict[str, str] = {}
        names = list(self._backend.list("sets/"))
        self.holds.refresh()  # after the sets: what was deleted before this call is not seen by it
        self._recall([name for name, _ in names])
        for name, _ in names:
            with self._lock:
                known = name in self._sets
                backup_set = self._sets.get(name)
            if not known:
                backup_set = self._load(name)
                with self._lock:
                    self._sets[name] = backup_set
            if backup_set is None:
                continue
            if backup_set.id in seen:
                self._problems.add(f"{name}: the set {backup_set.id} is there already as {seen[backup_set.id]}")
                continue
            seen[backup_set.id] = name
            if deleted or not self.holds.is_gone(backup_set.id):
                yield backup_set

    def _recall(self, names: Sequence[str]) -> None:
        """Before the sets of ``names`` are looked at: those that were read before, and what is read now for others."""
        remembered = self._remembered
        if remembered is None:
            return
        with self._lock:
            fresh: list[tuple[str, BackupSet]] = []
            for name in names:
                if name in self._sets:
                    continue
                known = remembered.get(name)
                if known is None:
                    known = self._load(name)
                    fresh.extend([(name, known)] if known is not None else [])
                self._sets[name] = known
            remembered.add(fresh)
            remembered.keep(set(names))

    def load_set(self, set_id: str) -> BackupSet:
        """Raises ``NotFound``, also if the only object with that set is damaged: ``problems`` tells."""
        for backup_set in self.sets():
            if backup_set.id == set_id:
                return backup_set
        raise NotFound(kind="set", name=set_id)

    def tree(self, root: bytes) -> TreeReader:
        """The tree of a set, by its ``root``."""
        return TreeReader(root, self._reader.read)

    def _load(self, name: str) -> BackupSet | None:
        try:
            parsed = parse_set(name)
            if parsed is None:
                raise DataDamaged(object=name, detail="no object of a vault has such a name")
            payload, server = self._store.read(Kind.SET, name)
            self._segments.check_signer(name, parsed[0], server)
            *place, backup_set = decode_set(name, payload)
            if tuple(place) != parsed or backup_set.server != server:
                raise DataDamaged(object=name, detail="it is the object of another set")
            if (backup_set.vault, backup_set.mesh) != (self.header.vault, self.header.mesh):
                raise DataDamaged(object=name, detail="it is a set of another vault")
        except (DataDamaged, NoKey, ObjectMissing) as error:
            self._problems.add(f"{name}: {error.message}")
            return None
        return backup_set

    def _note_published(self, name: str, backup_set: BackupSet) -> None:
        with self._lock:
            self._sets[name] = backup_set

    def stock(self, on_object: Callable[[], None] = lambda: None) -> Stock:
        """What lies here, by name and size alone. ``on_object`` is called for each object; what it raises ends it."""
        return stock(self._backend, on_object)

    # --- reading ---

    def read_many(self, ids: Sequence[bytes]) -> Iterator[tuple[bytes, bytes | memoryview | CasoError]]:
        """Each distinct id once, in the order of the packs, with its content or what is wrong with it.

        Content is valid for as long as it is kept. Memory is bounded by a few pieces of packs (4 MiB each, or one
        record), whatever the number of ids. Raises ``DeviceVanished``.
        """
        return self._reader.read_many(ids)

    def packed_many(self, ids: Sequence[bytes]) -> Iterator[Packed | tuple[bytes, bytes | memoryview | CasoError]]:
        """As ``read_many``, in whole records as they were packed; a chunk that was read out of another copy, or what
        is wrong with it, comes alone.

        Nothing is unpacked here and no id recomputed: whoever unpacks the records does that.
        """
        return self._reader.packed_many(ids)

    def pieces(self, ids: Sequence[bytes]) -> tuple[list[tuple[bytes, CasoError]], Iterator[Piece]]:
        """For callers with threads of their own: what is nowhere, and what to read at once of each pack, in the order
        of the packs. Each distinct id comes once."""
        return self._reader.pieces(ids)

    def read_piece(self, piece: Piece) -> Iterator[tuple[bytes, bytes | memoryview | CasoError]]:
        """What ``read_many`` yields, of one piece."""
        return self._reader.read_piece(piece)

    def read(self, chunk_id: bytes) -> bytes:
        """One chunk. Raises ``ObjectMissing``, ``DataDamaged``, ``DeviceError``."""
        return self._reader.read(chunk_id)

    def verify_set(
        self, backup_set: BackupSet, *, on_progress: Callable[[int, int], None] | None = None
    ) -> list[tuple[bytes, CasoError]]:
        """Reads back every byte that a set promises; (path, what is wrong with it) for all that is damaged.

        ``on_progress(done, total)`` counts raw bytes. A path of ``b""`` stands for what no path can be named for.
        Raises ``DeviceVanished``.
        """
        return verify_set(backup_set, self._segments, self._reader, self._packs, on_progress)

    # --- damage ---

    def holds_all(self, backup_set: BackupSet) -> bool:
        """Whether another set may build on this one: nothing of it is known to be lost. Raises ``DeviceVanished``.

        Costs a listing; only in a vault with damage the tree is walked.
        """
        self.refresh()
        if not self._segments.doubtful:
            return True
        wanted: dict[bytes, None] = {}

        def fetch(chunk: bytes) -> bytes:
            wanted[chunk] = None
            return self._reader.read(chunk)

        def lost() -> bool:
            ids = list(wanted)
            wanted.clear()
            return not all(self.has(ids))

        try:
            for entry in TreeReader(backup_set.root, fetch).entries():
                wanted.update(dict.fromkeys(chunk for chunk, _ in entry.chunks))
                if len(wanted) >= _BATCH and lost():
                    return False
        except DeviceVanished:
            raise
        except (DataDamaged, DeviceError, ObjectMissing):
            return False
        return not lost()

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """For each id whether it has a copy that is not known to be damaged."""
        numbers, _ = self._segments.index.find(ids, durable_only=True)
        return [bool(number >= 0) for number in numbers]

    @property
    def has_new_damage(self) -> bool:
        """Whether anything was found damaged that the vault does not know of."""
        return bool(self._segments.damage.noted())

    def write_down_damage(self, writer: str, signer: Signer, *, attempt: str, at_ns: int) -> int:
        """Writes into the vault what was found damaged while this object read, so that no writer reuses it; how many
        records and packs that are.

        Each is looked at again first: a cable that came loose for a moment is no damage. Raises ``DeviceFull``,
        ``DeviceReadOnly``, ``DeviceVanished``.
        """
        self.refresh()
        damage = self._segments.damage
        for pack, kind, record in damage.noted()[:_SECOND_LOOKS]:
            if not self._is_damaged(pack, kind, record):
                damage.forget(pack, record)
        if not damage.noted():
            return 0
        self.register_writer(writer, signer)
        return damage.write_down(writer, signer, attempt=attempt, at_ns=at_ns)

    def _is_damaged(self, pack: bytes, kind: Kind, record: int) -> bool:
        """False as well if no segment names it any more."""
        named = False
        for segment in self._segments.index.segments:
            row = segment.packs.get(pack)
            if row is None or not segment.durable:
                continue
            named = True
            if record != WHOLE:
                records = segment.table.records
                rows = np.nonzero((records["pack"] == row) & (records["number"] == record))[0]
                sound = all(self._reader.is_sound(segment, number) for number in rows.tolist())
            else:
                try:
                    sound = same_claims(segment.table, row, self._packs.read_table(pack, kind))
                except DeviceVanished:
                    raise
                except (DataDamaged, DeviceError, NoKey, ObjectMissing):
                    sound = False
            if sound:
                return False  # another segment may say something else of it, and is the one that lies
        return named

    def rebuild_index(self, writer: str | None = None, signer: Signer | None = None) -> int:
        """Reads the tables of all packs that no index segment names; returns how many packs that were.

        Without a signer they serve this process, for reading only: such a pack may belong to a session that is at
        work. With a writer and its signer a segment is added that names them; only for vaults whose segments were
        lost, and while nobody writes.
        """
        self.refresh()
        named = self._segments.index.packs()
        tables: list[Table] = []
        for name, size in self._backend.list("packs/"):
            parsed = parse_pack(name)
            if parsed is None:
                self._problems.add(f"{name}: no object of a vault has such a name")
                continue
            if parsed[0] in named:
                continue
            try:
                tables.append(self._packs.read_table(*parsed, size))
            except (DataDamaged, NoKey, ObjectMissing) as error:
                self._problems.add(f"{name}: {error.message}")
        if signer is None:
            self._segments.add_rebuilt(tables)
            return len(tables)
        if writer is None:
            raise Misuse("a signed segment needs its writer")
        self.register_writer(writer, signer)
        self._segments.add(writer, signer, tables)
        return len(tables)
