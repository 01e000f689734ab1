"""Addresses as people and configurations write them."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})\Z")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``. Raises ``ValueError``."""
    match = _ADDRESS.match(address)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("use HOST:PORT, or [ADDRESS]:PORT for IPv6")
    return match["six"] or match["host"], int(match["port"])


def join_address(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
