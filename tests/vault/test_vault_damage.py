"""Damage and forgery: whatever was changed is noticed, is named, and stops nothing else."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from vault_world import MemoryBackend, Server, World, sample_files

from caso_mesh.model.errors import CasoError, DataDamaged, DeviceError
from caso_mesh.vault.chunking import chunk_id
from caso_mesh.vault.mesh_copies import put_copy, seal_copy
from caso_mesh.vault.names import parse_pack
from caso_mesh.vault.objects import Signer
from caso_mesh.vault.packing import ZSTD, zstd
from caso_mesh.vault.vault import BackupSet, Vault, load_keys, read_header

FILES = sample_files(30)


@pytest.fixture
def filled(world: World) -> tuple[World, BackupSet]:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", FILES)
    return world, backup_set


def findings(world: World, backend: MemoryBackend) -> list[str]:
    """All that a thorough look at a vault complains about."""
    try:
        header = read_header(backend)
        keys = load_keys(backend, "alpha", world.alpha.unwrap, world.id_key)
    except CasoError as error:
        return [error.message]
    assert header is not None
    vault = Vault(backend, header, keys, verify=world.verify, cache_folder=None)
    vault.refresh()
    vault.open_sessions()
    told: list[str] = []
    for backup_set in vault.sets():
        told.extend(error.message for _, error in vault.verify_set(backup_set))
    return told + vault.problems()


def names(world: World) -> list[str]:
    return [re.sub(r"[0-9a-f]{32}|(?<=/)[0-9a-f]{2}(?=/)", "*", name) for name in world.backend.objects]


def test_a_sound_vault_has_no_findings(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    assert findings(world, world.backend) == []
    assert sorted(names(world)) == [
        "format",
        "index/walpha/00000001-*",
        "keys/k1",
        "packs/d/*/*",
        "packs/m/*/*",
        "sessions/walpha/s1",
        "sessions/walpha/s1.closed",
        "sets/walpha/s1-1",
        "writers/walpha",
    ]


@pytest.mark.parametrize(
    "prefix", ["format", "index/", "keys/", "packs/d", "packs/m", "sessions/walpha/s1", "sets/", "writers/"]
)
def test_a_flipped_bit_anywhere_is_noticed_and_names_the_object(filled: tuple[World, BackupSet], prefix: str) -> None:
    world, _ = filled
    for name in [name for name in world.backend.objects if name.startswith(prefix)]:
        content = world.backend.objects[name]
        parsed = parse_pack(name)
        label = name if parsed is None else parsed[0].hex()
        edges = {*range(64), *range(len(content) - 64, len(content))}
        for position in sorted(
            {p for p in edges if 0 <= p < len(content)} | {*range(0, len(content), len(content) // 60 + 1)}
        ):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            told = findings(world, MemoryBackend({**world.backend.objects, name: bytes(damaged)}))
            assert any(label in problem for problem in told), f"{name}, byte {position}: {told}"


@pytest.mark.parametrize("prefix", ["index/", "keys/", "packs/d", "packs/m", "sets/", "writers/"])
def test_an_object_that_was_truncated_or_emptied_is_noticed(filled: tuple[World, BackupSet], prefix: str) -> None:
    world, _ = filled
    name = next(name for name in world.backend.objects if name.startswith(prefix))
    content = world.backend.objects[name]
    for size in (0, 1, 26, 60, len(content) // 2, len(content) - 1):
        assert findings(world, MemoryBackend({**world.backend.objects, name: content[:size]}))


def test_a_pack_without_its_end_is_no_pack(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    name = next(name for name in world.backend.objects if name.startswith("packs/d"))
    objects = {other: data for other, data in world.backend.objects.items() if not other.startswith("index/")}
    objects[name] = objects[name][:-1]
    vault = world.vault(backend=MemoryBackend(objects))
    assert vault.rebuild_index() == 1
    assert [problem for problem in vault.problems() if name in problem]


def place_of(world: World, backup_set: BackupSet, path: bytes) -> tuple[int, int]:
    """Where the record of a file begins in its pack, and the raw length of its content."""
    vault = world.vault()
    entry = vault.tree(backup_set.root).lookup(path)
    assert entry is not None
    ((segment, row),) = vault._segments.index.find_all(entry.chunks[0][0])
    record = segment.table.records[segment.table.record[row]]
    return int(record["offset"]), entry.chunks[0][1]


def test_verify_names_the_files_that_are_hit_and_only_those(filled: tuple[World, BackupSet]) -> None:
    world, backup_set = filled
    victim = b"srv/f0013"
    offset, length = place_of(world, backup_set, victim)
    name = next(name for name in world.backend.objects if name.startswith("packs/d"))
    content = bytearray(world.backend.objects[name])
    content[offset + 30] ^= 1
    world.backend.objects[name] = bytes(content)
    progress: list[tuple[int, int]] = []
    damage = world.vault().verify_set(backup_set, on_progress=lambda done, total: progress.append((done, total)))
    assert [path for path, _ in damage] == [victim]
    assert progress
    assert progress[-1][0] == progress[-1][1] - length


def test_a_sector_that_cannot_be_read_costs_only_what_lies_there(filled: tuple[World, BackupSet]) -> None:
    world, backup_set = filled
    bad = place_of(world, backup_set, b"srv/f0021")[0] + 5

    class BadSector(MemoryBackend):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            if name.startswith("packs/d") and length is not None and offset <= bad < offset + length:
                raise DeviceError(device="disk", detail="Input/output error")
            return super().get(name, offset, length)

    damage = world.vault(backend=BadSector(world.backend.objects)).verify_set(backup_set)
    assert [path for path, _ in damage] == [b"srv/f0021"]


def test_a_damaged_copy_is_passed_over_if_there_is_a_sound_one(world: World) -> None:
    """Two writers that stored the same at once leave two copies: either serves."""
    first = world.session(world.vault(), "s1")
    second = world.session(world.vault(world.beta), "s2", world.beta)
    chunks = []
    for session in (first, second):
        chunks = [world.store(session, lane := session.lane(), b"the same %d" % number * 50) for number in range(5)]
        lane.flush()
    first.close()
    second.close()
    for name in [name for name in world.backend.objects if name.startswith("packs/d")]:
        for change in (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], lambda _: None):
            objects = dict(world.backend.objects)
            changed = change(objects.pop(name))
            if changed is not None:
                objects[name] = changed
            found = dict(world.vault(backend=MemoryBackend(objects)).read_many(chunks))
            assert [bytes(found[chunk]) for chunk in chunks] == [b"the same %d" % n * 50 for n in range(5)]  # type: ignore[arg-type]


def test_a_set_signed_by_somebody_else_is_not_there(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    world.roster["alpha"] = Server("alpha").public
    vault = world.vault()
    assert list(vault.sets()) == []
    vault.refresh()
    for prefix in ("sets/", "index/", "writers/"):
        assert [problem for problem in vault.problems() if problem.startswith(prefix) and "sign" in problem]


def test_a_server_cannot_publish_under_the_writer_of_another(filled: tuple[World, BackupSet]) -> None:
    world, backup_set = filled
    vault = world.vault()
    sealed = vault._store
    before = dict(world.backend.objects)
    payload, _ = sealed.read(*_set_object(world))
    name = _set_object(world)[1].replace("s1-1", "s1-2")
    for signer in (world.beta.signer, Signer("alpha", world.beta.signer.sign)):
        sealed.write(_set_object(world)[0], name, payload, signer)
        fresh = world.vault()
        assert list(fresh.sets()) == [backup_set]
        assert any(name in problem for problem in fresh.problems())
        world.backend.objects.clear()
        world.backend.objects.update(before)


def _set_object(world: World):
    from caso_mesh.vault.names import Kind

    return Kind.SET, next(name for name in world.backend.objects if name.startswith("sets/"))


def test_an_object_moved_to_another_name_or_vault_does_not_open(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    for prefix, new in (
        ("sets/", "sets/walpha/s1-2"),
        ("writers/", "writers/wother"),
        ("packs/d", "packs/d/00/" + "0" * 32),
    ):
        name = next(name for name in world.backend.objects if name.startswith(prefix))
        objects = {new if other == name else other: data for other, data in world.backend.objects.items()}
        assert findings(world, MemoryBackend(objects)) or prefix == "writers/"
        if prefix == "packs/d":
            continue
        vault = world.vault(backend=MemoryBackend(objects))
        assert list(vault.sets()) == []


def test_foreign_objects_are_reported_and_passed_over(filled: tuple[World, BackupSet]) -> None:
    world, backup_set = filled
    junk = ["index/x", "sets/walpha/s1-01", "sessions/readme", "writers/A", "keys/a.b", "packs/d/zz/readme"]
    for name in junk:
        world.backend.objects[name] = b"junk"
    vault = world.vault()
    vault.refresh()
    vault.open_sessions()
    vault.rebuild_index()
    assert list(vault.sets()) == [backup_set]
    assert world.restore(vault, backup_set) == FILES
    for name in junk:
        assert [problem for problem in vault.problems() if problem.startswith(name)], name


def test_the_same_set_twice_is_reported_and_counted_once(filled: tuple[World, BackupSet]) -> None:
    world, backup_set = filled
    vault = world.vault()
    with world.session(vault, "s2") as session:
        session.publish(backup_set)
    fresh = world.vault()
    assert list(fresh.sets()) == [backup_set]
    assert [problem for problem in fresh.problems() if "s2-1" in problem]


def test_a_segment_that_lies_about_anothers_pack_is_not_believed(world: World) -> None:
    """The first reuse out of another writer's pack compares the segment with the pack's own table."""
    liar = world.vault(world.beta)
    session = world.session(liar, "s1", world.beta)
    world.store(session, lane := session.lane(), b"something else")
    lane.flush()
    session.packs.wait()
    (table,) = session.packs.take_done()
    promised = chunk_id(world.id_key, b"never stored")
    table.prefix[:] = int.from_bytes(promised[:8], "big")
    table.rest[:] = np.frombuffer(promised[8:], np.uint64)
    liar._segments.add("wbeta", world.beta.signer, [table])
    session.close()

    vault = world.vault()
    with world.session(vault, "s2") as writing:
        assert writing.have([promised]) == [False]
        chunk = world.store(writing, writing.lane(), b"never stored")
    assert any("says something else" in problem for problem in vault.problems())
    assert world.vault().read(chunk) == b"never stored"


def test_a_pack_that_is_gone_is_not_reused(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    name = next(name for name in world.backend.objects if name.startswith("packs/d"))
    del world.backend.objects[name]
    vault = world.vault()
    with world.session(vault, "s2") as session:
        again = world.backup(vault, session, "set2", FILES)
    assert any(name in problem for problem in vault.problems())
    assert world.restore(world.vault(), again) == FILES


def test_a_bomb_in_a_record_is_damage_of_its_own_chunk_only(world: World) -> None:
    """A writer that lies about the raw length: the reader unpacks no more than was claimed."""
    vault = world.vault()
    with world.session(vault, "s1") as session:
        lane = session.lane()
        bomb = chunk_id(world.id_key, b"bomb")
        assert session.claim(bomb)
        lane.add_packed(ZSTD, zstd.compress(bytes(50_000_000)), 4, [(bomb, 0, 4)])
        good = world.store(session, lane, b"good")
    found = dict(world.vault().read_many([bomb, good]))
    assert isinstance(found[bomb], DataDamaged)
    assert found[good] == b"good"


def test_content_that_is_not_that_of_its_id_is_damage(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        wrong = chunk_id(world.id_key, b"what it says")
        assert session.claim(wrong)
        session.lane().add(wrong, b"what it is!!")
    with pytest.raises(DataDamaged, match="not that of the id"):
        world.vault().read(wrong)


def test_verify_notices_a_tree_that_has_other_entries_than_the_set_says(world: World) -> None:
    vault = world.vault()
    session = world.session(vault, "s1")
    root, entries = world.tree(session, session.lane(), FILES)
    session.publish(world.set("set1", root, entries + 1))
    session.close()
    ((path, error),) = vault.verify_set(vault.load_set("set1"))
    assert path == b""
    assert "entries" in error.message


@pytest.fixture
def every_kind(filled: tuple[World, BackupSet]) -> tuple[World, BackupSet]:
    """A vault with an object of each kind, and a second set that shares nothing with the first."""
    world, first = filled
    vault = world.vault()
    with world.session(vault, "s2") as session:
        world.backup(vault, session, "set2", {b"other/" + path: b"other" + data for path, data in FILES.items()})
    vault.holds.add(first.id, "lock", at_ns=1, who="ann", signer=world.alpha.signer, until_ns=2)
    _, data_pack = sorted(name for name in world.backend.objects if name.startswith("packs/d"))
    whole = world.backend.objects.pop(data_pack)
    for each in vault.sets():
        vault.verify_set(each)
    vault.write_down_damage("walpha", world.alpha.signer, attempt="verify@1#1", at_ns=1)
    world.backend.objects[data_pack] = whole
    kit = os.urandom(32)
    public = X25519PrivateKey.from_private_bytes(kit).public_key().public_bytes_raw()
    put_copy(world.backend, seal_copy(b"the mesh", {"kit": public}, mesh=world.mesh_id, randomness=os.urandom))
    return world, first


def test_garbage_in_place_of_an_object_of_any_kind_stops_nothing_else(every_kind: tuple[World, BackupSet]) -> None:
    world, _ = every_kind
    objects = dict(world.backend.objects)
    assert len({name.partition("/")[0] for name in objects}) == 10
    alike = next(data for name, data in objects.items() if name.startswith("writers/"))
    for name, content in objects.items():
        for garbage in (b"", bytes(4096), os.urandom(4096), alike, content[:27] + os.urandom(200), content + content):
            if garbage == content:
                continue
            backend = MemoryBackend({**objects, name: garbage})
            told = findings(world, backend)  # raises nothing but errors of the tree
            if not name.startswith("mesh/"):
                assert told, name
            if name.startswith(("format", "keys/", "writers/")):
                continue
            vault = world.vault(backend=backend)
            with world.session(vault, "after") as session:
                made = world.backup(vault, session, "after", FILES)
            assert world.restore(world.vault(backend=backend), made) == FILES, name
            sound = [each for each in world.vault(backend=backend).sets() if not vault.verify_set(each)]
            assert made in sound, (name, len(garbage), vault.problems(), vault.verify_set(made))
            assert len(sound) >= 2, name
