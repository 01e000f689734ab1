from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def place() -> Iterator[bytes]:
    """A folder that any user of this machine may reach and write, gone afterwards whatever was made in it."""
    folder = tempfile.mkdtemp(prefix="caso-sources-")
    os.chmod(folder, 0o777)
    yield os.fsencode(folder)
    # Programs, since what lies there may be deeper than Python's own recursion goes, and closed to its owner.
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
