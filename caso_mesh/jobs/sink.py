"""Where the chunks of a backup go: into the vault here, or to the device's end far away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from caso_mesh.vault.session import Lane, Session

#: Id, offset and length inside a piece.
Member = tuple[bytes, int, int]


class SinkLane(Protocol):
    """What one thread uses."""

    def want(self, ids: Sequence[bytes]) -> list[bool]:
        """For each id whether its chunk must be added; from then on it is the caller's to add."""
        ...

    def add(self, chunk: bytes, view: memoryview) -> None:
        """Stores a wanted chunk; ``view`` may be reused on return."""
        ...

    def add_bundle(self, view: memoryview, members: Sequence[Member]) -> None:
        """Stores wanted small chunks together."""
        ...


class Sink(Protocol):
    """Thread-safe; what has gone wrong is raised at the next call."""

    def lane(self) -> SinkLane: ...

    def store(self, data: bytes) -> bytes:
        """Stores a piece of a tree and returns its id. For the thread that drains."""
        ...

    def keep(self, ids: Sequence[bytes]) -> bool:
        """Whether pieces of the tree that change is measured against may all be named again without storing them."""
        ...


class VaultSink:
    """Into a session of the vault here."""

    def __init__(self, session: Session, name_of: NameOf) -> None:
        self._session = session
        self._name_of = name_of
        self._metadata = session.lane()

    def lane(self) -> SinkLane:
        return _VaultLane(self._session)

    def store(self, data: bytes) -> bytes:
        chunk = self._name_of(data)
        if self._session.claim(chunk):
            self._metadata.add(chunk, data, metadata=True)
        return chunk

    def keep(self, ids: Sequence[bytes]) -> bool:
        return all(self._session.have(ids))


class NameOf(Protocol):
    """The id of a chunk."""

    def __call__(self, data: bytes | bytearray | memoryview, /) -> bytes: ...


class _VaultLane:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._lane: Lane = session.lane()
        self.add = self._lane.add
        self.add_bundle = self._lane.add_bundle

    def want(self, ids: Sequence[bytes]) -> list[bool]:
        claim = self._session.claim
        if len(ids) < 4:
            return [claim(chunk) for chunk in ids]
        # one look at the index for all of them
        return [not known and claim(chunk) for chunk, known in zip(ids, self._session.have(ids), strict=True)]
