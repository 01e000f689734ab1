"""Data that comes as a stream through a buffer: cut into chunks, of which those that the sink wants are stored."""

from __future__ import annotations

from caso_mesh.jobs.sink import Member, NameOf, SinkLane
from caso_mesh.model.entries import ChunkRef
from caso_mesh.vault.chunking import Chunker


def cut_front(
    view: memoryview,
    filled: int,
    final: bool,
    chunks: list[ChunkRef],
    *,
    chunker: Chunker,
    name_of: NameOf,
    lane: SinkLane,
) -> int:
    """Takes the complete chunks of the ``filled`` bytes at the front of ``view``, and adds them to ``chunks``. How many
    bytes are left over: they lie at the front now, and what comes next follows them. None are, of the ``final`` ones."""
    cut: list[Member] = []
    at = 0
    for size in chunker.cut(view[:filled], final) if filled else ():
        cut.append((name_of(view[at : at + size]), at, size))
        at += size
    for (chunk, begin, size), wants in zip(cut, lane.want([member[0] for member in cut]), strict=True):
        chunks.append((chunk, size))
        if wants:
            lane.add(chunk, view[begin : begin + size])
    kept = filled - at
    if kept and not final:
        view[:kept] = bytes(view[at:filled])
    return kept
