"""A journal's records and the hash chain that makes any two copies comparable by their heads.

The chain is what a server and the administrator compare when they link: equal hashes at a sequence number mean equal
histories up to it (the idea of a transparency log, RFC 9162, without its tree).
"""

from __future__ import annotations

import hashlib
import struct

from msgspec import Struct

_FIRST = b"caso-mesh journal 1\x00"


class Record(Struct, frozen=True):
    """One fact. ``seq`` counts from 1 inside an incarnation; ``at_ns`` is when the fact was written down.

    ``hash`` is SHA-256 over the hash before it, incarnation, seq, at_ns, kind and data, see ``record_hash``.
    """

    incarnation: str
    seq: int
    at_ns: int
    kind: str
    data: bytes
    hash: bytes


class Head(Struct, frozen=True):
    """How far a journal, or a copy of it, has come in an incarnation. ``seq`` 0: nothing yet, and the first hash."""

    incarnation: str
    seq: int
    hash: bytes


def first_hash(server: str, incarnation: str) -> bytes:
    """The hash before the first record: SHA-256 over the server's id and the incarnation."""
    return hashlib.sha256(_FIRST + _framed(server.encode()) + _framed(incarnation.encode())).digest()


def record_hash(previous: bytes, incarnation: str, seq: int, at_ns: int, kind: str, data: bytes) -> bytes:
    """SHA-256 over all of it. Each part has a fixed size or its size before it, so nothing can be read in two ways."""
    digest = hashlib.sha256(previous)
    digest.update(_framed(incarnation.encode()) + struct.pack(">Qq", seq, at_ns) + _framed(kind.encode()))
    digest.update(_framed(data))
    return digest.digest()


def hash_of(record: Record, previous: bytes) -> bytes:
    """What ``record.hash`` must be when ``previous`` is the hash before it."""
    return record_hash(previous, record.incarnation, record.seq, record.at_ns, record.kind, record.data)


def _framed(data: bytes) -> bytes:
    return struct.pack(">Q", len(data)) + data
