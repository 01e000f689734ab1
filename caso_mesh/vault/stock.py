"""What lies in a vault, by the names and sizes of its objects alone: nothing is opened."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from caso_mesh.vault.backend import Backend
from caso_mesh.vault.names import (
    FORMAT,
    parse_damage,
    parse_hold,
    parse_index,
    parse_key,
    parse_mesh,
    parse_pack,
    parse_session,
    parse_set,
    parse_writer,
)

_PARSERS: dict[str, Callable[[str], object]] = {
    "keys": parse_key,
    "writers": parse_writer,
    "sessions": parse_session,
    "packs": parse_pack,
    "index": parse_index,
    "sets": parse_set,
    "holds": parse_hold,
    "mesh": parse_mesh,
    "damage": parse_damage,
}
#: So many names that no object of a vault has are kept.
_MOST_STRANGE = 20


class Stock(Struct, frozen=True):
    """``counts``: objects by the first part of their names. ``strange``: how many names no object of a vault has, and the
    first of them."""

    counts: dict[str, int]
    pack_bytes: int
    bytes: int
    strange: int
    named: tuple[str, ...]


def stock(backend: Backend, on_object: Callable[[], None] = lambda: None) -> Stock:
    """Lists everything. Raises what ``Backend.list`` raises."""
    counts = dict.fromkeys(_PARSERS, 0)
    pack_bytes = total = strange = 0
    named: list[str] = []
    for name, size in backend.list(""):
        on_object()
        total += size
        kind = name.partition("/")[0]
        if name == FORMAT:
            continue
        parse = _PARSERS.get(kind)
        if parse is None or parse(name) is None:
            strange += 1
            named += [name] if len(named) < _MOST_STRANGE else []
            continue
        counts[kind] += 1
        pack_bytes += size if kind == "packs" else 0
    return Stock(counts, pack_bytes, total, strange, tuple(named))
