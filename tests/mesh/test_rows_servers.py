"""Servers, voters and pools as the domain has them: what they are by themselves, and what every view can be filtered by."""

from __future__ import annotations

import pytest
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import browsing as b
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

pytestmark = pytest.mark.jumping


async def test_with_the_third_server_the_second_and_third_vote_by_themselves_but_none_that_never_shall(memory_mesh):
    mesh = await memory_mesh(2, voters=True)

    async def voters() -> list[str]:
        return sorted((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters)

    assert await voters() == ["alpha"], "two would be worse than one"
    await mesh.join("gamma", voters=False)
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    assert await voters() == ["alpha"]
    await mesh.join("delta", voters=True)
    await mesh.run("delta")
    await wait_for_async(lambda: _three(voters), 60.0, what="three servers vote")
    assert await voters() == ["alpha", "beta", "delta"]


async def _three(voters) -> bool:
    return len(await voters()) == 3


async def test_the_administrator_is_a_media_server_in_pools_too_and_every_list_is_filtered_by_server_and_pool(
    memory_mesh, tmp_path
):
    tree = make_tree(tmp_path / "data", files=3)
    mesh = await memory_mesh(3)
    for name in ("alpha", "beta"):
        await mesh.add_device(name)
    await mesh.add_pool("east", "alpha")
    await mesh.add_pool("west", "beta")
    await mesh.add_pool("all", "alpha", "beta", "gamma")
    runs = {
        pool: await mesh.result((await mesh.backup("gamma", tree, f"pool:{pool}")).run) for pool in ("east", "west")
    }
    assert {pool: result.server for pool, result in runs.items()} == {"east": "alpha", "west": "beta"}

    async def seen(call, request, reply, rows, *, one="server"):
        shown = getattr(await mesh.call("alpha", call, request, reply), rows)
        return sorted(getattr(row, one) for row in shown)

    for pool, server in (("east", "alpha"), ("west", "beta")):
        servers = await seen("server.list", q.ServerListRequest(pool=pool), v.ServerList, "servers", one="name")
        assert servers == [server]
        for asked in ({"server": server}, {"pool": pool}):
            where = q.DeviceListRequest(**asked)
            assert await seen("device.list", where, v.DeviceList, "devices", one="name") == [f"disk-{server}"]
            assert await seen("medium.list", where, v.MediumList, "media") == [server]
            assert await seen("set.list", q.SetListRequest(**asked), b.SetList, "sets") == [server]
            jobs = q.JobListRequest(state="all", **asked)
            assert runs[pool].run in await seen("job.list", jobs, o.JobList, "jobs", one="run")
    assert await seen("set.list", q.SetListRequest(pool="all"), b.SetList, "sets") == ["alpha", "beta"]
    only = q.JobListRequest(state="all", server="beta")
    assert await seen("job.list", only, o.JobList, "jobs", one="run") == [runs["west"].run]
    succeeded = q.JobListRequest(state="succeeded")
    assert len(await seen("job.list", succeeded, o.JobList, "jobs", one="run")) == 2
    assert await seen("job.list", q.JobListRequest(state="failed"), o.JobList, "jobs", one="run") == []
