"""A restore that is tried again, by whichever media server: the attempt before has ended at its target by then, whatever
broke, and two never write there at once."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest
from mesh.faulty import Faulty
from mesh.inside import MemoryMesh
from mesh.process import ProcessMesh
from mesh.trees import assert_equal, make_large_tree, make_tree
from waiting import wait_for, wait_for_async

from caso_mesh.jobs.thread_runner import ThreadRunner
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v

UNCONFIRMED = "end-unconfirmed"


def waits_for(mesh: ProcessMesh, run: str) -> str | None:
    return next((row["reason"] for row in mesh.jobs() if row["run"] == run), None)


def attempts_of(mesh: ProcessMesh, run: str) -> list[str]:
    shown = mesh.ok("alpha", "job", "show", run.partition("@")[0])
    return [each["state"] for row in shown["runs"] if row["run"] == run for each in row["attempts"]]


@pytest.mark.jumping
async def test_a_restore_whose_media_server_is_lost_is_done_by_another_one_once_its_target_has_ended_the_first(
    memory_mesh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one in office did not ask the target, whose worker may be killed and hang, and write yet when it wakes."""
    mesh: MemoryMesh = await memory_mesh(4)
    for name in ("stalled-after-s", "no-communication-after-s"):
        await mesh.call("alpha", "settings.set", q.SettingSet(name, "20s"), v.SettingList)
    folder, tree, back = (mesh.folder / name for name in ("nas", "tree", "back"))
    folder.mkdir()
    make_tree(tree, files=5)
    places = {"gamma": str(folder), "delta": str(folder)}
    await mesh.call("alpha", "device.add", q.DeviceAdd("nas", "shared", places), v.DeviceView)
    backup = await mesh.result((await mesh.backup("alpha", tree, "device:nas")).run or "")
    start, begun, left = ThreadRunner.start, list[tuple[str, str, str]](), asyncio.Event()

    async def breaks(self: ThreadRunner, task: Any) -> Any:
        """Whoever reads for the first attempt is lost in that moment, and who writes hangs once it is killed."""
        attempt, end = task.order.attempt, task.order.end
        begun.append((attempt.rpartition("#")[2], task.server_name, end))
        if attempt.endswith("#1") and end == "device":
            for other in {"alpha", "beta", "gamma", "delta"} - {task.server_name}:
                mesh.network.cut(mesh.endpoint(other), mesh.endpoint(task.server_name))
            await asyncio.Event().wait()
        worker = await start(self, task)
        if attempt.endswith("#1"):
            monkeypatch.setattr(worker, "gone", left.wait)
        return worker

    monkeypatch.setattr(ThreadRunner, "start", breaks)
    request = q.RestoreRequest(backup.set or "", to=("beta", bytes(back)), strip=True)
    run = (await mesh.call("alpha", "restore", request, o.Submitted)).run or ""

    async def unconfirmed() -> bool:
        return any(row.reason == UNCONFIRMED for row in await mesh.jobs())

    await wait_for_async(unconfirmed, 300, every_s=2, what="the end of the first attempt is waited for")
    await asyncio.sleep(200)
    assert await unconfirmed() and len(begun) == 2, begun
    left.set()
    assert (await mesh.result(run)).state == "succeeded"
    lost = next(server for number, server, end in begun if (number, end) == ("1", "device"))
    other = "delta" if lost == "gamma" else "gamma"
    assert sorted(begun[2:]) == [("2", "beta", "source"), ("2", other, "device")]
    assert_equal(tree, back)


def test_a_restore_begins_again_only_when_nothing_of_it_is_at_work_at_its_target(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    """The media server's word that its worker died counted as the end of both."""
    tree, back = make_large_tree(tmp_path / "tree", megabytes=20), tmp_path / "back"
    mesh = process_mesh(3)
    (tmp_path / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "beta", "--path", str(tmp_path / "disk"))
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
    mesh.ok("alpha", "settings", "set", "bandwidth-limit", "2MB", "--server", "beta")
    begun = mesh.begin("alpha", "restore", made["set"], "--to", f"gamma:{back}", "--strip", "--wait")
    wait_for(lambda: back.is_dir() and list(back.iterdir()), 60.0, what="something is written", every_s=0.02)
    writers = mesh.workers("gamma")
    for pid in writers:
        os.kill(pid, signal.SIGSTOP)  # in the middle of whatever it does
    [row] = mesh.jobs()
    for pid in mesh.workers("beta"):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: waits_for(mesh, row["run"]) == UNCONFIRMED, 60.0, what="its end is waited for", every_s=0.1)
    assert mesh.workers("gamma") == writers and mesh.workers("beta") == []
    mesh.ok("alpha", "settings", "unset", "bandwidth-limit", "--server", "beta")
    for pid in writers:
        os.kill(pid, signal.SIGCONT)
    answer = begun.end()
    assert answer.document["state"] == "succeeded", str(answer)
    assert attempts_of(mesh, row["run"]) == ["interrupted", "succeeded"]
    assert_equal(tree, back)


@pytest.mark.long
def test_a_restore_that_hangs_in_the_file_system_of_its_target_and_loses_its_media_server_waits_for_the_file_system(
    faulty: Callable[[pathlib.Path], Faulty], process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    """A worker that was killed was counted as gone, and wrote on when the file system answered: into the files of the next."""
    tree, target = make_large_tree(tmp_path / "tree", megabytes=20), faulty(tmp_path / "target")
    mesh = process_mesh(3)
    (tmp_path / "nas").mkdir()
    on = [word for name in ("beta", "gamma") for word in ("--on", f"{name}={tmp_path / 'nas'}")]
    mesh.ok("alpha", "device", "add", "nas", "--kind", "shared", *on)
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "device:nas", "--wait")
    back = target.path / "back"
    mesh.ok("alpha", "settings", "set", "bandwidth-limit", "2MB")
    begun = mesh.begin("alpha", "restore", made["set"], "--to", f"alpha:{back}", "--strip", "--wait")
    wait_for((target.real / "back").is_dir, 60.0, what="something is written", every_s=0.02)
    [row] = mesh.jobs()
    with target.failing("write hang"):
        [writer] = mesh.workers("alpha")
        looks = [-1]

        def stands() -> bool:
            files = [path for path in (target.real / "back").rglob("*") if path.is_file()]
            looks.append(sum(path.stat().st_blocks for path in files))
            return looks[-1] == looks[-2]

        # content still comes: what it is at hangs
        wait_for(stands, 60.0, what="nothing is written any more", every_s=3.0)
        mesh.kill(row["server"])
        for name in ("stalled-after-s", "no-communication-after-s"):
            mesh.ok("alpha", "settings", "set", name, "2s", "--server", row["server"])
        wait_for(lambda: waits_for(mesh, row["run"]) == UNCONFIRMED, 60.0, what="its end is waited for", every_s=0.2)
        # longer than it is given to end by itself, and after the kill
        wait_for(
            lambda: "but hangs in a file system" in mesh.log("alpha", 4000), 90.0, what="it is killed", every_s=1.0
        )
        assert waits_for(mesh, row["run"]) == UNCONFIRMED and os.path.exists(f"/proc/{writer}")
        mesh.ok("alpha", "settings", "unset", "bandwidth-limit")
    answer = begun.end()
    assert answer.document["state"] == "succeeded", str(answer)
    assert answer.document["server"] not in {row["server"], "alpha"}
    assert attempts_of(mesh, row["run"]) == ["recovered", "succeeded"]
    assert_equal(tree, target.real / "back")
