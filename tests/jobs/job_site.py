"""A small site for tests of jobs: identities, a device with a vault, tasks, and running them."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import structs

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.store import IdentityStore
from caso_mesh.identity.tickets import digest_of_paths, issue
from caso_mesh.identity.tls import server_context
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import bulk_token
from caso_mesh.jobs.task import DeviceAccess, FarEnd, Task, TlsFiles
from caso_mesh.model.ids import make_id_source
from caso_mesh.model.jobs import BackupSpec, RestoreSpec, SourceRoots, Target, TargetKind, VerifySpec
from caso_mesh.model.orders import AttemptOrder, ticket_paths
from caso_mesh.model.states import BackupType
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.header import create_vault, read_header
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import VaultKeys
from caso_mesh.vault.vault import Vault
from caso_mesh.wire.network import ServerTls
from caso_mesh.wire.websocket import WebSocketNetwork

ID_KEY = bytes(range(32))
CONTENT = {"k1": b"\x07" * 32}
ANY = Target(TargetKind.ANY)
new_id = make_id_source(time.time_ns, os.urandom)


class Node:
    """A server of the mesh: keys, certificate, identity folder."""

    def __init__(self, name: str, folder: Path, authority: Authority) -> None:
        self.name = name
        self.keys = NodeKeys.create()
        self.id = self.keys.id
        self.folder = folder
        self.writer = new_id()
        self.store = IdentityStore(folder)
        self.store.save_keys(self.keys)
        certificate = authority.issue_node(self.keys.public_key, now_ns=time.time_ns())
        self.store.save_chain(authority.chain(certificate))
        self.certificate = certificate


class Site:
    """One mesh of two servers, ``alpha`` with the device and ``beta``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        admin = NodeKeys.create()
        self.admin = admin
        self.authority = Authority.create(mesh_id="mesh", mesh_name="mesh", voter=admin.id, now_ns=time.time_ns())
        self.alpha = Node("alpha", folder / "alpha", self.authority)
        self.beta = Node("beta", folder / "beta", self.authority)
        self.nodes = {node.id: node for node in (self.alpha, self.beta)}
        self.public_keys = {node.id: node.keys.public_key for node in self.nodes.values()}
        self.device = folder / "device"
        self.device.mkdir()
        self.vault_id = new_id()
        self.header = None
        self.segments = folder / "segments"
        self.segments.mkdir()
        self.serial = 0
        self.backend_objects: dict[str, bytes] = {}
        backend = FolderBackend(str(self.device), "disk", marker=None)
        self.make_vault(backend)
        backend.close()

    def make_vault(self, backend) -> None:
        self.header = create_vault(backend, vault=self.vault_id, mesh="mesh", chunker=ChunkerParameters(seed=7))

    @property
    def access(self) -> DeviceAccess:
        return DeviceAccess(
            device="dev1", name="disk", path=str(self.device), vault=self.vault_id, mesh="mesh", content_keys=CONTENT,
            write_key="k1", cache_folder=str(self.folder / "cache"), writer=self.alpha.writer,
        )  # fmt: skip

    @contextmanager
    def opened(self, backend=None):
        """The vault as this test sees it."""
        own = backend or FolderBackend(str(self.device), "disk", marker=FORMAT)
        try:
            yield Vault(
                own,
                self.header,
                VaultKeys(id_key=ID_KEY, content_keys=CONTENT, write_key="k1"),
                verify=lambda *_: True,
                cache_folder=None,
            )
        finally:
            if backend is None:
                own.close()

    def sets(self, backend=None):
        with self.opened(backend) as vault:
            return sorted(vault.sets(), key=lambda each: each.started_at_ns)

    def backup_spec(self, *roots, source=None, type_=BackupType.FULL, **rest) -> BackupSpec:
        source = source or self.alpha
        paths = tuple(os.fsencode(root).lstrip(b"/") for root in roots)
        return BackupSpec(sources=(SourceRoots(source.id, paths),), target=ANY, type=type_, **rest)

    def restore_spec(self, set_id: str, base, *paths, server=None, **rest) -> RestoreSpec:
        server = server or self.alpha
        return RestoreSpec(
            set=set_id,
            server=server.id,
            paths=tuple(os.fsencode(path).lstrip(b"/") for path in paths),
            base=None if base is None else os.fsencode(base).lstrip(b"/"),
            **rest,
        )

    def task(self, spec, *, end="both", source=None, **changes) -> Task:
        """The task of alpha (``both``, ``device``), or of beta (``source``)."""
        self.serial += 1
        source = source or self.alpha
        order = AttemptOrder(
            attempt=f"job@{self.serial}#1", run=f"job@{self.serial}", job="job", job_name="job", source=source.id,
            media=self.alpha.id, end=end, device="dev1", spec=spec, number=1,
        )  # fmt: skip
        return structs.replace(self.base_task(self.alpha, order), device=self.access, **changes)

    def base_task(self, node: Node, order: AttemptOrder) -> Task:
        set_id = new_id()
        return Task(
            order=order,
            server=node.id,
            server_name=node.name,
            source_name=self.nodes[order.source].name,
            id_key=ID_KEY,
            chunker_seed=7,
            identity_folder=str(node.folder),
            public_keys=self.public_keys,
            session=new_id(),
            set=set_id,
            medium="ALPHA-000001",
            media_set="keep-4-weeks",
            segment_path=str(self.segments / f"{set_id}.segment"),
            issuer_key=self.admin.public_key,
            status_interval_s=0.2,
        )

    def pair(
        self, spec, *, addresses=((), ()), join_s=60.0, rejoin_s=60.0, secret=None, **changes
    ) -> tuple[Task, Task]:
        """The tasks of alpha (device) and beta (source or target) of one attempt; ``addresses`` of alpha and beta."""
        self.serial += 1
        order = AttemptOrder(
            attempt=f"job@{self.serial}#1", run=f"job@{self.serial}", job="job", job_name="job", source=self.beta.id,
            media=self.alpha.id, end="device", device="dev1", spec=spec, number=1, secret=secret or os.urandom(32),
        )  # fmt: skip
        order = structs.replace(order, ticket=self.ticket(order))
        both = {"join_s": join_s, "rejoin_s": rejoin_s}
        device = structs.replace(
            self.base_task(self.alpha, order),
            device=self.access,
            far=FarEnd(self.beta.id, "beta", addresses[1]),
            tls=self.tls(self.alpha),
            **both,
        )
        source = structs.replace(
            self.base_task(self.beta, structs.replace(order, end="source")),
            far=FarEnd(self.alpha.id, "alpha", addresses[0]),
            tls=self.tls(self.beta),
            **both,
        )
        return structs.replace(device, **changes), structs.replace(source, **changes)

    def ticket(self, order: AttemptOrder, issuer: NodeKeys | None = None, **changes) -> bytes:
        fields = {
            "attempt": order.attempt, "part": order.source, "dialler": order.source, "acceptor": order.media,
            "paths": digest_of_paths(ticket_paths(order.spec, order.source)), "lineage": 1, "term": 1, "index": 1,
            "now_ns": time.time_ns(), "randomness": os.urandom,
        }  # fmt: skip
        return issue(issuer or self.admin, **(fields | changes))

    def tls(self, node: Node) -> TlsFiles:
        anchors = tuple(anchor.certificate for anchor in self.authority.anchors(self.admin.id))
        return TlsFiles(str(node.store.chain_path), str(node.store.key_path), anchors)


