"""Writing and reading a vault: sessions, deduplication, keys, index, merging, adoption."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from vault_world import MemoryBackend, Server, World, sample_files

from caso_mesh.devices.folder import FolderBackend
from caso_mesh.model.errors import (
    CasoError,
    Conflict,
    DataDamaged,
    DeviceError,
    DeviceFull,
    DeviceVanished,
    Misuse,
    NoKey,
    NotFound,
    ObjectExists,
    ObjectMissing,
    VaultTooNew,
)
from caso_mesh.vault import packs as packs_module
from caso_mesh.vault.chunking import ChunkerParameters, chunk_id
from caso_mesh.vault.packing import ZSTD, zstd
from caso_mesh.vault.vault import (
    Vault,
    VaultKeys,
    add_recipients,
    create_content_key,
    create_vault,
    load_keys,
    read_header,
)


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs out of little data."""
    monkeypatch.setattr(packs_module, "DATA_PACK_SIZE", 20_000)
    monkeypatch.setattr(packs_module, "METADATA_PACK_SIZE", 5_000_000)


def packs_of(backend: MemoryBackend, kind: str = "") -> list[str]:
    return [name for name in backend.objects if name.startswith(f"packs/{kind}")]


def test_a_folder_without_a_vault_has_no_header() -> None:
    assert read_header(MemoryBackend()) is None


def test_a_vault_is_made_once(world: World) -> None:
    header = world.header()
    assert (header.vault, header.mesh, header.chunker) == (world.vault_id, world.mesh_id, ChunkerParameters(seed=7))
    with pytest.raises(ObjectExists):
        create_vault(world.backend, vault="other", mesh="m", chunker=ChunkerParameters(seed=1))


def test_a_newer_format_says_so() -> None:
    backend = MemoryBackend()
    create_vault(backend, vault="v", mesh="m", chunker=ChunkerParameters(seed=1))
    for old, new in ((b'"version":1', b'"version":9'), (b"aes-256-gcm", b"rot-13")):
        line = backend.objects["format"].partition(b"\n")[0].replace(old, new) + b"\n"
        newer = MemoryBackend({"format": line + blake3(line).hexdigest().encode() + b"\n"})
        with pytest.raises(VaultTooNew):
            read_header(newer)


def test_a_set_comes_back_whole_from_another_server(world: World) -> None:
    files = sample_files(300)
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", files)
        assert session.bytes_stored >= sum(len(world.backend.objects[name]) for name in packs_of(world.backend))
    other = world.vault(world.beta)
    assert list(other.sets()) == [backup_set]
    assert other.load_set("set1") == backup_set
    assert world.restore(other, backup_set) == files
    assert other.verify_set(backup_set) == []
    assert other.problems() == []
    with pytest.raises(NotFound):
        other.load_set("set2")


def test_it_works_in_a_real_folder(world: World, tmp_path: Path) -> None:
    backend = FolderBackend(str(tmp_path), "disk", marker=None)
    try:
        create_vault(backend, vault=world.vault_id, mesh=world.mesh_id, chunker=ChunkerParameters(seed=1))
        recipients = {"alpha": world.alpha.encryption_public}
        create_content_key(backend, recipients, key_id="k1", randomness=os.urandom, id_key=world.id_key)
        header, keys = read_header(backend), load_keys(backend, "alpha", world.alpha.unwrap, world.id_key)
        assert header is not None
        vault = Vault(backend, header, keys, verify=world.verify, cache_folder=None)
        files = sample_files(100)
        with world.session(vault, "s1") as session:
            backup_set = world.backup(vault, session, "set1", files)
        assert world.restore(Vault(backend, header, keys, verify=world.verify, cache_folder=None), backup_set) == files
    finally:
        backend.close()


