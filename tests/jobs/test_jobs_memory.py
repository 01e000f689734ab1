"""Memory that a worker has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PIECES = """
import resource
from caso_mesh.jobs.memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
def piece():
    return bytearray(8 << 20)
piece()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    piece()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept):
    # bytearray(n) is calloc(3): without the fix each piece is mapped anew, and each of its pages looked at once
    done = subprocess.run(
        [sys.executable, "-c", _PIECES.format(kept=kept)], check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is about the C library of Linux")
def test_a_piece_is_put_where_the_one_before_it_was():
    assert faults(kept=True) < 200
