"""Communication settings of a server: what of job logs and history is told when, and what stays."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from caso_mesh.journal import Journal
from caso_mesh.model import facts
from caso_mesh.model.entries import SourceException
from caso_mesh.model.jobs import Counts
from caso_mesh.model.states import AttemptState
from caso_mesh.server.facts import FactWriter, Forwarding

DAY_NS = 86400 * 1_000_000_000
#: Midnight, and hours around it.
NIGHT = "22:00-02:00"


class Clock:
    def __init__(self) -> None:
        self.at_ns = 20_000 * DAY_NS

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_s(self) -> float:
        return 0.0


class Server:
    """A server's journal and what it writes, by settings that change."""

    def __init__(self, writer: FactWriter, clock: Clock) -> None:
        self.writer = writer
        self.clock = clock
        self.forwarding = Forwarding()

    async def told(self) -> list[Any]:
        """Texts of lines, paths of exceptions, and ends, as the administrator is told of them."""
        found: list[Any] = []
        async for fact in self.writer.since(None):
            match fact:
                case facts.JobLog(lines=lines):
                    found += [line.text for line in lines]
                case facts.AttemptExceptions(exceptions=exceptions):
                    found += [each.path for each in exceptions]
                case facts.AttemptEnded(attempt=attempt):
                    found.append(("ended", attempt))
        return found


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Server]]:
    clock, numbers = Clock(), itertools.count()

    @asynccontextmanager
    async def make() -> AsyncIterator[Server]:
        path = tmp_path / "journal.db"
        async with Journal.open(path, "beta", clock=clock, new_id=lambda: f"i{next(numbers)}", same_thread=True) as j:
            server = Server(FactWriter(j, lambda: "id", clock, lambda: server.forwarding, node="node"), clock)
            await server.writer.load()
            yield server

    return make


def log(text: str, attempt: str = "j@1#1") -> facts.JobLog:
    return facts.JobLog(attempt, (facts.LogLine(0, "info", text),))


def exception(path: bytes, attempt: str = "j@1#1") -> facts.AttemptExceptions:
    return facts.AttemptExceptions(attempt, (SourceException(path, "vanished", ""),))


def ended(attempt: str = "j@1#1") -> facts.AttemptEnded:
    return facts.AttemptEnded(attempt, AttemptState.SUCCEEDED, Counts(), 1.0)


async def test_without_a_word_job_logs_are_told_at_once_and_history_at_the_end_of_the_job(opened):
    async with opened() as server:
        await server.writer.append(log("one"), exception(b"x"))
        assert await server.told() == ["one"]
        await server.writer.append(log("two"), ended())
        assert await server.told() == ["one", b"x", "two", ("ended", "j@1#1")]


async def test_job_log_forwarding_at_job_end_tells_the_whole_log_with_the_end(opened):
    async with opened() as server:
        server.forwarding = Forwarding("at-end")
        await server.writer.append(log("one"))
        await server.writer.append(log("of another", "k@1#1"))
        assert await server.told() == []
        assert [line.text for line in (await server.writer.held("j@1#1"))[0]] == ["one"]
        await server.writer.append(log("two"), ended())
        assert await server.told() == ["one", "two", ("ended", "j@1#1")]
        await server.writer.over("k@1#1")  # the end of a source, of which the device's end tells
        assert (await server.told())[-1] == "of another"


async def test_job_log_forwarding_never_keeps_the_log_here_also_after_a_restart_and_until_it_is_old(opened):
    async with opened() as server:
        server.forwarding = Forwarding("never", "never")
        await server.writer.append(log("one"), exception(b"x"), ended())
        await server.writer.look(())
    async with opened() as server:
        server.forwarding = Forwarding("never", "never")
        assert await server.told() == [("ended", "j@1#1")]
        lines, exceptions = await server.writer.held("j@1#1")
        assert ([line.text for line in lines], [each.path for each in exceptions]) == (["one"], [b"x"])
        await server.writer.forget_held(server.clock.now_ns())
        assert (await server.writer.held("j@1#1"))[0] == lines
        await server.writer.forget_held(server.clock.now_ns() + 1)
        assert await server.writer.held("j@1#1") == ([], [])


async def test_job_log_forwarding_on_a_schedule_tells_all_that_has_gathered_when_the_hour_has_come(opened):
    async with opened() as server:
        server.forwarding = Forwarding(f"zone UTC; {NIGHT}")
        await server.writer.append(log("at midnight"))
        server.clock.at_ns += DAY_NS // 2
        await server.writer.append(log("at noon"))
        await server.writer.append(ended())
        await server.writer.look(())
        assert await server.told() == ["at midnight", ("ended", "j@1#1")]
        server.clock.at_ns += DAY_NS // 2
        await server.writer.look(())
        assert await server.told() == ["at midnight", ("ended", "j@1#1"), "at noon"]


async def test_what_was_held_back_leaves_when_the_setting_lets_it(opened):
    async with opened() as server:
        server.forwarding = Forwarding("never", "never")
        await server.writer.append(log("one"), exception(b"x"))
        server.forwarding = Forwarding("at-once", "at-end")
        await server.writer.look({"j@1#1"})
        assert await server.told() == ["one"], "the job has not ended"
        await server.writer.look(())
        assert await server.told() == ["one", b"x"]
