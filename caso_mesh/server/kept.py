"""What lies with one server: its devices and their vaults, the sets and catalogs in them, keys and secrets."""

from __future__ import annotations

from collections.abc import Callable

from caso_mesh.config import Config
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.ids import IdSource
from caso_mesh.model.orders import Orders
from caso_mesh.server.catalogs import OwnCatalogs
from caso_mesh.server.deletions import Deletions
from caso_mesh.server.facts import FactWriter
from caso_mesh.server.files import SetFiles
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.holding import SetHolding
from caso_mesh.server.kits import KitCalls
from caso_mesh.server.logons import Logons
from caso_mesh.server.queue import Queue
from caso_mesh.server.rebuilding import Rebuilding
from caso_mesh.server.segments import Segments
from caso_mesh.server.storage import Storage
from caso_mesh.server.vaults import Vaults
from caso_mesh.vault.objects import Signer
from caso_mesh.wire.typed import Callee


class Kept:
    """``id_key`` reads that of the mesh; ``admin`` is the way to the one in office, which ``is_admin`` knows by its node id."""

    def __init__(
        self,
        *,
        folder: StateFolder,
        config: Config,
        keys: NodeKeys,
        id_key: Callable[[], bytes],
        queue: Queue,
        facts: FactWriter,
        orders: Callable[[], Orders],
        is_admin: Callable[[str], bool],
        admin: Callable[[], Callee],
        clock: Clock,
        new_id: IdSource,
        randomness: Randomness,
        same_thread: bool,
    ) -> None:
        node, name = keys.id, config.server
        self.segments = Segments(folder.segments)
        self.storage = Storage(
            node=node,
            name=name,
            unwrap=keys.unwrap,
            id_key=id_key,
            new_id=new_id,
            randomness=randomness,
            cache=folder.cache,
        )
        self.kit_calls = KitCalls(
            node=node,
            name=name,
            orders=orders,
            is_admin=is_admin,
            unwrap=keys.unwrap,
            id_key=self.storage.id_key,
            randomness=randomness,
        )
        self.logons = Logons(keys, name, orders, is_admin, randomness)
        self.vaults = Vaults(storage=self.storage, orders=orders)
        self.rebuilding = Rebuilding(vaults=self.vaults, segments=self.segments)
        self.catalogs = OwnCatalogs(
            path=folder.own_catalog,
            name=name,
            segments=self.segments,
            facts=facts,
            orders=orders,
            admin=admin,
            rebuilding=self.rebuilding,
            same_thread=same_thread,
        )
        self.files = SetFiles(vaults=self.vaults, clock=clock)
        self.deletions = Deletions(queue=queue, vaults=self.vaults, facts=facts, deleted=self.catalogs.deleted)
        self.holding = SetHolding(
            name=name,
            vaults=self.vaults,
            orders=orders,
            facts=facts,
            signer=Signer(node, keys.signing.sign),
            clock=clock,
            deletions=self.deletions,
        )
