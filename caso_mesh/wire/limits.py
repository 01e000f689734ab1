"""What one link may cost its end: every bound of the wire, explained where it is declared."""

from __future__ import annotations

import msgspec

#: Payload of one websocket frame. 1 MiB frames halve the throughput (measured), small ones cost CPU per byte.
FRAGMENT_BYTES = 256 * 1024
#: Most bytes in one piece of a stream; ``Stream.send`` cuts longer data.
STREAM_PIECE_BYTES = 256 * 1024
#: What each piece of a stream costs beyond its length, so that many empty pieces cannot fill the memory.
STREAM_PIECE_OVERHEAD = 64


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What this end accepts on one link. Those marked (hello) are told to the peer, which then must keep them."""

    max_message_bytes: int = 8 * 1024 * 1024
    """Longest message, its fragments joined (hello)."""
    max_calls: int = 256
    """Calls of the peer that may be unanswered at a time (hello); its further calls wait at its end."""
    max_call_bytes: int = 64 * 1024 * 1024
    """Bytes of the peer's unanswered calls together; one beyond is answered ``unavailable``."""
    max_streams: int = 64
    """Streams that the peer may have open at a time (hello)."""
    stream_window_bytes: int = 1024 * 1024
    """Bytes that may wait in one stream for its reader (hello): the credit a new stream begins with."""
    max_notifications: int = 1024
    """Notifications that may wait for the handler; beyond it (or beyond two longest messages in bytes) the link is
    not read, and TCP slows the peer down."""
    hello_timeout_s: float = 10.0
    """From accepting the connection to the peer's hello."""
    heartbeat_s: float = 10.0
    """After this silence a ping is sent; without an answer for half of it the link is lost (``model.presets``)."""
    read_bytes: int = 32 * 1024
    """Most bytes that are read from a socket at once: each link keeps a buffer of that size."""
    close_timeout_s: float = 2.0
    """How long an orderly end may take before the socket is simply closed."""


#: For a peer that showed no certificate: enough to ask for enrolment.
ANONYMOUS = Limits(
    max_message_bytes=64 * 1024,
    max_calls=4,
    max_call_bytes=128 * 1024,
    max_streams=0,
    max_notifications=4,
)

#: For bulk channels between workers.
BULK = Limits(
    read_bytes=256 * 1024,
    max_message_bytes=32 * 1024 * 1024,
    max_calls=64,
    max_call_bytes=128 * 1024 * 1024,
    stream_window_bytes=4 * 1024 * 1024,
)
