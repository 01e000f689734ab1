"""What the warm parent forks is the program, as a fresh interpreter runs it."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from mesh import warm
from mesh.process import ProcessMesh, fresh_environment, running_mesh
from waiting import wait_for


@pytest.fixture
def parent() -> warm.Warm:
    assert warm.parent is not None
    return warm.parent


@pytest.mark.parametrize(
    "argv",
    [
        ("help", "errors"),
        ("status", "--state", "nowhere", "--json"),
        ("status", "--no-such-option"),
        ("init", "--mesh", "meadow", "--server", "Not A Name", "--listen", "127.0.0.1:0", "--state", "new"),
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_a_command_says_the_same_with_the_same_exit_status(
    argv: tuple[str, ...], parent: warm.Warm, tmp_path: pathlib.Path
) -> None:
    environment = {**fresh_environment(), "HOME": str(tmp_path)}
    cold = subprocess.run(
        [sys.executable, "-m", "caso_mesh", *argv], capture_output=True, env=environment, cwd=tmp_path, check=False
    )
    forked = parent.start(argv, env=environment, cwd=str(tmp_path))
    out, err = forked.communicate(60)
    assert (forked.returncode, out, err) == (cold.returncode, cold.stdout, cold.stderr)
    assert out or err


def test_what_is_forked_has_its_own_environment_and_none_of_the_descriptors_of_others(
    parent: warm.Warm, tmp_path: pathlib.Path
) -> None:
    with running_mesh(tmp_path / "mesh") as mesh:
        mesh.init("alpha")
        mesh.variables["SAID"] = "so"
        mesh.run("alpha")
        pid = mesh.pid("alpha")
        assert _parent_of(pid) == parent.pid
        other = parent.start(["run", "--state", "nowhere"], env=fresh_environment(), cwd=str(tmp_path))
        other.communicate(60)
        assert other.returncode == 3
        ours = {os.readlink(f"/proc/{parent.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{parent.pid}/fd")}
        theirs = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert {name for name in ours & theirs if name != "/dev/null"} <= _standard_streams(parent.pid)
        nursery = wait_for(lambda: _nursery(pid), what="it has a parent of workers")
        assert nursery is not None and b"SAID=so" in _file(nursery, "environ").split(b"\0")


def test_how_it_ended_is_told_also_when_it_was_killed(parent: warm.Warm, tmp_path: pathlib.Path) -> None:
    with running_mesh(tmp_path / "mesh") as mesh:
        mesh.init("alpha")
        mesh.run("alpha")
        pid = mesh.pid("alpha")
        mesh.kill("alpha", signal.SIGKILL)
        assert not mesh.is_running("alpha") and not pathlib.Path(f"/proc/{pid}").exists()
        mesh.run("alpha")
        assert mesh.terminate("alpha") == 0


def test_it_dies_with_the_warm_parent(tmp_path: pathlib.Path) -> None:
    own = warm.Warm(fresh_environment())
    mesh = ProcessMesh(tmp_path / "mesh")
    mesh.init("alpha")
    words = ["run", "--state", str(mesh.state("alpha"))]
    daemon = own.start(words, env=mesh.environment(), cwd=str(tmp_path))
    wait_for((mesh.state("alpha") / "run" / "endpoint").exists, what="it listens")
    own.close()
    assert daemon.wait(30) == -signal.SIGKILL
    wait_for(lambda: not pathlib.Path(f"/proc/{daemon.pid}").exists(), what="it is gone")
    daemon.communicate()
    mesh.stop()


def test_cold_ones_are_fresh_interpreters(tmp_path: pathlib.Path) -> None:
    with running_mesh(tmp_path / "mesh") as mesh:
        mesh.cold = True
        mesh.init("alpha")
        mesh.run("alpha")
        assert _parent_of(mesh.pid("alpha")) == os.getpid()
        assert b"caso_mesh" in _file(mesh.pid("alpha"), "cmdline")
        assert mesh.ok("alpha", "status")["admin"] == "alpha"


def _file(pid: int, name: str) -> bytes:
    return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()


def _parent_of(pid: int) -> int:
    return int(_file(pid, "stat").rpartition(b")")[2].split()[1])


def _nursery(pid: int) -> int | None:
    """Of whichever thread it is a child."""
    found = [path.read_text().split() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(each) for some in found for each in some]
    return next((each for each in children if b"caso_mesh.jobs.nursery" in _file(each, "cmdline")), None)


def _standard_streams(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/fd/{stream}") for stream in range(3)}
