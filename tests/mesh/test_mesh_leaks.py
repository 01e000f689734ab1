"""The checks after each test find what they look for. Each leak here is made in a test of an inner test run."""

from __future__ import annotations

import pathlib

import pytest

TESTS = pathlib.Path(__file__).parents[1]

LEAKS = """
    import asyncio, contextlib, pathlib, socket, subprocess, threading
    import pytest
    kept, over = [], threading.Event()

    @pytest.fixture(scope="session", autouse=True)
    def ends_at_last():
        yield
        over.set()

    def runs(*argv):
        line = b"".join(word.encode() + bytes(1) for word in argv)
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes() == line:
                    return True
        return False

    def test_thread():
        threading.Thread(target=over.wait, name="forgotten").start()

    def test_daemon_thread():
        threading.Thread(target=threading.Event().wait, args=(60,), name="demon", daemon=True).start()

    async def test_task():
        kept.append(asyncio.create_task(asyncio.sleep(60), name="left over"))

    def test_socket():
        kept.append(socket.create_server(("127.0.0.1", 0)))

    def test_file(tmp_path):
        kept.append((tmp_path / "unclosed").open("w"))

    def test_process():
        kept.append(subprocess.Popen(["sleep", "61"]))

    def test_orphan():
        subprocess.run(["sh", "-c", "setsid sleep 62 & exit"], check=True)
        while not runs("sleep", "62"):  # it may not have begun yet
            pass
"""
EXPECTED = [
    "*thread forgotten*",
    "*thread demon*",
    "*left tasks behind*",
    "*name='left over'*",
    "*descriptor *socket:*",
    "*descriptor *unclosed*",
    "*process *sleep 61*",
    "*process *sleep 62*",
]


def run_inside(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, *, grace_s: float = 20.0
) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    pytester.makeconftest((TESTS / "conftest.py").read_text("utf-8") + f"\nleaks.GRACE_S = {grace_s}\n")
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"
    )


def test_what_a_test_leaves_behind_is_found(pytester, monkeypatch):
    result = run_inside(pytester, monkeypatch, LEAKS, grace_s=0.2)
    result.assert_outcomes(passed=7, errors=7)
    result.stdout.fnmatch_lines(EXPECTED)


def test_a_test_that_ends_what_it_began_passes(pytester, monkeypatch):
    source = """
        import asyncio, socket, subprocess, threading

        async def test_async():
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await asyncio.to_thread(int)
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            async with server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.close()
                await writer.wait_closed()
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()

        def test_sync(tmp_path):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            subprocess.run(["true"], check=True)
            with socket.create_server(("127.0.0.1", 0)), (tmp_path / "x").open("w"):
                pass
    """
    run_inside(pytester, monkeypatch, source).assert_outcomes(passed=2)
