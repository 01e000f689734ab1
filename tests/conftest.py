"""What holds for every test: ``--long``, virtual time for those marked ``jumping``, nothing is left behind."""

from __future__ import annotations

import asyncio
import compileall
import pathlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import leaks
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from mesh import delays
from mesh.clock import JumpingLoop

PRODUCT = pathlib.Path(__file__).parents[1] / "caso_mesh"

pytest_plugins = ["pytester", "mesh.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests too (many seeds, many kills)")


def pytest_configure(config: pytest.Config) -> None:
    # how long an example takes says how busy this machine is
    settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any-machine")
    config.addinivalue_line("markers", "jumping: the test's event loop has virtual time (tests/mesh/clock.py)")
    leaks.mark_environment()
    delays.inject()
    if not hasattr(config, "workerinput"):  # not in each of several processes
        # Else each daemon and each command of a test would do it again for itself: a quarter of all that they cost.
        compileall.compile_dir(PRODUCT, quiet=2)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell starts what runs in the background so, and programs under test would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="runs only with --long")
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(skip)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("jumping") is not None:
        return {"jumping": JumpingLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No test leaves a thread, a process, a socket, a pipe or an open file. Set up first, so that it looks last."""
    if not leaks.can_see():
        yield
        return
    before = leaks.Before()
    yield
    left = before.left()
    if left:
        before.end_processes()
        pytest.fail("the test left behind:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def ends_its_tasks(request: pytest.FixtureRequest, leaves_nothing_behind: None) -> None:
    """No test leaves a task of its event loop; looked at while the loop still lives."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("watched_loop")


@pytest_asyncio.fixture
async def watched_loop() -> AsyncIterator[None]:
    own = asyncio.all_tasks()
    yield
    # A task that was cancelled or answered needs a turn or two to end; one that waits for a thread needs that thread to
    # have its turn. Counted, not timed: a machine that stands still gives no turns. Virtual time does not pass.
    pause_s = 0.0 if isinstance(asyncio.get_running_loop(), JumpingLoop) else 0.02
    for turn in range(105):
        await asyncio.sleep(0 if turn < 5 else pause_s)
        left = asyncio.all_tasks() - own - {asyncio.current_task()}
        if turn >= 4 and not left:
            break
    else:
        pytest.fail("the test left tasks behind:\n" + "\n".join(map(repr, left)), pytrace=False)
