"""Index segments and writers of one vault: listing, checking, caching, adding, merging."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
from collections.abc import Sequence

import msgspec
from blake3 import blake3

from caso_mesh.model.errors import (
    CasoError,
    Conflict,
    DataDamaged,
    DeviceError,
    DeviceVanished,
    NoKey,
    ObjectExists,
    ObjectMissing,
)
from caso_mesh.sealing.derive import derive
from caso_mesh.vault.damage import WHOLE, Damage
from caso_mesh.vault.index import Index, Segment
from caso_mesh.vault.names import Kind, check_id, index_name, pack_name, parse_index, parse_writer, writer_name
from caso_mesh.vault.objects import ObjectStore, Signer
from caso_mesh.vault.packs import PackReader, same_claims
from caso_mesh.vault.problems import Problems
from caso_mesh.vault.records import WriterRecord, decode_record
from caso_mesh.vault.table import Table, decode_table, merge_tables

#: A segment holds about this many ids at most (44 bytes each); a longer session writes several.
SEGMENT_IDS = 1 << 20
#: Own segments of fewer ids are merged when there are more of them than this.
MERGE_ABOVE = 16
_DIGEST_SIZE = 16


class SegmentStore:
    """The index as this process sees it. Thread-safe; ``index`` is replaced as a whole."""

    def __init__(self, store: ObjectStore, packs: PackReader, problems: Problems, cache_folder: str | None) -> None:
        self._store = store
        self._packs = packs
        self._problems = problems
        self._cache = None if cache_folder is None else os.path.join(cache_folder, store.header.vault)
        self._digest_key = derive(
            store.keys.id_key, domain="vault/index-name", context=store.header.vault.encode("ascii")
        )
        self._lock = threading.RLock()
        self._writers: dict[str, str] = {}
        self._loaded: dict[str, Segment] = {}
        self._refused: set[str] = set()
        self._rebuilt: list[Segment] = []
        self._sequences: dict[str, int] = {}
        self._sound: dict[tuple[str, bytes], bool] = {}
        self.damage = Damage(store, problems)
        self.index = Index()
        if self._cache is not None:
            os.makedirs(self._cache, mode=0o700, exist_ok=True)

    # --- writers ---

    def register_writer(self, writer: str, signer: Signer) -> None:
        """Adds ``writers/<writer>``; nothing happens if it is there already. Raises ``Conflict`` if it is another
        server's."""
        check_id(writer, "writer")
        payload = msgspec.msgpack.encode(WriterRecord(writer, signer.server))
        with self._lock:
            if self.server_of(writer) is None:
                try:
                    self._store.write(Kind.WRITER, writer_name(writer), payload, signer)
                except ObjectExists:
                    self._load_writer(writer_name(writer), writer)
                else:
                    self._writers[writer] = signer.server
            found = self.server_of(writer)
        if found is None:
            raise Conflict(detail=f"The writer {writer} of this vault is registered, but its registration is damaged")
        if found != signer.server:
            raise Conflict(detail=f"The writer {writer} of this vault belongs to the server {found}")

    def server_of(self, writer: str) -> str | None:
        """The server that is registered as a writer; None if there is no such (sound) registration."""
        with self._lock:
            if writer not in self._writers:
                self._load_writers()
            return self._writers.get(writer)

    def _load_writers(self) -> None:
        for name, _ in self._store.backend.list("writers/"):
            writer = parse_writer(name)
            if writer is None:
                self._problems.add(f"{name}: no object of a vault has such a name")
            elif writer not in self._writers and name not in self._refused:
                self._load_writer(name, writer)

    def _load_writer(self, name: str, writer: str) -> None:
        try:
            payload, server = self._store.read(Kind.WRITER, name)
            record = decode_record(name, payload, WriterRecord)
            if record.writer != writer or record.server != server:
                raise DataDamaged(object=name, detail=f"{server} signed the registration of another")
            self._writers[writer] = server
        except (DataDamaged, NoKey, ObjectMissing) as error:
            self._refuse(name, error)

    def check_signer(self, name: str, writer: str, server: str) -> None:
        """Raises ``DataDamaged`` unless ``server`` is registered as ``writer``."""
        registered = self.server_of(writer)
        if registered != server:
            raise DataDamaged(object=name, detail=f"{server} signed it, but is not registered as the writer {writer}")

    def _refuse(self, name: str, error: CasoError) -> None:
        self._refused.add(name)
        self._problems.add(f"{name}: {error.message}")

    # --- segments ---

    def refresh(self) -> None:
        """Lists again: new segments are read, those that are gone are dropped."""
        with self._lock:
            self._load_writers()
            while not self._refresh_once():
                pass  # a segment was merged away while we read: what replaces it is in the next listing
            self.damage.refresh(self.check_signer)
            self._publish()

    @property
    def doubtful(self) -> bool:
        """Whether anything of what segments name may be lost: damage was found, or a segment cannot be read."""
        return bool(self.damage.version) or any(name.startswith("index/") for name in self._refused)

    def _refresh_once(self) -> bool:
        listed: dict[str, int] = {}
        for name, size in self._store.backend.list("index/"):
            parsed = parse_index(name)
            if parsed is None:
                self._problems.add(f"{name}: no object of a vault has such a name")
                continue
            listed[name] = size
            writer, sequence, _ = parsed
            self._sequences[writer] = max(self._sequences.get(writer, 0), sequence)
        for name in [name for name in self._loaded if name not in listed]:
            del self._loaded[name]
        for name in listed:
            if name in self._loaded or name in self._refused:
                continue
            try:
                self._loaded[name] = self._load(name)
            except ObjectMissing:
                return False
            except (DataDamaged, NoKey) as error:
                self._refuse(name, error)
            except DeviceVanished:
                raise
            except DeviceError as error:
                # a sector that cannot be read: the others are still of use, and the next listing tries again
                self._problems.add(f"{name}: {error.message}")
        self._clean_cache(set(listed))
        return True

    def _load(self, name: str) -> Segment:
        parsed = parse_index(name)
        assert parsed is not None
        writer, _, digest = parsed
        body = self._cached(name)
        if body is not None:
            with contextlib.suppress(DataDamaged):
                return self._decode(name, writer, digest, body)
        fresh = self._store.read_body(Kind.INDEX, name)
        segment = self._decode(name, writer, digest, memoryview(fresh))
        self._put_in_cache(name, fresh)
        return segment

    def _decode(self, name: str, writer: str, digest: bytes, body: memoryview) -> Segment:
        payload, server = self._store.split_body(Kind.INDEX, name, body)
        if self._digest(payload) != digest:
            raise DataDamaged(object=name, detail="its content is not that of its name")
        self.check_signer(name, writer, server)
        table = decode_table(payload, name)
        for replaced in table.text.replaces:
            parsed = parse_index(replaced)
            if parsed is None or parsed[0] != writer:
                raise DataDamaged(object=name, detail=f"it replaces {replaced}, which is not its writer's")
        return Segment(name, writer, table, self.damage)

    def _digest(self, payload: bytes | memoryview) -> bytes:
        return blake3(payload, key=self._digest_key).digest(_DIGEST_SIZE)

    def _publish(self) -> None:
        replaced = {name for segment in self._loaded.values() for name in segment.table.text.replaces}
        active = [segment for name, segment in self._loaded.items() if name not in replaced]
        self.index = Index([*active, *self._rebuilt], self.index)

    def add(self, writer: str, signer: Signer, tables: Sequence[Table]) -> int:
        """Adds segments that say what ``tables`` (one for each pack) say; returns the bytes written."""
        written = 0
        batch: list[Table] = []
        for number, table in enumerate(tables):
            batch.append(table)
            if number == len(tables) - 1 or sum(map(len, batch)) >= SEGMENT_IDS:
                written += self._add_one(writer, signer, merge_tables(batch))
                batch = []
        return written

    def _add_one(self, writer: str, signer: Signer, table: Table) -> int:
        payload = table.encode()
        with self._lock:
            sequence = self._sequences.get(writer, 0) + 1
            self._sequences[writer] = sequence
        name = index_name(writer, sequence, self._digest(payload))
        written = self._store.write(Kind.INDEX, name, payload, signer)
        with self._lock:
            self._loaded[name] = Segment(name, writer, decode_table(payload, name), self.damage)
            self._publish()
        return written

    def merge(self, writer: str, signer: Signer) -> int:
        """Merges this writer's small segments into one if there are more than ``MERGE_ABOVE``; returns how many went.

        Only the writer itself may call this. The new segment names those it replaces, and is durable before they go.
        """
        with self._lock:
            self.refresh()
            own = [segment for segment in self._loaded.values() if segment.writer == writer]
        small = [segment for segment in own if len(segment.table) < SEGMENT_IDS]
        if len(small) <= MERGE_ABOVE:
            return 0
        # A segment that was replaced, but not deleted, adds nothing and is named again so that it goes now.
        replaced = {name for segment in own for name in segment.table.text.replaces}
        tables = [segment.table for segment in small if segment.name not in replaced]
        merged = merge_tables(tables, sorted(segment.name for segment in small))
        self._add_one(writer, signer, merged)
        for segment in small:
            with contextlib.suppress(ObjectMissing):
                self._store.backend.delete(segment.name)
            with self._lock:
                self._loaded.pop(segment.name, None)
        return len(small)

    def add_rebuilt(self, tables: Sequence[Table]) -> None:
        """Takes tables of packs that no segment names, for reading only, until this process ends."""
        with self._lock:
            known = {segment.name for segment in self._rebuilt}
            for table in tables:
                name = pack_name(table.pack_id(0), table.pack_kind(0))
                if name not in known:
                    self._rebuilt.append(Segment(name, "", table, self.damage, durable=False))
            self._publish()

    # --- trusting what a segment says of a pack ---

    def sound(self, segment: Segment, number: int, *, own: bool) -> bool:
        """Whether a pack may be reused: it exists with the size that the segment says, and, if it is another
        writer's, its own table says the same. Looked at once per segment and pack."""
        pack, kind = segment.table.pack_id(number), segment.table.pack_kind(number)
        key = (segment.name, pack)
        known = self._sound.get(key)
        if known is not None:
            return known
        name = pack_name(pack, kind)
        broken = False
        try:
            size = self._store.backend.size(name)
            sound = size == int(segment.table.packs["size"][number])
            broken, detail = not sound, f"it has {size} bytes"
            if sound and not own:
                sound = same_claims(segment.table, number, self._packs.read_table(pack, kind, size))
                detail = "its table says something else"
        except (ObjectMissing, DataDamaged, NoKey) as error:
            sound, broken, detail = False, not isinstance(error, NoKey), error.message
        if broken:
            self.damage.note(pack, kind, WHOLE)
        if not sound:
            self._problems.add(f"{name}: not as {segment.name} says, so nothing in it is used again ({detail})")
        self._sound[key] = sound
        return sound

    # --- the cache: bodies of segments as they were unsealed, each checked again when it is opened ---

    def _cached(self, name: str) -> memoryview | None:
        if self._cache is None:
            return None
        try:
            with open(self._cache_path(name), "rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):
            return None  # not there, or empty after a power cut

    def _put_in_cache(self, name: str, body: bytes) -> None:
        if self._cache is None:
            return
        path = self._cache_path(name)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            with open(temporary, "xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(body)
            os.replace(temporary, path)
        except OSError as error:
            # The cache only saves time; a full state folder must not stop a restore.
            self._problems.add(f"cache of the index: {error.strerror}")
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def _clean_cache(self, listed: set[str]) -> None:
        if self._cache is None:
            return
        wanted = {os.path.basename(self._cache_path(name)) for name in listed}
        with contextlib.suppress(OSError):
            for file in os.listdir(self._cache):
                if file not in wanted and not file.endswith(".tmp"):
                    os.unlink(os.path.join(self._cache, file))

    def _cache_path(self, name: str) -> str:
        assert self._cache is not None
        return os.path.join(self._cache, hashlib.sha256(name.encode()).hexdigest())
