"""Holds: tombstones and locks beside the sets."""

from __future__ import annotations

import pytest
from vault_world import World, sample_files

from caso_mesh.model.errors import NotFound
from caso_mesh.vault.names import parse_hold


@pytest.fixture
def world():
    return World()


def with_set(world, set_id="set1"):
    vault = world.vault()
    session = world.session(vault, f"of{set_id}")
    world.backup(vault, session, set_id, sample_files(3, set_id.encode()))
    session.close()
    return vault


def hold(world, vault, kind, at_ns, until_ns=None):
    return vault.holds.add("set1", kind, at_ns=at_ns, who="ann", signer=world.alpha.signer, until_ns=until_ns)


def ids(world):
    return [each.id for each in world.vault().sets()]


def test_a_set_with_a_tombstone_is_gone_for_every_reader_and_no_parent(world):
    vault = with_set(world)
    made = hold(world, vault, "tombstone", 5)
    assert (made.number, made.server, made.who) == (1, world.alpha.name, "ann")
    assert ids(world) == []
    other = world.vault()
    with pytest.raises(NotFound):
        other.load_set("set1")
    assert [each.id for each in other.sets(deleted=True)] == ["set1"]
    with pytest.raises(NotFound):
        world.session(other, "later", parents=["set1"])


def test_a_tombstone_in_the_time_of_a_lock_is_void_and_the_longest_lock_counts(world):
    vault = with_set(world)
    hold(world, vault, "lock", 10, 100)
    hold(world, vault, "lock", 20, 50)
    hold(world, vault, "tombstone", 60)
    assert ids(world) == ["set1"]
    assert vault.holds.lock_of("set1").until_ns == 100
    hold(world, vault, "lock", 70)
    assert vault.holds.lock_of("set1").until_ns is None
    hold(world, vault, "tombstone", 10**18)
    assert ids(world) == ["set1"]


def test_a_tombstone_counts_after_the_lock_and_a_later_lock_brings_nothing_back(world):
    vault = with_set(world)
    hold(world, vault, "lock", 10, 100)
    hold(world, vault, "tombstone", 100)
    hold(world, vault, "lock", 200)
    assert ids(world) == []


def test_holds_that_were_changed_or_moved_delete_nothing_and_are_told(world):
    vault = with_set(world)
    with_set(world, "set2")
    hold(world, vault, "tombstone", 5)
    (name,) = [name for name in world.backend.objects if name.startswith("holds/")]
    content = world.backend.objects.pop(name)
    world.backend.objects["holds/set2/1"] = content  # another set's
    world.backend.objects["holds/set1/1"] = content[:-1] + bytes([content[-1] ^ 1])
    world.backend.objects["holds/set1/0"] = content
    again = world.vault()
    assert {each.id for each in again.sets()} == {"set1", "set2"}
    assert sum("holds/" in line for line in again.problems()) == 3
    assert again.holds.unreadable("set1") == "holds/set1/1"
    assert again.holds.unreadable("set2") == "holds/set2/1"


def test_two_that_take_the_same_number_both_leave_their_hold(world):
    one, other = with_set(world), world.vault()
    list(other.sets())
    hold(world, one, "lock", 1, 2)
    hold(world, other, "lock", 3, 4)
    assert sorted(parse_hold(name)[1] for name in world.backend.objects if name.startswith("holds/")) == [1, 2]
