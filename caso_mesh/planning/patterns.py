"""Patterns that hold below one folder, as patterns over whole paths (``sources.filters`` has what they mean)."""

from __future__ import annotations

import re


def anchored(root: bytes, pattern: str) -> tuple[str, ...]:
    """What ``pattern`` says of what lies below ``root`` (absolute, without its leading slash), said of whole paths.

    A pattern without a slash matches the last part of a path, one with a slash somewhere may begin at any folder below
    the root; one that begins with a slash is absolute, or else begins at the root.
    """
    text = root.decode("utf-8", "surrogateescape")
    base = re.sub(r"([*?\[])", r"[\1]", f"/{text}" if text else "")
    if pattern.startswith("/"):
        inside = pattern == f"/{text}" or pattern.startswith(f"/{text}/") or not text
        return (pattern,) if inside else (base + pattern,)
    if pattern.startswith("*"):
        # a star at the beginning may stand for folders, too: below the root
        return (f"{base}/{pattern}",)
    return (f"{base}/{pattern}", f"{base}/*/{pattern}")
