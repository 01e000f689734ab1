"""What every ``Network`` must do. ``check_network(factory)`` runs each check on a fresh pair of nodes.

The factory is an async context manager that yields a ``Pair``: a listening node A and a node B that dials it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from wire_fixtures import Answers, wait_for

from caso_mesh.model.errors import (
    Canceled,
    Conflict,
    InternalError,
    LinkLost,
    Misuse,
    NotFound,
    NotOnRoster,
    TimedOut,
    UnknownCall,
)
from caso_mesh.wire.link import Link
from caso_mesh.wire.stream import Stream


@dataclass
class Pair:
    """Node A listens and sees B as ``peer``; ``dial`` connects B to it, ``links`` are A's, ``sever`` cuts the cable."""

    handler_a: Answers
    handler_b: Answers
    dial: Callable[[], Awaitable[Link]]
    dial_as_stranger: Callable[[], Awaitable[Link]]
    links: Callable[[], frozenset[Link]]
    sever: Callable[[], Awaitable[None]]


Factory = Callable[[], AbstractAsyncContextManager[Pair]]


async def _echo(link: Link, params: Any) -> Any:
    return params


async def _hang(link: Link, params: Any) -> Any:
    await asyncio.get_running_loop().create_future()


async def calls_go_both_ways_over_one_link(pair: Pair) -> None:
    pair.handler_a.calls["echo"] = pair.handler_b.calls["echo"] = _echo
    link = await pair.dial()
    assert link.dialled
    assert await link.call("echo", {"x": 1, "b": b"\x00\xff", "s": "ü"}) == {"x": 1, "b": b"\x00\xff", "s": "ü"}
    assert await link.call("echo") is None
    (other,) = pair.links()
    assert not other.dialled
    assert other.session == link.session
    assert await other.call("echo", {"y": [1, None, 2.5]}) == {"y": [1, None, 2.5]}
    await link.close()


async def many_calls_run_at_the_same_time(pair: Pair) -> None:
    started, gate = 0, asyncio.Event()

    async def wait(link: Link, params: Any) -> Any:
        nonlocal started
        started += 1
        if started == 50:
            gate.set()
        await gate.wait()
        return params["n"]

    pair.handler_a.calls["wait"] = wait
    link = await pair.dial()
    answers = await asyncio.gather(*(link.call("wait", {"n": n}) for n in range(50)))
    assert answers == list(range(50))
    await link.close()


