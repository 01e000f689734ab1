"""Ports that nobody else is given while a test wants them."""

from __future__ import annotations

import socket


def hold_port() -> socket.socket:
    """A free port of 127.0.0.1, until the socket is closed. Connections are refused until somebody listens there, which
    servers can all the same (they set SO_REUSEADDR); whoever asks for any port is given another one. A port that was
    found free and let go may be somebody else's a moment later."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
