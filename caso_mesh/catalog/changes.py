"""What a taking-in is going to change, collected and written in one go for each slice."""

from __future__ import annotations

import sqlite3

from caso_mesh.catalog import folders, names
from caso_mesh.catalog.schema import ATTRIBUTES, Bytes, Row

#: Operations after which a slice ends: about a tenth of a second. Smaller ones cost: 5000 take 15 % longer in all.
SLICE = 20_000


class Changes:
    """Versions of one chain that begin at the place ``seq``, or end just before it.

    ``appeared``, ``ended`` and ``first_seen`` count as ``IngestResult`` says.
    """

    def __init__(self, chain: int, seq: int) -> None:
        self.chain = chain
        self.seq = seq
        self.ended = self.first_seen = 0
        #: Versions that begin, as they are written: whoever appends here has it counted with the next flush.
        self.begun: list[tuple[object, ...]] = []
        self._ended: list[tuple[int, int, int, Bytes, int]] = []
        self._undone: list[tuple[int, int, Bytes, int]] = []
        self._appeared = 0
        self._touched: set[int] = set()
        self._names = names.NameWriter()
        self._folders = folders.FolderWriter()
        self._operations = 0

    def begin(self, folder: int, name: Bytes, row: Row) -> None:
        """A version begins with the new set."""
        self.begun.append((self.chain, folder, name, self.seq, *row))

    @property
    def appeared(self) -> int:
        return self._appeared + len(self.begun)

    def end(self, folder: int, name: Bytes, first: int) -> None:
        """The current version, which began at ``first``, is not in the new set."""
        if first == self.seq:
            self._undone.append((self.chain, folder, name, first))
            self._appeared -= 1
        else:
            self._ended.append((self.seq - 1, self.chain, folder, name, first))
            self.ended += 1
        self._touched.add(folder)
        self._operations += 1

    def end_folder(self, conn: sqlite3.Connection, folder: int) -> None:
        """All current versions in ``folder`` itself are not in the new set."""
        undone = conn.execute(
            "DELETE FROM version WHERE chain = ? AND folder = ? AND first = ?", (self.chain, folder, self.seq)
        ).rowcount
        ended = conn.execute(
            "UPDATE version SET last = ? WHERE chain = ? AND folder = ? AND last = 0",
            (self.seq - 1, self.chain, folder),
        ).rowcount
        if undone or ended:
            self._touched.add(folder)
        self._appeared -= undone
        self.ended += ended
        self._operations += 1 + undone + ended

    def new_folder(self, conn: sqlite3.Connection, parent: int, name: bytes) -> int:
        """The id of a folder that is not there yet."""
        return self._folders.make(conn, parent, name)

    def new_names(self, folder: int, found: list[bytes]) -> None:
        """Names of ``folder``, in order, that no set had before."""
        self._names.add_all(folder, found)
        self.first_seen += len(found)

    def work_done(self, number: int) -> None:
        """Something took time and changed nothing."""
        self._operations += number

    def is_slice_full(self) -> bool:
        """Whether it is time to yield; if so, counting begins anew."""
        if self._operations + len(self.begun) < SLICE:
            return False
        self._operations = 0
        return True

    def flush(self, conn: sqlite3.Connection) -> None:
        """Write what was collected."""
        conn.executemany("DELETE FROM version WHERE chain = ? AND folder = ? AND name = ? AND first = ?", self._undone)
        conn.executemany(
            "UPDATE version SET last = ? WHERE chain = ? AND folder = ? AND name = ? AND first = ?", self._ended
        )
        # Neighbours in the tree go in one after the other, which also fills pages better.
        self.begun.sort()
        conn.executemany(
            f"INSERT INTO version (chain, folder, name, first, last, {ATTRIBUTES})"
            " VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.begun,
        )
        self._touched.update(row[1] for row in self.begun)  # type: ignore[misc]
        self._appeared += len(self.begun)
        conn.executemany(
            "INSERT OR IGNORE INTO touched (chain, seq, folder) VALUES (?, ?, ?)",
            [(self.chain, self.seq, folder) for folder in sorted(self._touched)],
        )
        self._folders.flush(conn)
        self._names.flush(conn)
        self._undone.clear()
        self._ended.clear()
        self.begun.clear()
        self._touched.clear()
