"""How a state folder comes to be that of a member: a new mesh, a join link, an approval by a person."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from caso_mesh import __version__
from caso_mesh.admin.enrolment import local_operator_name
from caso_mesh.config import Config, load_config
from caso_mesh.consensus import elected, open_replicated
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.orders import orders_for
from caso_mesh.database import Database
from caso_mesh.identity.authority import Authority as IssuingAuthority
from caso_mesh.identity.enrolment import Newcomer as Described
from caso_mesh.identity.enrolment import newcomer_chain, server_row
from caso_mesh.identity.external import load_external
from caso_mesh.identity.keys import SigningKey
from caso_mesh.identity.store import IdentityStore
from caso_mesh.machine import Ports, addresses_of, checked_listen, known_addresses
from caso_mesh.model.commands import FoundMesh
from caso_mesh.model.errors import InvalidValue, StateMissing, StateNotEmpty
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.ids import check_name
from caso_mesh.model.mesh import MeshInfo, Operator
from caso_mesh.model.states import Liveness, Role
from caso_mesh.model.storage import FACTORY_MEDIA_SETS
from caso_mesh.server import joining
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.queue import MIGRATIONS as QUEUE_MIGRATIONS
from caso_mesh.server.queue import Queue
from caso_mesh.wire.network import split_address

log = logging.getLogger(__name__)


async def init_mesh(
    *,
    mesh: str,
    server: str,
    state: Path,
    listen: str,
    advertise: tuple[str, ...] = (),
    preset: str = "lan",
    ca: Path | None = None,
    ports: Ports | None = None,
) -> None:
    """A new mesh of one, with its operator's certificate. ``ca``: a folder as ``certs/README.md`` says. Interrupted at
    any place, it may be repeated.

    Raises ``StateNotEmpty``, ``StateLocked``, ``StateTooNew``, ``InvalidName``, ``InvalidValue``, ``CannotListen``,
    ``CaUnusable``.
    """
    ports = ports or Ports()
    check_name(mesh, "mesh")
    config = _config(server, listen, advertise, preset)
    folder = StateFolder(state)
    if joining.is_member(folder):
        raise StateNotEmpty(state=state, server=load_config(folder.config).server)
    make_folder(folder)
    with folder.locked():
        if folder.version.exists():
            folder.check_version()
        await _found(folder, config, mesh, ca, ports)


def make_folder(folder: StateFolder) -> None:
    """Raises ``InvalidValue`` where there can be none."""
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidValue(value=folder.path, what="state folder", expected=f"{error.strerror}") from None


async def _found(folder: StateFolder, config: Config, mesh: str, ca: Path | None, ports: Ports) -> None:
    """The log of the mesh is made under another name, and gets its own when all else is there: what an interrupted try
    left is told from a real mesh whose identity was lost."""
    new_id, now_ns = ports.id_source(), ports.clock.now_ns()
    server, preset = config.server, config.preset
    draft = folder.consensus.with_name("consensus.new.db")
    if folder.consensus.exists():
        await _finish_founding(folder, ports)
        raise StateNotEmpty(state=folder.path, server=server)
    for left in folder.path.glob(f"{draft.name}*"):
        left.unlink()
    identity, keys = await asyncio.to_thread(joining.new_state, folder, config, ports.randomness)
    mesh_id = new_id()
    if ca is not None:
        authority = load_external(ca, voter=keys.id, mesh_name=mesh, now_ns=now_ns, randomness=ports.randomness)
    else:
        authority = IssuingAuthority.create(
            mesh_id=mesh_id, mesh_name=mesh, voter=keys.id, now_ns=now_ns, randomness=ports.randomness
        )
    operator_key, id_key = SigningKey.create(ports.randomness), ports.randomness(32)
    info = MeshInfo(
        feature_level=FEATURE_LEVEL,
        id=mesh_id,
        name=mesh,
        created_at_ns=now_ns,
        chunker_seed=int.from_bytes(ports.randomness(8), "big") >> 1,
    )
    described = Described(
        name=server,
        public_key=keys.public_key,
        encryption_key=keys.encryption_key,
        addresses=known_addresses(config),
        preset=preset,
        version=__version__,
    )
    row = structs.replace(
        server_row(described, id_key=id_key, mesh=mesh_id, now_ns=now_ns, randomness=ports.randomness),
        voter=True,
        liveness=Liveness.ALIVE,
        ever_linked=True,
    )
    operator = Operator(
        name=local_operator_name(server, keys.id),
        id=operator_key.id,
        public_key=operator_key.public_key,
        role=Role.ADMIN,
        created_at_ns=now_ns,
        home=keys.id,
    )
    found = FoundMesh(info, tuple(authority.anchors(keys.id)), row, (operator,), FACTORY_MEDIA_SETS)

    def write_identity() -> None:
        chain = newcomer_chain(authority, keys.public_key, now_ns=now_ns, randomness=ports.randomness)
        identity.save_chain(tuple(chain))
        identity.save_anchors(tuple(anchor.certificate for anchor in found.anchors))
        identity.save_id_key(id_key)
        identity.save_authority(authority)
        operator_chain = authority.chain(
            authority.issue_operator(operator_key.public_key, now_ns=now_ns, randomness=ports.randomness)
        )
        identity.write_operator(operator_key, tuple(operator_chain))

    await asyncio.to_thread(write_identity)
    opening_log = open_replicated(draft, keys.id, preset=preset, jitter=ports.jitter, same_thread=ports.same_thread)
    async with opening_log as consensus:
        keeper = ControlKeeper(consensus)
        async with asyncio.TaskGroup() as group:
            leading, applying = group.create_task(consensus.run()), group.create_task(keeper.run())
            await elected(consensus)
            await keeper.submit(found, who="init", request_id=f"found-{mesh_id}", at_ns=now_ns)
            orders = orders_for(
                keeper.state, keys.id, keeper.authority, keys.id, lambda source: (), lambda attempt, run: b""
            )
            applying.cancel()
            leading.cancel()
    opening = Database.open(folder.queue, QUEUE_MIGRATIONS, durable=True, same_thread=ports.same_thread)
    async with opening as database:
        await Queue(database).save_orders(orders)
    await asyncio.to_thread(_keep_log, draft, folder.consensus)
    await asyncio.to_thread(identity.save_mesh_id, mesh_id)


def _keep_log(draft: Path, log_path: Path) -> None:
    os.replace(draft, log_path)
    descriptor = os.open(log_path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _finish_founding(folder: StateFolder, ports: Ports) -> None:
    """The last step, if it is the only one that is missing: the mesh is there then."""
    if not (folder.queue.exists() and folder.identity.is_dir()):
        return
    opening = Database.open(folder.queue, QUEUE_MIGRATIONS, durable=True, same_thread=ports.same_thread)
    async with opening as database:
        orders = await Queue(database).load_orders()
    identity = IdentityStore(folder.identity)
    if orders is not None and identity.load_keys().id == orders.server.id:
        await asyncio.to_thread(identity.save_mesh_id, orders.roster.mesh.id)


def _config(server: str, listen: str, advertise: tuple[str, ...], preset: str) -> Config:
    check_name(server, "server")
    if preset not in {"local", "lan", "wan"}:
        raise InvalidValue(value=preset, what="preset", expected="Use local, lan or wan")
    for address in advertise:
        try:
            split_address(address)
        except ValueError as error:
            raise InvalidValue(value=address, what="address", expected=str(error).capitalize()) from None
    return Config(server=server, listen=checked_listen(listen), advertise=advertise, preset=preset)  # type: ignore[arg-type]


async def join_mesh(
    *,
    link: str,
    server: str,
    state: Path,
    listen: str,
    advertise: tuple[str, ...] = (),
    preset: str = "lan",
    never_admin: bool = False,
    replaces: str = "",
    ports: Ports | None = None,
    warn: Callable[[str], None] = log.warning,
) -> str:
    """Joins the mesh of a join link; returns the mesh's name. ``warn`` is told what a person should know. Raises as
    ``server.joining.join_by_link``."""
    ports = ports or Ports()
    config = _config(server, listen, advertise, preset)
    return await joining.join_by_link(
        link,
        folder=StateFolder(state),
        config=config,
        addresses=known_addresses(config),
        never_admin=never_admin,
        replaces=replaces,
        network=ports.network,
        clock=ports.clock,
        randomness=ports.randomness,
        same_thread=ports.same_thread,
        version=__version__,
        warn=warn,
    )


def newcomer_config(
    folder: StateFolder, server: str | None, listen: str | None, advertise: tuple[str, ...], preset: str
) -> Config:
    """Of a new server without a link: from the options, or from its file when it is started again."""
    if server is None and listen is None and folder.config.exists():
        return load_config(folder.config)
    if server is None or listen is None:
        raise StateMissing(state=folder.path)
    return _config(server, listen, advertise, preset)


async def wait_for_approval(
    folder: StateFolder,
    config: Config,
    peers: tuple[str, ...],
    never_admin: bool,
    say: Callable[[str], None],
    ready: Callable[[], None],
    ports: Ports,
) -> str:
    """Returns the address where it listened, once this server is a member. Raises as ``server.joining.wait_for_approval``."""
    async with ports.discovery(config) as discovery:
        return await joining.wait_for_approval(
            folder=folder,
            config=structs.replace(config, peers=peers or config.peers),
            network=ports.network,
            discovery=discovery,
            addresses_of=lambda address: addresses_of(config, address),
            clock=ports.clock,
            randomness=ports.randomness,
            instance=ports.id_source()(),
            version=__version__,
            never_admin=never_admin,
            say=say,
            ready=ready,
        )
