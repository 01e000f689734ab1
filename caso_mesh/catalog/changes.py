"""What a taking-in is going to change, collected and written in one go for each slice."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from caso_mesh.catalog import blocks, folders, names
from caso_mesh.catalog.schema import Row

#: Operations after which a slice ends: about a tenth of a second. Smaller ones cost: 5000 take 15 % longer in all.
SLICE = 20_000


class Changes:
    """Versions of one chain that begin at the place ``seq``, or end just before it.

    ``appeared``, ``ended`` and ``first_seen`` count as ``IngestResult`` says.
    """

    def __init__(self, chain: int, seq: int) -> None:
        self.chain = chain
        self.seq = seq
        self.appeared = self.ended = self.first_seen = 0
        self._blocks: list[blocks.Block] = []
        self._touched: set[int] = set()
        self._names = names.NameWriter()
        self._folders = folders.FolderWriter()
        self._operations = 0

    def put(self, folder: int, found: Sequence[bytes], rows: Sequence[Row | None]) -> None:
        """From the new set on, each of the names, which are in order, is what its row says, or gone."""
        self._touched.add(folder)
        if len(found) <= blocks.FULL:  # as nearly always
            self._blocks.append(blocks.pack(self.chain, folder, self.seq, found, rows))
            return
        for at in range(0, len(found), blocks.FULL):
            end = at + blocks.FULL
            self._blocks.append(blocks.pack(self.chain, folder, self.seq, found[at:end], rows[at:end]))

    def count_end(self, first: int) -> None:
        """A version that began at ``first`` is not in the new set."""
        if first == self.seq:
            self.appeared -= 1
        else:
            self.ended += 1

    def end_folder(self, conn: sqlite3.Connection, folder: int) -> None:
        """All current versions in ``folder`` itself are not in the new set."""
        gone: list[bytes] = []
        for name, first, _row in blocks.listing(conn, self.chain, folder, self.seq):
            gone.append(name)
            self.count_end(first)
        if gone:
            self.put(folder, gone, [None] * len(gone))
        self.work_done(1 + len(gone))

    def new_folder(self, conn: sqlite3.Connection, parent: int, name: bytes) -> int:
        """The id of a folder that is not there yet."""
        return self._folders.make(conn, parent, name)

    def new_names(self, folder: int, found: list[bytes]) -> None:
        """Names of ``folder``, in order, that no set had before."""
        self._names.add_all(folder, found)
        self.first_seen += len(found)

    def work_done(self, number: int) -> None:
        """So many operations, whether they changed anything or not."""
        self._operations += number

    def is_slice_full(self) -> bool:
        """Whether it is time to yield; if so, counting begins anew."""
        if self._operations < SLICE:
            return False
        self._operations = 0
        return True

    def flush(self, conn: sqlite3.Connection) -> None:
        """Write what was collected."""
        blocks.insert(conn, self._blocks)
        conn.executemany(
            "INSERT OR IGNORE INTO touched (chain, seq, folder) VALUES (?, ?, ?)",
            [(self.chain, self.seq, folder) for folder in sorted(self._touched)],
        )
        self._folders.flush(conn)
        self._names.flush(conn)
        self._blocks.clear()
        self._touched.clear()
