"""Rebuilding the administrator on a bare machine: one device, one recovery kit, and no server enrols again.

The administrator comes back as who it was: the sealed copy of the mesh holds its keys, so that every server knows it.
Its *lineage* rises: orders of the lost machine, should it return, are below all that come from here, and are refused.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from caso_mesh import __version__
from caso_mesh.admin import catalog_details
from caso_mesh.admin.schema import MIGRATIONS as TABLE_MIGRATIONS
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.catalog.segment import SegmentReader
from caso_mesh.config import Config, load_config, write_config
from caso_mesh.consensus import Snapshot, elected, open_replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import orders_for
from caso_mesh.control.recovery import recover
from caso_mesh.control.state import ControlState
from caso_mesh.database import Database
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.claims import sign_claim
from caso_mesh.identity.enrolment import newcomer_chain
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.kit import Kit
from caso_mesh.identity.mesh_copy import Attested, MeshCopy
from caso_mesh.identity.store import IdentityStore
from caso_mesh.jobs import copies_believed
from caso_mesh.jobs.offline import OfflineVault, mesh_copies, opened_folder
from caso_mesh.jobs.publishing import write_detail
from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model.clock import Clock, Randomness
from caso_mesh.model.errors import (
    CasoError,
    CatalogBaseMissing,
    DataDamaged,
    KitIncomplete,
    NoMeshCopy,
    StateNotEmpty,
)
from caso_mesh.model.ids import IdSource, make_id_source
from caso_mesh.model.mesh import Operator, Server
from caso_mesh.model.orders import Orders
from caso_mesh.model.states import AlertKind, Role
from caso_mesh.model.storage import BackupSet, Medium
from caso_mesh.planning.media import label_prefix
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.membership import is_member
from caso_mesh.server.queue import MIGRATIONS, Queue
from caso_mesh.wire.network import join_address, split_address

#: Labels of media that were given after the newest set that is known here, and must not be given again.
_LABEL_GAP = 1000
_DEFAULT_PORT = 7300


class Recovered(Struct, frozen=True):
    """What was rebuilt. ``notes`` are what a person should know of the devices, one line each."""

    mesh: str
    server: str
    listen: str
    lineage: int
    made_at_ns: int
    servers: tuple[str, ...]
    sets: int
    notes: tuple[str, ...]


class _Listed(Struct):
    """A set in one of the devices, and where its catalog's detail lies, if it could be made."""

    backup: BackupSet
    detail: Path | None = None
    digest: bytes = b""
    size: int = 0


class _Found(Struct):
    """The newest copy of the mesh, and what the devices at hand hold."""

    copy: MeshCopy
    sets: list[_Listed]
    notes: list[str]

    def own(self) -> list[BackupSet]:
        """What only the lost journal knew: the sets that the administrator itself had written."""
        return [each.backup for each in self.sets if each.backup.server == self.copy.admin]


async def recover_mesh(
    kit: Kit,
    devices: Sequence[str],
    state: Path,
    *,
    listen: str | None = None,
    advertise: tuple[str, ...] = (),
    least_lineage: int = 0,
    made_by: str | None = None,
    with_catalog: bool = True,
    clock: Clock,
    randomness: Randomness = os.urandom,
    say: Callable[[str], None] = lambda text: None,
) -> Recovered:
    """Makes ``state`` the state folder of the administrator of the kit's mesh, out of the newest copy in ``devices``
    (folders). Interrupted at any place, it may be repeated. Start the daemon there, and the other servers link again.

    ``made_by``: the administrator whose copies count, by its name or how its id begins, where they contradict each other.
    ``listen`` ``None``: where it was before. Without ``with_catalog`` files inside of sets are known only where other
    servers still keep the details of their sets. Raises ``StateNotEmpty``, ``StateLocked``, ``NoMeshCopy``, ``MeshCopiesDiffer``, ``KitForeign``,
    ``DevicePathInvalid``, ``InvalidValue``, and what the folders do.
    """
    folder = StateFolder(state)
    if is_member(folder):
        raise StateNotEmpty(state=state, server=load_config(folder.config).server)
    mark = folder.run / "recovering"
    if folder.consensus.exists() and not mark.exists():
        raise StateNotEmpty(state=state, server="a mesh whose identity was lost")
    await asyncio.to_thread(folder.create)
    with folder.locked():
        await asyncio.to_thread(_clear, folder, mark)
        found = await asyncio.to_thread(_look, kit, devices, folder, made_by, with_catalog, say)
        recovered = await _rebuild(kit, found, folder, listen, advertise, least_lineage, clock, randomness)
        await asyncio.to_thread(IdentityStore(folder.identity).save_mesh_id, found.copy.mesh)
        mark.unlink()
    return recovered


