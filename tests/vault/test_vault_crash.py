"""A crash at any call to the device leaves a whole set or none, and the next session goes on from there."""

from __future__ import annotations

import pytest
from blake3 import blake3
from vault_world import MemoryBackend, World

from caso_mesh.model.errors import DeviceVanished
from caso_mesh.vault import packs as packs_module
from caso_mesh.vault.vault import BackupSet

# incompressible, so that they fill several packs
FILES = {b"srv/f%02d" % number: blake3(b"%d" % number).digest(3000) for number in range(40)}


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs_module, "DATA_PACK_SIZE", 20_000)
    monkeypatch.setattr(packs_module, "METADATA_PACK_SIZE", 5_000_000)


def backup(world: World, backend: MemoryBackend, session_id: str, *, adopt: list[str]) -> BackupSet:
    vault = world.vault(backend=backend)
    session = world.session(vault, session_id)
    try:
        session.adopt(adopt)
        backup_set = world.backup(vault, session, f"set-{session_id}", FILES)
        for dead in adopt:
            vault.end_session("walpha", dead, world.alpha.signer)
        session.close()
    finally:
        session.abort()
    return backup_set


def test_a_crash_at_any_call_leaves_a_whole_set_or_none() -> None:
    world = World()
    start = dict(world.backend.objects)
    whole = MemoryBackend(dict(start))
    backup(world, whole, "one", adopt=[])
    assert whole.calls > 15
    published = 0
    for call in range(whole.calls):
        for done in (False, True):
            backend = MemoryBackend(dict(start))
            backend.crash_at(call, done=done)
            failed = False
            try:
                backup(world, backend, "one", adopt=[])
            except DeviceVanished:
                failed = True
            sets = check_after(world, MemoryBackend(backend.objects))
            assert failed or sets == 1, "success was reported, so the set is there"
            published += sets
    assert 0 < published < whole.calls


def check_after(world: World, backend: MemoryBackend) -> int:
    """Everything that is visible after a crash is whole, and the next session completes. How many sets there were."""
    vault = world.vault(backend=backend)
    found = list(vault.sets())
    for backup_set in found:
        assert world.restore(vault, backup_set) == FILES
        assert vault.verify_set(backup_set) == []
    dead = [record.session for record in vault.open_sessions("walpha")]
    assert dead in ([], ["one"])
    again = backup(world, backend, "two", adopt=dead)
    fresh = world.vault(backend=backend)
    assert {backup_set.id for backup_set in fresh.sets()} == {backup_set.id for backup_set in found} | {again.id}
    assert world.restore(fresh, again) == FILES
    assert fresh.verify_set(again) == []
    assert fresh.open_sessions() == []
    assert fresh.problems() == []
    stored = sum(len(data) for name, data in backend.objects.items() if name.startswith("packs/d"))
    assert stored < 150_000, "what was adopted is not stored twice"
    return len(found)
