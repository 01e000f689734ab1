"""Restores a backup set out of a vault and a recovery kit, written from ``docs/format.md`` alone: it knows nothing of the
product, and stands on standard primitives. ``python page_reader.py VAULT KIT PASSPHRASE-FILE [SET TARGET]``
"""

import base64, functools, hashlib, importlib, json, os, pathlib, re, stat, struct, sys, unicodedata  # noqa: E401, I001 - short on purpose

import msgpack
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
KINDS = ("", "writer", "session", "session-closed", "set", "index", "data-pack", "metadata-pack", "content-key", "hold")
NODES = {4: stat.S_IFIFO, 5: stat.S_IFSOCK, 6: stat.S_IFCHR, 7: stat.S_IFBLK}


def derive(key, domain, context):
    info = b"caso-mesh/derive/1" + bytes([len(domain)]) + domain.encode() + struct.pack(">Q", len(context)) + context
    return HKDF(SHA256(), 32, None, info).derive(key)


def framed(*parts):
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def unwrap(wrapped, private_key, aad):
    key = X25519PrivateKey.from_private_bytes(private_key)
    shared = key.exchange(X25519PublicKey.from_public_bytes(wrapped[1:33]))
    context = wrapped[1:33] + key.public_key().public_bytes_raw() + hashlib.sha256(aad).digest()
    return AESGCM(derive(shared, "wrap/x25519", context)).decrypt(bytes(12), wrapped[33:], aad)


