"""A reader written from ``docs/format.md`` alone: it uses nothing of the product but the vault to read."""

from __future__ import annotations

import os
import pathlib
import random
import re
import struct
import subprocess
import sys
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from mesh.trees import MEGABYTE, assert_equal, make_tree
from page_reader import Vault, derive, framed
from vault_world import World, sample_files

from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.vault.tree import TreeWriter

READER = pathlib.Path(__file__).with_name("page_reader.py")


class PackReader(Vault):
    """Reads the table at the end of a pack, too: what a lost index is made of again."""

    def pack_table(self, name: str) -> dict[bytes, tuple[Any, ...]]:
        data, pack, key_id, rest = self.beginning(name, 7 if name.startswith("packs/m") else 6)
        head, session = data[: len(data) - len(rest) + 1 + rest[0]], rest[1 : 1 + rest[0]]
        offset, length, _, again, magic = struct.unpack("<QII16s8s", data[-40:])
        assert (again, magic) == (pack, b"CASOPEND")
        key = derive(self.keys[key_id], "vault/pack-table", framed(self.name, name.encode(), session))
        table = AESGCM(key).decrypt(bytes(12), data[offset : offset + length], head + data[-40:])
        return dict(self.table(table)[0])


def content(reader: Vault, entry: list[Any]) -> bytes:
    return b"".join(piece for _, piece in reader.pieces(entry))


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

    objects = world.backend.objects
    reader = PackReader(objects, objects.__getitem__, "alpha", world.alpha._encryption, world.id_key)
    first, second = reader.sets()
    assert (first["id"], first["source"], first["roots"]) == ("set1", "alpha", [b"srv"])
    assert {entry[0]: content(reader, entry) for entry in reader.entries(first["root"])} == files
    link, big = reader.entries(second["root"])
    assert (link[:3], link[8:10], link[15]["link_target"]) == ([b"a/link", 3, 0o777], [-5, 7], b"../etc")
    assert content(reader, big) == b"tiny one" * 1500
    assert reader.chunk(members[1][0]) == b"tiny two"
    for name in world.backend.objects:
        if name.startswith("packs/"):
            for id, place in reader.pack_table(name).items():
                assert plain_place(place) == plain_place(reader.where[id])


def test_the_reader_is_short_and_knows_nothing_of_the_product() -> None:
    text = READER.read_text("utf-8")
    assert len(text.splitlines()) < 200
    assert not re.search(r"^\s*(import|from) caso_mesh", text, re.MULTILINE)


def test_the_page_and_a_kit_are_enough_to_restore_what_the_product_stored(process_mesh, tmp_path):
    """A full set and an incremental one of real daemons: content, holes, links, owners, modes, attributes and times."""
    mesh, disk, tree = process_mesh(1), tmp_path / "disk", make_tree(tmp_path / "data", files=300)
    with (tree / "odd" / "holes").open("wb") as file:
        for at in (0, 9 * MEGABYTE, 30 * MEGABYTE):
            os.pwrite(file.fileno(), b"data" * 20_000, at)
        file.truncate(40 * MEGABYTE)
    (tree / "odd" / "long").write_bytes(random.Random(1).randbytes(5 * MEGABYTE) * 2)
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    (tmp_path / "passphrase").write_text("four words of mine\n")
    mesh.ok("alpha", "kit", "create", str(tmp_path / "kit"), "--passphrase-file", str(tmp_path / "passphrase"))
    one = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")["set"]
    (tree / "odd" / "new").write_text("since the first set")
    (tree / "odd" / "hard").unlink()
    two = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--type", "incremental", "--wait")["set"]

    def read(*more: str) -> list[str]:
        words = [sys.executable, "-I", str(READER), str(disk), str(tmp_path / "kit"), str(tmp_path / "passphrase")]
        done = subprocess.run([*words, *more], capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return [line.split()[0] for line in done.stdout.splitlines()]

    assert sorted(read()) == sorted([one, two])
    read(two, str(tmp_path / "back"))
    back = tmp_path / "back" / str(tree)[1:]
    assert_equal(tree, back)
    assert (back / "odd" / "holes").stat().st_blocks == (tree / "odd" / "holes").stat().st_blocks