async def more_calls_than_allowed_wait_for_their_turn(pair: Pair) -> None:
    running = most = 0

    async def brief(link: Link, params: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return params["n"]

    pair.handler_a.calls["brief"] = brief
    link = await pair.dial()
    answers = await asyncio.gather(*(link.call("brief", {"n": n}) for n in range(1000)))
    assert answers == list(range(1000))
    assert most <= 256
    await link.close()


async def big_messages_arrive_whole(pair: Pair) -> None:
    pair.handler_a.calls["echo"] = _echo
    link = await pair.dial()
    for size in (256 * 1024 - 40, 256 * 1024, 256 * 1024 + 1, 1024 * 1024, 7 * 1024 * 1024):
        data = bytes(range(256)) * (size // 256 + 1)
        params = {"data": data[:size]}
        assert await link.call("echo", params) == params
    await link.close()


async def a_message_longer_than_the_peer_takes_is_our_misuse_and_the_link_lives(pair: Pair) -> None:
    async def huge(link: Link, params: Any) -> Any:
        return {"data": bytes(9 * 1024 * 1024)}

    pair.handler_a.calls |= {"echo": _echo, "huge": huge}
    link = await pair.dial()
    with pytest.raises(Misuse):
        await link.call("echo", {"data": bytes(9 * 1024 * 1024)})
    with pytest.raises(InternalError):
        await link.call("huge")
    assert await link.call("echo", {"a": 1}) == {"a": 1}
    await link.close()


async def errors_arrive_as_they_were_raised(pair: Pair) -> None:
    async def missing(link: Link, params: Any) -> Any:
        raise NotFound(kind="device", name="d1")

    async def bug(link: Link, params: Any) -> Any:
        raise ZeroDivisionError

    pair.handler_a.calls |= {"missing": missing, "bug": bug}
    link = await pair.dial()
    with pytest.raises(NotFound) as caught:
        await link.call("missing")
    assert caught.value.fields == {"kind": "device", "name": "d1"}
    with pytest.raises(InternalError):
        await link.call("bug")
    with pytest.raises(UnknownCall):
        await link.call("no-such-call")
    assert not link.closed
    await link.close()


async def a_caller_that_gives_up_cancels_the_handler(pair: Pair) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(link: Link, params: Any) -> Any:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    pair.handler_a.calls |= {"slow": slow, "echo": _echo}
    link = await pair.dial()
    caller = asyncio.create_task(link.call("slow"))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.wait_for(cancelled.wait(), 30)
    await wait_for(lambda: link.statistics().calls_in_flight == 0)
    assert await link.call("echo", {"still": "here"}) == {"still": "here"}
    await link.close()


async def a_call_without_an_answer_times_out(pair: Pair) -> None:
    pair.handler_a.calls["hang"] = _hang
    link = await pair.dial()
    with pytest.raises(TimedOut):
        await link.call("hang", timeout_s=0.05)
    await wait_for(lambda: link.statistics().calls_in_flight == 0)
    await link.close()


async def notifications_are_handled_in_order(pair: Pair) -> None:
    link = await pair.dial()
    for n in range(3000):
        await link.notify("tick", {"n": n})
    await wait_for(lambda: len(pair.handler_a.notices) == 3000)
    assert [params["n"] for _, params in pair.handler_a.notices] == list(range(3000))
    await link.close()


async def streams_carry_pieces_both_ways_to_their_end(pair: Pair) -> None:
    async def upper(link: Link, params: Any, stream: Stream) -> None:
        while (piece := await stream.receive()) is not None:
            await stream.send(piece.upper())

    pair.handler_a.streams["upper"] = upper
    link = await pair.dial()
    stream = await link.open_stream("upper", {"why": "test"})
    for piece in (b"one", b"", b"two"):
        await stream.send(piece)
    await stream.finish()
    assert [await stream.receive() for _ in range(4)] == [b"ONE", b"", b"TWO", None]
    assert await stream.receive() is None
    await wait_for(lambda: link.statistics().streams_open == 0)
    await link.close()


async def what_was_sent_before_the_end_is_not_lost(pair: Pair) -> None:
    """A handler that sends and returns, without reading its peer's end, must not take its own data back."""

    async def give(link: Link, params: Any, stream: Stream) -> None:
        await stream.send(bytes(700_000))

    pair.handler_a.streams["give"] = give
    link = await pair.dial()
    async with await link.open_stream("give") as stream:
        got = 0
        while (piece := await stream.receive()) is not None:
            got += len(piece)
            assert len(piece) <= 256 * 1024
        with pytest.raises(Canceled):
            while True:  # until the news is here
                await stream.send(b"nobody reads this")
    assert got == 700_000
    await wait_for(lambda: link.statistics().streams_open == 0)
    await link.close()


async def a_slow_reader_bounds_its_writer(pair: Pair) -> None:
    sent = 0
    release = asyncio.Event()
    received = []

    async def slow(link: Link, params: Any, stream: Stream) -> None:
        await release.wait()
        while (piece := await stream.receive()) is not None:
            received.append(len(piece))

    pair.handler_a.streams["slow"] = slow
    link = await pair.dial()
    stream = await link.open_stream("slow")

    async def write() -> None:
        nonlocal sent
        for _ in range(100):
            await stream.send(bytes(64 * 1024))
            sent += 1

    writer = asyncio.create_task(write())
    await wait_for(lambda: sent >= 15)
    pair.handler_a.calls["echo"] = _echo
    await link.call("echo")  # the link itself is not held up
    assert sent <= 16
    assert not writer.done()
    release.set()
    await writer
    await stream.finish()
    assert await stream.receive() is None
    assert sum(received) == 100 * 64 * 1024
    await link.close()


async def aborts_reach_the_other_end(pair: Pair) -> None:
    seen: list[BaseException] = []

    async def fails(link: Link, params: Any, stream: Stream) -> None:
        await stream.send(b"something")
        raise Conflict(detail="enough")

    async def reads(link: Link, params: Any, stream: Stream) -> None:
        try:
            while await stream.receive() is not None:
                pass
        except NotFound as error:
            seen.append(error)
            raise

    pair.handler_a.streams |= {"fails": fails, "reads": reads}
    link = await pair.dial()
    stream = await link.open_stream("fails")
    with pytest.raises(Conflict):
        while await stream.receive() is not None:
            pass
    with pytest.raises(Conflict):
        await stream.send(b"x")
    stream = await link.open_stream("reads")
    await stream.send(b"x")
    await stream.abort(NotFound(kind="set", name="s"))
    await wait_for(lambda: bool(seen))
    stream = await link.open_stream("no-such-stream")
    with pytest.raises(UnknownCall):
        await stream.receive()
    await wait_for(lambda: link.statistics().streams_open == 0)
    await link.close()


async def losing_the_link_ends_everything_on_it(pair: Pair) -> None:
    stopped = asyncio.Event()

    async def hang(link: Link, params: Any) -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    async def hold(link: Link, params: Any, stream: Stream) -> None:
        await stream.receive()

    pair.handler_a.calls["hang"] = hang
    pair.handler_a.streams["hold"] = hold
    link = await pair.dial()
    stream = await link.open_stream("hold")
    call = asyncio.create_task(link.call("hang"))
    await wait_for(lambda: any(other.statistics().calls_served for other in pair.links()))
    await pair.sever()
    with pytest.raises(LinkLost):
        await call
    with pytest.raises(LinkLost):
        await stream.receive()
    assert isinstance(await asyncio.wait_for(link.wait_closed(), 30), LinkLost)
    await asyncio.wait_for(stopped.wait(), 30)
    assert link.closed
    with pytest.raises(LinkLost):
        await link.call("echo")
    with pytest.raises(LinkLost):
        await link.notify("x")
    with pytest.raises(LinkLost):
        await link.open_stream("x")
    await wait_for(lambda: not pair.links())
    await link.close()


async def a_stranger_is_refused_with_the_reason(pair: Pair) -> None:
    with pytest.raises(NotOnRoster):
        await pair.dial_as_stranger()
    assert not pair.links()


async def the_dialler_closes_with_a_reason(pair: Pair) -> None:
    link = await pair.dial()
    (other,) = pair.links()
    await link.close(Conflict(detail="a newer link"))
    reason = await asyncio.wait_for(other.wait_closed(), 30)
    assert isinstance(reason, Conflict)
    assert reason.fields == {"detail": "a newer link"}
    assert isinstance(await link.wait_closed(), Conflict)
    await link.close()


async def the_listener_closes_in_order(pair: Pair) -> None:
    pair.handler_b.calls["hang"] = _hang
    link = await pair.dial()
    (other,) = pair.links()
    call = asyncio.create_task(other.call("hang"))
    await wait_for(lambda: link.statistics().calls_served == 1)
    await other.close()
    assert await asyncio.wait_for(link.wait_closed(), 30) is None
    with pytest.raises(LinkLost):
        await call


async def a_handler_may_close_its_own_link(pair: Pair) -> None:
    async def leave(link: Link, params: Any) -> Any:
        await link.close()
        await _hang(link, params)

    pair.handler_a.calls["leave"] = leave
    link = await pair.dial()
    with pytest.raises(LinkLost):
        await link.call("leave")
    assert await asyncio.wait_for(link.wait_closed(), 30) is None


async def statistics_count_what_was_carried(pair: Pair) -> None:
    pair.handler_a.calls["echo"] = _echo
    link = await pair.dial()
    await link.call("echo", {"data": bytes(1000)})
    counted = link.statistics()
    assert counted.bytes_in > 1000 < counted.bytes_out
    assert counted.messages_in == counted.messages_out == 1
    await link.close()


CHECKS = [
    calls_go_both_ways_over_one_link,
    many_calls_run_at_the_same_time,
    more_calls_than_allowed_wait_for_their_turn,
    big_messages_arrive_whole,
    a_message_longer_than_the_peer_takes_is_our_misuse_and_the_link_lives,
    errors_arrive_as_they_were_raised,
    a_caller_that_gives_up_cancels_the_handler,
    a_call_without_an_answer_times_out,
    notifications_are_handled_in_order,
    streams_carry_pieces_both_ways_to_their_end,
    what_was_sent_before_the_end_is_not_lost,
    a_slow_reader_bounds_its_writer,
    aborts_reach_the_other_end,
    losing_the_link_ends_everything_on_it,
    a_stranger_is_refused_with_the_reason,
    the_dialler_closes_with_a_reason,
    the_listener_closes_in_order,
    a_handler_may_close_its_own_link,
    statistics_count_what_was_carried,
]


async def check(factory: Factory, one: Callable[[Pair], Awaitable[None]]) -> None:
    """Runs one check and proves that it left no task behind."""
    before = asyncio.all_tasks()
    async with factory() as pair:
        await one(pair)
    await wait_for(lambda: asyncio.all_tasks() <= before, 30.0)


async def check_network(factory: Factory) -> None:
    """Runs all checks."""
    for one in CHECKS:
        await check(factory, one)
