"""Sets that were read before: who builds on them reads each once, who reads them back reads the vault."""

from __future__ import annotations

import pathlib

import pytest
from vault_world import MemoryBackend, World, sample_files

from caso_mesh.vault.vault import Vault


class Counting(MemoryBackend):
    """Counts which objects are read."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.read: list[str] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.read.append(name)
        return super().get(name, offset, length)

    def sets_read(self) -> int:
        """Since the last time that it was asked."""
        found = sum(name.startswith("sets/") for name in self.read)
        self.read.clear()
        return found


@pytest.fixture
def world() -> World:
    world = World()
    for number in range(3):
        add(world, f"set{number}")
    return world


def add(world: World, set_id: str) -> None:
    vault = world.vault()
    session = world.session(vault, f"of{set_id}")
    world.backup(vault, session, set_id, sample_files(2, set_id.encode()))
    session.close()


def opened(world: World, backend: MemoryBackend, cache: pathlib.Path, *, remembers: bool = True) -> Vault:
    cache.mkdir(exist_ok=True)
    return Vault(
        backend,
        world.header(backend),
        world.keys(backend=backend),
        verify=world.verify,
        cache_folder=str(cache),
        remembers=remembers,
    )


def test_each_set_is_read_once_however_many_backups_look_for_their_base(world: World, tmp_path: pathlib.Path) -> None:
    backend = Counting(world.backend.objects)
    expected = [each.id for each in world.vault().sets()]
    assert [each.id for each in opened(world, backend, tmp_path / "cache").sets()] == expected
    assert backend.sets_read() == 3
    add(world, "set9")
    again = opened(world, backend, tmp_path / "cache")
    assert list(again.sets()) == list(world.vault().sets())
    assert backend.sets_read() == 1, "the one that is new"
    assert list(opened(world, backend, tmp_path / "cache", remembers=False).sets()) == list(again.sets())
    assert backend.sets_read() == 4, "who reads a set back sees its object"


def test_what_was_deleted_is_not_remembered(world: World, tmp_path: pathlib.Path) -> None:
    list(opened(world, world.backend, tmp_path / "cache").sets())
    vault = world.vault()
    vault.holds.add("set1", "tombstone", at_ns=5, who="ann", signer=world.alpha.signer)
    gone = next(name for name in world.backend.objects if name.startswith("sets/") and "ofset2" in name)
    del world.backend.objects[gone]
    assert [each.id for each in opened(world, world.backend, tmp_path / "cache").sets()] == ["set0"]


@pytest.mark.parametrize("spoil", ["cut", "turned", "of another shape", "empty"])
def test_a_cache_that_is_not_as_it_was_written_is_worth_nothing_and_harms_nothing(
    world: World, tmp_path: pathlib.Path, spoil: str
) -> None:
    list(opened(world, world.backend, tmp_path / "cache").sets())
    path = tmp_path / "cache" / "sets"
    data = bytearray(path.read_bytes())
    if spoil == "cut":
        data = data[: len(data) - 7]
    elif spoil == "turned":
        data[len(data) // 2] ^= 1
    elif spoil == "of another shape":
        data[0] ^= 1
    else:
        data.clear()
    path.write_bytes(data)
    for _ in range(2):
        found = list(opened(world, world.backend, tmp_path / "cache").sets())
        assert found == list(world.vault().sets())
    backend = Counting(world.backend.objects)
    assert list(opened(world, backend, tmp_path / "cache").sets()) == list(world.vault().sets())
    assert backend.sets_read() == 0, "it was made whole again"


def test_sessions_that_have_ended_are_not_read_to_find_those_that_have_not(world: World) -> None:
    vault = world.vault()
    world.session(vault, "dead").abort()
    backend = Counting(world.backend.objects)
    looking = world.vault(backend=backend)
    (left,) = looking.open_sessions("walpha", look_at_ended=False)
    assert left.session == "dead"
    assert [name for name in backend.read if name.startswith("sessions/")] == ["sessions/walpha/dead"]
    assert looking.open_sessions("walpha") == [left]
