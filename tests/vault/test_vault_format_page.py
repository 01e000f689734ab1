"""A reader written from ``docs/format.md`` alone: it uses nothing of the product but the vault to read."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from vault_world import World, sample_files

from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.vault.packing import zstd
from caso_mesh.vault.tree import TreeWriter

DOMAINS = {1: "writer", 2: "session", 3: "session-closed", 4: "set", 5: "index", 6: "data-pack", 7: "metadata-pack"}


def derive(key: bytes, domain: str, context: bytes) -> bytes:
    info = b"caso-mesh/derive/1" + bytes([len(domain)]) + domain.encode() + struct.pack(">Q", len(context)) + context
    return HKDF(SHA256(), 32, None, info).derive(key)


def framed(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


class PageReader:
    """Follows the page, paragraph by paragraph."""

    def __init__(self, objects: dict[str, bytes], recipient: str, private_key: bytes, id_key: bytes) -> None:
        self.objects, self.id_key = objects, id_key
        line, _, check = objects["format"].partition(b"\n")
        assert check == blake3(line + b"\n").hexdigest().encode() + b"\n"
        header = json.loads(line)
        assert (header["title"], header["version"]) == ("caso-mesh vault", 1)
        self.vault = header["vault"].encode()
        self.keys = {}
        for name in objects:
            if name.startswith("keys/"):
                key_id, rest = self.beginning(name, 8)[1:]
                mac_key = derive(id_key, "vault/content-key", framed(self.vault, name.encode()))
                assert blake3(objects[name][:-32], key=mac_key).digest() == objects[name][-32:]
                wrapped = msgpack.unpackb(rest[:-32])["recipients"].get(recipient)
                if wrapped:
                    self.keys[key_id] = self.unwrap(wrapped, private_key, framed(self.vault, key_id.encode()))
        self.where = self.index()

    def beginning(self, name: str, kind: int) -> tuple[bytes, str, bytes]:
        data = self.objects[name]
        assert data[:10] == b"CASOMESH\x01" + bytes([kind])
        end = 27 + data[26]
        return data[10:26], data[27:end].decode(), data[end:]

    @staticmethod
    def unwrap(wrapped: bytes, private_key: bytes, aad: bytes) -> bytes:
        assert wrapped[0] == 1
        key = X25519PrivateKey.from_private_bytes(private_key)
        shared = key.exchange(X25519PublicKey.from_public_bytes(wrapped[1:33]))
        context = wrapped[1:33] + key.public_key().public_bytes_raw() + hashlib.sha256(aad).digest()
        return AESGCM(derive(shared, "wrap/x25519", context)).decrypt(bytes(12), wrapped[33:], aad)

    def small(self, name: str, kind: int) -> bytes:
        salt, key_id, sealed = self.beginning(name, kind)
        key = derive(self.keys[key_id], f"vault/{DOMAINS[kind]}", framed(self.vault, name.encode(), salt))
        plain = AESGCM(key).decrypt(bytes(12), sealed, self.objects[name][: -len(sealed)])
        (size,) = struct.unpack("<I", plain[-4:])
        server, signature = msgpack.unpackb(plain[-4 - size : -4])
        assert server
        assert len(signature) == 64
        return plain[: -4 - size]

    def table(self, data: bytes) -> dict[bytes, tuple[Any, ...]]:
        version, packs, records, text, count, zero = struct.unpack_from("<IIIIQQ", data)
        assert (version, zero) == (1, 0)
        at = 32
        prefixes = struct.unpack_from(f"<{count}Q", data, at)
        rests = [data[at + 8 * count + 24 * n :][:24] for n in range(count)]
        at += 32 * count
        rows, offsets, lengths = (struct.unpack_from(f"<{count}I", data, at + 4 * count * n) for n in range(3))
        at += 12 * count + (4 if count % 2 else 0)
        record = [struct.unpack_from("<6I", data, at + 24 * n) for n in range(records)]
        at += 24 * records
        pack = [struct.unpack_from("<16sQ4I", data, at + 40 * n) for n in range(packs)]
        words = msgpack.unpackb(data[at + 40 * packs :])
        assert len(data) == at + 40 * packs + text
        return {
            struct.pack(">Q", prefixes[n]) + rests[n]: (
                pack[record[rows[n]][0]],
                record[rows[n]],
                offsets[n],
                lengths[n],
                words["sessions"][pack[record[rows[n]][0]][3]],
            )
            for n in range(count)
        }

    def index(self) -> dict[bytes, tuple[Any, ...]]:
        found: dict[bytes, tuple[Any, ...]] = {}
        for name in self.objects:
            if name.startswith("index/"):
                payload = self.small(name, 5)
                digest = blake3(payload, key=derive(self.id_key, "vault/index-name", self.vault)).hexdigest()[:32]
                assert name.endswith("-" + digest)
                found.update(self.table(payload))
        return found

    def pack_table(self, name: str) -> dict[bytes, tuple[Any, ...]]:
        kind = 7 if name.startswith("packs/m") else 6
        pack, key_id, rest = self.beginning(name, kind)
        data = self.objects[name]
        head = data[: len(data) - len(rest) + 1 + rest[0]]
        session = rest[1 : 1 + rest[0]]
        offset, length, _, again, magic = struct.unpack("<QII16s8s", data[-40:])
        assert (again, magic) == (pack, b"CASOPEND")
        key = derive(self.keys[key_id], "vault/pack-table", framed(self.vault, name.encode(), session))
        return self.table(AESGCM(key).decrypt(bytes(12), data[offset : offset + length], head + data[-40:]))

    def chunk(self, id: bytes) -> bytes:
        (pack, _, kind, _, _, _), (_, number, at, length, raw, flags), offset, size, session = self.where[id]
        name = f"packs/{'m' if kind == 7 else 'd'}/{pack.hex()[:2]}/{pack.hex()}"
        _, key_id, _ = self.beginning(name, kind)
        data = self.objects[name]
        stored, stored_flags, digest = struct.unpack_from("<IB16s", data, at)
        assert (stored, stored_flags) == (length, flags)
        if not flags & 2:
            assert digest == blake3(id + struct.pack("<II", 0, raw)).digest()[:16]
        aad = b"vault/record" + struct.pack("<IIB", number, raw, flags) + digest
        key = derive(self.keys[key_id], f"vault/{DOMAINS[kind]}", framed(self.vault, name.encode(), session.encode()))
        plain = AESGCM(key).decrypt(number.to_bytes(12, "big"), data[at + 21 : at + 21 + length + 16], aad)
        plain = zstd.decompress(plain) if flags & 1 else plain
        assert len(plain) == raw
        piece = plain[offset : offset + size]
        assert blake3(piece, key=self.id_key).digest() == id
        return piece

    def sets(self) -> Iterator[dict[str, Any]]:
        for name in self.objects:
            if name.startswith("sets/"):
                yield msgpack.unpackb(self.small(name, 4))["set"]

    def entries(self, id: bytes) -> Iterator[list[Any]]:
        data = self.chunk(id)
        if data[:2] == b"N\x01":
            for _, below, _ in msgpack.unpackb(data[3:]):
                yield from self.entries(below)
        else:
            assert data[:2] == b"L\x01"
            yield from msgpack.unpackb(data[2:])[1]

    def file(self, entry: list[Any]) -> bytes:
        packed = entry[14]
        for list_id in (entry[15] or {}).get("chunk_lists", ()):
            part = self.chunk(list_id)
            assert part[:2] == b"C\x01"
            packed += part[2:]
        return b"".join(self.chunk(packed[at : at + 32]) for at in range(0, len(packed), 36))


def plain_place(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without the row numbers, which differ between the table of a pack and a segment."""
    pack, record, offset, length, session = place
    return pack[:3], pack[5], record[1:], offset, length, session


