"""What was found wrong in a vault and passed over, so that one bad object never stops the others."""

from __future__ import annotations

import threading


class Problems:
    """A list without repetitions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, None] = {}

    def add(self, problem: str) -> None:
        with self._lock:
            self._found[problem] = None

    def all(self) -> list[str]:
        with self._lock:
            return list(self._found)
