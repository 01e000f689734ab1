"""The object ``format``: what a vault is, readable without a key."""

from __future__ import annotations

import msgspec
from blake3 import blake3
from msgspec import Struct

from caso_mesh.model.errors import DataDamaged, DeviceVanished, EraseUnfinished, ObjectMissing, VaultTooNew
from caso_mesh.vault.backend import Backend, Readable
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.names import ERASING, FORMAT, FORMAT_VERSION, check_id

SUITE = "aes-256-gcm.hkdf-sha-256.blake3.zstd"
_TITLE = "caso-mesh vault"
_LONGEST = 64 * 1024


class VaultHeader(Struct, frozen=True):
    """``vault`` and ``mesh`` are ids; ``suite`` names the algorithms."""

    vault: str
    mesh: str
    chunker: ChunkerParameters
    version: int = FORMAT_VERSION
    suite: str = SUITE
    title: str = _TITLE


class _Version(Struct):
    title: str
    version: int


def create_vault(backend: Backend, *, vault: str, mesh: str, chunker: ChunkerParameters) -> VaultHeader:
    """Makes an empty vault: adds ``format``. Raises ``ObjectExists`` if there is one already."""
    check_id(vault, "vault")
    chunker.check()
    header = VaultHeader(vault=vault, mesh=mesh, chunker=chunker)
    line = msgspec.json.encode(header) + b"\n"
    backend.put(FORMAT, [line, blake3(line).hexdigest().encode() + b"\n"])
    return header


def read_header(backend: Readable) -> VaultHeader | None:
    """None if there is no vault. Raises ``VaultTooNew``, ``DataDamaged``, ``EraseUnfinished``."""
    if unfinished(backend):
        raise EraseUnfinished(device=getattr(backend, "device", "") or "here")
    try:
        return parse_header(backend)
    except ObjectMissing:
        return None


def unfinished(backend: Readable) -> bool:
    """Whether what lies here is being erased, or was until that was cut off."""
    try:
        backend.get(ERASING, 0, 1)
    except ObjectMissing:
        return False
    return True


def parse_header(backend: Readable) -> VaultHeader:
    """What ``format`` says, also in a vault that is being erased. Raises ``ObjectMissing``, ``VaultTooNew``,
    ``DataDamaged``."""
    content = backend.get(FORMAT, 0, _LONGEST)
    line, _, check = content.partition(b"\n")
    if check != blake3(line + b"\n").hexdigest().encode() + b"\n":
        raise DataDamaged(object=FORMAT, detail="its checksum differs")
    try:
        version = msgspec.json.decode(line, type=_Version)
        if version.title != _TITLE:
            raise DataDamaged(object=FORMAT, detail="it is not the format of a vault")
        if version.version > FORMAT_VERSION:
            raise VaultTooNew(found=version.version, known=FORMAT_VERSION)
        header = msgspec.json.decode(line, type=VaultHeader)
    except msgspec.MsgspecError as error:
        raise DataDamaged(object=FORMAT, detail=str(error)) from error
    if header.suite != SUITE:
        raise VaultTooNew(found=header.suite, known=SUITE)
    return header


def header_of(backend: Backend, vault: str, *, device: str, path: str) -> VaultHeader:
    """That of the vault (id) that is to lie on a device (name) at that path. Raises ``DeviceVanished`` if another one does or
    none, and as ``read_header``."""
    header = read_header(backend)
    if header is None or header.vault != vault:
        raise DeviceVanished(device=device, detail=f"{path} holds another vault or none")
    return header
