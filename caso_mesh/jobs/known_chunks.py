"""Which chunks the device's end of an attempt may say it has: those of earlier sets of the source, and what it sent now."""

from __future__ import annotations

import threading

import numpy as np

from caso_mesh.vault.chunking import ID_SIZE

#: New ids that are kept in a set before they move to a sorted table, which takes a fifth of the memory.
_COMPACT = 1_000_000


class Chunks:
    """Ids of chunks with their lengths: what one source may know of. Thread-safe."""

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._lock = threading.Lock()

    def add(self, chunk: bytes, length: int) -> None:
        with self._lock:
            self._recent[chunk] = length
            full = len(self._recent) >= _COMPACT
        if full:
            self.compact()

    def compact(self) -> None:
        """Moves what is recent into a sorted table."""
        with self._lock:
            recent, self._recent = self._recent, {}
            if not recent:
                return
            rows = np.frombuffer(b"".join(recent), np.uint8).reshape(-1, ID_SIZE)
            lengths = np.fromiter(recent.values(), np.uint32, len(recent))
            prefixes = np.ascontiguousarray(rows[:, :8]).view(">u8").ravel().astype(np.uint64)
            order = np.argsort(prefixes, kind="stable")
            self._tables.append((prefixes[order], rows[order], lengths[order]))

    def length(self, chunk: bytes) -> int | None:
        """``None`` if it is not among them."""
        with self._lock:
            found = self._recent.get(chunk)
            if found is not None:
                return found
            prefix = np.uint64(int.from_bytes(chunk[:8], "big"))
            for prefixes, rows, lengths in self._tables:
                at = int(np.searchsorted(prefixes, prefix))
                while at < len(prefixes) and prefixes[at] == prefix:
                    if rows[at].tobytes() == chunk:
                        return int(lengths[at])
                    at += 1
            return None
