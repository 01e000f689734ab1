from __future__ import annotations

from mesh.faulty import faulty
from mesh.mounts import mount

__all__ = ["faulty", "mount"]
