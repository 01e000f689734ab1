"""A set is copied to another device: one end reads it, the other stores what it lacks. Content keys are those of each
device, so records are opened and sealed anew; ids are those of the mesh, so that what is there already does not travel.

What both ends say to each other is what those of a backup do (``far_sink``), but for the beginning and for pieces of the
tree, which are asked for before they are sent. Where one server reaches both devices, its worker is both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.jobs import far_sink as wire
from caso_mesh.jobs.bulk import BulkChannel, Meet, NothingToAsk, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.far_store import MOST_IDS, DeviceEnd, named_in
from caso_mesh.jobs.manifests import pack_members
from caso_mesh.jobs.messages import Began
from caso_mesh.jobs.publishing import check_published, name_damage, publish_copy
from caso_mesh.jobs.storing import BackendFor, Base, Writing, load_set, newest, open_vault, writing
from caso_mesh.jobs.task import DeviceAccess, Task
from caso_mesh.jobs.translating import translate
from caso_mesh.model.entries import SourceException
from caso_mesh.model.errors import CasoError, DataDamaged, DeviceVanished, Misuse, PeerMalformed, UnknownCall
from caso_mesh.model.importing import as_here
from caso_mesh.model.jobs import DuplicateSpec
from caso_mesh.model.storage import BackupSet
from caso_mesh.sources.filters import merged_roots
from caso_mesh.vault.chunking import ID_SIZE, chunk_id
from caso_mesh.vault.packing import Compressor, unpack
from caso_mesh.vault.packs import MAX_RECORD
from caso_mesh.vault.reading import Packed
from caso_mesh.vault.tree import TreeReader
from caso_mesh.vault.tree_codec import chunks_of
from caso_mesh.vault.vault import Vault
from caso_mesh.wire.codec import from_wire, to_wire

#: Pieces of the tree that are asked for, read and sent at once, with the chunks that they name.
_PIECES = 64

OnPublished = Callable[[BackupSet], None]


class Begin(Struct, frozen=True):
    """The set that is copied."""

    set: BackupSet


def run_reading_end(task: Task, desk: Desk, meet: Meet, backend_for: BackendFor) -> None:
    """Reads the set here, for the other end to store. Raises what either end fails with; ``DataDamaged`` with the files
    that are hit."""
    with meet(task, desk, NothingToAsk()) as channel, _opened(task, desk, backend_for) as (vault, first):
        desk.say(Began(first.type))
        desk.total_bytes, desk.total_files = first.bytes, first.files
        channel.call("begin", to_wire(Begin(first)))

        def tell() -> None:
            desk.flush()
            channel.start("report", to_wire(wire.Report(desk.tally.counts(), desk.path)))

        root = _send(task, desk, vault, channel, first, far_of(task).name, tell)
        channel.drain()
        report = wire.Report(desk.tally.counts(), desk.path)
        answer = channel.call("finish", to_wire(wire.Finish(root, report)))
        from_wire(answer, wire.Finished, peer=far_of(task).name)


def run_writing_end(task: Task, desk: Desk, meet: Meet, backend_for: BackendFor, *, on_published: OnPublished) -> None:
    """Stores here what is read there, and publishes the copy."""
    far = _WritingEnd(task, desk, far_of(task).name)
    with meet(task, desk, far) as channel:
        try:
            first = far.wait_first(channel)
            desk.say(Began(first.type))
            with open_vault(task, desk, backend_for) as vault:
                with _storing(task, desk, vault, far, first) as work:
                    root = far.wait_finish(channel).root
                    if root != first.root and not _spec_of(task).foreign:
                        raise PeerMalformed(peer=far_of(task).name, detail="it ended another tree than it began")
                    far.check_tree(root)
                    published = publish_copy(task, desk, work, replace(first, root=root))
                    on_published(published.set)
                desk.say(published)
                far.finished(published.set.id)
                if _spec_of(task).verify:
                    check_published(desk, vault, published.set)
        except BaseException as error:
            far.fail(error)
            raise


def run_here(task: Task, desk: Desk, backend_for: BackendFor, *, on_published: OnPublished) -> None:
    """Both ends at once."""
    with _opened(task, desk, backend_for) as (from_vault, first), open_vault(task, desk, backend_for) as vault:
        desk.say(Began(first.type))
        desk.total_bytes, desk.total_files = first.bytes, first.files
        far = _WritingEnd(task, desk, task.server_name)
        far.check_first(first)
        with _storing(task, desk, vault, far, first) as work:
            root = _send(task, desk, from_vault, _Here(far), first, task.server_name, work.pause)
            far.check_tree(root)
            published = publish_copy(task, desk, work, replace(first, root=root))
            on_published(published.set)
        desk.say(published)
        if _spec_of(task).verify:
            check_published(desk, vault, published.set)


def _send(
    task: Task,
    desk: Desk,
    vault: Vault,
    channel: wire.Calls,
    first: BackupSet,
    far: str,
    on_pause: Callable[[], None],
) -> bytes:
    """Sends what the other end lacks of a set; the id of its tree there."""
    if not _spec_of(task).foreign:
        _Reading(desk, vault, channel, task.id_key, on_pause=on_pause).send(first)
        return first.root
    desk.log("info", "the set is of another mesh: all of it is read, and gets the ids of this one")
    sink = wire.FarSink(channel, task.id_key, far, asks=True)
    damaged = partial(name_damage, first)
    return translate(desk, vault, first, sink, task.id_key, on_pause=on_pause, damaged=damaged)


def _spec_of(task: Task) -> DuplicateSpec:
    spec = task.order.spec
    if not isinstance(spec, DuplicateSpec):
        raise Misuse("only a duplicate copies a set")
    return spec


@contextmanager
def _opened(task: Task, desk: Desk, backend_for: BackendFor) -> Iterator[tuple[Vault, BackupSet]]:
    """The vault that is read, and the set."""
    access: DeviceAccess | None = task.reads
    if access is None:
        raise Misuse("who reads a set needs its device")
    with open_vault(task, desk, backend_for, at=access) as vault:
        first = load_set(vault, _spec_of(task).set_of(task.order.source), task.order.kept_as)
        desk.log("info", f"reads the set {first.id} on the device {access.name}")
        yield vault, first if access.foreign is None else as_here(first, access.foreign.device)


@contextmanager
def _storing(task: Task, desk: Desk, vault: Vault, far: _WritingEnd, first: BackupSet) -> Iterator[Writing]:
    """A session in which ``far`` answers. What lies here of the same source need not come again."""
    good = [each for each in vault.sets() if each.source == first.source and each.id not in task.order.avoid]
    known = newest(vault, lambda each: each in good and each.filters == first.filters)
    known = known or newest(vault, lambda each: each in good)
    if known is not None:
        desk.log("info", f"what the set {known.id} has is not sent again")
    with writing(vault, task, desk, [known.id] if known is not None else []) as work:
        far.serve_copy(work, first, known)
        yield work


class _Here:
    """The way to the writing end in the same worker."""

    def __init__(self, far: _WritingEnd) -> None:
        self._far = far

    def call(self, method: str, params: Any = None) -> Any:
        return self._far.handle(method, params)

    def start(self, method: str, params: Any = None, *, size: int = 0) -> Any:
        return self._far.handle(method, params)


# --- the end that stores ---


class _WritingEnd(DeviceEnd):
    """What the reading end may ask. It learns of what lies here only what the source of its set has here."""

    quick = frozenset({"have", "have-pieces"})

    def __init__(self, task: Task, desk: Desk, far: str) -> None:
        super().__init__(task, desk, far, start_of=lambda backup: backup.started_at_ns, roots=())
        self._first: BackupSet | None = None

    def wait_first(self, channel: BulkChannel) -> BackupSet:
        """The set that is copied. Raises why it never comes."""
        self._desk.wait_for(lambda: self._first is not None or self._failure is not None or channel.lost is not None)
        if self._failure is not None:
            raise self._failure
        if self._first is None:
            assert channel.lost is not None
            raise channel.lost
        return self._first

    def check_first(self, first: BackupSet) -> None:
        """Raises ``PeerFault`` for another set than the order names."""
        order = self._task.order
        if (first.id, first.source) != (_spec_of(self._task).set_of(order.source), order.kept_as):
            raise self.fault(f"it reads the set {first.id}, which was not asked for")

    def serve_copy(self, work: Writing, first: BackupSet, known: BackupSet | None) -> None:
        """From now on the reading end is answered."""
        self._roots = tuple(merged_roots([b"/" + root.lstrip(b"/") for root in first.roots]))
        if known is not None:
            pieces: set[bytes] = set()

            def fetch(piece: bytes) -> bytes:
                pieces.add(piece)
                return work.vault.read(piece)

            if self._know(work.vault, known, fetch):
                self._against = known
                self._base_pieces = pieces
        self._desk.total_bytes, self._desk.total_files = first.bytes, first.files
        self._base = Base(first.type, None)
        self._work = work
        self._desk.waiting.notify()

    def handle(self, method: str, params: Any) -> Any:
        if method == "begin":
            try:
                begin = from_wire(params, Begin, peer=self._name)
                self.check_first(begin.set)
            except CasoError as error:
                self.fail(error)
                raise
            self._first = begin.set
            self._desk.waiting.notify()
            self._desk.wait_for(lambda: self._work is not None or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            return None
        if method == "have-pieces":
            self._desk.wait_for(lambda: self._work is not None or self._failure is not None)
            have = from_wire(params, wire.Have, peer=self._name)
            self.check_ids(have)
            ids = have.ids
            pieces = (ids[at : at + ID_SIZE] for at in range(0, len(ids), ID_SIZE))
            return bytes(piece in self._base_pieces or piece in self._pieces for piece in pieces)
        if method == "fetch":
            raise UnknownCall(peer=self._name, call=method)
        return super().handle(method, params)


# --- the end that reads ---


class _Reading:
    """Sends a tree from its root down, and the chunks that its leaves name in the order in which they lie. What the other
    end has is passed over with all that hangs on it. Memory: the ids of what was sent, and a few pieces of packs."""

    def __init__(
        self, desk: Desk, vault: Vault, channel: wire.Calls, id_key: bytes, *, on_pause: Callable[[], None]
    ) -> None:
        self._desk = desk
        self._vault = vault
        self._channel = channel
        self._id_key = id_key
        self._on_pause = on_pause
        self._compressor = Compressor()
        self._seen: set[bytes] = set()
        self._bad: dict[bytes, CasoError] = {}

    def send(self, first: BackupSet) -> None:
        """Raises ``DataDamaged`` with the files that are hit, ``DeviceVanished``, ``Canceled``, what the other end raises."""
        level = [first.root]
        while level:
            below: dict[bytes, None] = {}
            for part in _parts(level, _PIECES):
                below.update(dict.fromkeys(self._send_pieces(part)))
                self._desk.check()
                self._on_pause()
            level = list(below)
        if self._bad:
            self._fail(first)

    def _send_pieces(self, ids: Sequence[bytes]) -> list[bytes]:
        """Sends those that are not there, and their chunks; what hangs on them."""
        below: list[bytes] = []
        chunks: dict[bytes, int] = {}
        for piece, data in self._vault.read_many(self._wanted("have-pieces", ids)):
            if isinstance(data, CasoError):
                self._bad[piece] = data
                continue
            raw = bytes(data)
            flags, payload = self._compressor.pack(raw)
            self._start("piece", wire.Piece(flags, len(raw), bytes(payload)), len(payload))
            below += named_in(raw)
            for chunk, length in chunks_of(raw, piece):
                self._desk.tally.bytes += length
                if chunk not in self._seen:
                    self._seen.add(chunk)
                    chunks[chunk] = length
        for part in _parts(list(chunks), MOST_IDS):
            self._send_chunks(self._wanted("have", part))
        return below

    def _wanted(self, question: str, ids: Sequence[bytes]) -> list[bytes]:
        there = self._channel.call(question, to_wire(wire.Have(b"".join(ids))))
        if not isinstance(there, bytes) or len(there) != len(ids):
            raise PeerMalformed(peer="the writing end", detail="it did not answer what was asked")
        return [each for each, known in zip(ids, there, strict=True) if not known]

    def _send_chunks(self, ids: list[bytes]) -> None:
        for found in self._vault.packed_many(ids):
            self._desk.check()
            if isinstance(found, Packed):
                self._send_record(found)
            else:
                self._send_alone(*found)

    def _send_record(self, packed: Packed) -> None:
        """As it was packed, if all of it is wanted: what else lies in it has no business there."""
        try:
            raw = memoryview(unpack(packed.flags, packed.payload, packed.raw, MAX_RECORD))
        except DataDamaged:
            raw = memoryview(b"")
        for chunk, offset, length in packed.members:
            if chunk_id(self._id_key, raw[offset : offset + length]) != chunk:
                # one by one: of what is wrong here there may be another copy
                for each, content in self._vault.read_many([member[0] for member in packed.members]):
                    self._send_alone(each, content)
                return
        wanted = sum(length for _, _, length in packed.members)
        self._desk.tally.read(wanted)
        if wanted == packed.raw:
            put = wire.Put(packed.flags, packed.raw, bytes(packed.payload), pack_members(packed.members))
            self._start("put", put, len(put.payload))
            return
        parts, members, at = [], [], 0
        for chunk, offset, length in packed.members:
            parts.append(raw[offset : offset + length])
            members.append((chunk, at, length))
            at += length
        self._put(b"".join(parts), tuple(members))

    def _send_alone(self, chunk: bytes, content: bytes | memoryview | CasoError) -> None:
        if isinstance(content, CasoError):
            self._bad[chunk] = content
            return
        self._desk.tally.read(len(content))
        self._put(bytes(content), ((chunk, 0, len(content)),))

    def _put(self, raw: bytes, members: tuple[tuple[bytes, int, int], ...]) -> None:
        flags, payload = self._compressor.pack(raw, alike=len(members) == 1)
        self._start("put", wire.Put(flags, len(raw), bytes(payload), pack_members(members)), len(payload))

    def _start(self, method: str, params: Struct, size: int) -> None:
        self._channel.start(method, to_wire(params), size=size)

    def _fail(self, first: BackupSet) -> None:
        """Walks the tree: only now is it known what is damaged."""
        hit: list[tuple[bytes, CasoError]] = []
        try:
            for entry in TreeReader(first.root, self._vault.read).entries(on_damage=lambda *each: hit.append(each)):
                bad = next((self._bad[chunk] for chunk, _ in entry.chunks if chunk in self._bad), None)
                if bad is not None:
                    hit.append((entry.path, bad))
        except DeviceVanished:
            raise
        except CasoError as error:
            hit.append((b"", error))  # the root itself
        for path, wrong in hit:
            self._desk.exception(SourceException(path, "damaged", wrong.message))
        raise name_damage(first, hit or [(b"", wrong) for wrong in self._bad.values()])


def _parts(ids: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))
