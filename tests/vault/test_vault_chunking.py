"""Cuts and compression."""

from __future__ import annotations

import itertools
import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from caso_mesh.model.errors import DataDamaged, Misuse
from caso_mesh.vault.chunking import Chunker, ChunkerParameters, chunk_id
from caso_mesh.vault.packing import ZSTD, Compressor, unpack, zstd

MIB = 1024 * 1024
DATA = blake3(b"golden cut points").digest(16 * MIB)
SMALL = ChunkerParameters(seed=3, minimum=256, average=1024, maximum=4096)


def test_cut_points_are_those_of_all_versions_before() -> None:
    """A different cut silently ends deduplication against everything stored before."""
    lengths = Chunker(ChunkerParameters(seed=0)).cut(memoryview(DATA), final=True)
    assert lengths == GOLDEN_SEED_0
    assert Chunker(ChunkerParameters(seed=12345)).cut(memoryview(DATA), final=True) == GOLDEN_SEED_12345


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=30), st.integers(0, 100))
def test_cuts_do_not_depend_on_how_the_stream_arrives(pieces: list[int], salt: int) -> None:
    data = blake3(b"%d" % salt).digest(sum(pieces))
    whole = Chunker(SMALL).cut(memoryview(data), final=True)
    chunker, lengths, begin = Chunker(SMALL), [], 0
    for end in itertools.accumulate(pieces):
        for length in chunker.cut(memoryview(data)[begin:end], final=end == len(data)):
            lengths.append(length)
            begin += length
    assert lengths == whole
    assert sum(whole) == len(data)


def test_a_buffer_of_twice_the_maximum_always_yields_a_chunk() -> None:
    assert Chunker(SMALL).cut(memoryview(bytes(8192)), final=False) == [4096, 4096]
    assert Chunker(SMALL).cut(memoryview(b""), final=True) == []


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1 << 63}, {"average": 100}, {"minimum": 2 * MIB}])
def test_parameters_that_make_no_chunker_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Misuse):
        Chunker(ChunkerParameters(**{"seed": 0, **wrong}))


def test_an_id_depends_on_the_key_and_on_every_byte() -> None:
    first = chunk_id(b"a" * 32, b"data")
    assert len({first, chunk_id(b"b" * 32, b"data"), chunk_id(b"a" * 32, b"datb")}) == 3
    assert first == blake3(b"data", key=b"a" * 32).digest()


@given(st.binary(max_size=3000), st.integers(1, 60))
def test_what_was_packed_unpacks_to_the_same(data: bytes, repeat: int) -> None:
    data *= repeat
    flags, payload = Compressor().pack(data)
    assert len(payload) <= len(data)
    assert unpack(flags, payload, len(data), len(data)) == data


def test_only_what_shrinks_is_compressed() -> None:
    compressor = Compressor()
    assert compressor.pack(DATA[:MIB])[0] == 0
    assert compressor.pack(DATA[:1000])[0] == 0
    assert compressor.pack(bytes(MIB))[0] == ZSTD


def test_a_compression_bomb_is_stopped_at_what_it_claims() -> None:
    bomb = zstd.compress(bytes(64 * MIB))
    with pytest.raises(DataDamaged, match="does not decompress to 1000 bytes"):
        unpack(ZSTD, bomb, 1000, MIB)
    with pytest.raises(DataDamaged, match="allowed"):
        unpack(ZSTD, bomb, 64 * MIB, MIB)


@pytest.mark.parametrize(
    ("flags", "payload", "raw_length"),
    [
        (ZSTD, b"no frame", 8),
        (ZSTD, zstd.compress(b"abc") + b"x", 3),
        (ZSTD, zstd.compress(b"abc")[:-1], 3),
        (ZSTD, zstd.compress(b"abc"), 4),
        (ZSTD, b"", 1),
        (0, b"abc", 4),
        (4, b"abc", 3),
    ],
)
def test_a_payload_that_is_not_what_it_claims_is_damage(flags: int, payload: bytes, raw_length: int) -> None:
    with pytest.raises(DataDamaged):
        unpack(flags, payload, raw_length, MIB)


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(bytes(1000)) + compressor.flush()
    with pytest.raises(DataDamaged, match="does not decompress"):
        unpack(ZSTD, frame, 1000, MIB)


GOLDEN_SEED_0 = [
    957621,
    1167783,
    1165606,
    1280627,
    1079994,
    1499226,
    1336037,
    1186216,
    1452040,
    1463396,
    1064886,
    600878,
    1348302,
    1174604,
]
GOLDEN_SEED_12345 = [
    1131825,
    723021,
    2207484,
    431345,
    655321,
    455099,
    664108,
    2446515,
    2000770,
    1137897,
    2006877,
    1275280,
    1641674,
]


def test_a_bundle_is_compressed_whatever_lies_in_its_middle() -> None:
    """A sample of the middle once decided for a whole bundle: a picture there kept a mebibyte of texts as it was."""
    text = b"the quick brown fox jumps over the lazy dog\n" * 10_000
    bundle = text + random.Random(1).randbytes(64 * 1024) + text
    assert Compressor().pack(bundle)[0] == 0
    flags, packed = Compressor().pack(bundle, alike=False)
    assert flags == ZSTD
    assert len(packed) < 80 * 1024
    assert unpack(flags, packed, len(bundle), len(bundle)) == bundle
