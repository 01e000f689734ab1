"""What every discovery does, on the one in memory; static peers; what an announcement may hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.discovery.announcement import ADDRESS_LIMIT, port_and_hosts, read_announcement, text_of
from caso_mesh.discovery.board import LIMIT, Board
from caso_mesh.discovery.memory import MemoryDiscovery, MemoryHub, NoDiscovery
from caso_mesh.discovery.sighting import Discovery, Gone, Sighting, split_address
from caso_mesh.discovery.static import StaticPeers
from caso_mesh.model.errors import InvalidValue, Misuse


def sighting(node: str, *addresses: str, instance: str = "i1", mesh: str | None = "mesh1") -> Sighting:
    return Sighting(mesh, node, f"server-{node}", addresses or ("192.0.2.7:7300",), "0.1.0", instance, "mdns")


async def take(stream: AsyncIterator[Sighting | Gone], count: int) -> list[Sighting | Gone]:
    async with asyncio.timeout(30):
        return [await anext(stream) for _ in range(count)]


async def is_silent(stream: AsyncIterator[Sighting | Gone]) -> bool:
    waiting = asyncio.ensure_future(anext(stream))
    for _ in range(5):
        await asyncio.sleep(0)
    silent = not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return silent


async def test_everyone_on_a_hub_sees_the_others_and_not_themselves():
    hub = MemoryHub()
    a, b = MemoryDiscovery(hub), MemoryDiscovery(hub)
    seen_by_a, seen_by_b = a.sightings(), b.sightings()
    await a.announce(sighting("a"))
    await b.announce(sighting("b"))
    assert await take(seen_by_a, 1) == [sighting("b")]
    assert await take(seen_by_b, 1) == [sighting("a")]
    assert await is_silent(seen_by_a)
    assert await is_silent(seen_by_b)


async def test_who_comes_late_or_asks_late_sees_who_is_there():
    hub = MemoryHub()
    a = MemoryDiscovery(hub)
    await a.announce(sighting("a"))
    late = MemoryDiscovery(hub)
    assert await take(late.sightings(), 1) == [sighting("a")]
    assert await take(late.sightings(), 1) == [sighting("a")]


async def test_a_goodbye_is_gone_and_a_killed_one_stays_until_its_next_instance():
    hub = MemoryHub()
    watcher, a, b = MemoryDiscovery(hub), MemoryDiscovery(hub), MemoryDiscovery(hub)
    stream = watcher.sightings()
    await a.announce(sighting("a"))
    await b.announce(sighting("b"))
    assert await take(stream, 2) == [sighting("a"), sighting("b")]
    a.close()
    a.close()
    assert await take(stream, 1) == [Gone("a", "i1")]
    b.close(goodbye=False)
    assert await is_silent(watcher.sightings()) is False
    again = MemoryDiscovery(hub)
    await again.announce(sighting("b", instance="i2"))
    stream = watcher.sightings()
    assert await take(stream, 1) == [sighting("b", instance="i2")]
    with pytest.raises(Misuse):
        await a.announce(sighting("a"))


async def test_a_change_is_told_and_a_repetition_is_not():
    hub = MemoryHub()
    a, b = MemoryDiscovery(hub), MemoryDiscovery(hub)
    stream = b.sightings()
    await a.announce(sighting("a"))
    assert await take(stream, 1) == [sighting("a")]
    await a.announce(sighting("a"))
    assert await is_silent(stream)
    stream = b.sightings()
    assert await take(stream, 1) == [sighting("a")]
    await a.announce(sighting("a", "192.0.2.9:7300"))
    assert await take(stream, 1) == [sighting("a", "192.0.2.9:7300")]
    await a.announce(sighting("c"))
    assert await take(stream, 2) == [Gone("a", "i1"), sighting("c")]


async def test_a_slow_reader_gets_what_is_not_what_was():
    board = Board()
    stream = board.watch()
    board.publish(sighting("first"))
    assert await take(stream, 1) == [sighting("first")]
    for number in range(1000):
        board.publish(sighting("a", instance=f"i{number}"))
    board.publish(sighting("b"))
    board.remove("b", "other-instance")
    board.remove("first")
    assert await take(stream, 3) == [sighting("a", instance="i999"), sighting("b"), Gone("first", "i1")]


async def test_a_flood_of_servers_is_bounded():
    board = Board()
    for number in range(LIMIT):
        assert board.publish(sighting(f"n{number}"))
    assert not board.publish(sighting("one-too-many"))
    assert board.publish(sighting("n0", instance="i2"))
    board.remove("n1")
    assert board.publish(sighting("one-too-many"))
    assert len(board.seen()) == LIMIT


async def test_no_discovery_is_silent():
    nothing: Discovery = NoDiscovery()
    await nothing.announce(sighting("a"))
    assert await is_silent(nothing.sightings())


async def test_static_peers_are_addresses_without_a_node():
    peers = StaticPeers(["192.0.2.1:7300", "backup.example:7300"])
    checked: Discovery = peers
    await checked.announce(sighting("a"))
    stream = peers.sightings()
    first, second = await take(stream, 2)
    assert isinstance(first, Sighting)
    assert (first.node, first.mesh, first.addresses, first.discovered_by) == ("", None, ("192.0.2.1:7300",), "static")
    assert isinstance(second, Sighting)
    assert second.addresses == ("backup.example:7300",)
    peers.add("[2001:db8::1]:7300")
    peers.add("192.0.2.1:7300")
    (third,) = await take(stream, 1)
    assert isinstance(third, Sighting)
    assert third.addresses == ("[2001:db8::1]:7300",)
    peers.remove("192.0.2.1:7300")
    peers.remove("192.0.2.1:7300")
    assert await take(stream, 1) == [Gone("", "192.0.2.1:7300")]
    assert await is_silent(stream)
    assert peers.addresses() == ["[2001:db8::1]:7300", "backup.example:7300"]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":1",
        "host:0",
        "host:65536",
        "host:٣",
        "host:1x",
        "a b:1",
        "::1:7300",
        "h\n:1",
        "h:1\n",
        "-h:1",
    ],
)
def test_what_is_not_host_and_port_is_refused(address):
    with pytest.raises(InvalidValue):
        split_address(address)
    with pytest.raises(InvalidValue):
        StaticPeers([address])


def read_back(what: Sighting, own: list[str]) -> Sighting | None:
    port, hosts = port_and_hosts(what, own)
    text: dict[bytes, bytes | None] = {key.encode(): value.encode() for key, value in text_of(what).items()}
    return read_announcement(what.node, port, hosts, text)


def test_an_announcement_reads_back_as_what_was_announced():
    for what in (
        sighting("a"),
        sighting("a", mesh=None),
        sighting("a", "192.0.2.1:1", "192.0.2.2:1"),
        sighting("a", "192.0.2.1:1", "192.0.2.2:2", "backup.example:1", "[2001:db8::1]:7300"),
    ):
        assert read_back(what, ["198.51.100.1"]) == what
    everywhere = read_back(sighting("a", "0.0.0.0:7300"), ["198.51.100.1", "203.0.113.1"])
    assert everywhere is not None
    assert everywhere.addresses == ("198.51.100.1:7300", "203.0.113.1:7300")
    many = read_back(sighting("a", "0.0.0.0:7300"), [f"198.51.100.{number}" for number in range(1, 100)])
    assert many is not None
    assert len(many.addresses) == ADDRESS_LIMIT


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ()},
        {"addresses": ("nonsense",)},
        {"addresses": ("192.0.2.1:1", *(f"host{number}.example:{number + 1}" for number in range(40)))},
        {"node": ""},
        {"node": "x" * 64},
        {"node": "UPPER"},
        {"name": "Bad Name"},
        {"mesh": ""},
        {"version": ""},
        {"instance": "a b"},
    ],
)
def test_what_no_reader_would_take_is_our_own_misuse(change):
    with pytest.raises(Misuse):
        text_of(msgspec.structs.replace(sighting("a"), **change))


GOOD = {b"v": b"1", b"node": b"a", b"name": b"n", b"instance": b"i", b"state": b"new"}


def test_a_text_record_that_is_not_ours_is_no_sighting():
    assert read_announcement("a", 1, ["192.0.2.1"], GOOD) is not None
    assert read_announcement("A", 1, ["192.0.2.1"], GOOD) is not None
    for change in (
        {b"node": b"b"},
        {b"node": None},
        {b"node": b"\xff"},
        {b"name": b"x" * 300},
        {b"name": "ü".encode()},
        {b"state": b"member"},
        {b"state": b"king"},
        {b"mesh": b"m"},
        {b"mesh": b""},
        {b"v": b""},
        {b"instance": b"\0"},
        {b"also": b"nonsense"},
        {b"also": b","},
    ):
        assert read_announcement("a", 1, ["192.0.2.1"], {**GOOD, **change}) is None, change
    for port in (None, 0, 65536, -1):
        assert read_announcement("a", port, ["192.0.2.1"], GOOD) is None
    for host in ("127.0.0.1", "0.0.0.0", "224.0.0.251", "255.255.255.255", "host", "::1"):
        assert read_announcement("a", 1, [host], GOOD) is None
    assert read_announcement("a", 1, ["127.0.0.1"], GOOD, allow_loopback=True) is not None
    assert read_announcement("a", 1, [], GOOD) is None


@given(
    label=st.text(max_size=70),
    port=st.none() | st.integers(-1, 70000),
    addresses=st.lists(st.ip_addresses(v=4).map(str) | st.text(max_size=20), max_size=40),
    text=st.dictionaries(
        st.sampled_from([b"v", b"node", b"mesh", b"name", b"instance", b"state", b"also"]) | st.binary(max_size=9),
        st.none() | st.binary(max_size=300) | st.sampled_from([b"a", b"new", b"member", b"h:1,[::1]:2"]),
    ),
)
def test_no_text_record_breaks_the_reader_and_what_it_yields_is_bounded(label, port, addresses, text):
    found = read_announcement(label, port, addresses, {**GOOD, **text})
    if found is not None:
        assert found.node == label.lower()
        assert 0 < len(found.addresses) <= ADDRESS_LIMIT
        for address in found.addresses:
            split_address(address)
        assert len(msgspec.json.encode(found)) < 8192
