"""The vaults of this server's devices, opened by the daemon itself for what is too small for a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.jobs.storing import signed_by
from caso_mesh.jobs.task import DeviceAccess
from caso_mesh.model.errors import NotFound
from caso_mesh.model.orders import Orders
from caso_mesh.model.storage import Device
from caso_mesh.sealing.signing import verify
from caso_mesh.server.storage import Storage
from caso_mesh.vault.header import header_of
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import VaultKeys, Verify
from caso_mesh.vault.vault import Vault


class Vaults:
    """Opens them. ``access`` and the devices are those of the orders in force."""

    def __init__(self, *, storage: Storage, orders: Callable[[], Orders]) -> None:
        self._storage = storage
        self._orders = orders

    def device(self, device_id: str) -> Device:
        """A device of this server's orders. Raises ``NotFound``."""
        for device in self._orders().devices:
            if device.id == device_id:
                return device
        raise NotFound(kind="device", name=device_id)

    async def access(self, device_id: str, writer: str = "") -> DeviceAccess:
        """Keys and place of a device here. Raises ``NotFound``, and what ``Storage.access`` raises."""
        return await self._storage.access(self.device(device_id), writer, self._orders().roster.mesh.id)

    def open(self, access: DeviceAccess) -> tuple[FolderBackend, Vault]:
        """The vault, and what is to be closed after it. Blocks. Raises ``DeviceVanished`` if another one lies there."""
        backend = FolderBackend(access.path, access.name, marker=FORMAT)
        try:
            header = header_of(backend, access.vault, device=access.name, path=access.path)
            id_key = self._storage.id_key()
            signed: Verify = self._signed
            if access.foreign is not None:
                id_key, signed = access.foreign.id_key, signed_by(access.foreign.signers, unknown=True)
            keys = VaultKeys(id_key=id_key, content_keys=access.content_keys, write_key=access.write_key)
            return backend, Vault(backend, header, keys, verify=signed, cache_folder=access.cache_folder)
        except BaseException:
            backend.close()
            raise

    @contextmanager
    def opened(self, access: DeviceAccess) -> Iterator[Vault]:
        """As ``open``, closed at the end."""
        backend, vault = self.open(access)
        try:
            yield vault
        finally:
            backend.close()

    def _signed(self, server: str, domain: str, message: bytes, signature: bytes) -> bool:
        roster = self._orders().roster
        rows = (*roster.former, *roster.rows)
        return any(
            row.id == server and row.kind == "node" and verify(row.public_key, domain, message, signature)
            for row in rows
        )
