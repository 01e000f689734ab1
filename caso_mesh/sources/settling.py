"""What many small files leave to be written goes to disk while more of them are made, so that the end waits for little."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Bytes of files after which what waits is brought to disk.
EVERY_BYTES = 64 * 1024 * 1024


class Settling:
    """Calls ``sync`` in a thread of its own, which begins when there is enough to do."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._bytes = 0
        self._ended = False
        self._thread: threading.Thread | None = None

    def wrote(self, count: int) -> None:
        """So many bytes are new; from any thread."""
        with self._changed:
            self._bytes += count
            if self._bytes < EVERY_BYTES:
                return
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._run, name="settling", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Returns when ``sync`` is not called any more."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._bytes >= EVERY_BYTES)
                if self._ended:
                    return
                self._bytes = 0
            self._sync()
