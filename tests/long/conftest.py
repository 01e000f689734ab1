from __future__ import annotations

from mesh.mounts import mount

__all__ = ["mount"]