def test_the_page_is_enough_to_read_a_vault(world: World) -> None:
    files = sample_files(400) | {b"z/long": b"".join(b"%8d" % n for n in range(1_100_000 // 8))}
    vault = world.vault()
    with world.session(vault, "s1") as session:
        lane = session.lane()
        root, entries = world.tree(session, lane, files)
        session.publish(world.set("set1", root, entries))
        bundle = [b"tiny one", b"tiny two"]
        members = [(blake3(data, key=world.id_key).digest(), n * 8, 8) for n, data in enumerate(bundle)]
        assert all(session.claim(chunk) for chunk, _, _ in members)
        lane.add_bundle(b"".join(bundle), members)
        long = tuple((members[0][0], 8) for _ in range(1500))
        writer = TreeWriter(lambda data: world.store(session, lane, data, metadata=True))
        writer.add(Entry(b"a/link", EntryType.SYMLINK, 0o777, modified=(-5, 7), link_target=b"../etc"))
        writer.add(Entry(b"b", EntryType.FILE, 0o600, size=12_000, chunks=long))
        session.publish(world.set("set2", writer.finish(), 2))

    reader = PageReader(world.backend.objects, "alpha", world.alpha._encryption, world.id_key)
    first, second = reader.sets()
    assert (first["id"], first["source"], first["roots"]) == ("set1", "alpha", [b"srv"])
    assert {entry[0]: reader.file(entry) for entry in reader.entries(first["root"])} == files
    link, big = reader.entries(second["root"])
    assert (link[:3], link[8:10], link[15]["link_target"]) == ([b"a/link", 3, 0o777], [-5, 7], b"../etc")
    assert reader.file(big) == b"tiny one" * 1500
    assert reader.chunk(members[1][0]) == b"tiny two"
    for name in world.backend.objects:
        if name.startswith("packs/"):
            for id, place in reader.pack_table(name).items():
                assert plain_place(place) == plain_place(reader.where[id])
