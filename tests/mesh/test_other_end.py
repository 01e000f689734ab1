"""What the job log says at one end of an attempt when the other end has ended it."""

from __future__ import annotations

import shutil

import pytest
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q

pytestmark = pytest.mark.jumping


async def test_the_media_server_says_which_server_ended_an_attempt_and_why(memory_mesh, tmp_path, monkeypatch):
    """Its part of the job log said "canceled", which nobody had done: the path was missing at the source."""
    tree = make_tree(tmp_path / "data", files=5)
    mesh = await memory_mesh(2)
    await mesh.add_device("beta")
    source, media = mesh.nodes["alpha"].server, mesh.nodes["beta"].server
    make = source._tasks.make

    async def later(local):
        await wait_for_async(media.attempts.running, 60, what="beta waits for alpha")
        shutil.rmtree(tree)
        return await make(local)

    monkeypatch.setattr(source._tasks, "make", later)
    result = await mesh.result((await mesh.backup("alpha", tree, "device:disk-beta")).run)
    assert (result.state, result.error["code"]) == ("failed", "source-path-missing")

    async def lines():
        log = await mesh.call("alpha", "job.log", q.JobLogRequest(result.run), o.JobLogView)
        found = [line for each in log.attempts for line in each.lines]
        return found if found and any(line.text.startswith("ended") for line in found) else None

    told = await wait_for_async(lines, 60, what="the end of beta's part")
    assert ("warning", f"alpha ended it: alpha has no {tree}.") in [(line.level, line.text) for line in told]
    assert any(line.text.startswith("ended, given up") for line in told)
    assert not any("canceled" in line.text for line in told)
    detail = await mesh.call("alpha", "job.show", q.JobName(result.run), o.JobDetail)
    assert [each.state for each in detail.runs[0].attempts] == ["failed"]
