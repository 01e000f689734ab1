"""What was found damaged is never reused: it is stored anew, and the sets that need it are whole again."""

from __future__ import annotations

import pytest
from vault_world import MemoryBackend, Server, World, sample_files

from caso_mesh.model.errors import CasoError, DataDamaged, DeviceError, DeviceFull
from caso_mesh.vault.names import parse_pack
from caso_mesh.vault.vault import BackupSet, Vault

FILES = sample_files(30)


@pytest.fixture
def filled(world: World) -> tuple[World, BackupSet]:
    vault = world.vault()
    with world.session(vault, "s1") as session:
        backup_set = world.backup(vault, session, "set1", FILES)
    return world, backup_set


def write_down(world: World, vault: Vault, server: Server | None = None) -> int:
    server = server or world.alpha
    return vault.write_down_damage(f"w{server.name}", server.signer, attempt="verify@1#1", at_ns=7)


def find_damage(world: World, server: Server | None = None) -> list[bytes]:
    """Verifies every set as a worker of that server does; the paths that are hit."""
    vault = world.vault(server)
    hit = [path for each in vault.sets() for path, _ in vault.verify_set(each)]
    if vault.has_new_damage:
        write_down(world, vault, server)
    return hit


def change(world: World, prefix: str, at: float) -> str:
    """Flips a bit in the only object with that prefix, at a part of its length."""
    name = next(name for name in world.backend.objects if name.startswith(prefix))
    content = bytearray(world.backend.objects[name])
    content[int(at * len(content))] ^= 4
    world.backend.objects[name] = bytes(content)
    return name


def again(world: World, name: str, server: Server | None = None) -> BackupSet:
    server = server or world.alpha
    vault = world.vault(server)
    with world.session(vault, f"s{name}", server) as session:
        return world.backup(vault, session, name, FILES, server)


@pytest.mark.parametrize("finder", ["alpha", "beta"])
@pytest.mark.parametrize("prefix", ["packs/d", "packs/m"])
@pytest.mark.parametrize("at", [0.4, 0.999], ids=["in a record", "in its end"])
def test_the_next_backup_by_any_server_stores_anew_what_any_server_found_damaged(
    filled: tuple[World, BackupSet], prefix: str, at: float, finder: str
) -> None:
    """A pack that verify had found damaged was reused by every later full backup: only its size was looked at, and each
    new set was damaged at birth."""
    world, first = filled
    change(world, prefix, at)
    assert find_damage(world, world.alpha if finder == "alpha" else world.beta)
    before = len(world.backend.objects)
    second = again(world, "set2", world.beta)
    assert len(world.backend.objects) > before
    vault = world.vault()
    assert world.restore(vault, second) == FILES
    assert vault.verify_set(second) == []
    assert vault.verify_set(first) == [], "the old set reads the new copies"
    assert not vault.has_new_damage


