"""The codec against lies, and fragments."""

from __future__ import annotations

import math

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.model.errors import Misuse, PeerFault, PeerMalformed, PeerOversized
from caso_mesh.wire import codec, fragments
from caso_mesh.wire.limits import FRAGMENT_BYTES

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_what_is_packed_comes_back(value):
    assert codec.unpack(codec.pack(value), max_bytes=1 << 20) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_malformed(data):
    try:
        codec.unpack(data, max_bytes=1000)
    except PeerMalformed:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x01",  # two values
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"\xc6\xff\xff\xff\xffx",
        b"\xa1\xff",  # not UTF-8
        b"\x81\x01\x01",  # a key that is no text
        b"\x81\x90\x01",
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb(msgpack.Timestamp(1)),
        b"\xc7\x00\xff",  # an empty timestamp
        b"\x91" * 40 + b"\x01",
        b"\x91" * 100_000 + b"\x01",
        b"\x81\xa1a" * 40 + b"\x01",
        b"\xdc\xff\xff" + b"\x90" * 0xFFFF + b"\x90",
    ],
)
def test_lies_are_malformed(data):
    with pytest.raises(PeerMalformed):
        codec.unpack(data, max_bytes=1 << 20)


def test_containers_are_counted():
    """One byte for its sender, 64 for its receiver: eight million empty maps must not be made."""
    for empty in (b"\x80", b"\x90"):
        with pytest.raises(PeerMalformed, match="arrays and maps"):
            codec.unpack(b"\xdd" + (1 << 20).to_bytes(4, "big") + empty * (1 << 20), max_bytes=1 << 23)


def test_the_bound_comes_first():
    with pytest.raises(PeerOversized):
        codec.unpack(bytes(11), max_bytes=10)


def test_what_cannot_be_packed_is_our_misuse():
    for value in (object(), 1 << 64, "\ud800", {1, 2}):
        with pytest.raises(Misuse):
            codec.pack(value)


class Inner(msgspec.Struct, frozen=True):
    data: bytes
    count: int = 0


class Record(msgspec.Struct, frozen=True):
    name: str
    inner: list[Inner]


def test_records_cross_as_maps_and_unknown_fields_are_ignored():
    record = Record("n", [Inner(b"\xff", 3)])
    wire = codec.to_wire(record)
    assert wire == {"name": "n", "inner": [{"data": b"\xff", "count": 3}]}
    again = codec.unpack(codec.pack(wire | {"future": 1}), max_bytes=1000)
    assert codec.from_wire(again, Record) == record


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"name": 1, "inner": []}, r"\$\.name"),
        ({"name": "n", "inner": [{"data": "AAAA"}]}, r"\$\.inner\[0\]\.data"),  # text is not bytes by base64
        ({"name": "n", "inner": [{"data": b"", "count": "1"}]}, r"\$\.inner\[0\]\.count"),
        ({"name": "n"}, "inner"),
        ([], "array"),
    ],
)
def test_a_wrong_field_is_named(data, path):
    with pytest.raises(PeerMalformed, match=path):
        codec.from_wire(data, Record)


@pytest.mark.parametrize("size", [0, 1, FRAGMENT_BYTES, FRAGMENT_BYTES + 1, 2 * FRAGMENT_BYTES, 1_000_001])
def test_fragments_are_joined(size):
    message = bytes(size)
    frames = [bytes(frame) for frame in fragments.split(message)]
    assert all(len(frame) <= FRAGMENT_BYTES for frame in frames)
    assert len(frames) == (1 if size <= FRAGMENT_BYTES else 1 + math.ceil(size / FRAGMENT_BYTES))
    joiner = fragments.Joiner(max_message_bytes=1 << 20, peer="p")
    assert [joined for frame in frames if (joined := joiner.feed(frame)) is not None] == [message]


def test_a_message_too_long_is_refused_when_announced():
    joiner = fragments.Joiner(max_message_bytes=1 << 20, peer="p")
    with pytest.raises(PeerOversized):
        joiner.feed(b"\xc1" + ((1 << 20) + 1).to_bytes(4, "big"))


@given(st.lists(st.binary(max_size=8), max_size=8))
def test_a_joiner_takes_any_frames(frames):
    joiner = fragments.Joiner(max_message_bytes=1 << 20, peer="p")
    try:
        for frame in frames:
            joiner.feed(frame)
    except PeerFault:
        pass
