"""Where files are cut, and how pieces are named.

Chunks are cut by their content (FastCDC of 2020: Xia et al., "The Design of Fast Content-Defined Chunking for Data
Deduplication Based Storage Systems"), so that an insertion moves no cut behind it. Their ids are keyed BLAKE3: nobody
without the mesh's id key can test whether a vault holds a known file.
"""

from __future__ import annotations

from typing import Literal

import pyfastcdc
from blake3 import blake3
from msgspec import Struct

from caso_mesh.model.errors import Misuse

KIB, MIB = 1024, 1024 * 1024
ID_SIZE = 32
ID_KEY_SIZE = 32

if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
    raise ImportError(
        "pyfastcdc has no compiled part on this platform. Its slow substitute (0.5 % of the speed) is never used: "
        "install a wheel of pyfastcdc, or a C compiler and install it again"
    )


class ChunkerParameters(Struct, frozen=True):
    """Sizes in bytes. They belong to the mesh: a different cut silently ends deduplication.

    ``normalization`` (0 to 3) draws lengths towards the average; ``seed`` (0 to 2**63 - 1) changes the cuts, so that
    lengths seen from outside cannot be compared with those of another mesh at once. It hides no lengths.
    """

    seed: int
    minimum: int = 256 * KIB
    average: int = MIB
    maximum: int = 4 * MIB
    normalization: Literal[0, 1, 2, 3] = 2

    def check(self) -> None:
        """Raises ``Misuse`` if the numbers make no chunker."""
        sizes = 64 <= self.minimum <= MIB and 256 <= self.average <= 4 * MIB and 1024 <= self.maximum <= 16 * MIB
        if not (sizes and self.minimum < self.average < self.maximum):
            raise Misuse("chunk sizes are minimum < average < maximum; at most 1 MiB, 4 MiB and 16 MiB")
        if not (0 <= self.normalization <= 3 and 0 <= self.seed < 1 << 63):
            raise Misuse("the normalization is 0 to 3, the seed 0 to 2**63 - 1")


class Chunker:
    """Cuts one stream after the other. One per thread; the interpreter's lock is released while it looks for a cut."""

    def __init__(self, parameters: ChunkerParameters) -> None:
        parameters.check()
        self.parameters = parameters
        self._cutter = pyfastcdc.FastCDC(
            parameters.average,
            min_size=parameters.minimum,
            max_size=parameters.maximum,
            normalized_chunking=parameters.normalization,
            seed=parameters.seed,
        )

    def cut(self, view: memoryview, final: bool) -> list[int]:
        """Lengths of the complete chunks at the front of ``view``, in order.

        ``view`` begins where a chunk begins. Unless ``final``, what is behind the last cut is left over: the caller
        gives it again in front of what follows. A buffer of at least twice the maximum always yields something.
        """
        left = len(view)
        maximum = self.parameters.maximum
        lengths = []
        for chunk in self._cutter.cut_buf(view):
            # A cut is sure only if the cutter could look as far as the maximum, or stopped before the end of the view.
            if not final and chunk.length == left and left < maximum:
                break
            lengths.append(chunk.length)
            left -= chunk.length
        return lengths


def chunk_id(id_key: bytes, data: bytes | bytearray | memoryview) -> bytes:
    """The id of a chunk: BLAKE3 in keyed mode, 32 bytes. ``id_key`` has 32 bytes."""
    return blake3(data, key=id_key).digest()
