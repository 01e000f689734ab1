"""Emptying a vault, so that another one begins in the same device.

Every step can be the last one: whoever looks finds the old vault whole, an erase that is unfinished, or the new vault whole
and empty; never a vault with half of its objects. The order: the object ``erasing`` (from then on nobody opens what lies here),
``format``, the keys (from then on nothing can be read by anybody), all else; then ``format`` and the key of the new vault, and
last ``erasing`` goes. Each step is done again harmlessly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import DataDamaged, DeviceFull, ObjectExists, ObjectMissing
from caso_mesh.vault.backend import Backend
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import VaultHeader, create_vault, parse_header, unfinished
from caso_mesh.vault.keys import create_content_key
from caso_mesh.vault.names import ERASING, FORMAT

#: What a vault holds below, in the order in which it goes: what tells of other objects first, then the bulk.
PARTS = ("keys", "sets", "index", "sessions", "holds", "writers", "mesh", "facts", "marks", "sweeps", "damage", "packs")
_TITLE = "caso-mesh vault that is being erased"


class Erasure(Struct, frozen=True):
    """The object ``erasing``: the vault that was here, the one that will be, and the attempt that began it."""

    vault: str
    becomes: str
    attempt: str
    title: str = _TITLE


class NewVault(Struct, frozen=True):
    """What the vault that follows is made of. ``recipients``: encryption keys by server and recovery kit."""

    vault: str
    mesh: str
    chunker: ChunkerParameters
    recipients: Mapping[str, bytes]
    key_id: str
    id_key: bytes


def read_erasure(backend: Backend) -> Erasure | None:
    """None if nothing is being erased. Raises ``DataDamaged``."""
    if not unfinished(backend):
        return None
    try:
        return msgspec.json.decode(backend.get(ERASING, 0, 4096), type=Erasure)
    except msgspec.MsgspecError as error:
        raise DataDamaged(object=ERASING, detail=str(error)) from error


def header_below(backend: Backend) -> VaultHeader | None:
    """The ``format`` that lies here, whether or not it is being erased. Raises as ``read_header``."""
    try:
        return parse_header(backend)
    except ObjectMissing:
        return None


def erase(
    backend: Backend,
    erasure: Erasure,
    fresh: NewVault,
    *,
    randomness: Randomness,
    on_object: Callable[[int], None] = lambda size: None,
) -> None:
    """From any state that an earlier try left, or from a whole vault, to an empty new one. ``on_object`` is told the size of each
    object that went; what it raises leaves the erase unfinished. Raises what the device does."""
    marked = _mark(backend, erasure)
    _gone(backend, FORMAT)
    for part in PARTS:
        # whoever still writes for the old vault adds to it: until nothing is left it is listed again
        while names := list(backend.list(f"{part}/")):
            for name, size in names:
                _gone(backend, name)
                on_object(size)
                if not marked:
                    marked = _mark(backend, erasure)
    if not marked:
        _mark(backend, erasure, must=True)
    header = create_vault(backend, vault=fresh.vault, mesh=fresh.mesh, chunker=fresh.chunker)
    create_content_key(
        backend,
        fresh.recipients,
        key_id=fresh.key_id,
        randomness=randomness,
        id_key=fresh.id_key,
        header=header,
    )
    _gone(backend, ERASING)


def _mark(backend: Backend, erasure: Erasure, *, must: bool = False) -> bool:
    """False on a device without any room: then ``format`` goes first, and the mark follows as soon as something went."""
    try:
        backend.put(ERASING, [msgspec.json.encode(erasure) + b"\n"])
    except ObjectExists:
        return True
    except DeviceFull:
        if must:
            raise
        return False
    return True


def _gone(backend: Backend, name: str) -> None:
    try:
        backend.delete(name)
    except ObjectMissing:
        return
