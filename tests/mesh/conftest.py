from __future__ import annotations

import pytest
from mesh.faulty import faulty
from mesh.mounts import mount

__all__ = ["faulty", "mount"]


@pytest.fixture(scope="session", autouse=True)
def meshes_start_warm(one_warm_parent: None) -> None:
    """Also those that a test makes without ``process_mesh``."""
