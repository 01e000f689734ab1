"""Communication settings, through a mesh in memory: what stays on a server is asked of it when somebody looks."""

from __future__ import annotations

import pathlib

import pytest
from mesh.inside import MemoryMesh
from mesh.trees import make_tree
from waiting import wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v


async def setting(mesh: MemoryMesh, name: str, value: str) -> None:
    await mesh.call("alpha", "settings.set", q.SettingSet(name, value, server="beta"), v.SettingList)

    async def obeyed() -> bool:
        return mesh.nodes["beta"].server.orders.settings[name] == value

    await wait_for_async(obeyed, 30.0, what=f"beta knows {name}")


async def log(mesh: MemoryMesh, run: str) -> v.JobLogView:
    return await mesh.call("alpha", "job.log", q.JobLogRequest(run), v.JobLogView)


async def told(mesh: MemoryMesh, run: str) -> tuple[int, int]:
    """How many lines and exceptions of a run the administrator has itself."""
    voter = mesh.nodes["alpha"].seat.voter
    attempts = voter.keeper.state.attempts_of(run)
    lines = [line for attempt in attempts for line in await voter.tables.log(attempt)]
    return len(lines), len(await voter.tables.exceptions(attempts))


@pytest.mark.jumping
async def test_job_log_and_history_forwarding_never_leave_both_on_the_server_which_is_asked_for_them(
    memory_mesh, tmp_path: pathlib.Path
) -> None:
    tree = make_tree(tmp_path / "data", files=20)
    mesh: MemoryMesh = await memory_mesh(2)
    await mesh.stop("beta")
    with (mesh.state("beta") / "config.toml").open("a", encoding="utf-8") as file:
        file.write('[commands.after]\nkind = "post"\nargv = ["/bin/false"]\n')
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    await mesh.add_device("beta")
    await setting(mesh, "joblog-forwarding", "never")
    await setting(mesh, "history-forwarding", "never")
    result = await mesh.result((await mesh.backup("beta", tree, "server:beta", post="after")).run)
    assert result.state == "succeeded-with-exceptions" and result.exceptions, result
    assert await told(mesh, result.run) == (0, 0)
    (lines,) = (await log(mesh, result.run)).attempts
    assert lines.lines

    await mesh.stop("beta")
    away = await log(mesh, result.run)
    assert (away.attempts, away.away) == ((), ("beta",))
    again = await mesh.result(result.run)
    assert again.exceptions == () and any("beta" in warning for warning in again.warnings)

    # what was held back is told once it may be
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    assert (await log(mesh, result.run)).attempts == (lines,)
    await setting(mesh, "joblog-forwarding", "at-end")
    await setting(mesh, "history-forwarding", "at-end")

    async def arrived() -> bool:
        return all(await told(mesh, result.run))

    await wait_for_async(arrived, 60.0, what="the administrator is told")
    assert await log(mesh, result.run) == v.JobLogView((lines,))
    assert (await mesh.result(result.run)).exceptions == result.exceptions
