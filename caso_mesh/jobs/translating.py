"""A set of another mesh is copied to a device of this one. Ids are keyed by mesh, so that all content and all pieces of the tree
get other ones: everything is read, and a new tree is made of the same entries. Cuts between chunks stay where they are, so
that two such sets share what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.reading import BUNDLE_BYTES
from caso_mesh.jobs.sink import Member, Sink, SinkLane
from caso_mesh.model.entries import Entry, SourceException
from caso_mesh.model.errors import CasoError, DeviceVanished
from caso_mesh.model.storage import BackupSet
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.vault.tree import TreeReader, TreeWriter
from caso_mesh.vault.vault import Vault

#: Entries, and bytes of files, that are read at once.
_ENTRIES, _BYTES = 2000, 64 * 1024 * 1024


def translate(
    desk: Desk,
    vault: Vault,
    first: BackupSet,
    sink: Sink,
    id_key: bytes,
    *,
    on_pause: Callable[[], None],
    damaged: Callable[[list[tuple[bytes, CasoError]]], CasoError],
) -> bytes:
    """Sends what ``first`` holds under the ids of this mesh; the id of the new tree. Memory: both ids of each distinct chunk.

    Raises what ``damaged`` makes of the paths that are hit, ``DeviceVanished``, ``Canceled``, and what the sink raises.
    """
    return _Translating(desk, vault, sink, id_key, on_pause).run(first, damaged)


class _Translating:
    def __init__(self, desk: Desk, vault: Vault, sink: Sink, id_key: bytes, on_pause: Callable[[], None]) -> None:
        self._desk = desk
        self._vault = vault
        self._id_key = id_key
        self._on_pause = on_pause
        self._lane = sink.lane()
        self._tree = TreeWriter(sink.store)
        #: The id here of each chunk over there.
        self._ids: dict[bytes, bytes] = {}
        self._bad: dict[bytes, CasoError] = {}
        self._hit: list[tuple[bytes, CasoError]] = []

    def run(self, first: BackupSet, damaged: Callable[[list[tuple[bytes, CasoError]]], CasoError]) -> bytes:
        tree = TreeReader(first.root, self._vault.read)
        try:
            for window in _windows(tree.entries(on_damage=lambda path, error: self._hit.append((path, error)))):
                self._read(window)
                for entry in window:
                    self._add(entry)
                self._desk.check()
                self._on_pause()
        except DeviceVanished:
            raise
        except CasoError as error:
            if not self._hit and not self._bad:
                raise
            self._desk.log("error", error.message)
        if self._hit:
            for path, wrong in self._hit:
                self._desk.exception(SourceException(path, "damaged", wrong.message))
            raise damaged(self._hit)
        return self._tree.finish()

    def _read(self, window: Sequence[Entry]) -> None:
        """Sends the chunks of some entries that were not sent yet."""
        wanted = dict.fromkeys(
            chunk for entry in window for chunk, _ in entry.chunks if chunk not in self._ids and chunk not in self._bad
        )
        bundle = _Bundle(self._lane)
        for chunk, content in self._vault.read_many(list(wanted)):
            if isinstance(content, CasoError):
                self._bad[chunk] = content
                continue
            self._ids[chunk] = here = chunk_id(self._id_key, content)
            self._desk.tally.read(len(content))
            bundle.add(here, content)
            self._desk.check()
        bundle.seal()

    def _add(self, entry: Entry) -> None:
        bad = next((self._bad[chunk] for chunk, _ in entry.chunks if chunk in self._bad), None)
        if bad is not None:
            self._hit.append((entry.path, bad))
        if self._hit:
            return  # it will not be published; the rest is looked at for what else is damaged
        if entry.chunks:
            entry = replace(entry, chunks=tuple((self._ids[chunk], length) for chunk, length in entry.chunks))
        self._tree.add(entry)
        self._desk.path = entry.path
        self._desk.tally.bytes += sum(length for _, length in entry.chunks)


class _Bundle:
    """Small chunks go together."""

    def __init__(self, lane: SinkLane) -> None:
        self._lane = lane
        self._parts: list[bytes | memoryview] = []
        self._members: list[Member] = []
        self._size = 0

    def add(self, chunk: bytes, content: bytes | memoryview) -> None:
        if len(content) >= BUNDLE_BYTES // 2:
            if self._lane.want([chunk])[0]:
                self._lane.add(chunk, memoryview(content))
            return
        self._parts.append(content)
        self._members.append((chunk, self._size, len(content)))
        self._size += len(content)
        if self._size >= BUNDLE_BYTES:
            self.seal()

    def seal(self) -> None:
        if not self._members:
            return
        wants = self._lane.want([chunk for chunk, _, _ in self._members])
        parts, members, at = [], list[Member](), 0
        for (chunk, _, length), part, wanted in zip(self._members, self._parts, wants, strict=True):
            if wanted:
                parts.append(part)
                members.append((chunk, at, length))
                at += length
        if members:
            self._lane.add_bundle(memoryview(b"".join(parts)), members)
        self._parts, self._members, self._size = [], [], 0


def _windows(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    window: list[Entry] = []
    size = 0
    for entry in entries:
        window.append(entry)
        size += sum(length for _, length in entry.chunks)
        if len(window) >= _ENTRIES or size >= _BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window
