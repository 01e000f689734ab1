"""Handing a device's content keys to a server that it was carried to: that one reads them as they lie in the vault, a
server that can open them wraps them anew, and they are laid beside the others. No key travels open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.roster import Peer
from caso_mesh.model import nodes as n
from caso_mesh.model import views as v
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import InvalidValue, NoKey, Refused
from caso_mesh.sealing.wrapping import wrap
from caso_mesh.server.patience import bounded
from caso_mesh.server.vault_folder import vault_folder
from caso_mesh.vault.keys import add_missing_recipients, open_content_key, wrapped_keys, wrapping_context
from caso_mesh.vault.objects import VaultKeys

T = TypeVar("T")
_SECONDS = 50.0
_MOST_KEYS = 1000


class HandingCalls:
    """Answers the administrator. ``check`` raises for a folder in which this server has no device with that vault (id) to be;
    ``unwrap`` and ``id_key`` are the server's own."""

    def __init__(
        self,
        *,
        node: str,
        name: str,
        is_admin: Callable[[str], bool],
        check: Callable[[str, str], None],
        unwrap: Callable[[bytes, bytes], bytes],
        id_key: Callable[[], bytes],
        randomness: Randomness,
    ) -> None:
        self._node = node
        self._name = name
        self._is_admin = is_admin
        self._check = check
        self._unwrap = unwrap
        self._id_key = id_key
        self._randomness = randomness

    async def sealed(self, peer: Peer, request: n.DeviceKeys, link: object) -> n.DeviceKeysReply:
        """The content keys of the vault in a folder, as they were wrapped to others. Raises ``Refused``,
        ``DeviceVanished``, and what the folder does."""

        def work() -> n.DeviceKeysReply:
            with self._opened(request) as backend:
                return n.DeviceKeysReply(wrapped_keys(backend, self._id_key()))

        return await self._bounded(peer, request, work)

    async def rewrap(self, peer: Peer, request: n.DeviceRewrap, link: object) -> n.DeviceKeysReply:
        """Wraps to another server what is wrapped to this one. Raises ``Refused``, ``InvalidValue``, ``SealBroken``."""
        self._only_admin(peer)
        if not 0 < len(request.keys) <= _MOST_KEYS:
            raise InvalidValue(value=len(request.keys), what="number of keys", expected="Use 1 to 1000")
        handed = {}
        for key_id, wrapped in request.keys.items():
            content_key = open_content_key(request.vault, key_id, wrapped, self._unwrap)
            context = wrapping_context(request.vault, key_id)
            again = wrap(content_key, request.public_key, aad=context, randomness=self._randomness)
            handed[key_id] = {request.recipient: again}
        return n.DeviceKeysReply(handed)

    async def take(self, peer: Peer, request: n.DeviceTakeKeys, link: object) -> v.Done:
        """Lays down the keys that were wrapped to this server, for itself and for others; those that are there stay.
        Raises ``Refused``, ``SealBroken``, ``NoKey``, ``DeviceVanished``, and what the folder does."""

        def work() -> v.Done:
            with self._opened(n.DeviceKeys(request.name, request.path, request.vault)) as backend:
                known = wrapped_keys(backend, self._id_key())
                keys = {
                    key_id: open_content_key(request.vault, key_id, wrapped, self._unwrap)
                    for key_id, wrapped in request.keys.items()
                    if key_id in known
                }
                if not keys:
                    raise NoKey(device=request.name)
                handed = VaultKeys(id_key=self._id_key(), content_keys=keys, write_key=max(keys))
                add_missing_recipients(backend, handed, request.recipients, randomness=self._randomness)
            return v.Done()

        return await self._bounded(peer, request, work)

    def _only_admin(self, peer: Peer) -> None:
        if not self._is_admin(peer.id):
            raise Refused(detail=f"{peer.name} is not the administrator")

    async def _bounded(self, peer: Peer, request: n.DeviceKeys | n.DeviceTakeKeys, work: Callable[[], T]) -> T:
        self._only_admin(peer)
        return await bounded(work, what=f"{request.path} on {self._name}", seconds=_SECONDS)

    @contextmanager
    def _opened(self, request: n.DeviceKeys) -> Iterator[FolderBackend]:
        self._check(request.path, request.vault)
        with vault_folder(request.path, device=request.name, vault=request.vault) as backend:
            yield backend
