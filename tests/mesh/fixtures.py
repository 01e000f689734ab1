"""The three kinds of mesh that tests ask for."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import pytest
from mesh.process import ProcessMesh, running_mesh


@pytest.fixture
def process_mesh(tmp_path: pathlib.Path) -> Iterator[Callable[..., ProcessMesh]]:
    """``process_mesh(n)``: a mesh of ``n`` real daemons, driven by the real command line. ``process_mesh(0)`` has none
    yet."""
    with contextlib.ExitStack() as stack:
        count = 0

        def make(servers: int, *, preset: str = "local") -> ProcessMesh:
            nonlocal count
            count += 1
            mesh = stack.enter_context(running_mesh(tmp_path / f"mesh-{count}"))
            if servers:
                mesh.start(servers, preset=preset)
            return mesh

        yield make
