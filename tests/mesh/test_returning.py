"""A server that was cut off for long and did its work meanwhile: what it did is told before anybody does it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.facts import Audit


@pytest.mark.jumping
async def test_what_a_server_did_while_it_was_given_up_is_not_done_again_when_it_returns(
    memory_mesh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was handed its part the moment it was linked again, and its success of before came a moment later."""
    mesh: MemoryMesh = await memory_mesh(3)
    await mesh.add_device("gamma")
    for name in ("stalled-after-s", "no-communication-after-s"):
        await mesh.call("alpha", "settings.set", q.SettingSet(name, "20s"), v.SettingList)
    tree = mesh.folder / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    start = ThreadRunner.start
    begun: list[str] = []

    async def cut_off(self: ThreadRunner, task: Any) -> Any:
        """In the moment in which it begins, gamma loses its way to the administrator."""
        begun.append(task.order.attempt)
        if len(begun) == 1:
            mesh.network.cut(mesh.endpoint("alpha"), mesh.endpoint("gamma"))
        return await start(self, task)

    monkeypatch.setattr(ThreadRunner, "start", cut_off)
    run = (await mesh.backup("gamma", tree, "server:gamma")).run
    assert run is not None

    async def given_up() -> bool:
        row = next(row for row in await mesh.servers() if row.name == "gamma")
        return row.state == "no-communication"

    await wait_for_async(given_up, 300, every_s=2, what="gamma is given up")
    node = mesh.nodes["gamma"].server
    # much has happened there: the success is not in the first words
    await node.facts.append(*(Audit("gamma", "test", "mesh", fields={"what": "x" * 2000}) for _ in range(1000)))
    mesh.network.heal()
    result = await mesh.result(run)
    assert result.state == "succeeded"
    assert begun == [f"{run}#1"]
    assert [each.attempt for each in await mesh.sets()] == [f"{run}#1"]


@pytest.mark.jumping
async def test_a_server_that_returns_gets_other_work_while_it_is_telling(
    memory_mesh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh: MemoryMesh = await memory_mesh(3)
    await mesh.add_device("gamma")
    node = mesh.nodes["gamma"].server
    # it never comes to an end with what it has to tell
    monkeypatch.setattr(type(node.courier), "telling", property(lambda self: True))
    trees = [mesh.folder / name for name in ("one", "two")]
    for tree in trees:
        tree.mkdir()
        (tree / "file").write_text("content")
    runs = [
        (await mesh.backup(name, tree, "server:gamma")).run for name, tree in zip(("alpha", "beta"), trees, strict=True)
    ]
    assert [(await mesh.result(run)).state for run in runs if run] == ["succeeded", "succeeded"]
    assert (await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).admin == "alpha"