@pytest.mark.usefixtures("small_packs")
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_is_added_in_whatever_way_is_read_back(data: st.DataObject) -> None:
    world = World()
    vault = world.vault()
    kept: dict[bytes, bytes] = {}
    with world.session(vault, "s1") as session:
        lanes = [session.lane(), session.lane()]
        for number in range(data.draw(st.integers(1, 25))):
            lane = data.draw(st.sampled_from(lanes))
            size = data.draw(st.integers(1, 9000))
            content = blake3(b"%d" % number).digest(size) if data.draw(st.booleans()) else b"%d," % number * size
            content = content[:9000]
            way = data.draw(st.sampled_from(["add", "metadata", "bundle", "packed", "flush"]))
            chunk = chunk_id(world.id_key, content)
            if way == "flush":
                session.flush()
            elif way == "bundle":
                members, position = [], 0
                while position < len(content):
                    step = data.draw(st.integers(1, 4000))
                    piece = content[position : position + step]
                    chunk = chunk_id(world.id_key, piece)
                    if session.claim(chunk):
                        members.append((chunk, position, len(piece)))
                        kept[chunk] = piece
                    position += len(piece) + data.draw(st.integers(0, 5))
                if members:
                    lane.add_bundle(content, members)
            elif session.claim(chunk):
                kept[chunk] = content
                if way == "packed":
                    lane.add_packed(ZSTD, zstd.compress(content), len(content), [(chunk, 0, len(content))])
                else:
                    lane.add(chunk, memoryview(content), metadata=way == "metadata")
        assert session.have(list(kept)) == [True] * len(kept)
    fresh = world.vault(world.beta)
    fresh.refresh()
    assert {chunk: bytes(content) for chunk, content in fresh.read_many(list(kept))} == kept  # type: ignore[arg-type]
    assert fresh.problems() == []


def test_two_writers_at_once_share_what_is_stored_and_both_read_back(world: World) -> None:
    common, rounds = sample_files(200), 3
    results: dict[str, dict[bytes, bytes]] = {}
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def work(server: Server) -> None:
        try:
            vault = world.vault(server)
            barrier.wait(10)
            for number in range(rounds):
                files = (
                    common | sample_files(50, salt=b"%d" % number) | {b"own/" + server.name.encode(): os.urandom(9000)}
                )
                with world.session(vault, f"{server.name}{number}", server) as session:
                    set_id = f"{server.name}-{number}"
                    world.backup(vault, session, set_id, files, server)
                    results[set_id] = files
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(server,)) for server in (world.alpha, world.beta)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    fresh = world.vault()
    sets = list(fresh.sets())
    assert {backup_set.id for backup_set in sets} == results.keys()
    for backup_set in sets:
        assert world.restore(fresh, backup_set) == results[backup_set.id]
        assert fresh.verify_set(backup_set) == []
    assert fresh.problems() == []
    with world.session(fresh, "last") as session:
        world.backup(fresh, session, "last", results["beta-0"])
        assert session.bytes_stored < 60_000  # the tree is new, no content is


