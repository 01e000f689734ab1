"""Servers of earlier programs in a mesh of this one: they work together, or the work waits and says for whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from mesh.older_peer import OlderPeer
from waiting import wait_for_async

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q


async def site(memory_mesh: Callable[..., Any]) -> MemoryMesh:
    """Three servers with a disk and a file each."""
    mesh: MemoryMesh = await memory_mesh(3)
    for name in ("alpha", "beta", "gamma"):
        await mesh.add_device(name)
        (mesh.folder / f"files-{name}").mkdir()
        (mesh.folder / f"files-{name}" / "file").write_text(f"of {name}")
    return mesh


async def backed_up(mesh: MemoryMesh, source: str, to: str) -> o.RunResult:
    run = (await mesh.backup(source, mesh.folder / f"files-{source}", f"server:{to}")).run
    assert run is not None
    return await mesh.result(run)


async def restored(mesh: MemoryMesh, set_id: str, source: str, to: str) -> str:
    """What the file of ``source`` holds that was restored to another server."""
    base = mesh.folder / f"back-{set_id}-{to}"
    asked = q.RestoreRequest(set=set_id, to=(to, bytes(base)))
    run = (await mesh.call("alpha", "restore", asked, o.Submitted)).run
    assert run is not None
    result = await mesh.result(run)
    assert result.state == "succeeded", result
    return (base / str(mesh.folder / f"files-{source}" / "file").lstrip("/")).read_text()


@pytest.mark.jumping
@pytest.mark.parametrize("name", ["beta", "alpha"], ids=["member", "administrator"])
async def test_a_server_that_knows_no_later_field_backs_up_and_restores_in_both_directions(
    memory_mesh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    older = OlderPeer(name, records=1, level=2)
    older.install(monkeypatch)
    mesh = await site(memory_mesh)
    for source, to in ((name, "gamma"), ("gamma", name)):
        result = await backed_up(mesh, source, to)
        assert (result.state, result.server) == ("succeeded", to), result
        assert result.set is not None
        assert await restored(mesh, result.set, source, source) == f"of {source}"
    rows = {row.name: row.connected for row in await mesh.servers()}
    assert rows == {"alpha": True, "beta": True, "gamma": True}
    # it was told and said much that its time did not know
    assert {"HelloRequest.bulk_newest", "requests.Heartbeat.telling"} <= older.dropped


@pytest.mark.jumping
async def test_work_with_a_server_that_speaks_no_common_dialogue_waits_until_it_is_upgraded(
    memory_mesh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = OlderPeer("beta", records=1, level=1)
    older.install(monkeypatch)
    mesh = await site(memory_mesh)
    assert (await backed_up(mesh, "beta", "beta")).state == "succeeded"
    run = (await mesh.backup("gamma", mesh.folder / "files-gamma", "server:beta")).run
    assert run is not None

    async def waits() -> bool:
        (row,) = [each for each in await mesh.jobs() if each.run == run]
        return (row.state, row.reason, row.reason_fields) == ("ready", "server-too-old", {"servers": ["beta"]})

    await wait_for_async(waits, 60.0, what="it waits for beta", every_s=0.5)
    await mesh.stop("beta")
    older.upgraded = True
    await mesh.run("beta")
    assert (await mesh.result(run)).state == "succeeded"
