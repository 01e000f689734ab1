"""The demo: what it takes, how it compares, and that it leaves nothing behind whatever happens."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_world import Shell

from caso_mesh import demo
from caso_mesh.model.errors import DaemonNotRunning, DemoFailed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "inner" / "__pycache__").mkdir(parents=True)
    (folder / "a").write_bytes(b"some bytes")
    (folder / "inner" / "b").write_bytes(b"others")
    (folder / "inner" / "__pycache__" / "b.pyc").write_bytes(b"compiled")
    return folder


def restored(tree: Path, scratch: Path) -> None:
    """What a restore of ``tree`` below ``scratch`` leaves."""
    target = scratch / tree.relative_to("/")
    shutil.copytree(tree, target, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    shutil.copystat(tree / "inner", target / "inner")


def test_it_backs_up_the_files_of_this_python_or_the_folder_it_is_given(tree: Path) -> None:
    own = demo.choose_sources(None)
    assert os.fsencode(os.path.realpath(sysconfig.get_path("stdlib"))) in own.roots
    files, size = demo.count(own)
    assert files >= 2000
    assert size > 10_000_000
    given = demo.choose_sources(tree)
    assert given.roots == (os.fsencode(tree),)
    assert demo.count(given) == (2, len(b"some bytes") + len(b"others"))


def test_compiled_files_do_not_count_and_every_other_difference_does(tree: Path, tmp_path: Path) -> None:
    sources, scratch = demo.choose_sources(tree), tmp_path / "scratch"
    restored(tree, scratch)
    copy = scratch / tree.relative_to("/")

    def found() -> list[str]:
        return list(demo.compare(sources, os.fsencode(scratch)))

    assert found() == []
    (copy / "inner" / "b").chmod(0o600)
    (copy / "a").write_bytes(b"SOME bytes")
    os.utime(copy / "a", ns=((tree / "a").stat().st_atime_ns, (tree / "a").stat().st_mtime_ns))
    assert [line.split(":")[0] for line in found()] == ["content of 'a'", "mode of 'inner/b'"]
    (copy / "a").unlink()
    assert "missing: 'a'" in found()


def test_a_plain_user_compares_the_owner_of_own_files_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "owner of 'x': 0:0, 1000:1000",
        "owner of 'y': 1000:5, 1000:1000",
        "owner of 'z': 1000:1000, 7:7",
        "mode of 'x': 1, 2",
    ]
    monkeypatch.setattr(demo, "differences", lambda *_, **__: iter(lines))
    sources = demo.choose_sources(tree)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert list(demo.compare(sources, b"/s")) == lines[2:]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert list(demo.compare(sources, b"/s")) == lines


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts its folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", os.fspath(folder))
    return folder


async def test_differences_are_shown_and_fail_it_and_none_are_ok(
    tree: Path, temporary: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = [f"missing: 'f{number}'" for number in range(25)]

    async def run(_: demo.Demo) -> list[str]:
        return found

    monkeypatch.setattr(demo.Demo, "run", run)
    told = await shell("demo", "--source", os.fspath(tree), state=False)
    assert told.status == 1
    assert told.out.count("DIFFERENT missing") == 20
    assert "and 5 differences more" in told.out
    assert "OK" not in told.out
    found.clear()
    told = await shell("demo", "--source", os.fspath(tree), state=False)
    assert told.status == 0
    assert told.out.splitlines()[-1].startswith("OK: 2 files, 16 B, backed up, restored and compared: no difference")
    assert list(temporary.iterdir()) == []


async def test_a_daemon_that_ends_at_once_ends_the_demo_with_its_last_words_and_nothing_stays(
    tree: Path, temporary: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(*words: str) -> tuple[str, ...]:
        code = "import sys; print('no such luck', file=sys.stderr); sys.exit(sys.argv[1] == 'run')"
        return (sys.executable, "-S", "-c", code, *words)

    monkeypatch.setattr(demo, "_program", program)

    def nowhere() -> str:
        raise DaemonNotRunning(address="there", state="here")

    # the first call after the start of the daemon waits for it
    access = SimpleNamespace(operator=None, where=nowhere, addresses=())
    monkeypatch.setattr("caso_mesh.cli.client.load_access", lambda _: access)
    told = await shell("demo", "--source", os.fspath(tree), state=False)
    assert told.status == 1
    assert "the daemon of alpha ended: no such luck" in told.err
    assert list(temporary.iterdir()) == []


async def test_a_command_that_fails_ends_the_demo_and_keep_keeps_the_folder(
    tree: Path, temporary: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_program", lambda *_: (sys.executable, "-S", "-c", "import sys; sys.exit('it is full')"))
    told = await shell("demo", "--source", os.fspath(tree), "--keep", state=False)
    assert told.status == 1
    assert "caso-mesh init says: it is full" in told.err
    (kept,) = temporary.iterdir()
    assert f"Kept: {kept}" in told.out


async def test_its_daemons_are_stopped_even_if_they_do_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(demo, "_program", lambda *_: (sys.executable, "-S", "-c", code))
    monkeypatch.setattr(demo, "_STOP_TIMEOUT_S", 0.05)
    daemon = demo.Daemon("alpha", tmp_path, dict(os.environ))
    await daemon.start()
    async with asyncio.timeout(30):
        while "deaf" not in daemon.last_words():  # noqa: ASYNC110 - a process has no event for this
            await asyncio.sleep(0.01)
    await daemon.stop()
    assert daemon._process is not None
    assert daemon._process.returncode == -9


async def test_work_goes_on_while_the_daemon_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_program", lambda *_: (sys.executable, "-S", "-c", "import time; time.sleep(60)"))
    daemon = demo.Daemon("alpha", tmp_path, dict(os.environ))
    await daemon.start()
    try:
        assert await daemon.while_alive(asyncio.sleep(0, "done")) == "done"
        with pytest.raises(DemoFailed):
            await daemon.while_alive(_fails())
    finally:
        await daemon.stop()


async def _fails() -> None:
    raise DemoFailed(detail="of its own")


async def test_too_little_space_and_no_folder_are_told_before_anything_starts(
    tree: Path, temporary: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await shell("demo", "--source", os.fspath(tree / "a"), state=False)
    assert (told.status, "is no folder" in told.err) == (2, True)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=5))
    told = await shell("demo", "--source", os.fspath(tree), state=False)
    assert told.status == 2
    assert "TMPDIR" in told.err
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_it_cleans_up_when_it_is_told_to_stop(
    tree: Path, temporary: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    ended = False

    async def run(_: demo.Demo) -> list[str]:
        nonlocal ended
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            ended = True
        return []

    monkeypatch.setattr(demo.Demo, "run", run)
    told = await shell("demo", "--source", os.fspath(tree), state=False)
    assert (told.status, ended, list(temporary.iterdir())) == (128 + number, True, [])
    assert signal.getsignal(number) == signal.SIG_DFL


def test_three_real_servers_back_up_and_restore_a_folder(tree: Path, temporary: Path) -> None:
    """The whole of it, as a person starts it: real daemons, real files, nothing left behind."""
    (tree / "inner" / "link").symlink_to("../a")
    os.link(tree / "a", tree / "inner" / "same")
    (tree / "inner" / os.fsdecode(b"n\xff\n")).write_bytes(os.urandom(300_000))
    done = subprocess.run(
        [sys.executable, "-m", "caso_mesh", "demo", "--source", os.fspath(tree)],
        capture_output=True, text=True, check=False, timeout=250,
        env={**os.environ, "TMPDIR": os.fspath(temporary), "CASO_MESH_STATE": "/nowhere"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("OK: ")
    assert "nothing had changed" in done.stdout
    assert list(temporary.iterdir()) == []