def _clear(folder: StateFolder, mark: Path) -> None:
    """What an interrupted try left is made again."""
    mark.touch(mode=0o600)
    for database in (folder.consensus, folder.journal, folder.queue, _tables(folder), _catalog(folder)):
        for left in database.parent.glob(f"{database.name}*"):
            left.unlink()
    shutil.rmtree(_rebuilt(folder), ignore_errors=True)
    _rebuilt(folder).mkdir(mode=0o700)


def _tables(folder: StateFolder) -> Path:
    return folder.tables / "tables.db"


def _catalog(folder: StateFolder) -> Path:
    return folder.catalog / "catalog.db"


def _look(
    kit: Kit,
    devices: Sequence[str],
    folder: StateFolder,
    made_by: str | None,
    with_catalog: bool,
    say: Callable[[str], None],
) -> _Found:
    notes: list[str] = []
    copies: list[Attested] = []
    for path in devices:
        with opened_folder(path, kit) as (backend, _):
            copies += mesh_copies(backend, kit, notes)
    if not copies:
        raise NoMeshCopy(path=", ".join(devices))
    readable = copies_believed.read(copies, notes)
    if not readable:
        raise NoMeshCopy(path=", ".join(devices))
    newest = copies_believed.newest(readable, made_by)
    found = _Found(newest, [], notes)
    for path in devices:
        with opened_folder(path, kit) as (backend, header):
            try:
                _look_at_sets(OfflineVault(path, backend, header, kit), found, folder, with_catalog, say)
            except KitIncomplete as error:
                notes.append(f"{error.message} Sets there are known only as far as journals tell of them")
    return found


def _look_at_sets(
    opened: OfflineVault, found: _Found, folder: StateFolder, with_catalog: bool, say: Callable[[str], None]
) -> None:
    """The sets in a device with their catalogs: servers keep the detail of a set only until it was fetched."""
    sets = opened.sets()
    listed: list[_Listed] = []
    for number, backup in enumerate(sets, 1):
        if any(each.backup.id == backup.id for each in found.sets):
            continue
        entry = _Listed(backup)
        if with_catalog:
            say(f"{backup.id}: catalog of {backup.files} files ({number} of {len(sets)})")
            path = _rebuilt(folder) / f"{backup.id}.segment"
            earlier = [each.backup for each in listed if each.detail is not None]
            try:
                entry.digest, entry.size = write_detail(str(path), opened.vault, backup, earlier)
                entry.detail = path
            except CasoError as error:
                found.notes.append(f"the set {backup.id} has no catalog: {error.message}")
        listed.append(entry)
    found.sets += listed
    found.notes += [line for line in opened.problems() if line not in found.notes]


def _rebuilt(folder: StateFolder) -> Path:
    """Where details lie until they are in the catalog."""
    return folder.catalog / "rebuilt"


async def _rebuild(
    kit: Kit,
    found: _Found,
    folder: StateFolder,
    listen: str | None,
    advertise: tuple[str, ...],
    least_lineage: int,
    clock: Clock,
    randomness: Randomness,
) -> Recovered:
    copy, now_ns = found.copy, clock.now_ns()
    new_id = make_id_source(clock.now_ns, randomness)
    keys, authority = copy.node_keys(), copy.authority()
    control = ControlState()
    control.restore(copy.control)
    old = control.server(copy.admin)
    listen = listen or _same_place(old)
    config = Config(server=old.name, listen=listen, advertise=advertise, preset=old.preset)  # type: ignore[arg-type]
    split_address(listen)
    operator_key = SigningKey.create(randomness)
    previous = next((each for each in control.operator_list() if each.home == old.id), None)
    operator = Operator(
        name=previous.name if previous is not None else f"local-{old.name}"[:63],
        id=operator_key.id,
        public_key=operator_key.public_key,
        role=Role.ADMIN,
        created_at_ns=now_ns,
        home=old.id,
    )
    lineage = max(copy.place.lineage + 1, least_lineage)
    claim = sign_claim(keys.signing, mesh=copy.mesh, lineage=lineage)
    recover(control, admin=old.id, operator=operator, addresses=advertise, now_ns=now_ns, claim=claim)
    anchors = tuple(anchor.certificate for anchor in control.anchors)
    await asyncio.to_thread(
        _write_identity, folder, config, keys, authority, anchors, kit.id_key, operator_key, now_ns, randomness
    )
    start = Snapshot(copy.place.index, copy.place.term, control.snapshot())
    orders = await _begin_log(folder, old.id, lineage, start)
    async with Database.open(folder.queue, MIGRATIONS, durable=True) as database:
        queue = Queue(database)
        await queue.save_orders(orders)
        await queue.take_medium(lambda known: _label_gap(old, found.own(), now_ns))
    await _begin_journal(folder, old, found, lineage, clock, new_id)
    await _fill_catalog(folder, found)
    return Recovered(
        mesh=copy.mesh_name,
        server=old.name,
        listen=listen,
        lineage=lineage,
        made_at_ns=copy.made_at_ns,
        servers=tuple(server.name for server in control.server_list()),
        sets=len(found.own()),
        notes=tuple(found.notes),
    )


