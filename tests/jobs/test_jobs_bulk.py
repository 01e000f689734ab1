"""Bulk channels between two ends that talk over the daemons' ports, in threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest
from job_site import doors
from waiting import wait_for

from caso_mesh.jobs.bulk import SPAN, NothingToAsk
from caso_mesh.jobs.bulk_wire import WireMeeting
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.worker import SystemClock


class Handed:
    """What a door knows of a worker."""

    def __init__(self) -> None:
        self.bulk_channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bulk_channel.setblocking(False)


class Answers:
    """Answers every call by ``answer(params)``."""

    def __init__(self, answer, *, ordered=False) -> None:
        self.answer = answer
        self.ordered = ordered

    def handle(self, method, params):
        return self.answer(params)


@contextlib.contextmanager
def met(site, spec, answering, places, workers, **changes):
    """The channel of the end that calls, which is alpha's; ``answering`` is beta's."""
    device, source = site.pair(spec, addresses=((places["alpha"],), (places["beta"],)), **changes)
    mine, theirs = Handed(), Handed()
    workers.update(alpha=(mine, device.order.secret), beta=(theirs, source.order.secret))
    over = threading.Event()

    def answer() -> None:
        with WireMeeting(theirs.theirs).meet(source, Desk("a", lambda message: None, SystemClock()), answering):
            over.wait()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with WireMeeting(mine.theirs).meet(
            device, Desk("a", lambda message: None, SystemClock()), NothingToAsk()
        ) as channel:
            yield channel
    finally:
        over.set()
        thread.join()
        for each in (mine, theirs):
            each.bulk_channel.close()


@pytest.fixture
async def meeting(site, tmp_path):
    """``meeting(script, answering)`` runs ``script(channel)`` in a thread; what it returns."""
    workers = {}
    async with doors(site, workers) as places:
        spec = site.backup_spec(tmp_path, source=site.beta)

        async def meet(script, answering, **changes):
            def work():
                with met(site, spec, answering, places, workers, **changes) as channel:
                    return script(channel)

            return await asyncio.to_thread(work)

        yield meet


async def test_a_slow_call_is_overtaken_by_so_many_only_as_the_other_end_keeps(meeting):
    """Found by a backup of 2 GB over TLS whose device stalled on one pack: while that call waited, more quick ones
    overtook it than the other end keeps the answers of, which it took for a fault."""
    go = threading.Event()
    answered = []

    def answer(params):
        if params["n"] == 0:
            go.wait(10)
        answered.append(params["n"])
        return params["n"]

    def script(channel):
        started = []
        starter = threading.Thread(target=lambda: started.extend(channel.start("x", {"n": n}) for n in range(100)))
        starter.start()
        wait_for(lambda: len(answered) == SPAN - 1)
        starter.join(0.3)  # longer than the rest would take: it must not go on
        assert starter.is_alive()
        assert len(answered) == SPAN - 1
        go.set()
        starter.join(10)
        channel.drain()
        return [each.result() for each in started]

    assert await meeting(script, Answers(answer)) == list(range(100))
    assert sorted(answered) == list(range(100))