def test_one_id_is_claimed_by_one_of_many_threads_only(world: World) -> None:
    session = world.session(world.vault(), "s1")
    ids = [chunk_id(world.id_key, b"%d" % number) for number in range(2000)]
    won: list[bytes] = []

    def claim_all() -> None:
        won.extend([chunk for chunk in ids if session.claim(chunk)])

    threads = [threading.Thread(target=claim_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    session.abort()
    assert sorted(won) == sorted(ids)


def test_thousands_of_small_files_in_bundles_take_a_few_records(world: World) -> None:
    vault = world.vault()
    files = [b"small file %d\n" % number * 20 for number in range(5000)]
    with world.session(vault, "s1") as session:
        lane = session.lane()
        for begin in range(0, len(files), 1000):
            members, position = [], 0
            for content in files[begin : begin + 1000]:
                members.append((chunk_id(world.id_key, content), position, len(content)))
                position += len(content)
            assert all(session.claim(chunk) for chunk, _, _ in members)
            lane.add_bundle(b"".join(files[begin : begin + 1000]), members)
    assert len(packs_of(world.backend)) == 1
    reader = world.vault(world.beta)
    world.backend.calls = 0
    reader.refresh()
    ids = [chunk_id(world.id_key, content) for content in files]
    found = dict(reader.read_many(ids))
    assert [bytes(found[chunk]) for chunk in ids] == files  # type: ignore[arg-type]
    assert world.backend.calls < 20


def test_reading_that_is_given_up_ends_its_threads_and_reads_no_further(world: World, small_packs: None) -> None:
    vault = world.vault()
    contents = [bytes([number]) + os.urandom(9000) for number in range(60)]
    with world.session(vault, "s1") as session:
        lane = session.lane()
        for content in contents:
            assert session.claim(chunk_id(world.id_key, content))
            lane.add(chunk_id(world.id_key, content), content)
    assert len(packs_of(world.backend, "d")) >= 20
    before, world.backend.calls = threading.active_count(), 0
    found = vault.read_many([chunk_id(world.id_key, content) for content in contents])
    next(iter(found))
    assert threading.active_count() > before
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert world.backend.calls < 15


def test_what_an_earlier_session_stored_is_not_added_again(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        world.backup(vault, session, "set1", sample_files(50))
    stored = packs_of(world.backend)
    with world.session(world.vault(world.beta), "s2", world.beta, parents=["set1"]) as session:
        chunk = chunk_id(world.id_key, sample_files(50)[b"srv/f0001"])
        assert session.have([chunk, bytes(32)]) == [True, False]
        assert not session.claim(chunk)
    assert packs_of(world.backend) == stored


def test_a_parent_that_is_not_there_ends_the_session(world: World) -> None:
    vault = world.vault()
    with pytest.raises(NotFound):
        world.session(vault, "s1", parents=["gone"])
    assert vault.open_sessions() == []


def test_a_writer_belongs_to_one_server(world: World) -> None:
    vault = world.vault()
    vault.register_writer("w", world.alpha.signer)
    vault.register_writer("w", world.alpha.signer)
    with pytest.raises(Conflict):
        world.vault(world.beta).register_writer("w", world.beta.signer)


def test_sets_are_numbered_without_gaps_and_a_session_is_used_once(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        for number in range(3):
            world.backup(vault, session, f"set{number}", sample_files(3))
    names = [name for name in world.backend.objects if name.startswith("sets/")]
    assert names == [f"sets/walpha/s1-{number}" for number in (1, 2, 3)]
    with pytest.raises(ObjectExists):
        world.session(vault, "s1")
    with pytest.raises(Misuse):
        session.claim(bytes(32))


def test_a_set_of_another_vault_or_server_is_not_published(world: World) -> None:
    vault = world.vault()
    session = world.session(vault, "s1")
    for wrong in (world.set("x", bytes(32), 0, world.beta),):
        with pytest.raises(Misuse):
            session.publish(wrong)
    session.abort()
    assert list(vault.sets()) == []


def test_members_that_overlap_or_reach_beyond_are_misuse(world: World) -> None:
    session = world.session(world.vault(), "s1")
    lane = session.lane()
    chunk = bytes(32)
    for members in ([(chunk, 0, 11)], [(chunk, 0, 5), (chunk, 4, 2)], [(chunk, 0, 0)], [], [(b"short", 0, 1)]):
        with pytest.raises(Misuse):
            lane.add_bundle(b"0123456789", members)
    with pytest.raises(Misuse):
        lane.add(chunk, bytes(5_000_000), metadata=True)
    with pytest.raises(Misuse):
        lane.add_packed(2, b"x", 1, [(chunk, 0, 1)])
    session.abort()


def test_a_full_device_is_told_at_the_next_call_and_no_thread_stays(world: World) -> None:
    vault = world.vault()
    session = world.session(vault, "s1")
    world.backend.errors["put packs/"] = DeviceFull(device="disk")
    lane = session.lane()
    world.store(session, lane, b"x" * 1000)
    with pytest.raises(DeviceFull):
        session.flush()
    with pytest.raises(DeviceFull):
        lane.add(bytes(32), b"y")
    with pytest.raises(DeviceFull):
        session.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "vault-packs"]
    assert [record.session for record in vault.open_sessions()] == ["s1"]


@pytest.mark.usefixtures("small_packs")
def test_packs_of_a_dead_session_are_adopted_and_not_stored_again(world: World) -> None:
    files = sample_files(60)
    dead = world.session(world.vault(), "dead")
    world.tree(dead, lane := dead.lane(), files)
    lane.flush()
    dead.abort()
    left = set(packs_of(world.backend))
    assert left

    vault = world.vault()
    assert [(record.session, record.attempt) for record in vault.open_sessions("walpha")] == [("dead", "job@1#1")]
    with world.session(vault, "again") as session:
        assert session.adopt(["dead"]) == sum(len(world.backend.objects[name]) for name in left)
        backup_set = world.backup(vault, session, "set1", files)
        vault.end_session("walpha", "dead", world.alpha.signer)
        vault.end_session("walpha", "dead", world.alpha.signer)
        assert session.bytes_stored < 20_000
    assert set(packs_of(world.backend)) == left
    assert vault.open_sessions() == []
    fresh = world.vault(world.beta)
    assert world.restore(fresh, backup_set) == files
    assert fresh.verify_set(backup_set) == []


def test_packs_of_sessions_that_were_not_named_are_left_alone(world: World) -> None:
    other = world.session(world.vault(world.beta), "other", world.beta)
    world.tree(other, lane := other.lane(), sample_files(5))
    lane.flush()
    other.packs.wait()
    session = world.session(world.vault(), "s1")
    assert session.adopt(["dead"]) == 0
    with pytest.raises(Misuse):
        session.adopt(["s1"])
    session.abort()
    other.close()


def test_an_index_that_was_lost_is_rebuilt_from_the_packs(world: World) -> None:
    files = sample_files(60)
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", files)
    for name in [name for name in world.backend.objects if name.startswith("index/")]:
        del world.backend.objects[name]
    reader = world.vault(world.beta)
    with pytest.raises(ObjectMissing):
        world.restore(reader, backup_set)
    assert reader.rebuild_index() == 2
    assert world.restore(reader, backup_set) == files
    some = chunk_id(world.id_key, files[b"srv/f0001"])
    with world.session(reader, "s2", world.beta) as writing:
        assert writing.have([some]) == [False]  # it may belong to a session at work: only for reading
    assert world.vault().rebuild_index("walpha", world.alpha.signer) == 2
    assert world.restore(world.vault(), backup_set) == files
    assert world.vault().rebuild_index() == 0


def test_small_segments_of_one_writer_are_merged_at_the_end_of_a_session(world: World) -> None:
    vault = world.vault()
    ids = []
    with world.session(vault, "s1") as session:
        lane = session.lane()
        for number in range(20):
            ids.append(world.store(session, lane, b"content %d" % number))
            session.flush()
        reader = world.vault(world.beta)
        reader.refresh()
        assert sum(name.startswith("index/") for name in world.backend.objects) == 20
    assert sum(name.startswith("index/") for name in world.backend.objects) == 1
    for place in (vault, reader, world.vault()):
        place.refresh()
        assert sorted(bytes(data) for _, data in place.read_many(ids)) == sorted(b"content %d" % n for n in range(20))  # type: ignore[arg-type]
        assert place.problems() == []


def test_a_merge_that_was_cut_off_is_taken_up_by_the_next_one(world: World) -> None:
    vault = world.vault()
    session = world.session(vault, "s1")
    lane = session.lane()
    ids = []
    for number in range(20):
        ids.append(world.store(session, lane, b"content %d" % number))
        session.flush()
    world.backend.errors["delete index/walpha/00000003"] = DeviceError(device="disk", detail="a bad sector")
    session.close()
    assert [problem for problem in vault.problems() if "merging" in problem]
    world.backend.errors.clear()
    fresh = world.vault()
    fresh.refresh()
    assert len(dict(fresh.read_many(ids))) == 20
    with world.session(fresh, "s2") as again:
        again.flush()
    assert sum(name.startswith("index/") for name in world.backend.objects) == 1
    final = world.vault()
    assert sorted(bytes(data) for _, data in final.read_many(ids)) == sorted(b"content %d" % n for n in range(20))  # type: ignore[arg-type]


def test_the_cached_index_is_used_and_a_damaged_one_is_read_again(world: World, tmp_path: Path) -> None:
    files = sample_files(40)
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", files)
    cache = str(tmp_path / "cache")
    world.vault(cache=cache).refresh()
    (cached,) = (tmp_path / "cache" / world.vault_id).iterdir()
    assert cached.stat().st_mode & 0o777 == 0o600

    world.backend.errors["get index/"] = DeviceError(device="disk", detail="not needed")
    reader = world.vault(cache=cache)
    reader.refresh()
    assert world.restore(reader, backup_set) == files
    world.backend.errors.clear()

    for damage in (lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], lambda _: b""):
        change: Callable[[bytes], bytes] = damage
        cached.write_bytes(change(cached.read_bytes()))
        again = world.vault(cache=cache)
        assert world.restore(again, backup_set) == files
        assert again.problems() == []
    del world.backend.objects[next(name for name in world.backend.objects if name.startswith("index/"))]
    world.vault(cache=cache).refresh()
    assert list((tmp_path / "cache" / world.vault_id).iterdir()) == []


def test_a_chunk_that_is_not_there_is_told_and_the_others_come(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        lane = session.lane()
        ids = [world.store(session, lane, b"content %d" % number) for number in range(3)]
    found = dict(vault.read_many([ids[0], bytes(32), ids[1], ids[0]]))
    assert isinstance(found.pop(bytes(32)), ObjectMissing)
    assert {chunk: bytes(data) for chunk, data in found.items()} == {ids[0]: b"content 0", ids[1]: b"content 1"}  # type: ignore[arg-type]
    with pytest.raises(ObjectMissing):
        vault.read(bytes(32))


def test_what_another_writer_added_later_is_found_without_asking(world: World) -> None:
    reader = world.vault()
    reader.refresh()
    with world.session(world.vault(world.beta), "s1", world.beta) as session:
        chunk = world.store(session, session.lane(), b"late")
    assert reader.read(chunk) == b"late"


def test_a_device_that_vanishes_is_raised_and_not_taken_for_damage(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", sample_files(20))
    world.backend.errors["get packs/d"] = DeviceVanished(device="disk", detail="pulled out")
    with pytest.raises(DeviceVanished):
        vault.verify_set(backup_set)


# --- keys ---


def test_a_later_recipient_opens_what_was_written_before(world: World) -> None:
    gamma = Server("gamma")
    with pytest.raises(NoKey):
        world.keys(gamma)
    add_recipients(world.backend, world.keys(), {"gamma": gamma.encryption_public})
    assert world.keys(gamma) == world.keys()


def test_after_a_new_key_old_sets_still_open_and_new_ones_use_it(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        first = world.backup(vault, session, "set1", sample_files(10))
    recipients = {"alpha": world.alpha.encryption_public}
    create_content_key(world.backend, recipients, key_id="k2", randomness=os.urandom, id_key=world.id_key)
    assert (world.keys().write_key, world.keys(world.beta).write_key) == ("k2", "k1")
    rotated = world.vault()
    with world.session(rotated, "s2") as session:
        second = world.backup(rotated, session, "set2", sample_files(10, salt=b"new"))
    fresh = world.vault()
    assert world.restore(fresh, first) == sample_files(10)
    assert world.restore(fresh, second) == sample_files(10, salt=b"new")
    old_only = world.vault(world.beta)
    assert [backup_set.id for backup_set in old_only.sets()] == ["set1"]
    assert any("s2-1" in problem for problem in old_only.problems())


def test_a_key_that_a_stranger_wrapped_to_us_is_never_used(world: World) -> None:
    """Whoever can write to the device could otherwise make us write with a key of their own."""
    recipients = {"alpha": world.alpha.encryption_public}
    create_content_key(world.backend, recipients, key_id="zzz", randomness=os.urandom, id_key=bytes(32))
    keys = world.keys()
    assert keys.write_key == "k1"
    assert "zzz" not in keys.content_keys
    vault = world.vault()
    vault.refresh()
    assert [problem for problem in vault.problems() if problem.startswith("keys/zzz")]


def test_a_wrong_content_key_opens_nothing(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", sample_files(10))
    right = world.keys()
    wrong = VaultKeys(right.id_key, {"k1": os.urandom(32)}, "k1")
    stranger = Vault(world.backend, world.header(), wrong, verify=world.verify, cache_folder=None)
    assert list(stranger.sets()) == []
    stranger.refresh()
    assert any("another key" in problem for problem in stranger.problems())
    with pytest.raises(CasoError):
        world.restore(stranger, backup_set)
    stranger.rebuild_index()
    with pytest.raises(CasoError):
        world.restore(stranger, backup_set)
    with pytest.raises(Misuse):
        Vault(world.backend, world.header(), VaultKeys(right.id_key, {}, "k1"), verify=world.verify, cache_folder=None)


def test_a_wrong_id_key_makes_every_chunk_damaged(world: World) -> None:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        chunk = world.store(session, session.lane(), b"content")
    keys = VaultKeys(bytes(32), world.keys().content_keys, "k1")
    stranger = Vault(world.backend, world.header(), keys, verify=world.verify, cache_folder=None)
    stranger.rebuild_index()
    with pytest.raises((DataDamaged, ObjectMissing)):
        stranger.read(chunk)