def _same_place(server: Server) -> str:
    """Where others look for it: at the port it had, at all interfaces."""
    host, port = split_address(server.addresses[0]) if server.addresses else ("", _DEFAULT_PORT)
    return join_address(host if host.startswith("127.") else "0.0.0.0", port)


def _write_identity(
    folder: StateFolder,
    config: Config,
    keys: NodeKeys,
    authority: Authority,
    anchors: tuple[bytes, ...],
    id_key: bytes,
    operator_key: SigningKey,
    now_ns: int,
    randomness: Randomness,
) -> None:
    write_config(folder.config, config)
    identity = IdentityStore(folder.identity)
    identity.save_keys(keys)
    identity.save_chain(newcomer_chain(authority, keys.public_key, now_ns=now_ns, randomness=randomness))
    identity.save_anchors(anchors)
    identity.save_id_key(id_key)
    identity.save_authority(authority)
    issued = authority.issue_operator(operator_key.public_key, now_ns=now_ns, randomness=randomness)
    identity.write_operator(operator_key, authority.chain(issued))


async def _begin_log(folder: StateFolder, node: str, lineage: int, start: Snapshot) -> Orders:
    """The log goes on from the copy, in a new lineage; the server's own first orders stand on it."""
    preset = load_config(folder.config).preset
    opening = open_replicated(folder.consensus, node, lineage=lineage, preset=preset, start=start)
    async with opening as consensus:
        keeper = ControlKeeper(consensus)
        async with asyncio.TaskGroup() as group:
            leading, applying = group.create_task(consensus.run()), group.create_task(keeper.run())
            await elected(consensus)
            await keeper.barrier()
            orders = orders_for(keeper.state, node, keeper.authority, node, lambda source: (), lambda attempt, run: b"")
            applying.cancel()
            leading.cancel()
    return orders


def _label_gap(server: Server, own: list[BackupSet], now_ns: int) -> Medium:
    """A place holder, of no device, so that labels go on behind all that may have been given."""
    prefix, labels = label_prefix(server.name, server.id), [each.medium for each in own]
    numbers = [
        int(label[len(prefix) :]) for label in labels if label.startswith(prefix) and label[len(prefix) :].isdigit()
    ]
    return Medium(
        label=f"{prefix}{max(numbers, default=0) + _LABEL_GAP:06d}",
        device="",
        media_set="",
        server=server.id,
        opened_at_ns=now_ns,
        last_write_at_ns=now_ns,
        closes_at_ns=now_ns,
    )


async def _begin_journal(
    folder: StateFolder, server: Server, found: _Found, lineage: int, clock: Clock, new_id: IdSource
) -> None:
    """What the devices tell of the lost journal, and that it was lost."""
    told: list[facts.Fact] = []
    # other voters make the catalogs of these sets as this one has done
    told += [facts.SetFound(backup, server.id) for backup in found.own()]
    fields = {"lineage": lineage, "version": __version__}
    text = (
        f"The administrator was rebuilt on another machine, out of a copy of the mesh (lineage {lineage}). What happened "
        "after the copy was made comes back from the journals of the other servers"
    )
    told.append(facts.Audit("recover", "recover", "mesh", fields=fields))
    told.append(
        facts.AlertRaised(new_id(), AlertKind.WARNING, "mesh-recovered", text, object=server.name, fields=fields)
    )
    async with Journal.open(folder.journal, server.id, clock=clock, new_id=new_id) as journal:
        for at in range(0, len(told), 500):
            await journal.append([facts.encode(each) for each in told[at : at + 500]])


async def _fill_catalog(folder: StateFolder, found: _Found) -> None:
    """What the devices say of files goes into the central catalog at once; it is not asked of the servers any more."""
    async with (
        Catalog.open(_catalog(folder)) as catalog,
        Database.open(_tables(folder), TABLE_MIGRATIONS, durable=False) as database,
    ):
        for each in found.sets:
            if each.detail is None:
                continue
            try:
                await catalog.add_set(each.backup)
                await catalog.ingest(SegmentReader(each.detail))
            except (DataDamaged, CatalogBaseMissing) as error:
                found.notes.append(f"the set {each.backup.id} has no catalog: {error.message}")
                continue
            await database.write(partial(catalog_details.has, set_id=each.backup.id))
    await asyncio.to_thread(shutil.rmtree, _rebuilt(folder))
