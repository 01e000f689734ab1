"""Dumps: what a command of the server's own file writes becomes a file of the set, as a stream, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from caso_mesh.jobs.cutting import cut_front
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.host_commands import Running
from caso_mesh.jobs.sink import Sink
from caso_mesh.model.entries import ChunkRef, Entry, EntryType
from caso_mesh.model.errors import ContainsNoData
from caso_mesh.model.host_commands import HostCommand, dump_path
from caso_mesh.vault.chunking import Chunker, ChunkerParameters, chunk_id

_SECOND = 1_000_000_000
_PIECE = 1024 * 1024


def take_dump(
    desk: Desk,
    sink: Sink,
    server: str,
    name: str,
    command: HostCommand,
    *,
    id_key: bytes,
    chunker: ChunkerParameters,
    on_pause: Callable[[], None],
) -> Entry:
    """Runs the dump and stores what it writes; the entry of that file. Raises ``CommandFailed``; ``ContainsNoData`` if
    it wrote nothing: a dump that succeeds has something to say."""

    def check() -> None:
        desk.check()
        on_pause()

    path = desk.path = dump_path(name)
    now = divmod(desk.clock.now_ns(), _SECOND)
    with Running(desk, server, name, command, stream="out", check=check) as running:
        chunks, size = _store(running, sink, id_key, chunker, desk.tally.read)
        running.finish()
    if not size:
        raise ContainsNoData(paths=[b"/" + path])
    desk.log("info", f"dump {name}: {size} bytes")
    uid, gid = os.geteuid(), os.getegid()
    return Entry(path, EntryType.FILE, 0o600, uid, gid, size=size, modified=now, changed=now, chunks=chunks)


def _store(
    running: Running, sink: Sink, id_key: bytes, parameters: ChunkerParameters, on_read: Callable[[int], None]
) -> tuple[tuple[ChunkRef, ...], int]:
    """Chunks of its output, and how much it was."""
    lane, chunker, name_of = sink.lane(), Chunker(parameters), partial(chunk_id, id_key)
    view = memoryview(bytearray(2 * parameters.maximum))
    chunks: list[ChunkRef] = []
    kept = size = 0
    final = False
    while not final:
        filled = kept
        while filled < len(view) and not final:
            room = view[filled : filled + _PIECE]
            count = running.read_into(room)
            on_read(count)
            final = count < len(room)
            filled += count
            size += count
        kept = cut_front(view, filled, final, chunks, chunker=chunker, name_of=name_of, lane=lane)
    return tuple(chunks), size
