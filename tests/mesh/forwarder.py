"""A way between servers that a test can cut: what they advertise is its address, and it passes on what comes."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PIECE = 1 << 18


class Forwarder:
    """Listens at ``address`` and passes connections on to what ``target()`` says (HOST:PORT), while the ``with`` block
    lasts. ``passed`` counts bytes of both directions."""

    def __init__(self, target: Callable[[], str]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = 0
        self._lock = threading.Lock()
        self._cut = False
        self._ended = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self.cut()
        # who waits in accept wakes up by this
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def cut(self) -> None:
        """Every connection is lost without a word, and new ones are until ``mend``."""
        with self._lock:
            self._cut = True
            pairs = list(self._pairs)
        for each in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                # a reset, as of a machine on the way that forgot the connection
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def _begin(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                there, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._pass_on, there)

    def _pass_on(self, there: socket.socket) -> None:
        with there:
            with self._lock:
                if self._cut:
                    return
            try:
                host, _, port = self._target().rpartition(":")
                here = socket.create_connection((host, int(port)))
            except (OSError, ValueError):
                return  # nobody is there just now, and what it left to be found by may be gone, too
            with here, contextlib.suppress(OSError):
                pair = (there, here)
                with self._lock:
                    self._pairs.add(pair)
                try:
                    self._both_ways(there, here)
                finally:
                    with self._lock:
                        self._pairs.discard(pair)

    def _both_ways(self, one: socket.socket, other: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(one, selectors.EVENT_READ, other)
            ready.register(other, selectors.EVENT_READ, one)
            while not self._cut:
                for key, _ in ready.select():
                    data = key.fileobj.recv(_PIECE)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)
                    with self._lock:
                        self.passed += len(data)
