"""``python -m caso_mesh`` is the program ``caso-mesh``."""

from __future__ import annotations

from caso_mesh.cli import main

if __name__ == "__main__":
    main()
