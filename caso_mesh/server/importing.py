"""A vault of another mesh in a folder of this server: what of it is needed to open it, whether it can be read, and what opens it
sealed to more servers. Nothing is written there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from caso_mesh.devices.checks import existing_vault_header
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.imported import ForeignKeys, seal_foreign
from caso_mesh.identity.roster import Peer
from caso_mesh.jobs.storing import signed_by
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import (
    DevicePathInvalid,
    DeviceVanished,
    InvalidValue,
    NoKey,
    NotFound,
    ObjectMissing,
    Refused,
)
from caso_mesh.model.importing import (
    PIECE_BYTES,
    FolderLook,
    FolderOpen,
    FolderOpened,
    FolderRead,
    ForeignObjects,
    ForeignSeal,
    ForeignSealed,
    ForeignVault,
)
from caso_mesh.model.orders import Orders
from caso_mesh.server.patience import bounded
from caso_mesh.server.storage import Storage
from caso_mesh.vault.header import VaultHeader, read_header
from caso_mesh.vault.keys import wrapped_keys
from caso_mesh.vault.names import FORMAT, parse_key, parse_mesh
from caso_mesh.vault.vault import Vault

T = TypeVar("T")
_SECONDS, _OPEN_S = 50.0, 110.0
#: Objects that a listing names, and that one question may be about.
_MOST_OBJECTS = 20_000
_MOST_PROBLEMS = 20


class ImportCalls:
    """Answers the administrator. ``check`` raises for a folder in which this server has no device to be."""

    def __init__(
        self,
        *,
        node: str,
        name: str,
        is_admin: Callable[[str], bool],
        orders: Callable[[], Orders],
        check: Callable[[str], None],
        storage: Storage,
        randomness: Randomness,
    ) -> None:
        self._node = node
        self._name = name
        self._is_admin = is_admin
        self._orders = orders
        self._check = check
        self._storage = storage
        self._randomness = randomness

    async def look(self, peer: Peer, request: FolderLook, link: object) -> ForeignVault:
        """What is needed of the vault in a folder. Raises ``Refused``, ``DevicePathInvalid`` without a vault, ``VaultTooNew``,
        ``DataDamaged``, and what the folder does."""

        def work() -> ForeignVault:
            with self._opened(request.path) as (backend, header):
                keys = [each for each in backend.list("keys/") if parse_key(each[0]) is not None]
                copies = [each for each in backend.list("mesh/") if parse_mesh(each[0]) is not None]
                if len(keys) + len(copies) > _MOST_OBJECTS:
                    raise InvalidValue(value=len(keys), what="number of key objects", expected="There are far too many")
                return ForeignVault(header.vault, header.mesh, tuple(keys), tuple(copies))

        return await self._bounded(peer, request.path, work)

    async def read(self, peer: Peer, request: FolderRead, link: object) -> ForeignObjects:
        """Sealed objects, and nothing else. Raises ``Refused``, ``ObjectMissing``, ``DeviceVanished`` if another vault is there."""

        def work() -> ForeignObjects:
            found: dict[str, bytes] = {}
            left = PIECE_BYTES
            with self._opened(request.path, request.vault) as (backend, _):
                for name in request.names[:_MOST_OBJECTS]:
                    if name != FORMAT and parse_key(name) is None and parse_mesh(name) is None:
                        raise ObjectMissing(name=name)
                    offset = request.offset if not found else 0
                    if offset < 0 or (found and backend.size(name) > left):
                        break
                    found[name] = backend.get(name, offset, left)
                    left -= len(found[name])
            return ForeignObjects(found)

        return await self._bounded(peer, request.path, work)

    async def open(self, peer: Peer, request: FolderOpen, link: object) -> FolderOpened:
        """Reads all sets. Raises ``Refused``, ``SealBroken``, ``NoKey`` where no key object vouches for what was handed over,
        ``DeviceVanished``, and what the folder does."""

        def work() -> FolderOpened:
            copy = request.copies.get(self._node)
            if copy is None:
                raise NoKey(device=request.name)
            keys = self._storage.foreign_keys(copy, request.vault)
            signed: set[str] = set()
            known = signed_by(request.signers)

            def check(server: str, domain: str, message: bytes, signature: bytes) -> bool:
                sound = server not in request.signers or known(server, domain, message, signature)
                if sound:
                    signed.add(server)
                return sound

            with self._opened(request.path, request.vault) as (backend, header):
                if (
                    header.mesh != request.mesh
                    or not keys.content_keys.keys() <= wrapped_keys(backend, keys.id_key).keys()
                ):
                    raise NoKey(device=request.name)
                vault = Vault(backend, header, keys, verify=check, cache_folder=None)
                vault.refresh()
                sets = list(vault.sets(deleted=True))
                gone = sum(vault.holds.is_gone(each.id) for each in sets)
                vault.open_sessions()
                problems = vault.problems()
            names: dict[str, str] = {}
            for each in sorted(sets, key=lambda each: each.ended_at_ns):
                names |= {each.server: each.server_name, each.source: each.source_name}
            return FolderOpened(len(sets) - gone, names, tuple(sorted(signed)), tuple(problems[:_MOST_PROBLEMS]))

        return await self._bounded(peer, request.path, work, _OPEN_S)

    async def seal(self, peer: Peer, request: ForeignSeal, link: object) -> ForeignSealed:
        """Seals what opens an imported device to other servers; their keys are those of the roster. Raises ``Refused``,
        ``NotFound``, ``NoKey``, ``SealBroken``."""
        self._only_admin(peer)
        orders = self._orders()
        device = next((each for each in orders.devices if each.id == request.device), None)
        if device is None or device.imported is None:
            raise NotFound(kind="device", name=request.device)
        copy = device.imported.copies.get(self._node)
        if copy is None:
            raise NoKey(device=device.name)
        roster = {row.id: row.encryption_key for row in orders.roster.rows if row.kind == "node"}
        for node in request.servers:
            if node not in roster:
                raise NotFound(kind="server", name=node)
        keys = self._storage.foreign_keys(copy, device.vault)
        copies = seal_foreign(
            ForeignKeys(keys.id_key, keys.content_keys),
            {node: roster[node] for node in request.servers},
            vault=device.vault,
            randomness=self._randomness,
        )
        return ForeignSealed(copies)

    def _only_admin(self, peer: Peer) -> None:
        if not self._is_admin(peer.id):
            raise Refused(detail=f"{peer.name} is not the administrator")

    async def _bounded(self, peer: Peer, path: str, work: Callable[[], T], seconds: float = _SECONDS) -> T:
        self._only_admin(peer)
        return await bounded(work, what=f"{path} on {self._name}", seconds=seconds)

    @contextmanager
    def _opened(self, path: str, vault: str | None = None) -> Iterator[tuple[FolderBackend, VaultHeader]]:
        self._check(path)
        if existing_vault_header(path, server=self._name) is None:
            raise DevicePathInvalid(path=path, server=self._name, detail="it holds no vault")
        backend = FolderBackend(path, path, marker=FORMAT)
        try:
            header = read_header(backend)
            if header is None or vault not in {None, header.vault}:
                raise DeviceVanished(device=path, detail=f"{self._name} does not find that vault there any more")
            yield backend, header
        finally:
            backend.close()
