"""Marked text that escapes by construction: what is not ``Markup`` is text, and becomes harmless."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is markup already. Only ``tag`` and ``join`` make it."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Markup as it is; anything else as text, without what no browser shows."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape("".join(map(_visible, str(value))), quote=True))


def join(parts: object) -> Markup:
    """Parts one behind the other; ``None`` is nothing."""
    if parts is None:
        return Markup("")
    if isinstance(parts, (list, tuple)) or (hasattr(parts, "__iter__") and not isinstance(parts, str)):
        return Markup("".join(join(part) for part in parts))
    return escaped(parts)


def tag(name: str, /, *parts: object, **attributes: object) -> Markup:
    """``<name attributes>parts</name>``; an attribute ``None`` is left out, ``class_`` is ``class``, ``_`` is ``-``."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>{join(parts)}</{name}>")


def _visible(char: str) -> str:
    r"""Control characters, halves of surrogates and what turns the direction of a line, as ``\xHH`` or ``\uHHHH``."""
    if char.isprintable() or char == "\n":
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