#: The second device has keys of its own.
KEYS = {"k9": b"\x21" * 32}


class Second:
    """A device of beta."""

    def __init__(self, site: Site) -> None:
        self.folder = site.folder / "second"
        self.folder.mkdir()
        self.vault = new_id()
        self.cache = site.folder / "second-cache"
        self.writer = site.beta.writer
        backend = FolderBackend(str(self.folder), "second", marker=None)
        create_vault(backend, vault=self.vault, mesh="mesh", chunker=ChunkerParameters(seed=7))
        backend.close()

    @property
    def access(self) -> DeviceAccess:
        return DeviceAccess(
            device="dev2", name="second", path=str(self.folder), vault=self.vault, mesh="mesh", content_keys=KEYS,
            write_key="k9", cache_folder=str(self.cache), writer=self.writer,
        )  # fmt: skip

    def sets(self):
        backend = FolderBackend(str(self.folder), "second", marker=FORMAT)
        try:
            header = read_header(backend)
            keys = VaultKeys(id_key=ID_KEY, content_keys=KEYS, write_key="k9")
            vault = Vault(backend, header, keys, verify=lambda *_: True, cache_folder=None)
            return sorted(vault.sets(), key=lambda each: each.started_at_ns)
        finally:
            backend.close()

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "packs").rglob("*") if path.is_file())


