"""The composition root: making a mesh, interrupted and repeated; offices that begin and end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import caso_mesh.founding as founding
from caso_mesh.daemon import open_node
from caso_mesh.founding import init_mesh
from caso_mesh.identity.store import IdentityStore
from caso_mesh.machine import Ports
from caso_mesh.model.errors import (
    CannotListen,
    CasoError,
    InvalidName,
    InvalidValue,
    StateLocked,
    StateNotEmpty,
    StateTooNew,
)
from caso_mesh.server.folder import StateFolder
from caso_mesh.wire.memory import MemoryNetwork


class NoRunner:
    async def start(self, task: object) -> object:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def _no_runner() -> AsyncIterator[NoRunner]:
    yield NoRunner()


def ports(state: Path) -> Ports:
    try:
        certificate = IdentityStore(state / "identity").load_chain()[0]
    except CasoError:
        certificate = b""  # before there is a mesh, nobody is shown anything
    return Ports(
        network=MemoryNetwork().endpoint(certificate, name="alpha"),
        runner=lambda folder: _no_runner(),  # type: ignore[arg-type,return-value]
        same_thread=True,
    )


async def _init(state: Path, **fields: object) -> None:
    values = {"mesh": "home", "server": "alpha", "listen": "alpha:7", "ports": ports(state)} | fields
    await init_mesh(state=state, **values)  # type: ignore[arg-type]


async def _takes_office(state: Path) -> bool:
    async with open_node(StateFolder(state), ports(state)) as node:
        running = asyncio.get_running_loop().create_task(node.run())
        try:
            async with asyncio.timeout(30):
                while not node.in_office:  # noqa: ASYNC110 - a few turns of the loop
                    await asyncio.sleep(0.01)
            return True
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_a_new_mesh_of_one_takes_office_and_is_not_made_twice(tmp_path: Path) -> None:
    state = tmp_path / "a"
    await _init(state)
    assert await _takes_office(state)
    with pytest.raises(StateNotEmpty, match="alpha"):
        await _init(state, server="beta")
    assert await _takes_office(state)


STEPS = ["save_chain", "save_id_key", "write_operator", "save_orders", "_keep_log", "save_mesh_id"]


@pytest.mark.parametrize("step", STEPS)
async def test_init_that_was_interrupted_anywhere_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    state = tmp_path / "a"
    where = {"save_orders": founding.Queue, "_keep_log": founding}.get(step, IdentityStore)

    def dies(*args: object, **fields: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(where, step, dies)
        with pytest.raises(InterruptedError):
            await _init(state)
    if step == "save_mesh_id":
        # all but the last step was done: it is done now, and the mesh is there
        with pytest.raises(StateNotEmpty):
            await _init(state)
    else:
        await _init(state)
    assert await _takes_office(state)


async def test_a_real_log_whose_identity_was_lost_is_never_overwritten(tmp_path: Path) -> None:
    state = tmp_path / "a"
    await _init(state)
    (state / "identity" / "mesh.id").unlink()
    before = (state / "consensus.db").read_bytes()
    for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
        (state / name).unlink(missing_ok=True)
    with pytest.raises(StateNotEmpty):
        await _init(state)
    assert (state / "consensus.db").read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"mesh": "Home Sweet"}, InvalidName),
        ({"server": "../x"}, InvalidName),
        ({"preset": "moon"}, InvalidValue),
        ({"listen": "nowhere"}, CannotListen),
        ({"advertise": ("x",)}, InvalidValue),
    ],
)
async def test_bad_names_make_nothing(tmp_path: Path, fields: dict[str, object], error: type[CasoError]) -> None:
    with pytest.raises(error):
        await _init(tmp_path / "a", **fields)
    assert not (tmp_path / "a").exists()


async def test_a_folder_that_is_in_use_newer_or_no_folder_is_refused(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "a")
    state.create()
    with state.locked(), pytest.raises(StateLocked):
        await _init(state.path)
    state.version.write_text("99\n")
    with pytest.raises(StateTooNew):
        await _init(state.path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidValue):
        await _init(tmp_path / "file" / "below")
    assert os.listdir(tmp_path / "a" / "identity") == []
