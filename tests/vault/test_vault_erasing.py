"""Erasing a vault: at whatever step it is cut off, nobody ever sees a vault with half of its objects, and it goes on."""

from __future__ import annotations

import itertools
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from caso_mesh.devices.memory import MemoryBackend
from caso_mesh.model.errors import DeviceFull, EraseUnfinished
from caso_mesh.sealing import wrapping
from caso_mesh.vault.chunking import ChunkerParameters
from caso_mesh.vault.erasing import Erasure, NewVault, erase, header_below, read_erasure
from caso_mesh.vault.header import create_vault, read_header
from caso_mesh.vault.keys import create_content_key, load_keys

ID_KEY = bytes(range(32))
CHUNKER = ChunkerParameters(seed=7)
OBJECTS = (
    "sets/w/s-1", "index/w/00000001-" + "a" * 32, "sessions/w/s", "sessions/w/s.closed", "holds/x/1", "writers/w",
    "mesh/0000000001", "damage/w/1", "packs/m/aa/aa" + "0" * 30, "packs/d/bb/bb" + "0" * 30, "marks/w/1",
)  # fmt: skip
ERASURE = Erasure("old", "new", "job@1#1")


class Power(Exception):
    """It went."""


class Cut:
    """A device whose power goes before the step ``at``, which is then half done or not at all."""

    def __init__(self, inner: MemoryBackend, at: int | None, *, after: bool) -> None:
        self.inner, self._at, self._after, self.steps = inner, at, after, itertools.count()

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def _step(self, act) -> None:
        goes = next(self.steps) == self._at
        if goes and not self._after:
            raise Power
        act()
        if goes:
            raise Power

    def put(self, name, parts) -> None:
        self._step(lambda: self.inner.put(name, parts))

    def delete(self, name) -> None:
        self._step(lambda: self.inner.delete(name))


_PAIR = X25519PrivateKey.generate()
PRIVATE, PUBLIC = _PAIR.private_bytes_raw(), _PAIR.public_key().public_bytes_raw()


def old_vault() -> MemoryBackend:
    backend = MemoryBackend()
    create_vault(backend, vault="old", mesh="m", chunker=CHUNKER)
    create_content_key(backend, {"alpha": PUBLIC}, key_id="key1", randomness=os.urandom, id_key=ID_KEY)
    for name in OBJECTS:
        backend.put(name, [b"content"])
    return backend


def fresh() -> NewVault:
    return NewVault("new", "m", CHUNKER, {"alpha": PUBLIC}, "key2", ID_KEY)


def whole_and_old(backend) -> bool:
    return read_header(backend).vault == "old" and set(OBJECTS) <= set(backend.objects)


def empty_and_new(backend) -> bool:
    return (
        read_header(backend).vault == "new"
        and {name.partition("/")[0] for name in backend.objects} == {"format", "keys"}
        and bool(load_keys(backend, "alpha", unwrap, ID_KEY).content_keys)
    )


def unwrap(wrapped, aad):
    return wrapping.unwrap(wrapped, PRIVATE, aad=aad)


def steps() -> int:
    cut = Cut(old_vault(), None, after=False)
    erase(cut, ERASURE, fresh(), randomness=os.urandom)
    assert empty_and_new(cut.inner)
    return next(cut.steps)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_cut_off_at_each_step_it_is_the_old_vault_or_unfinished_or_the_new_one_and_goes_on(after: bool) -> None:
    seen = set()
    for at in range(steps()):
        backend = old_vault()
        with pytest.raises(Power):
            erase(Cut(backend, at, after=after), ERASURE, fresh(), randomness=os.urandom)
        try:
            found = read_header(backend)
            state = "old" if found is not None and whole_and_old(backend) else "new"
            assert state == "old" or empty_and_new(backend), sorted(backend.objects)
        except EraseUnfinished:
            state = "unfinished"
            assert read_erasure(backend) == ERASURE
        seen.add(state)
        # another attempt, which may be one of another run, goes on
        erase(backend, Erasure("old", "new", "job@2#1"), fresh(), randomness=os.urandom)
        assert empty_and_new(backend), at
    assert seen == ({"old", "unfinished"} if not after else {"unfinished", "new"})


def test_cut_off_twice_it_still_goes_on() -> None:
    for first, second in itertools.product(range(0, steps(), 3), range(0, steps(), 3)):
        backend = old_vault()
        for at in (first, second):
            try:
                erase(Cut(backend, at, after=True), ERASURE, fresh(), randomness=os.urandom)
            except Power:
                continue
        erase(backend, ERASURE, fresh(), randomness=os.urandom)
        assert empty_and_new(backend)


def test_what_somebody_still_writes_for_the_old_vault_goes_too_and_what_is_not_of_a_vault_stays() -> None:
    backend = old_vault()
    backend.put("holiday.jpg", [b"mine"])
    late = iter(["packs/d/cc/cc" + "0" * 30])

    def writes(size: int) -> None:
        for name in late:
            backend.put(name, [b"late"])

    erase(backend, ERASURE, fresh(), randomness=os.urandom, on_object=writes)
    assert "holiday.jpg" in backend.objects
    backend.delete("holiday.jpg")
    assert empty_and_new(backend)


def test_a_device_without_any_room_is_erased_and_never_looks_whole_on_the_way() -> None:
    full = old_vault()
    full.fail("erasing", DeviceFull(device="d"), operation="put", times=1)
    erase(full, ERASURE, fresh(), randomness=os.urandom)
    assert empty_and_new(full)
    full = old_vault()
    full.fail("erasing", DeviceFull(device="d"), operation="put", times=1)
    with pytest.raises(Power):
        erase(Cut(full, 2, after=False), ERASURE, fresh(), randomness=os.urandom)
    assert header_below(full) is None
    assert read_header(full) is None
