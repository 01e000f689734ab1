"""What every device must do: run against each implementation of the port."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from caso_mesh.devices.port import Backend
from caso_mesh.model.errors import Misuse, ObjectExists, ObjectMissing

BAD_NAMES = [
    "",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../b",
    ".",
    "..",
    ".hidden",
    "a/.b",
    "a b",
    "ü",
    "a\0b",
    "a\n",
    "x" * 256,
]


def check_backend(factory: Callable[[], Backend]) -> None:
    """``factory`` opens the same, at first empty, device anew at each call."""
    device, other = factory(), factory()
    try:
        _objects(device, other)
        _names(device)
        _listing(device, other)
        _races(device, other)
        free, total = device.space()
        assert 0 < free <= total
    finally:
        device.close()
        other.close()
        device.close()
    with pytest.raises(Misuse):
        device.get("a")
    with pytest.raises(Misuse):
        device.put("a", [b""])


def _objects(device: Backend, other: Backend) -> None:
    device.put("sets/a", [b"one", bytearray(b"two"), memoryview(b"three"), b""])
    assert other.get("sets/a") == b"onetwothree"
    assert other.size("sets/a") == 11
    assert other.get("sets/a", 3) == b"twothree"
    assert other.get("sets/a", 3, 3) == b"two"
    assert other.get("sets/a", 6, 100) == b"three"
    assert other.get("sets/a", 100) == b""
    assert other.get("sets/a", 2, 0) == b""
    with pytest.raises(ObjectExists):
        other.put("sets/a", [b"changed"])
    assert device.get("sets/a") == b"onetwothree"
    device.put("sets/empty", [])
    assert device.get("sets/empty") == b""
    device.put("sets/many", [b"%04d" % number for number in range(3000)])
    assert device.get("sets/many", 4 * 2999) == b"2999"
    other.delete("sets/a")
    device.put("sets/b", [b"x"])
    for call in (device.get, device.size, device.delete):
        with pytest.raises(ObjectMissing):
            call("sets/b/below")
        with pytest.raises(ObjectMissing):
            call("sets/a")
        with pytest.raises(ObjectMissing):
            call("nowhere/at/all")
    device.put("sets/a", [b"again"])
    assert other.get("sets/a") == b"again"
    for name in ("sets/a", "sets/b", "sets/empty", "sets/many"):
        device.delete(name)


def _names(device: Backend) -> None:
    for name in BAD_NAMES:
        with pytest.raises(Misuse):
            device.put(name, [b""])
        with pytest.raises(Misuse):
            device.get(name)
        with pytest.raises(Misuse):
            device.delete(name)
    with pytest.raises(Misuse):
        list(device.list("../"))


def _listing(device: Backend, other: Backend) -> None:
    names = ["a", "b-1", "b.1", "b/1", "b/2/3", "b/2-3", "b0", "packs/d/00/x", "packs/d/01/y", "packs/m/00/z", "B"]
    for length, name in enumerate(names):
        device.put(name, [bytes(length)])
    everything = list(other.list(""))
    assert [name for name, _ in everything] == sorted(names)
    assert dict(everything) == {name: length for length, name in enumerate(names)}
    for prefix in ("b", "b/", "b/2", "b/2/", "packs/d/", "packs/d/0", "packs/", "packs", "zz", "zz/y", "a/"):
        assert [name for name, _ in other.list(prefix)] == sorted(name for name in names if name.startswith(prefix))
    for name in names:
        other.delete(name)
    assert list(device.list("")) == []


def _races(device: Backend, other: Backend) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        backend = device if number % 2 else other
        start.wait()
        try:
            backend.put("races/one", [b"%d" % number * 1000])
        except ObjectExists:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert device.get("races/one") == b"%d" % won[0] * 1000
    device.delete("races/one")
