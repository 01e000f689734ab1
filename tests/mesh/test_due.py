"""What becomes of runs that do not begin or end in time, in whole meshes."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from mesh.test_commands import allow, is_alive
from mesh.test_policies import runs_of
from mesh.trees import make_tree
from waiting import wait_for, wait_for_async

from caso_mesh.model import requests as q
from caso_mesh.model import views as v


async def told(mesh: Any, category: str) -> list[v.AlertView]:
    found = (await mesh.call("alpha", "alert.list", q.AlertListRequest(all=True), v.AlertList)).alerts
    return [row for row in found if row.category == category]


async def until(mesh: Any, minute: int) -> None:
    """Until so many minutes after the meshes of this process begin, at midnight."""
    clock = mesh.clock("alpha")
    await wait_for_async(lambda: clock.monotonic_s() >= 60 * minute, 3600, every_s=1, what=f"minute {minute}")


@pytest.mark.jumping
async def test_missed_run_and_catch_up_after_sleep(memory_mesh, tmp_path):
    """A server sleeps through two due times: what they missed is told with the reason, and of what may be caught up with
    the latest is done once, when it is back."""
    tree = make_tree(tmp_path / "data", files=20)
    mesh = await memory_mesh(2)
    await mesh.add_device("alpha")
    schedule = {"schedule": "5,10 0 * * *", "start_window_s": 120.0}
    await mesh.backup("beta", tree, "any", name="strict", **schedule)
    await mesh.backup("beta", tree, "any", name="lenient", catch_up=True, **schedule)
    await until(mesh, 4)
    await mesh.stop("beta")
    await until(mesh, 13)
    due = ["2025-01-06T00:05:00Z", "2025-01-06T00:10:00Z"]
    assert await runs_of(mesh, "strict") == [(due[0], "missed"), (due[1], "missed")]
    assert await runs_of(mesh, "lenient") == [(due[0], "missed"), (due[1], "ready")]
    overtaken, late = sorted(row.object for row in await told(mesh, "job-late"))
    assert late.endswith("@20250106T001000Z")
    await mesh.run("beta")

    async def caught_up() -> bool:
        return (await runs_of(mesh, "lenient"))[-1] == (due[1], "succeeded")

    await wait_for_async(caught_up, 60.0, every_s=1, what="what was missed is caught up with")
    missed = await told(mesh, "job-missed")
    assert len(missed) == len({row.object for row in missed}) == 3
    assert overtaken in {row.object for row in missed}
    assert all("unreachable" in row.text for row in missed if row.object != overtaken), missed
    await until(mesh, 20)
    assert await runs_of(mesh, "strict") == [(due[0], "missed"), (due[1], "missed")]
    (made,) = await mesh.sets()
    assert (made.source, made.run) == ("beta", late)


def due_soon(mesh: Any, *words: str) -> str:
    """The name of a new backup that is due in a moment: where a command takes as long as that, later."""
    for ahead_s in (4, 30, 100):
        due, name = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead_s), f"in-{ahead_s}-s"
        once = ("--schedule", f"once {due:%Y-%m-%dT%H:%M:%S}", "--name", name)
        answer = mesh.cli("alpha", "backup", *words, *once)
        if answer.status == 0 and answer.document["next_due"]:
            return name
    raise AssertionError(str(answer))


def test_cancel_after_counts_from_the_actual_start_and_ends_what_hangs(process_mesh, tmp_path):
    """A dump hangs: its run is timed out, its worker and its command are gone, and the next due time is another run."""
    mesh = process_mesh(0)
    mesh.init("alpha")
    hangs = tmp_path / "hangs"
    allow(mesh, "alpha", "slow", "dump", f"echo $$ > {hangs}; sleep 600")
    mesh.run("alpha")
    disk = tmp_path / "disk"
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    mesh.ok("alpha", "server", "hold-queue", "alpha")
    name = due_soon(mesh, "alpha:@slow", "--to", "any", "--cancel-after", "2s")

    def run() -> dict[str, Any]:
        (found,) = mesh.ok("alpha", "job", "show", name)["runs"]
        return found

    def held() -> bool:
        return any(row["reason"] == "queue-on-hold" for row in mesh.jobs() if row["name"] == name)

    wait_for(held, 120.0, what="it waits, and that does not count", every_s=0.2)
    mesh.ok("alpha", "server", "release-queue", "alpha")
    wait_for(lambda: run()["state"] == "timed-out", 60.0, what="the run is timed out", every_s=0.2)
    wait_for(lambda: run()["attempts"][0]["state"] == "canceled", 60.0, what="its attempt is told", every_s=0.2)
    if hangs.exists():  # but on a machine that needs two seconds until the dump begins
        wait_for(lambda: not is_alive(int(hangs.read_text())), what="the command is gone")
    (alert,) = mesh.told("job-timed-out")
    assert alert["object"] == run()["run"]
    assert not mesh.workers("alpha") and not mesh.sets()
