"""The device's end of a backup whose files are on another server. It believes nothing: every id is recomputed, every
entry of the new tree is checked, and what it answers depends only on what this very source sent, now or before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from caso_mesh.catalog.segment import path_fault
from caso_mesh.jobs import far_sink as wire
from caso_mesh.jobs.backup import wanted_of
from caso_mesh.jobs.bulk import BulkChannel, Meet, far_of
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.known_chunks import Chunks
from caso_mesh.jobs.manifests import members_of
from caso_mesh.jobs.messages import Began, Published
from caso_mesh.jobs.publishing import check_published, publish
from caso_mesh.jobs.storing import BackendFor, Base, Writing, bases_of, choose_base, newest, open_vault, writing
from caso_mesh.jobs.task import Task
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import CasoError, DataDamaged, PeerFault, PeerMalformed, UnknownCall
from caso_mesh.model.ids import SET_ID
from caso_mesh.model.jobs import BackupSpec
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import BackupSet
from caso_mesh.sources.filters import is_below, merged_roots
from caso_mesh.vault.chunking import ID_SIZE, chunk_id
from caso_mesh.vault.packing import unpack
from caso_mesh.vault.packs import MAX_METADATA_RECORD, MAX_RECORD
from caso_mesh.vault.session import Lane
from caso_mesh.vault.tree import TreeReader, changes
from caso_mesh.vault.tree_codec import Node, decode_segment, lists_of
from caso_mesh.vault.vault import Vault
from caso_mesh.wire.codec import from_wire, to_wire

#: Sets that are offered to be built on, of the newest.
_OFFERED = 8
#: Ids in one question.
MOST_IDS = 65536
_U32, _I63 = 1 << 32, 1 << 63
_SECOND = 1_000_000_000


def run_device_end(
    task: Task,
    desk: Desk,
    meet: Meet,
    backend_for: BackendFor,
    *,
    start_of: Callable[[BackupSet], int],
    on_base: Callable[[Base], None],
    on_published: Callable[[BackupSet], None],
) -> Published:
    """Stores here what the source reads there. Returns what was published; it was said already."""
    spec = task.order.spec
    assert isinstance(spec, BackupSpec)
    roots = tuple(merged_roots(wanted_of(task).roots))
    far = DeviceEnd(task, desk, far_of(task).name, start_of=start_of, roots=roots)
    started_at_ns = desk.clock.now_ns()
    with meet(task, desk, far) as channel:
        try:
            with open_vault(task, desk, backend_for) as vault:
                digest = wanted_of(task).digest
                source = task.order.kept_as
                among: frozenset[bytes] | None = None
                if spec.second is not None:
                    # with another device beside it: both build on sets of the same tree
                    among = far.agree(channel, lambda: _offered(task, vault, spec, digest))
                base = choose_base(
                    vault,
                    desk,
                    source=source,
                    filters=digest,
                    type_=spec.type,
                    avoid=task.order.avoid,
                    among=among,
                )
                on_base(base)
                desk.say(Began(base.type))
                # What it may know of: the newest set of its own, of the same paths if there is one.
                known = (
                    base.parent
                    or newest(vault, lambda each: each.source == source and each.filters == digest)
                    or newest(vault, lambda each: each.source == source)
                )
                parents = [each.id for each in (base.parent, known) if each is not None]
                with writing(vault, task, desk, parents) as work:
                    far.serve(work, base, known)
                    finish = far.wait_finish(channel)
                    far.check_tree(finish.root)
                    # when the source began, by whichever clock is behind: nothing is trusted that is too new
                    began_ns = min(started_at_ns, far.began_ns)
                    published = publish(
                        task,
                        desk,
                        work,
                        base,
                        root=finish.root,
                        filters=digest,
                        started_at_ns=began_ns,
                        copy_of=_first_of(task, far, finish),
                    )
                    on_published(published.set)
                desk.say(published)
                far.finished(published.set.id)
                if spec.verify:
                    check_published(desk, vault, published.set)
        except BaseException as error:
            far.fail(error)
            raise
    return published


def _offered(task: Task, vault: Vault, spec: BackupSpec, filters: bytes) -> list[bytes]:
    """Trees that a backup to this device and another one could build on."""
    if spec.type in {BackupType.FULL, BackupType.COPY}:
        return []
    source, avoid = task.order.kept_as, task.order.avoid
    bases = bases_of(vault, source=source, filters=filters, type_=spec.type, avoid=avoid)
    return [each.root for each in bases[:_OFFERED] if vault.holds_all(each)]


def _first_of(task: Task, far: DeviceEnd, finish: wire.Finish) -> str | None:
    """The set of the first device that this one is a copy of, for a second device. Raises ``PeerFault``."""
    if not task.order.beside:
        return None
    if not SET_ID.match(finish.copy_of):
        raise far.fault("it does not say what the first set is")
    return finish.copy_of


class DeviceEnd:
    """What the source may ask. See ``bulk.Answering``."""

    ordered = False
    #: Its threads wait for these while they have nothing to read.
    quick = frozenset({"have", "fetch"})

    def __init__(
        self,
        task: Task,
        desk: Desk,
        far: str,
        *,
        start_of: Callable[[BackupSet], int],
        roots: tuple[bytes, ...],
    ) -> None:
        self._start_of = start_of
        self._task = task
        self._desk = desk
        self._name = far
        self._work: Writing | None = None
        self._base: Base | None = None
        #: The set whose tree the new one is compared with: what both have is known to be good.
        self._against: BackupSet | None = None
        self._chunks = Chunks()
        self._knows = False
        self._pieces: set[bytes] = set()
        self._base_pieces: set[bytes] = set()
        # one for all that answer, since each would fill packs of its own: 32 MiB of memory
        self._lane: Lane | None = None
        self._filling = threading.Lock()
        self._finish: wire.Finish | None = None
        self._published: str | None = None
        self._failure: CasoError | None = None
        self.began_ns = desk.clock.now_ns()
        self._roots = roots
        #: With another device beside this one: what could be built on here, and what the source says of it.
        self._offers: list[bytes] | None = None
        self._begun: wire.Begin | None = None

    # --- for the thread of the attempt ---

    def agree(self, channel: BulkChannel, offers: Callable[[], list[bytes]]) -> frozenset[bytes] | None:
        """Until the source has said on which trees both devices could build; ``None``: it goes to this one alone."""
        if self._task.order.beside:
            self._offers = offers()
            self._desk.waiting.notify()
        self._desk.wait_for(lambda: self._begun is not None or self._failure is not None or channel.lost is not None)
        if self._failure is not None:
            raise self._failure
        if self._begun is None:
            assert channel.lost is not None
            raise channel.lost
        among = self._begun.among
        if among is None:
            return None
        return frozenset(among[at : at + ID_SIZE] for at in range(0, len(among), ID_SIZE))

    def serve(self, work: Writing, base: Base, known: BackupSet | None) -> None:
        """From now on the source is answered."""
        if known is not None:
            fetch = None
            if self._task.order.beside and base.parent is known:
                # the source has that tree from the first device: it names pieces without having asked for them here
                fetch = self._fetching(work.vault)
            self._know(work.vault, known, fetch)
            self._knows = True
        if base.parent is not None:
            self._base_pieces.add(base.parent.root)
            self._desk.total_bytes, self._desk.total_files = base.parent.bytes, base.parent.files
        self._base = base
        self._against = base.parent
        self._work = work
        self._desk.waiting.notify()

    def _know(self, vault: Vault, known: BackupSet, fetch: Callable[[bytes], bytes] | None = None) -> bool:
        """Takes the chunks of a set; not those that are lost, so that they are sent again. Whether none is. ``fetch``
        reads the pieces of its tree."""
        whole = vault.holds_all(known)

        def lost(path: bytes, error: CasoError) -> None:
            self._desk.log("warning", f"a part of the set {known.id} is lost, so more is sent again: {error.message}")

        for entry in TreeReader(known.root, fetch or vault.read).entries(on_damage=lost):
            if not whole and not all(vault.has([chunk for chunk, _ in entry.chunks])):
                continue
            for chunk, length in entry.chunks:
                self._chunks.add(chunk, length)
        self._chunks.compact()
        return whole

    def _fetching(self, vault: Vault) -> Callable[[bytes], bytes]:
        def fetch(piece: bytes) -> bytes:
            self._base_pieces.add(piece)
            return vault.read(piece)

        return fetch

    def wait_finish(self, channel: BulkChannel) -> wire.Finish:
        """Until the source has sent its tree. Raises why it never will."""
        self._desk.wait_for(lambda: self._finish is not None or self._failure is not None or channel.lost is not None)
        if self._failure is not None:
            raise self._failure
        if self._finish is None:
            assert channel.lost is not None
            raise channel.lost
        self._take_report(self._finish.report)
        return self._finish

    def finished(self, set_id: str) -> None:
        """The set is published: the source is told."""
        self._published = set_id
        self._desk.waiting.notify()

    def fail(self, error: BaseException) -> None:
        """The source is told with whatever it asks next."""
        if self._failure is None:
            self._failure = error if isinstance(error, CasoError) else self.fault("the device's end failed")
        self._desk.waiting.notify()

    def check_tree(self, root: bytes) -> None:
        """Walks what is new in the tree; counts what it holds. Raises ``PeerFault`` for whatever no honest source
        sends."""
        assert self._work is not None
        self._work.session.flush()
        vault = self._work.vault
        tree = TreeReader(root, self._new_piece)
        parent = self._against
        old = vault.tree(parent.root) if parent is not None else None
        tally = self._desk.tally
        tally.files, tally.bytes = (parent.files, parent.bytes) if parent is not None else (0, 0)
        try:
            for number, (before, after) in enumerate(changes(old, tree)):
                if not number % 1024:
                    self._desk.check()
                if before is not None:
                    self._count(before, -1)
                if after is not None:
                    self._check_entry(after)
                    self._count(after, 1)
            tally.entries = tree.load(root).count
        except DataDamaged as error:
            raise self.fault(error.message) from error
        if not tally.entries:
            raise self.fault("its tree is empty")

    def _count(self, entry: Entry, sign: int) -> None:
        if entry.type is EntryType.FILE:
            self._desk.tally.files += sign
            if entry.hardlink is None:
                self._desk.tally.bytes += sign * entry.size

    def _check_entry(self, entry: Entry) -> None:
        path = entry.path
        if not any(is_below(b"/" + path, root) for root in self._roots):
            raise self.fault(f"{path!r} lies in none of the folders that were asked for")
        fault = path_fault(path)
        if fault is not None:
            raise self.fault(f"{path[:200]!r}: {fault}")
        numbers = (entry.mode, entry.uid, entry.gid)
        if not all(0 <= number < _U32 for number in numbers) or not 0 <= entry.size < _I63:
            raise self.fault(f"{path!r} has impossible metadata")
        for seconds, nanoseconds in (entry.modified, entry.changed):
            if not (-_I63 <= seconds < _I63 and 0 <= nanoseconds < _SECOND):
                raise self.fault(f"{path!r} has impossible times")
        if entry.type is not EntryType.FILE or entry.hardlink is not None:
            if entry.chunks:
                raise self.fault(f"{path!r} has content, which only a file has")
            return
        total = 0
        for chunk, length in entry.chunks:
            if self._chunks.length(chunk) != length:
                raise self.fault(f"{path!r} names a chunk that it never sent, or with another length")
            total += length
        at = 0
        for offset, length in entry.holes:
            if offset < at or length <= 0:
                raise self.fault(f"{path!r} has impossible holes")
            at = offset + length
            total += length
        if total != entry.size or at > entry.size:
            raise self.fault(f"the pieces of {path!r} do not make up its size")

    def _new_piece(self, piece: bytes) -> bytes:
        if piece not in self._pieces and piece not in self._base_pieces:
            raise self.fault("its tree names a piece that it never sent")
        assert self._work is not None
        return self._work.vault.read(piece)

    # --- for the source ---

    def handle(self, method: str, params: Any) -> Any:
        if method == "roots":
            return self._on_roots()
        if method == "begin" and self._begun is None:
            self._begun = from_wire(params, wire.Begin, peer=self._name)
            self._desk.waiting.notify()
        self._desk.wait_for(lambda: self._work is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure
        try:
            match method:
                case "begin":
                    return self._on_begin(from_wire(params, wire.Begin, peer=self._name))
                case "fetch":
                    return self._on_fetch(from_wire(params, wire.Fetch, peer=self._name))
                case "have":
                    return self._on_have(from_wire(params, wire.Have, peer=self._name))
                case "put":
                    return self._on_put(from_wire(params, wire.Put, peer=self._name))
                case "piece":
                    return self._on_piece(from_wire(params, wire.Piece, peer=self._name))
                case "report":
                    return self._take_report(from_wire(params, wire.Report, peer=self._name))
                case "finish":
                    return self._on_finish(from_wire(params, wire.Finish, peer=self._name))
                case _:
                    raise UnknownCall(peer=self._name, call=method)
        except CasoError as error:
            self.fail(error)
            raise

    def _on_roots(self) -> Any:
        if not self._task.order.beside:
            raise UnknownCall(peer=self._name, call="roots")
        self._desk.wait_for(lambda: self._offers is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure
        return to_wire(wire.Roots(b"".join(self._offers or ())))

    def _on_begin(self, begin: wire.Begin) -> Any:
        assert self._base is not None
        assert self._work is not None
        self.began_ns = begin.now_ns
        parent = self._base.parent
        answer = wire.Base(
            type=self._base.type,
            chunker=self._work.vault.header.chunker,
            root=None if parent is None else parent.root,
            start_ns=0 if parent is None else self._start_of(parent),
            total_bytes=None if parent is None else parent.bytes,
            total_files=None if parent is None else parent.files,
            knows=self._knows,
        )
        return to_wire(answer)

    def _on_fetch(self, fetch: wire.Fetch) -> bytes:
        if fetch.id not in self._base_pieces:
            raise self.fault("it asked for a piece of a tree that is not its own")
        assert self._work is not None
        data = self._work.vault.read(fetch.id)
        self._base_pieces.update(named_in(data))
        return data

    def _on_have(self, have: wire.Have) -> bytes:
        self.check_ids(have)
        ids = have.ids
        length = self._chunks.length
        return bytes(length(ids[at : at + ID_SIZE]) is not None for at in range(0, len(ids), ID_SIZE))

    def check_ids(self, have: wire.Have) -> None:
        """Raises ``PeerFault``."""
        if len(have.ids) % ID_SIZE or len(have.ids) > MOST_IDS * ID_SIZE:
            raise self.fault("it asked for what are no ids, or too many")

    def _on_put(self, put: wire.Put) -> None:
        members = members_of(put.members, self._name)
        raw = self._unpack(put.flags, put.payload, put.raw, MAX_RECORD)
        at = 0
        for chunk, offset, length in members:
            if offset < at or length <= 0 or offset + length > len(raw):
                raise self.fault("a record holds impossible pieces")
            at = offset + length
            if chunk_id(self._task.id_key, raw[offset:at]) != chunk:
                raise self.fault("a chunk does not have the id that it says")
        assert self._work is not None
        claim = self._work.session.claim
        wanted = [member for member in members if claim(member[0])]
        if len(wanted) == len(members) and members and at == len(raw):
            with self._lane_to_fill() as lane:
                lane.add_packed(put.flags, put.payload, put.raw, wanted)
        elif wanted:
            parts = [raw[offset : offset + length] for _, offset, length in wanted]
            at, kept = 0, []
            for chunk, _, length in wanted:
                kept.append((chunk, at, length))
                at += length
            with self._lane_to_fill() as lane:
                lane.add_bundle(b"".join(parts), kept)
        for chunk, _, length in members:
            self._chunks.add(chunk, length)

    def _on_piece(self, piece: wire.Piece) -> None:
        raw = self._unpack(piece.flags, piece.payload, piece.raw, MAX_METADATA_RECORD)
        if not raw:
            raise self.fault("an empty piece of a tree")
        chunk = chunk_id(self._task.id_key, raw)
        assert self._work is not None
        if self._work.session.claim(chunk):
            with self._lane_to_fill() as lane:
                lane.add(chunk, raw, metadata=True)
        self._pieces.add(chunk)

    def _take_report(self, report: wire.Report) -> None:
        wire.take_report(self._desk, report, self._name)
        if self._work is not None:
            self._work.pause()

    def _on_finish(self, finish: wire.Finish) -> Any:
        self._finish = finish
        self._desk.waiting.notify()
        self._desk.wait_for(lambda: self._published is not None or self._failure is not None)
        if self._published is None:
            assert self._failure is not None
            raise self._failure
        return to_wire(wire.Finished(self._published))

    def _unpack(self, flags: int, payload: bytes, raw: int, limit: int) -> memoryview:
        try:
            return memoryview(unpack(flags, payload, raw, limit, name="a record on its way"))
        except DataDamaged as error:
            raise PeerMalformed(peer=self._name, detail=error.message) from error

    @contextmanager
    def _lane_to_fill(self) -> Iterator[Lane]:
        with self._filling:
            if self._lane is None:
                assert self._work is not None
                self._lane = self._work.session.lane()
            yield self._lane

    def fault(self, detail: str) -> PeerFault:
        return PeerFault(peer=self._name, detail=detail)


def named_in(data: bytes) -> list[bytes]:
    """Ids of the pieces that a piece of a tree names; none for a list."""
    try:
        lists = lists_of(data, "a piece of the tree")
        if lists is not None:
            return lists
        segment = decode_segment(data, "a piece of the tree")
    except DataDamaged:
        return []
    return [ref.id for ref in segment.refs] if isinstance(segment, Node) else []
