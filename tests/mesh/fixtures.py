"""The three kinds of mesh that tests ask for."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import pytest
import pytest_asyncio
from mesh.inside import InsideMesh, LiveMesh, MemoryMesh, jumping_loop
from mesh.process import ProcessMesh, fresh_environment, running_mesh
from mesh.warm import warm_parent


@pytest.fixture(scope="session")
def one_warm_parent() -> Iterator[None]:
    """Forks what starts in meshes of processes. Begins before whatever a test is looked at for leaving behind."""
    with warm_parent(fresh_environment()):
        yield


@pytest.fixture
def process_mesh(one_warm_parent: None, tmp_path: pathlib.Path) -> Iterator[Callable[..., ProcessMesh]]:
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


@pytest_asyncio.fixture
async def memory_mesh(tmp_path: pathlib.Path) -> AsyncIterator[Callable[..., Awaitable[MemoryMesh]]]:
    """``await memory_mesh(n)``: ``n`` nodes in this process, links in memory, virtual time. The test is marked
    ``jumping``."""
    loop, made = jumping_loop(), list[MemoryMesh]()

    async def make(servers: int, *, seed: int = 0, preset: str = "local", voters: bool = False) -> MemoryMesh:
        made.append(mesh := MemoryMesh(tmp_path / f"memory-{len(made)}", loop, seed=seed))
        mesh.folder.mkdir()
        await mesh.start(servers, preset=preset, voters=voters)
        return mesh

    yield make
    await _close(made)


@pytest_asyncio.fixture
async def live_mesh(tmp_path: pathlib.Path) -> AsyncIterator[Callable[..., Awaitable[LiveMesh]]]:
    """``await live_mesh(n)``: ``n`` nodes in this process with real TLS on loopback, in real time."""
    made: list[LiveMesh] = []

    async def make(servers: int, *, preset: str = "local") -> LiveMesh:
        made.append(mesh := LiveMesh(tmp_path / f"live-{len(made)}"))
        mesh.folder.mkdir()
        await mesh.start(servers, preset=preset)
        return mesh

    yield make
    await _close(made)


async def _close(meshes: Sequence[InsideMesh]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for mesh in meshes:
            stack.push_async_callback(mesh.close)