def open_kit(text, passphrase):
    head, _, body = text.replace("\r", "").partition("\n\n")
    sealed = base64.b64decode(body)
    assert head.startswith("caso-mesh recovery kit\nversion: 1\n") and sealed[:8] == b"CMpass\x00\x01"
    assert f"sha-256: {hashlib.sha256(sealed).hexdigest()}" in head.splitlines()
    memory, passes, lanes = struct.unpack_from(">III", sealed, 8)
    plain = unicodedata.normalize("NFC", passphrase)
    made = plain.lower().translate(str.maketrans("oil", "011", " -"))
    plain = made if re.fullmatch("[0-9abcdefghjkmnpqrstvwxyz]{26}", made) else plain
    argon = Argon2id(salt=sealed[20:36], length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    key = derive(argon.derive(plain.encode()), "passphrase", b"recovery-kit/1")
    return msgpack.unpackb(AESGCM(key).decrypt(sealed[36:48], sealed[48:], sealed[:48]))


class Vault:
    """``objects``: names, and ``read(name)``. The recipient is a node or a kit, with its private key."""

    def __init__(self, objects, read, recipient, private_key, id_key):
        self.objects, self.read, self.id_key = sorted(objects), functools.lru_cache(2)(read), id_key
        line, check = read("format").splitlines()
        assert check == blake3(line + b"\n").hexdigest().encode()
        header = json.loads(line)
        assert [header["title"], header["version"]] == ["caso-mesh vault", 1]
        self.name, self.keys = header["vault"].encode(), {}
        for name in self.below("keys"):
            data, _, key_id, rest = self.beginning(name, 8)
            mac_key = derive(id_key, "vault/content-key", framed(self.name, name.encode()))
            assert blake3(data[:-32], key=mac_key).digest() == data[-32:]
            if wrapped := msgpack.unpackb(rest[:-32])["recipients"].get(recipient):
                self.keys[key_id] = unwrap(wrapped, private_key, framed(self.name, key_id.encode()))
        segments = {name: self.segment(name) for name in self.below("index")}
        replaced = {old for _, words in segments.values() for old in words["replaces"]}
        self.where = {id: place for name in segments.keys() - replaced for id, place in segments[name][0].items()}

    def below(self, folder):
        return [name for name in self.objects if name.startswith(folder + "/")]

    def beginning(self, name, kind):
        data = self.read(name)
        assert data[:10] == b"CASOMESH\x01" + bytes([kind]), name
        end = 27 + data[26]
        return data, data[10:26], data[27:end].decode(), data[end:]

    def small(self, name, kind):
        data, salt, key_id, sealed = self.beginning(name, kind)
        key = derive(self.keys[key_id], f"vault/{KINDS[kind]}", framed(self.name, name.encode(), salt))
        plain = AESGCM(key).decrypt(bytes(12), sealed, data[: -len(sealed)])
        end = -4 - struct.unpack("<I", plain[-4:])[0]
        assert all(msgpack.unpackb(plain[end:-4]))  # a server and its signature, which only a roster can check
        return plain[:end]

    def segment(self, name):
        payload, key = self.small(name, 5), derive(self.id_key, "vault/index-name", self.name)
        assert name.endswith("-" + blake3(payload, key=key).hexdigest()[:32])
        return self.table(payload)

    def table(self, data):
        version, packs, records, text, count, zero = struct.unpack_from("<IIIIQQ", data)
        assert (version, zero) == (1, 0)
        prefixes, at = struct.unpack_from(f"<{count}Q", data, 32), 32 + 32 * count
        rows, offsets, lengths = (struct.unpack_from(f"<{count}I", data, at + 4 * count * n) for n in range(3))
        at += 12 * count + 4 * (count % 2)
        record = [struct.unpack_from("<6I", data, at + 24 * n) for n in range(records)]
        at += 24 * records
        pack = [struct.unpack_from("<16sQ4I", data, at + 40 * n) for n in range(packs)]
        words = msgpack.unpackb(data[at + 40 * packs :])
        assert len(data) == at + 40 * packs + text
        found = {}
        for n in range(count):
            its, id = pack[record[rows[n]][0]], struct.pack(">Q", prefixes[n]) + data[32 + 8 * count + 24 * n :][:24]
            found[id] = (its, record[rows[n]], offsets[n], lengths[n], words["sessions"][its[3]])
        return found, words

    def chunk(self, id):
        (pack, _, kind, *_), (_, number, at, length, raw, flags), offset, size, session = self.where[id]
        name = f"packs/{'m' if kind == 7 else 'd'}/{pack.hex()[:2]}/{pack.hex()}"
        data, _, key_id, _ = self.beginning(name, kind)
        *stored, digest = struct.unpack_from("<IB16s", data, at)
        assert stored == [length, flags]
        assert flags & 2 or digest == blake3(id + struct.pack("<II", 0, raw)).digest()[:16]
        aad = b"vault/record" + struct.pack("<IIB", number, raw, flags) + digest
        key = derive(self.keys[key_id], f"vault/{KINDS[kind]}", framed(self.name, name.encode(), session.encode()))
        plain = AESGCM(key).decrypt(number.to_bytes(12, "big"), data[at + 21 : at + 21 + length + 16], aad)
        plain = zstd.decompress(plain) if flags & 1 else plain
        piece = plain[offset : offset + size]
        assert len(plain) == raw and blake3(piece, key=self.id_key).digest() == id
        return piece

    def sets(self):
        holds = (msgpack.unpackb(self.small(name, 9)) for name in self.below("holds"))
        gone = {hold["set"] for hold in holds if hold["hold"] == "tombstone"}
        found = (msgpack.unpackb(self.small(name, 4))["set"] for name in self.below("sets"))
        return [each for each in found if each["id"] not in gone]

    def entries(self, id):
        data = self.chunk(id)
        if data[:2] == b"N\x01":
            for _, below, _ in msgpack.unpackb(data[3:]):
                yield from self.entries(below)
        else:
            assert data[:2] == b"L\x01"
            yield from msgpack.unpackb(data[2:])[1]

    def whole(self, entry, field, there, kind):
        """What stands in the entry, or in its lists: chunks, holes or xattrs."""
        parts = [self.chunk(id) for id in (entry[15] or {}).get(field, ())]
        assert all(part[:2] == kind + b"\x01" for part in parts)
        return b"".join(part[2:] for part in parts) if parts else there

    def pieces(self, entry):
        """(offset, bytes) of the chunks of a file; between them are its holes."""
        packed = self.whole(entry, "chunk_lists", entry[14], b"C")
        holes = self.whole(entry, "hole_lists", (entry[15] or {}).get("holes", b""), b"H")
        holes, offset = dict(struct.iter_unpack("<QQ", holes)), 0
        for at in range(0, len(packed), 36):
            while offset in holes:
                offset += holes[offset]
            yield offset, self.chunk(packed[at : at + 32])
            offset += struct.unpack_from("<I", packed, at + 32)[0]

    def restore(self, root, target):
        late = []
        for entry in self.entries(root):
            extra, path = entry[15] or {}, os.path.join(target, entry[0])
            os.makedirs(path if entry[1] == 2 else os.path.dirname(path), exist_ok=True)
            if "hardlink" in extra:
                os.link(os.path.join(target, extra["hardlink"]), path, follow_symlinks=False)
                continue
            if entry[1] == 1:
                with open(path, "wb") as file:
                    file.truncate(entry[7])
                    for offset, piece in self.pieces(entry):
                        os.pwrite(file.fileno(), piece, offset)
            elif entry[1] == 3:
                os.symlink(extra["link_target"], path)
            elif entry[1] in NODES:
                os.mknod(path, NODES[entry[1]] | 0o600, os.makedev(*extra.get("rdev", (0, 0))))
            late.append((entry, extra, path))
        for entry, extra, path in reversed(late):  # folders after what is in them
            if os.geteuid() == 0:
                os.chown(path, entry[3], entry[4], follow_symlinks=False)
            packed = self.whole(entry, "xattr_lists", msgpack.packb(extra.get("xattrs", ())), b"X")
            for name, value in msgpack.unpackb(packed):
                os.setxattr(path, name, value, follow_symlinks=False)
            if entry[1] != 3:
                os.chmod(path, entry[2])
            times = [s * 10**9 + ns for s, ns in (extra.get("accessed", entry[8:10]), entry[8:10])]
            os.utime(path, ns=tuple(times), follow_symlinks=False)


def main(vault, kit, passphrase_file, set_id=None, target=None):
    top, passphrase = pathlib.Path(vault), pathlib.Path(passphrase_file).read_text("utf-8").rstrip("\n")
    kit = open_kit(pathlib.Path(kit).read_text("ascii"), passphrase)
    names = [str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()]
    reader = Vault(names, lambda name: (top / name).read_bytes(), kit["id"], kit["private_key"], kit["id_key"])
    for each in reader.sets():
        print(each["id"], each["source_name"], each["files"], "files")
        if each["id"] == set_id:
            reader.restore(each["root"], os.fsencode(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
