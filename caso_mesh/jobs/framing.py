"""Messages between a worker and its daemon as bytes: a length (4 bytes, big-endian), then msgpack."""

from __future__ import annotations

import socket
import threading
from typing import Any

import msgspec

from caso_mesh.jobs.messages import FromWorker, ToWorker
from caso_mesh.jobs.task import Task
from caso_mesh.model.errors import PeerMalformed, PeerOversized

#: Longest message. A batch of log lines or exceptions stays far below it.
MAX_MESSAGE = 64 * 1024 * 1024
HEAD = 4

_encode = msgspec.msgpack.Encoder().encode
_decode_from: Any = msgspec.msgpack.Decoder(FromWorker)
_decode_to: Any = msgspec.msgpack.Decoder(ToWorker)
_decode_task = msgspec.msgpack.Decoder(Task)


def encode(message: FromWorker | ToWorker | Task) -> bytes:
    """The message with its length in front."""
    body = _encode(message)
    return len(body).to_bytes(HEAD, "big") + body


def body_length(head: bytes, peer: str) -> int:
    """What the first four bytes announce. Raises ``PeerOversized``."""
    length = int.from_bytes(head, "big")
    if length > MAX_MESSAGE:
        raise PeerOversized(peer=peer, size=length, limit=MAX_MESSAGE)
    return length


def decode_from_worker(body: bytes) -> FromWorker:
    """Raises ``PeerMalformed``."""
    try:
        message: FromWorker = _decode_from.decode(body)
    except msgspec.MsgspecError as error:
        raise PeerMalformed(peer="a worker", detail=str(error)) from error
    return message


def decode_to_worker(body: bytes) -> ToWorker:
    """Raises ``PeerMalformed``."""
    try:
        message: ToWorker = _decode_to.decode(body)
    except msgspec.MsgspecError as error:
        raise PeerMalformed(peer="the daemon", detail=str(error)) from error
    return message


def decode_task(body: bytes) -> Task:
    """Raises ``PeerMalformed``."""
    try:
        return _decode_task.decode(body)
    except msgspec.MsgspecError as error:
        raise PeerMalformed(peer="the daemon", detail=str(error)) from error


class MessageSocket:
    """The worker's end of its message channel, blocking. Sending is safe from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Raises ``OSError`` when the daemon is gone."""
        data = encode(message)
        with self._lock:
            self._socket.sendall(data)

    def receive(self) -> bytes | None:
        """The next body; ``None`` when the daemon is gone."""
        head = self._exactly(HEAD)
        return None if head is None else self._exactly(body_length(head, "the daemon"))

    def _exactly(self, size: int) -> bytes | None:
        pieces = []
        while size:
            try:
                piece = self._socket.recv(min(size, 1 << 20))
            except ConnectionError:
                return None
            if not piece:
                return None
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)
