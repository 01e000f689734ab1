"""What the tests of the vault stand on: a backend in memory that can crash, servers with keys, a small backup."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from caso_mesh.model.entries import Entry, EntryType, path_key
from caso_mesh.model.errors import CasoError, DeviceVanished, ObjectExists, ObjectMissing
from caso_mesh.model.states import BackupType
from caso_mesh.sealing import signing, wrapping
from caso_mesh.vault.chunking import ChunkerParameters, chunk_id
from caso_mesh.vault.tree import TreeWriter
from caso_mesh.vault.vault import (
    BackupSet,
    Lane,
    Session,
    Signer,
    Vault,
    VaultHeader,
    VaultKeys,
    create_content_key,
    create_vault,
    load_keys,
    read_header,
)


class MemoryBackend:
    """Objects in a dictionary. ``crash_at(n)``: the call of that number (from 0) and all after it fail; a put that
    fails so has happened or not, as ``done`` says."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = {} if objects is None else objects
        self.calls = 0
        self.errors: dict[str, CasoError] = {}
        self._crash: int | None = None
        self._done = False
        self._lock = threading.Lock()

    def crash_at(self, call: int, *, done: bool) -> None:
        self._crash, self._done = call, done

    def _enter(self, operation: str, name: str) -> bool:
        with self._lock:
            number, self.calls = self.calls, self.calls + 1
        for prefix, error in self.errors.items():
            if f"{operation} {name}".startswith(prefix):
                raise error
        if self._crash is None or number < self._crash:
            return True
        if number == self._crash and self._done and operation == "put":
            return False
        raise DeviceVanished(device="memory", detail="crash")

    def put(self, name: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        well = self._enter("put", name)
        with self._lock:
            if name in self.objects:
                raise ObjectExists(name=name)
            self.objects[name] = b"".join(parts)
        if not well:
            raise DeviceVanished(device="memory", detail="crash after it was done")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._enter("get", name)
        content = self._content(name)
        return content[offset:] if length is None else content[offset : offset + length]

    def size(self, name: str) -> int:
        self._enter("size", name)
        return len(self._content(name))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self._enter("list", prefix)
        with self._lock:
            found = sorted((name, len(data)) for name, data in self.objects.items() if name.startswith(prefix))
        yield from found

    def delete(self, name: str) -> None:
        self._enter("delete", name)
        self._content(name)
        del self.objects[name]

    def space(self) -> tuple[int, int]:
        return 1 << 40, 1 << 40

    def _content(self, name: str) -> bytes:
        if name not in self.objects:
            raise ObjectMissing(name=name)
        return self.objects[name]


class Server:
    """A server of the mesh: a name for its node id, a signing key, an encryption key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._signing = Ed25519PrivateKey.generate()
        self._encryption = X25519PrivateKey.generate().private_bytes_raw()
        self.public = self._signing.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.encryption_public = X25519PrivateKey.from_private_bytes(self._encryption).public_key().public_bytes_raw()
        self.signer = Signer(name, lambda domain, message: signing.sign(self._signing, domain, message))

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        return wrapping.unwrap(wrapped, self._encryption, aad=aad)


class World:
    """A mesh with one vault and two servers that may write it."""

    vault_id = "vaultone"
    mesh_id = "meshone"

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.id_key = os.urandom(32)
        self.alpha, self.beta = Server("alpha"), Server("beta")
        self.roster = {server.name: server.public for server in (self.alpha, self.beta)}
        create_vault(self.backend, vault=self.vault_id, mesh=self.mesh_id, chunker=ChunkerParameters(seed=7))
        recipients = {server.name: server.encryption_public for server in (self.alpha, self.beta)}
        create_content_key(self.backend, recipients, key_id="k1", randomness=os.urandom, id_key=self.id_key)

    def verify(self, server: str, domain: str, message: bytes, signature: bytes) -> bool:
        public = self.roster.get(server)
        return public is not None and signing.verify(public, domain, message, signature)

    def header(self, backend: MemoryBackend | None = None) -> VaultHeader:
        header = read_header(backend or self.backend)
        assert header is not None
        return header

    def keys(self, server: Server | None = None, backend: MemoryBackend | None = None) -> VaultKeys:
        server = server or self.alpha
        return load_keys(backend or self.backend, server.name, server.unwrap, self.id_key)

    def vault(
        self, server: Server | None = None, backend: MemoryBackend | None = None, cache: str | None = None
    ) -> Vault:
        backend = backend or self.backend
        header, keys = self.header(backend), self.keys(server, backend)
        return Vault(backend, header, keys, verify=self.verify, cache_folder=cache)

    def session(self, vault: Vault, name: str, server: Server | None = None, parents: Sequence[str] = ()) -> Session:
        server = server or self.alpha
        return vault.open_session(
            writer=f"w{server.name}", session=name, signer=server.signer, attempt="job@1#1", parents=parents
        )

    def store(self, session: Session, lane: Lane, data: bytes, *, metadata: bool = False) -> bytes:
        chunk = chunk_id(self.id_key, data)
        if session.claim(chunk):
            lane.add(chunk, data, metadata=metadata)
        return chunk

    def tree(self, session: Session, lane: Lane, files: Mapping[bytes, bytes]) -> tuple[bytes, int]:
        """Stores files, 4000 bytes a chunk, and a tree of them; returns its root and how many entries it has."""
        writer = TreeWriter(lambda data: self.store(session, lane, data, metadata=True))
        for path in sorted(files, key=path_key):
            data = files[path]
            parts = [data[at : at + 4000] for at in range(0, len(data), 4000)]
            chunks = tuple((self.store(session, lane, part), len(part)) for part in parts)
            writer.add(Entry(path, EntryType.FILE, 0o644, size=len(data), chunks=chunks))
        return writer.finish(), writer.entries

    def backup(
        self, vault: Vault, session: Session, set_id: str, files: Mapping[bytes, bytes], server: Server | None = None
    ) -> BackupSet:
        root, entries = self.tree(session, session.lane(), files)
        backup_set = self.set(set_id, root, entries, server)
        session.publish(backup_set)
        return backup_set

    def set(self, set_id: str, root: bytes, entries: int, server: Server | None = None) -> BackupSet:
        name = (server or self.alpha).name
        return BackupSet(
            id=set_id,
            mesh=self.mesh_id,
            vault=self.vault_id,
            source=name,
            source_name=name,
            server=name,
            server_name=name,
            device="device1",
            device_name="disk",
            medium="ALPHA-000001",
            media_set="keep-4-weeks",
            type=BackupType.FULL,
            job="job",
            run="job@1",
            attempt="job@1#1",
            started_at_ns=1,
            ended_at_ns=2,
            roots=(b"srv",),
            filters=b"f",
            root=root,
            parent=None,
            files=entries,
            entries=entries,
            bytes=1,
            bytes_read=1,
            bytes_stored=1,
            exceptions=0,
        )

    @staticmethod
    def restore(vault: Vault, backup_set: BackupSet) -> dict[bytes, bytes]:
        """All files of a set."""
        entries = list(vault.tree(backup_set.root).entries())
        content: dict[bytes, bytes] = {}
        for chunk, data in vault.read_many([chunk for entry in entries for chunk, _ in entry.chunks]):
            if isinstance(data, CasoError):
                raise data
            content[chunk] = bytes(data)
        return {entry.path: b"".join(content[chunk] for chunk, _ in entry.chunks) for entry in entries}


def sample_files(count: int, salt: bytes = b"") -> dict[bytes, bytes]:
    """Files of a few thousand bytes, each different."""
    return {b"srv/f%04d" % n: salt + b"%04d" % n * (n % 7 * 500 + 1) for n in range(count)}
