"""Making the task of an attempt: what its worker must know, from orders, identity, storage and the allow-list."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from caso_mesh.control.importing import refuse_imported
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs.task import DeviceAccess, ErasePlan, FarEnd, Task, TlsFiles
from caso_mesh.model.clock import Clock
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.errors import NotFound
from caso_mesh.model.host_commands import CommandKind, HostCommand, dump_name
from caso_mesh.model.ids import IdSource
from caso_mesh.model.jobs import BackupSpec, DuplicateSpec, RestoreSpec, SyntheticSpec, TestRunSpec
from caso_mesh.model.logons import Credentials
from caso_mesh.model.orders import AttemptOrder, Orders
from caso_mesh.model.settings import number, text
from caso_mesh.model.storage import BackupSet, Device, Medium
from caso_mesh.planning.media import medium_for
from caso_mesh.sealing.signing import verify
from caso_mesh.server.allow import AllowList
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.patience import Places, begin, bounded
from caso_mesh.server.queue import LocalAttempt, Queue
from caso_mesh.server.segments import Segments
from caso_mesh.server.storage import Storage
from caso_mesh.server.trust import Trust
from caso_mesh.sources.snapshots import SnapshotPlace
from caso_mesh.vault.header import header_of
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import VaultKeys
from caso_mesh.vault.vault import Vault

#: How long file systems may take over the paths of an order.
_PATHS_S = 30.0
#: How long a device may take to say whether it holds a set.
_LOOK_S = 60.0


class TaskMaker:
    """Knows where everything lies."""

    def __init__(
        self,
        *,
        folder: StateFolder,
        node: str,
        name: str,
        identity: IdentityStore,
        trust: Trust,
        queue: Queue,
        storage: Storage,
        orders: Callable[[], Orders],
        allow: Callable[[], AllowList],
        may_read: tuple[str, ...],
        may_write: tuple[str, ...],
        places: Places,
        snapshots: Callable[[], SnapshotPlace | None],
        segments: Segments,
        credentials: Callable[[str], Credentials],
        clock: Clock,
        new_id: IdSource,
    ) -> None:
        self._folder = folder
        self._node = node
        self._name = name
        self._identity = identity
        self._trust = trust
        self._queue = queue
        self._storage = storage
        self._orders = orders
        self._allow = allow
        self._may_read = may_read
        self._may_write = may_write
        self._places = places
        self._snapshots = snapshots
        self._segments = segments
        self._credentials = credentials
        self._clock = clock
        self._new_id = new_id

    def segment_path(self, set_id: str) -> Path:
        """Where the catalog detail of a set made here lies until the administrator has it."""
        return self._segments.path(set_id)

    async def make(self, local: LocalAttempt) -> tuple[Task, list[str]]:
        """The task and warnings for the job log.

        Raises ``NotAllowedHere``, ``CommandNotAllowed``, ``NoLogon``, ``SourcePathMissing``, ``DeviceVanished``, ``NoKey``, ``NotFound``, ``TimedOut``
        (a file system that hangs).
        """
        orders, order = self._orders(), local.order
        warnings: list[str] = []
        commands: dict[str, HostCommand] = {}
        if order.end in {"both", "source"}:
            paths = f"the file systems of {self._name}"
            commands, warnings = await bounded(
                lambda: (self._commands(order), self._check_paths(order)), what=paths, seconds=_PATHS_S
            )
        access: DeviceAccess | None = None
        medium: Medium | None = None
        if order.end in {"both", "device"}:
            device = self._device(orders, order.device)
            writer = await self._queue.writer(device.vault, self._new_id())
            if isinstance(order.spec, EraseSpec):
                refuse_imported(device, "it is not erased from here")
                access = await self._storage.access_to_erase(device, writer, orders.roster.mesh.id)
            else:
                access = await self._storage.access(device, writer, orders.roster.mesh.id)
            if isinstance(order.spec, BackupSpec | DuplicateSpec | SyntheticSpec):
                refuse_imported(device, "nothing is written to it")
                medium = await self._medium(orders, device, order.spec.media_set)
        reads: DeviceAccess | None = None
        if isinstance(order.spec, DuplicateSpec) and order.end in {"both", "source"}:
            device = self._device(orders, order.from_device)
            writer = await self._queue.writer(device.vault, self._new_id())
            reads = await self._storage.access(device, writer, orders.roster.mesh.id)
        closed = self._closed(orders)
        # the worker looks at none of these: in one that hangs it could not even be killed
        own, may_write = await begin(
            lambda: ([self._places.of(path) for path in closed], [self._places.real(path) for path in self._may_write])
        )
        far = self._far(orders, order)
        admin_row = self._trust.row(orders.admin)
        task = Task(
            order=order,
            server=self._node,
            server_name=self._name,
            source_name=self._trust.name_of(order.source),
            id_key=self._storage.id_key() if access is None or access.foreign is None else access.foreign.id_key,
            chunker_seed=orders.roster.mesh.chunker_seed,
            identity_folder=str(self._folder.identity),
            public_keys=_writers(orders),
            session=local.session,
            set=local.set,
            medium=medium.label if medium else "",
            media_set=medium.media_set if medium else "",
            device=access,
            reads=reads,
            erase=await self._erase_plan(orders, order),
            far=far,
            second_far=None if order.second is None else self._end(orders, order.second.media),
            tls=TlsFiles(str(self._trust.chain_path), str(self._trust.key_path), self._trust.anchors()),
            issuer_key=admin_row.public_key if admin_row else b"",
            known_term=orders.authority.of_term,
            own_paths=tuple(dict.fromkeys(os.fsencode(path) for path in (*closed, *(place.real for place in own)))),
            own_identities=tuple(place.identity for place in own if place.identity is not None),
            may_write=tuple(os.fsencode(place) for place in may_write),
            segment_path=str(self.segment_path(local.set)),
            commands=commands,
            snapshots=self._snapshots(),
            scratch=str(self._folder.scratch / local.session),
            may_read=tuple(os.fsencode(os.path.realpath(place)) for place in self._may_read),
            status_interval_s=number(orders.settings, "status-interval-s"),
            rejoin_s=number(orders.settings, "rejoin-s"),
            nice=int(number(orders.settings, "worker-nice")),
            ionice=text(orders.settings, "worker-ionice"),
            bandwidth=text(orders.settings, "bandwidth-limit"),
            pace_path=str(self._folder.pace),
        )
        return task, warnings

    async def _erase_plan(self, orders: Orders, order: AttemptOrder) -> ErasePlan | None:
        if not isinstance(order.spec, EraseSpec):
            return None
        media = {each.label: each.last_write_at_ns for each in await self._queue.all_media()}
        begun = self._device(orders, order.device).erasing == order.spec.becomes
        return ErasePlan(begun, orders.media_sets, media)

    def _commands(self, order: AttemptOrder) -> dict[str, HostCommand]:
        """What the order names of this server's own file, each with its logon. Raises ``CommandNotAllowed``, ``NoLogon``,
        ``SealBroken``."""
        allow, wanted = self._allow(), list[tuple[str | None, CommandKind, str | None]]()
        match order.spec:
            case (BackupSpec() as spec) | TestRunSpec(backup=spec):
                own = [each for each in spec.sources if each.server == self._node]
                logons = {name: logon for each in own for name, logon in each.logons}
                dumps = [dump_name(root) for each in own for root in each.roots]
                wanted = [(name, CommandKind.DUMP, logons.get(name or "")) for name in dumps]
                wanted += [(spec.pre, CommandKind.PRE, spec.logon), (spec.post, CommandKind.POST, spec.logon)]
            case RestoreSpec(into_command=name):
                wanted = [(name, CommandKind.RESTORE, order.spec.logon)]
        commands: dict[str, HostCommand] = {}
        for name, kind, logon in wanted:
            if name is not None:
                command = allow.check_command(name, kind)
                given = None if logon is None else self._credentials(logon)
                commands[name] = structs.replace(command, logon=given)
        return commands

    def _check_paths(self, order: AttemptOrder) -> list[str]:
        allow = self._allow()
        match order.spec:
            case BackupSpec(sources=sources) | TestRunSpec(backup=BackupSpec(sources=sources)):
                roots = [root for source in sources if source.server == self._node for root in source.roots]
                warnings = []
                for root in roots:
                    warnings += allow.check_read(b"/" + root.lstrip(b"/"))
                return warnings
            case RestoreSpec(into_command=str()):
                return []
            case RestoreSpec(base=None) as spec:
                for path in spec.chosen():
                    allow.check_write(b"/" + path.lstrip(b"/"))
                return []
            case RestoreSpec(base=base):
                allow.check_write(b"/" + (base or b"").lstrip(b"/"))
                return []
            case _:
                return []

    def _closed(self, orders: Orders) -> list[str]:
        places = [str(self._folder.path)]
        places += [place.path for device in orders.devices for place in device.paths if place.server == self._node]
        return places

    def closed(self) -> list[str]:
        """What never is read or written by a job: the state folder and this server's devices."""
        return self._closed(self._orders())

    def _device(self, orders: Orders, device_id: str) -> Device:
        for device in orders.devices:
            if device.id == device_id:
                return device
        raise NotFound(kind="device", name=device_id)

    async def _medium(self, orders: Orders, device: Device, media_set_name: str) -> Medium:
        media_set = next((each for each in orders.media_sets if each.name == media_set_name), None)
        if media_set is None:
            raise NotFound(kind="mediaset", name=media_set_name)
        now_ns = self._clock.now_ns()
        return await self._queue.take_medium(
            lambda known: medium_for(
                known, media_set, device.id, self._node, self._name, now_ns, device.retired, device.formatted_at_ns
            )
        )

    def _far(self, orders: Orders, order: AttemptOrder) -> FarEnd | None:
        if order.end == "both":
            return None
        return self._end(orders, order.media if order.end == "source" else order.other)

    def _end(self, orders: Orders, node: str) -> FarEnd:
        addresses = next((each.addresses for each in orders.nodes if each.node == node), ())
        return FarEnd(node=node, name=self._trust.name_of(node), addresses=addresses)

    async def find_set(self, order: AttemptOrder, set_id: str) -> BackupSet | None:
        """The set of an attempt that a daemon left while it was being published; ``None`` if it was not.

        Raises ``NotFound`` if the device has left the mesh, and other errors while it cannot be asked.
        """
        device = self._device(self._orders(), order.device)
        writer = await self._queue.writer(device.vault, self._new_id())
        access = await self._storage.access(device, writer, self._orders().roster.mesh.id)
        what = f"the device {device.name}"
        return await bounded(lambda: self._look(access, set_id), what=what, seconds=_LOOK_S)

    def _look(self, access: DeviceAccess, set_id: str) -> BackupSet | None:
        backend = FolderBackend(access.path, access.name, marker=FORMAT)
        try:
            header = header_of(backend, access.vault, device=access.name, path=access.path)
            keys = VaultKeys(
                id_key=self._storage.id_key(), content_keys=access.content_keys, write_key=access.write_key
            )
            vault = Vault(backend, header, keys, verify=self._verify, cache_folder=access.cache_folder)
            try:
                return vault.load_set(set_id)
            except NotFound:
                return None
        finally:
            backend.close()

    def _verify(self, server: str, domain: str, message: bytes, signature: bytes) -> bool:
        key = _writers(self._orders()).get(server)
        return key is not None and verify(key, domain, message, signature)


def _writers(orders: Orders) -> dict[str, bytes]:
    """The keys of all who may have signed what lies in a vault: servers of the mesh, and those that left it."""
    rows = (*orders.roster.former, *orders.roster.rows)
    return {row.id: row.public_key for row in rows if row.kind == "node"}
