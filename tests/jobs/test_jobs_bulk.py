"""Bulk channels between two ends that talk over the daemons' ports, in threads of this process."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from bulk_ends import Answers, Handed
from job_site import doors
from msgspec import structs
from waiting import wait_for, wait_for_async

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.bulk import SPAN, WINDOW_BYTES
from caso_mesh.jobs.bulk_memory import MemoryHub
from caso_mesh.jobs.bulk_wire import WireMeeting
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.pacing import Pacer, Shared
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.errors import DataDamaged, UnknownZone


async def test_a_slow_call_is_overtaken_by_so_many_only_as_the_other_end_keeps(meeting):
    """Found by a backup of 2 GB over TLS whose device stalled on one pack: while that call waited, more quick ones
    overtook it than the other end keeps the answers of, which it took for a fault."""
    go = threading.Event()
    answered = []

    def answer(params):
        if params["n"] == 0:
            go.wait(60)
        answered.append(params["n"])
        return params["n"]

    def script(channel, desk):
        started = []
        starter = threading.Thread(target=lambda: started.extend(channel.start("x", {"n": n}) for n in range(2 * SPAN)))
        starter.start()
        wait_for(lambda: len(answered) == SPAN - 1)
        starter.join(0.3)  # longer than the rest would take: it must not go on
        assert starter.is_alive()
        assert len(answered) == SPAN - 1
        go.set()
        starter.join(60)
        channel.drain()
        return [each.result() for each in started]

    assert await meeting(script, Answers(answer)) == list(range(2 * SPAN))
    assert sorted(answered) == list(range(2 * SPAN))


@pytest.mark.parametrize("wired", [True, False], ids=["wire", "memory"])
async def test_two_ends_that_hear_of_another_administrator_at_different_times_meet(site, tmp_path, wired):
    """One had its orders of the old one, the other of the next: each refused the other for good, and the backup failed."""
    workers, told, hub = {}, [], MemoryHub()
    over, successor = threading.Event(), NodeKeys.create()
    async with doors(site, workers) as places:
        spec = site.backup_spec(tmp_path, source=site.beta)
        device, source = site.pair(spec, addresses=((places["alpha"],), (places["beta"],)))
        ticket = site.ticket(device.order, issuer=successor, term=2)
        device = structs.replace(
            device, order=structs.replace(device.order, ticket=ticket), issuer_key=successor.public_key,
            known_term=(1, 2),
        )  # fmt: skip
        ends = {"alpha": (Handed(), device), "beta": (Handed(), source)}
        workers.update({name: (handed, task.order.secret) for name, (handed, task) in ends.items()})
        desks = {name: Desk("a", told.append, SystemClock()) for name in ends}

        def take_part(name):
            handed, task = ends[name]
            meet = WireMeeting(handed.theirs).meet if wired else hub.meet
            with meet(task, desks[name], Answers(lambda params: params)) as channel:
                if name == "alpha":
                    over.wait(60)
                    return None
                answer = channel.call("x", {"n": 1})
                over.set()
                return answer

        working = [asyncio.create_task(asyncio.to_thread(take_part, name)) for name in ends]
        if wired:
            await wait_for_async(lambda: any(isinstance(each, say.TurnedAway) for each in told), 30.0)
        else:
            await asyncio.sleep(0.1)
        assert not any(each.done() for each in working)
        desks["beta"].hear(say.Term({source.order.attempt: ticket}, successor.public_key, (1, 2)))
        assert await asyncio.gather(*working) == [None, {"n": 1}]
        for handed, _ in ends.values():
            handed.bulk_channel.close()
            handed.theirs.close()


async def test_what_is_quick_is_answered_beside_what_is_slow(meeting):
    """The threads that read at a source wait for ``have``: behind all records on their way they would stand still."""
    go = threading.Event()

    def script(channel, desk):
        slow = [channel.start("put", {"wait": True}) for _ in range(5)]
        assert channel.call("quick", {"wait": False}) == "answered"
        go.set()
        return [each.result() for each in slow]

    def answer(params):
        if params["wait"]:
            go.wait(60)
        return "answered"

    assert await meeting(script, Answers(answer)) == ["answered"] * 5


async def test_content_under_way_is_bounded_however_many_calls_may_be(meeting):
    go = threading.Event()
    began = []

    def answer(params):
        go.wait(60)

    def script(channel, desk):
        def start():
            for number in range(12):
                channel.start("x", {"data": bytes(2_000_000)}, size=2_000_000)
                began.append(number)

        starter = threading.Thread(target=start)
        starter.start()
        wait_for(lambda: len(began) == WINDOW_BYTES // 2_000_000)
        starter.join(0.3)
        assert len(began) == WINDOW_BYTES // 2_000_000
        channel.call("quick", None)  # it has no content, so there is room
        go.set()
        starter.join(60)
        channel.drain()

    await meeting(script, Answers(lambda params: None if params is None else answer(params)))
    assert len(began) == 12


# --- the limit of bandwidth ---


def send(channel, count, size):
    """Seconds that it takes to send so many pieces."""
    data = os.urandom(size)
    began = time.monotonic()
    for _ in range(count):
        channel.start("x", {"data": data})
    channel.drain()
    return time.monotonic() - began


@pytest.mark.parametrize("size", [1_000_000, 100_000])
async def test_three_megabytes_take_three_seconds_at_one_megabyte_a_second(meeting, size):
    took_s = await meeting(
        lambda channel, desk: send(channel, 3_000_000 // size, size), Answers(lambda params: None), bandwidth="1MB"
    )
    assert took_s >= 2.95


async def test_why_an_end_failed_is_told_behind_all_that_is_still_on_a_slow_way(meeting):
    """The goodbye was given up with what lay before it, and the other end waited for an end that would not return."""
    told = []

    class Listening(Answers):
        def stay(self, channel, over) -> None:
            wait_for(lambda: channel.lost is not None, 30.0)
            told.append(channel.lost)

    def fail(channel, desk):
        for _ in range(3):
            channel.start("x", {"data": os.urandom(1_000_000)})
        raise DataDamaged(object="the pack", detail="it has a hole")

    with pytest.raises(DataDamaged):
        await meeting(fail, Listening(lambda params: None), bandwidth="1MB")
    assert [str(each) for each in told] == [str(DataDamaged(object="the pack", detail="it has a hole"))]


async def test_a_limit_that_ends_in_the_middle_of_a_job_ends_soon(meeting):
    """At the first limit it would take three quarters of an hour."""

    def script(channel, desk):
        timer = threading.Timer(0.5, lambda: desk.hear(say.Pace("none")))
        timer.start()
        try:
            return send(channel, 3, 1_000_000)
        finally:
            timer.join()

    assert 0.5 <= await meeting(script, Answers(lambda params: None), bandwidth="1kB") < 200


def test_a_limit_that_cannot_be_read_is_refused_at_first_and_changes_nothing_later():
    limits = ["1MB"]
    pacer = Pacer(lambda: limits[-1], Shared(""), FrozenClock(0))
    limits.append("zone Nowhere/Land; 1GB")
    assert pacer.rate() == 1_000_000
    with pytest.raises(UnknownZone):
        Pacer(lambda: limits[-1], Shared(""), FrozenClock(0))


async def test_the_workers_of_a_server_keep_its_limit_together(tmp_path):
    shares = [Shared(str(tmp_path / "pace")) for _ in range(3)]
    began = time.monotonic()
    await asyncio.gather(*(Pacer(lambda: "1MB", share, SystemClock()).wait(200_000) for share in shares))
    assert time.monotonic() - began >= 0.59
    for share in shares:
        share.close()


class FrozenClock:
    def __init__(self, now_ns):
        self._now_ns = now_ns

    def now_ns(self):
        return self._now_ns

    def monotonic_s(self):
        return 0.0


@pytest.mark.parametrize(
    ("zone", "expected"), [("UTC", 1_000_000), ("Asia/Tokyo", 2_000_000), ("Pacific/Auckland", 3_000_000)]
)
def test_the_time_of_day_is_that_of_the_zone_that_a_limit_names(zone, expected):
    noon_of_a_sunday_ns = 1_735_473_600 * 10**9  # 2024-12-29T12:00Z: 21:00 in Tokyo, Monday 01:00 in Auckland
    limit = f"zone {zone}; sun 20:00-24:00 2MB; sun 1MB; 3MB"
    assert Pacer(lambda: limit, Shared(""), FrozenClock(noon_of_a_sunday_ns)).rate() == expected


def test_without_a_zone_the_time_of_day_is_the_machines_own(monkeypatch):
    noon_of_a_sunday_ns = 1_735_473_600 * 10**9
    pacer = Pacer(lambda: "sun 20:00-24:00 2MB; 3MB", Shared(""), FrozenClock(noon_of_a_sunday_ns))
    try:
        for zone, expected in (("Asia/Tokyo", 2_000_000), ("UTC", 3_000_000)):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert pacer.rate() == expected
    finally:
        monkeypatch.undo()
        time.tzset()