class Heard:
    """What a worker said."""

    def __init__(self) -> None:
        self.messages = []

    def all(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def ended(self) -> say.Ended:
        (ended,) = self.all(say.Ended)
        return ended

    @property
    def set(self):
        (published,) = self.all(say.Published)
        return published.set

    @property
    def exceptions(self):
        return [each for message in self.all(say.Excepted) for each in message.exceptions]

    @property
    def lines(self):
        return [line.text for message in self.messages for line in getattr(message, "lines", ())]


async def listen(worker, *, publish=True, on=None) -> Heard:
    """Hears a worker to its end, as a daemon would."""
    heard = Heard()
    async for message in worker.messages():
        heard.messages.append(message)
        if on is not None:
            await on(message)
        if isinstance(message, say.MayPublish) and publish:
            await worker.send(say.Publish())
    return heard


async def run(runner, task, **options) -> Heard:
    return await listen(await runner.start(task), **options)


def verify_spec(set_id: str) -> VerifySpec:
    return VerifySpec(set=set_id)


@asynccontextmanager
async def doors(site, workers):
    """The daemons' ports of both servers: they hand bulk connections to the workers in ``workers`` (by node name; one, or a
    list).

    Yields their addresses.
    """

    def tls(node, side):
        files = site.tls(node)
        return lambda: side(files.chain_path, files.key_path, files.anchors)

    def worker_for(name):
        def find(token, source):
            found = workers.get(name, ())
            several = found if isinstance(found, list) else [found] if found else []
            return next((worker.bulk_channel for worker, secret in several if bulk_token(secret) == token), None)

        return find

    async with AsyncExitStack() as stack:
        addresses = {}
        for node in (site.alpha, site.beta):
            listener = await stack.enter_async_context(
                WebSocketNetwork().listen(
                    "127.0.0.1:0",
                    tls=ServerTls(tls(node, server_context)),
                    authorise=lambda certificate: None,
                    handler=None,
                    worker_for=worker_for(node.name),
                )
            )
            addresses[node.name] = listener.address
        yield addresses


async def run_pair(site, runners, spec, *, on=None, addresses=None, change=lambda device, source: (device, source)):
    """Runs both ends of an attempt; what each said. ``runners`` are alpha's and beta's."""
    workers = {}
    async with doors(site, workers) as real:
        places = addresses(real) if addresses else ((real["alpha"],), (real["beta"],))
        device, source = change(*site.pair(spec, addresses=places))
        for name, runner, task in (("alpha", runners[0], device), ("beta", runners[1], source)):
            workers[name] = (await runner.start(task), task.order.secret)
        on_ = on or (lambda name, worker: None)
        return await asyncio.gather(*(listen(workers[name][0], on=on_(name, workers)) for name in ("alpha", "beta")))