def test_only_what_is_damaged_is_stored_anew_and_only_once(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    change(world, "packs/d", 0.4)
    find_damage(world)
    packs = lambda: {name for name in world.backend.objects if name.startswith("packs/")}
    old = packs()
    again(world, "set2")
    (new,) = packs() - old
    assert new.startswith("packs/d")
    assert len(world.backend.objects[new]) < len(world.backend.objects[next(iter(old))])
    again(world, "set3")
    assert packs() - old == {new}


def test_without_another_backup_what_is_lost_is_still_named(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    change(world, "packs/d", 0.4)
    hit = find_damage(world)
    assert hit
    assert find_damage(world) == hit
    assert len([name for name in world.backend.objects if name.startswith("damage/")]) == 1


def test_a_reader_finds_damage_as_well_as_a_verification(filled: tuple[World, BackupSet]) -> None:
    world, first = filled
    change(world, "packs/d", 0.4)
    vault = world.vault()
    with pytest.raises(CasoError):
        world.restore(vault, first)
    assert write_down(world, vault) == 1
    assert world.vault().verify_set(again(world, "set2")) == []


def test_damage_that_a_backup_itself_meets_is_not_reused_by_it(filled: tuple[World, BackupSet]) -> None:
    """The tree of the last set is read while the new one is written: a damaged piece of it was named again."""
    world, first = filled
    change(world, "packs/m", 0.4)
    vault = world.vault()
    with world.session(vault, "s2") as session:
        assert vault.holds_all(first), "nobody knows of it yet"
        with pytest.raises(DataDamaged):
            list(vault.tree(first.root).entries())
        second = world.backup(vault, session, "set2", FILES)
    assert world.vault().verify_set(second) == []


def test_no_set_builds_on_one_that_is_damaged_until_it_is_whole_again(filled: tuple[World, BackupSet]) -> None:
    world, first = filled
    assert world.vault().holds_all(first)
    change(world, "packs/d", 0.4)
    find_damage(world)
    assert not world.vault().holds_all(first)
    second = again(world, "set2")
    assert world.vault().holds_all(first)
    assert world.vault().holds_all(second)


def test_a_pack_that_is_gone_or_cut_counts_as_damaged(filled: tuple[World, BackupSet]) -> None:
    world, first = filled
    name = next(name for name in world.backend.objects if name.startswith("packs/d"))
    whole = world.backend.objects[name]
    for left in (None, whole[: len(whole) // 2]):
        world.backend.objects.pop(name, None)
        if left is not None:
            world.backend.objects[name] = left
        find_damage(world)
        assert not world.vault().holds_all(first)
        world.backend.objects[name] = whole
    assert world.vault().verify_set(again(world, "set2")) == []


def test_a_cable_that_came_loose_for_a_moment_is_no_damage(filled: tuple[World, BackupSet]) -> None:
    world, first = filled
    vault = world.vault()
    world.backend.errors["get packs/d"] = DeviceError(device="disk", detail="Input/output error")
    assert vault.verify_set(first)
    assert vault.has_new_damage
    world.backend.errors.clear()
    assert write_down(world, vault) == 0
    assert not vault.has_new_damage
    assert vault.holds_all(first)
    assert not [name for name in world.backend.objects if name.startswith("damage/")]


def test_a_sector_that_stays_unreadable_is_damage(filled: tuple[World, BackupSet]) -> None:
    world, first = filled
    world.backend.errors["get packs/d"] = DeviceError(device="disk", detail="Input/output error")
    find_damage(world)
    assert not world.vault().holds_all(first)
    world.backend.errors.clear()
    assert world.vault().verify_set(again(world, "set2")) == []


def test_what_cannot_be_written_down_is_written_down_by_the_next(filled: tuple[World, BackupSet]) -> None:
    world, first = filled
    change(world, "packs/d", 0.4)
    vault = world.vault()
    vault.verify_set(first)
    world.backend.errors["put damage/"] = DeviceFull(device="disk")
    with pytest.raises(DeviceFull):
        write_down(world, vault)
    assert vault.has_new_damage
    assert not vault.holds_all(first), "this process knows of it all the same"
    world.backend.errors.clear()
    assert write_down(world, vault) == 1
    assert not vault.has_new_damage


def test_two_servers_write_down_what_they_found_at_once(filled: tuple[World, BackupSet]) -> None:
    world, _ = filled
    change(world, "packs/d", 0.4)
    vaults = [world.vault(), world.vault(world.beta), world.vault()]
    for vault in vaults:
        for each in vault.sets():
            vault.verify_set(each)
    for vault, server in zip(vaults, [world.alpha, world.beta, world.alpha], strict=True):
        write_down(world, vault, server)
    names = {name for name in world.backend.objects if name.startswith("damage/")}
    assert names == {"damage/walpha/1", "damage/walpha/2", "damage/wbeta/1"}
    assert world.vault().verify_set(again(world, "set2")) == []


@pytest.mark.parametrize("how", ["a bit", "cut", "another signer", "a stranger's"])
def test_an_object_of_damage_that_cannot_be_believed_is_told_and_passed_over(
    filled: tuple[World, BackupSet], how: str
) -> None:
    world, first = filled
    change(world, "packs/d", 0.4)
    find_damage(world)
    name = "damage/walpha/1"
    content = world.backend.objects.pop(name)
    if how == "a bit":
        world.backend.objects[name] = content[:60] + bytes([content[60] ^ 1]) + content[61:]
    elif how == "cut":
        world.backend.objects[name] = content[: len(content) // 2]
    elif how == "another signer":
        world.roster["alpha"] = Server("alpha").public
        world.backend.objects[name] = content
    else:
        name = "damage/walpha/readme"
        world.backend.objects[name] = b"somebody else's"
    vault = world.vault()
    vault.refresh()
    assert [problem for problem in vault.problems() if problem.startswith(name)]
    if how != "another signer":
        assert vault.holds_all(first), "nothing says that it is damaged"


def test_a_cut_pack_of_a_merged_index_is_stored_anew(world: World) -> None:
    """Segments are merged after many sessions: what is damaged stays so under its new segment."""
    vault = world.vault()
    for number in range(18):
        with world.session(vault, f"s{number}") as session:
            world.backup(vault, session, f"set{number}", sample_files(3, b"%d" % number))
    assert len([name for name in world.backend.objects if name.startswith("index/")]) < 18
    name = sorted(name for name in world.backend.objects if name.startswith("packs/d"))[5]
    world.backend.objects[name] = world.backend.objects[name][:-50]
    assert find_damage(world)
    hit = [int(each.id.removeprefix("set")) for each in world.vault().sets() if not world.vault().holds_all(each)]
    vault = world.vault()
    with world.session(vault, "heals") as session:
        # a pack may hold what later sets share: the first of them wrote it
        world.backup(vault, session, "heals", sample_files(3, b"%d" % min(hit)))
    assert find_damage(world) == []
    assert parse_pack(name) is not None


def test_a_vault_without_damage_is_not_walked_before_a_set_builds_on_another(
    filled: tuple[World, BackupSet],
) -> None:
    world, first = filled

    class Counting(MemoryBackend):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            assert not name.startswith("packs/")
            return super().get(name, offset, length)

    assert world.vault(backend=Counting(world.backend.objects)).holds_all(first)
