"""A nursery that writes down what its workers import. Its own arguments are those of the real one."""

from __future__ import annotations

import os
import sys
from typing import Any

from caso_mesh.jobs import nursery


class Spy:
    """The first of all finders, which finds nothing."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        with open(os.environ["NURSERY_SPY"], "a", encoding="utf-8") as file:
            file.write(f"{os.getpid() != NURSERY} {name}\n")


if __name__ == "__main__":
    NURSERY = os.getpid()
    sys.meta_path.insert(0, Spy())  # type: ignore[arg-type]
    sys.exit(nursery.main(sys.argv[1:]))
