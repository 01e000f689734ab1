"""Sizes, durations, instants and paths as people write and read them."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal

from caso_mesh.model.errors import InvalidValue

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_STEPS = ["", "k", "m", "g", "t", "p"]


def parse_size(text: str) -> int:
    """Bytes of ``500MB``, ``10GiB``, ``4096``. Raises ``InvalidValue``."""
    match = _SIZE.match(text.strip())
    if not match:
        raise InvalidValue(value=text, what="size", expected="Use a number with a unit, as in 500MB or 10GiB")
    base = 1024 if match[3] else 1000
    return int(Decimal(match[1]) * base ** _STEPS.index(match[2].lower()))


def parse_duration_s(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``1h30m``, ``30d``, or a bare number of seconds. Raises ``InvalidValue``."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(n + u for n, u in parts) != text:
            raise InvalidValue(value=text, what="duration", expected="Use 90s, 15m, 12h or 30d") from None
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 <= seconds < 1e10:
        raise InvalidValue(value=text, what="duration", expected="Use 90s, 15m, 12h or 30d")
    return seconds


def parse_instant_ns(text: str, local_zone: datetime.tzinfo | None = None) -> int:
    """Nanoseconds UTC of an ISO 8601 time; ``local_zone`` (default: the machine's) if it has no offset."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(value=text, what="time", expected="Use ISO 8601, as in 2025-01-31T02:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=local_zone) if local_zone else moment.astimezone()
    delta = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (delta.days * 86400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000


def format_size(size: int) -> str:
    """``1.5 GB``: decimal units, three digits at most."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def format_number(value: float) -> str:
    """Without a useless fraction, and without an exponent where people expect none: ``90``, ``0.5``, ``15552000``."""
    return f"{value:.12g}"


def format_duration(seconds: float) -> str:
    """``1h 02m``, ``3m 20s``, ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def format_instant(at_ns: int | None) -> str | None:
    """RFC 3339 in UTC with ``Z`` and whole seconds; ``None`` stays ``None``."""
    if at_ns is None:
        return None
    return format_seconds(at_ns // 1_000_000_000)


def format_seconds(seconds: int) -> str:
    """RFC 3339 in UTC of seconds since 1970; years beyond 1 to 9999 are written as ``@SECONDS``."""
    try:
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return f"@{seconds}"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1000 else f"@{seconds}"


_ESCAPED = re.compile(r"\\x([0-9A-Fa-f]{2})")


def escape_path(path: bytes) -> str:
    r"""A path for people and JSON: bytes that are not UTF-8, control characters and backslash become ``\xHH``."""
    text = path.decode("utf-8", "surrogateescape")
    out: list[str] = []
    for char in text:
        number = ord(char)
        if 0xDC80 <= number <= 0xDCFF:
            out.append(f"\\x{number - 0xDC00:02x}")
        elif number < 0x20 or number == 0x7F or char == "\\":
            out.append(f"\\x{number:02x}")
        elif 0x80 <= number <= 0x9F:
            out.extend(f"\\x{byte:02x}" for byte in char.encode())
        else:
            out.append(char)
    return "".join(out)


def unescape_path(text: str) -> bytes:
    """The bytes of ``escape_path``."""
    out = bytearray()
    position = 0
    for match in _ESCAPED.finditer(text):
        out += text[position : match.start()].encode("utf-8", "surrogateescape")
        out.append(int(match[1], 16))
        position = match.end()
    out += text[position:].encode("utf-8", "surrogateescape")
    return bytes(out)


def duration_text(seconds: float | None) -> str | None:
    """A duration as ``parse_duration_s`` reads it, exactly: ``28d``, ``1h30m``; ``None`` stays ``None``."""
    if seconds is None:
        return None
    whole = int(seconds)
    if whole != seconds or whole == 0:
        return f"{seconds:g}s"
    out = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        out += f"{count}{unit}" if count else ""
    return out


def size_text(size: int) -> str:
    """A size as ``parse_size`` reads it, exactly."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
