"""Compression of what goes into a record, and its bounded reverse."""

from __future__ import annotations

import sys
from typing import Any

from caso_mesh.model.errors import DataDamaged
from caso_mesh.vault.chunking import KIB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Flag of a record whose payload is one zstd frame (RFC 8878).
ZSTD = 1
LEVEL = 1
#: Below this many bytes nothing is gained; from ``_SAMPLE_FROM`` on a sample of the middle is tried first.
_COMPRESS_FROM = 128
_SAMPLE_FROM = 64 * KIB
_SAMPLE = 8 * KIB
#: A sample that keeps more than this share, and a result that does, are not worth the time to unpack.
_WORTH = 0.95
#: A frame may not ask for a window above 32 MiB (2**25), twice the largest record.
_WINDOW_LOG = 25


class Compressor:
    """Packs one piece after the other; one per thread, reused because setting one up costs as much as 16 KiB."""

    def __init__(self) -> None:
        self._compressor: Any = zstd.ZstdCompressor(level=LEVEL)
        self._sampler: Any = zstd.ZstdCompressor(level=-5)

    def pack(
        self, view: bytes | bytearray | memoryview, *, alike: bool = True
    ) -> tuple[int, bytes | bytearray | memoryview]:
        """Flags and payload: ``ZSTD`` and a frame, or 0 and ``view`` itself where compression gains under 5 %.

        ``alike``: the middle of ``view`` tells of all of it. Where many files lie side by side it does not: one picture
        there would keep all the texts around it from being compressed.
        """
        size = len(view)
        if size < _COMPRESS_FROM:
            return 0, view
        if alike and size >= _SAMPLE_FROM:
            middle = size // 2
            sample = memoryview(view)[middle : middle + _SAMPLE]
            if len(self._sampler.compress(sample, self._sampler.FLUSH_FRAME)) > _SAMPLE * _WORTH:
                return 0, view
        packed = self._compressor.compress(view, self._compressor.FLUSH_FRAME)
        if len(packed) > size * _WORTH:
            return 0, view
        return ZSTD, packed


def unpack(
    flags: int, payload: bytes | bytearray | memoryview, raw_length: int, limit: int, *, name: str = "a record"
) -> bytes | bytearray | memoryview:
    """What ``Compressor.pack`` was given; ``payload`` itself if it was not compressed.

    ``raw_length`` is what the record claims; neither it nor ``limit`` (bytes) is ever exceeded, whatever the payload
    holds. ``name`` says in the message what is damaged. Raises ``DataDamaged``.
    """
    if flags & ~ZSTD:
        raise DataDamaged(object=name, detail=f"unknown flags {flags:#x}")
    if raw_length > limit:
        raise DataDamaged(object=name, detail=f"it claims {raw_length} bytes; {limit} are allowed")
    if not flags & ZSTD:
        if len(payload) != raw_length:
            raise DataDamaged(object=name, detail=f"it has {len(payload)} bytes instead of {raw_length}")
        return payload
    decompressor: Any = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    try:
        # One byte more than claimed: a frame that would go on is noticed, and goes no further.
        raw: bytes = decompressor.decompress(payload, max_length=raw_length + 1)
    except zstd.ZstdError as error:
        raise DataDamaged(object=name, detail=f"it does not decompress ({error})") from error
    if len(raw) != raw_length or not decompressor.eof or decompressor.unused_data:
        raise DataDamaged(object=name, detail=f"it does not decompress to {raw_length} bytes")
    return raw
