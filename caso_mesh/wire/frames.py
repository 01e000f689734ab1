"""The dialling half of a websocket (RFC 6455) without sockets: bytes in, payloads out, bytes to send.

For programs that start for one question: a library for both halves takes longer to load than the question to answer.
Only what ``docs/wire.md`` allows: binary frames, each a whole message, no extensions, no redirections.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CannotConnect, PeerMalformed, PeerOversized
from caso_mesh.wire.limits import FRAGMENT_BYTES

PATH = "/link"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Longest answer to the request to upgrade.
_LONGEST_HEAD = 16 * 1024
_LONGEST_CONTROL = 125
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA


class ClientFrames:
    """One websocket with ``address`` (HOST:PORT)."""

    def __init__(self, address: str, *, random_bytes: Randomness) -> None:
        self._address = address
        self._random_bytes = random_bytes
        self._key = base64.b64encode(random_bytes(16))
        self._buffer = bytearray()
        #: Whether the peer took the upgrade.
        self.open = False
        #: Whether the peer has ended it: nothing more comes.
        self.ended = False
        #: Answers to pings, to be sent and taken out by the caller.
        self.answers = bytearray()

    def upgrade(self) -> bytes:
        """The first bytes to send."""
        return (
            f"GET {PATH} HTTP/1.1\r\nHost: {self._address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {self._key.decode()}\r\n\r\n"
        ).encode("latin-1", "replace")

    def binary(self, payload: bytes | memoryview) -> bytes:
        """The frame of one message, which is at most ``FRAGMENT_BYTES`` long."""
        return self._frame(_BINARY, payload)

    def ping(self) -> bytes:
        return self._frame(_PING, b"")

    def close(self) -> bytes:
        """The last frame, of an orderly end (status 1000)."""
        return self._frame(_CLOSE, b"\x03\xe8")

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The payloads of messages that ``data`` completes.

        Raises ``CannotConnect`` if the peer takes no upgrade, ``PeerMalformed``, ``PeerOversized``.
        """
        self._buffer += data
        if not self.open and not self._head():
            return
        while not self.ended and (found := self._next()) is not None:
            opcode, payload = found
            if opcode == _BINARY:
                yield payload
            elif opcode == _PING:
                self.answers += self._frame(_PONG, payload)
            elif opcode == _CLOSE:
                self.ended = True
            elif opcode != _PONG:
                raise self._malformed("a text frame" if opcode == _TEXT else f"a frame of kind {opcode}")

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise CannotConnect(address=self._address, detail="it is no caso-mesh server")
            return False
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        version, _, status = first.partition(b" ")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        expected = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest())
        if not version.startswith(b"HTTP/1.") or status[:3] != b"101":
            code = f" (HTTP {status[:3].decode()})" if status[:3].isdigit() else ""
            raise CannotConnect(address=self._address, detail=f"it is no caso-mesh server{code}")
        if fields.get(b"sec-websocket-accept") != expected or fields.get(b"sec-websocket-extensions"):
            raise CannotConnect(address=self._address, detail="it is no caso-mesh server")
        del self._buffer[: end + 4]
        self.open = True
        return True

    def _next(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        head, length, start = buffer[0], buffer[1], 2
        if head & 0xF0 != 0x80:
            raise self._malformed("a frame in parts, or with an extension")
        if length & 0x80:
            raise self._malformed("a masked frame")
        if head & 0x08 and length > _LONGEST_CONTROL:
            raise self._malformed("a long control frame")
        if length > 125:
            start += 2 if length == 126 else 8
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
        if length > FRAGMENT_BYTES:
            raise PeerOversized(peer=self._address, size=length, limit=FRAGMENT_BYTES)
        if len(buffer) < start + length:
            return None
        payload = bytes(memoryview(buffer)[start : start + length])
        del buffer[: start + length]
        return head & 0x0F, payload

    def _frame(self, opcode: int, payload: bytes | memoryview) -> bytes:
        size = len(payload)
        if size <= 125:
            head = bytes((0x80 | opcode, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        mask = self._random_bytes(4)
        # one number stands for all bytes: quicker by far than a loop over them
        keys = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        return head + mask + (int.from_bytes(payload, "little") ^ keys).to_bytes(size, "little")

    def _malformed(self, detail: str) -> PeerMalformed:
        return PeerMalformed(peer=self._address, detail=detail)
