"""What the vault asks of a storage device: named objects, each added once and never overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Readable(Protocol):
    """Objects of a vault that can be read, wherever it is."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``offset`` on, fewer if the object is shorter. Raises ``ObjectMissing``."""
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(name, bytes) of all finished objects whose name begins with ``prefix``, by name."""
        ...


class Backend(Readable, Protocol):
    """Synchronous and thread-safe. Any method may raise ``DeviceVanished`` or ``DeviceError``."""

    def put(self, name: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        """Adds an object: durable, its name too, on return; absent or whole after a crash.

        Raises ``ObjectExists``, ``DeviceFull``, ``DeviceReadOnly``.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of an object. Raises ``ObjectMissing``."""
        ...

    def delete(self, name: str) -> None:
        """Removes an object. Raises ``ObjectMissing``."""
        ...

    def space(self) -> tuple[int, int]:
        """Bytes free and in total."""
        ...
