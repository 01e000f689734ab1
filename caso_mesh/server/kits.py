"""What recovery kits need done at a device: content keys wrapped to them, and sealed copies of the mesh laid down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from caso_mesh.control.importing import refuse_imported
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model import views as v
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import DeviceVanished, InvalidValue, NoKey, NotFound, Refused
from caso_mesh.model.orders import Orders
from caso_mesh.model.storage import Device
from caso_mesh.server.handing import HandingCalls
from caso_mesh.server.importing import ImportCalls
from caso_mesh.server.patience import bounded
from caso_mesh.server.storage import Storage
from caso_mesh.server.vault_folder import vault_folder
from caso_mesh.vault.keys import add_missing_recipients, load_keys
from caso_mesh.vault.mesh_copies import put_copy

#: How long a device may take.
_SECONDS = 50.0
_MOST_RECIPIENTS = 1000


class KitCalls:
    """Answers the administrator about this server's devices. ``unwrap`` and ``id_key`` are the server's own."""

    def __init__(
        self,
        *,
        node: str,
        name: str,
        orders: Callable[[], Orders],
        is_admin: Callable[[str], bool],
        unwrap: Callable[[bytes, bytes], bytes],
        id_key: Callable[[], bytes],
        randomness: Randomness,
    ) -> None:
        self._node = node
        self._name = name
        self._orders = orders
        self._is_admin = is_admin
        self._unwrap = unwrap
        self._id_key = id_key
        self._randomness = randomness

    def handing(self, check: Callable[[str, str], None]) -> HandingCalls:
        """What hands keys of devices from server to server; ``check`` raises for a folder where no device may be, or none
        with that vault."""
        return HandingCalls(
            node=self._node,
            name=self._name,
            is_admin=self._is_admin,
            check=check,
            unwrap=self._unwrap,
            id_key=self._id_key,
            randomness=self._randomness,
        )

    def importing(self, check: Callable[[str], None], storage: Storage) -> ImportCalls:
        """What takes over devices of other meshes; ``check`` as above."""
        return ImportCalls(
            node=self._node,
            name=self._name,
            is_admin=self._is_admin,
            orders=self._orders,
            check=check,
            storage=storage,
            randomness=self._randomness,
        )

    async def grant(self, peer: Peer, request: n.DeviceGrant, link: object) -> n.DeviceGrantReply:
        """Wraps each content key of a device to the recipients that lack it; repeated, nothing happens.

        Raises ``Refused``, ``NotFound``, ``InvalidValue``, ``NoKey``, ``DeviceVanished`` and what the folder does.
        """
        device = self._checked(peer, request.device)
        if not 0 < len(request.recipients) <= _MOST_RECIPIENTS:
            raise InvalidValue(value=len(request.recipients), what="number of recipients", expected="Use 1 to 1000")

        def work() -> int:
            with self._opened(device) as backend:
                try:
                    keys = load_keys(backend, self._node, self._unwrap, self._id_key())
                except NoKey:
                    raise NoKey(device=device.name) from None
                return add_missing_recipients(backend, keys, request.recipients, randomness=self._randomness)

        return n.DeviceGrantReply(await bounded(work, what=self._what(device), seconds=_SECONDS))

    async def keep(self, peer: Peer, request: n.MeshKeep, link: object) -> v.Done:
        """Lays down a copy of the mesh. Raises ``Refused``, ``NotFound``, ``DataDamaged``, and what the folder does."""
        device = self._checked(peer, request.device)

        def work() -> None:
            with self._opened(device) as backend:
                put_copy(backend, request.copy)

        await bounded(work, what=self._what(device), seconds=_SECONDS)
        return v.Done()

    def _checked(self, peer: Peer, device_id: str) -> Device:
        if not self._is_admin(peer.id):
            raise Refused(detail=f"{peer.name} is not the administrator")
        for device in self._orders().devices:
            if device.id == device_id:
                refuse_imported(device, "nothing is written to it")
                return device
        raise NotFound(kind="device", name=device_id)

    def _what(self, device: Device) -> str:
        return f"the device {device.name} on {self._name}"

    @contextmanager
    def _opened(self, device: Device) -> Iterator[FolderBackend]:
        place = device.path_on(self._node)
        if place is None or not place.enabled:
            raise DeviceVanished(device=device.name, detail=f"{self._name} has no path to it")
        with vault_folder(place.path, device=device.name, vault=device.vault) as backend:
            yield backend
