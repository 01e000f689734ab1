"""The folder of a device on this server, opened by the daemon itself for what is too small for a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caso_mesh.devices.checks import is_unfinished
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.model.errors import EraseUnfinished
from caso_mesh.vault.header import header_of
from caso_mesh.vault.names import FORMAT


@contextmanager
def vault_folder(path: str, *, device: str, vault: str) -> Iterator[FolderBackend]:
    """While the block lasts; ``device`` is its name. Blocks. Raises ``DeviceVanished`` if another vault than ``vault`` lies
    there, or none, ``EraseUnfinished``, and what the folder does."""
    if is_unfinished(path):
        raise EraseUnfinished(device=device)
    backend = FolderBackend(path, device, marker=FORMAT)
    try:
        header_of(backend, vault, device=device, path=path)
        yield backend
    finally:
        backend.close()
