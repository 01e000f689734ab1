"""What each worker would do for the first time, done once in the process that they are forked from: libraries make their
tables, look up their algorithms and compile their patterns when they are first used, which costs a tiny job more than
its work. A vault in memory is written and read, and TLS is spoken between two ends of this process; nothing is left
open, nothing of it is kept."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiohttp import web

from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.store import IdentityStore
from caso_mesh.identity.tls import client_context, server_context
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import ObjectExists, ObjectMissing
from caso_mesh.sealing.signing import verify
from caso_mesh.sources.metadata import sees_trusted
from caso_mesh.vault.chunking import Chunker, ChunkerParameters, chunk_id
from caso_mesh.vault.header import create_vault
from caso_mesh.vault.objects import Signer, VaultKeys
from caso_mesh.vault.tree import TreeReader, TreeWriter
from caso_mesh.vault.vault import Vault

_KEY = bytes(32)
_CHUNK = b"what is written for the first time " * 100


class _Memory:
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    def put(self, name: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        if name in self._objects:
            raise ObjectExists(name=name)
        self._objects[name] = b"".join(parts)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        content = self._content(name)
        return content[offset:] if length is None else content[offset : offset + length]

    def size(self, name: str) -> int:
        return len(self._content(name))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from sorted((name, len(data)) for name, data in self._objects.items() if name.startswith(prefix))

    def delete(self, name: str) -> None:
        self._objects.pop(name)

    def space(self) -> tuple[int, int]:
        return 0, 0

    def _content(self, name: str) -> bytes:
        if name not in self._objects:
            raise ObjectMissing(name=name)
        return self._objects[name]


def rehearse_vault() -> None:
    """A session with one file in it, and its tree read back."""
    keys, backend, chunker = NodeKeys.create(), _Memory(), ChunkerParameters(seed=1)
    header = create_vault(backend, vault="rehearsal", mesh="rehearsal", chunker=chunker)

    def signed(server: str, domain: str, message: bytes, signature: bytes) -> bool:
        return verify(keys.public_key, domain, message, signature)

    vault = Vault(
        backend,
        header,
        VaultKeys(id_key=_KEY, content_keys={"k": _KEY}, write_key="k"),
        verify=signed,
        cache_folder=None,
    )
    signer = Signer(keys.id, keys.sign)
    Chunker(chunker)
    with vault.open_session(writer="w", session="s", signer=signer, attempt="a", parents=()) as session:
        lane = session.lane()

        def store(data: bytes) -> bytes:
            name = chunk_id(_KEY, data)
            if session.claim(name):
                lane.add(name, data, metadata=True)
            return name

        name = chunk_id(_KEY, _CHUNK)
        if session.claim(name):
            lane.add(name, _CHUNK)
        tree = TreeWriter(store)
        tree.add(Entry(b"file", EntryType.FILE, 0o644, size=len(_CHUNK), chunks=((name, len(_CHUNK)),)))
        root = tree.finish()
    vault.refresh()
    vault.has([name])
    list(TreeReader(root, vault.read).entries())
    list(vault.read_many([name]))
    sees_trusted()


def rehearse_links() -> None:
    """Both ends of a handshake, and what waits for connections."""
    now_ns = time.time_ns()
    keys = NodeKeys.create()
    authority = Authority.create(mesh_id="rehearsal", mesh_name="rehearsal", voter=keys.id, now_ns=now_ns)
    with tempfile.TemporaryDirectory() as name:
        identity = IdentityStore(Path(name) / "identity")
        os.mkdir(Path(name) / "identity", 0o700)
        identity.save_keys(keys)
        identity.save_chain(authority.chain(authority.issue_node(keys.public_key, now_ns=now_ns)))
        anchors = tuple(anchor.certificate for anchor in authority.anchors(keys.id))
        files = (identity.chain_path, identity.key_path)
        _shake_hands(server_context(*files, anchors), client_context(*files, anchors))
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_wait_for_connections())
    finally:
        loop.close()


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue  # the other end's turn
    ends[0].write(b"first words")
    ends[1].read(100)


async def _wait_for_connections() -> None:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await runner.cleanup()
