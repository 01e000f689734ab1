"""Refusals in the audit log: each kind with where from, and never so many that a disk fills."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mesh.clock import VirtualClock

from caso_mesh.model import facts
from caso_mesh.model.errors import CasoError, StateFull
from caso_mesh.server.refusals import Refusals

pytestmark = pytest.mark.jumping


class Journal:
    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.fails: CasoError | None = None

    async def append(self, *new: facts.Fact) -> None:
        if self.fails is not None:
            raise self.fails
        self.entries += new


def made() -> tuple[Refusals, Journal]:
    journal = Journal()
    return Refusals(journal, VirtualClock(asyncio.get_running_loop())), journal


async def test_the_same_from_one_host_is_one_entry_a_minute_and_each_host_has_its_own() -> None:
    refusals, journal = made()
    for port in range(50):
        await refusals.note("anonymous", "link", "peer-not-tls", f"192.0.2.1:{port}")
        await refusals.note("anonymous", "link", "peer-not-tls", f"192.0.2.2:{port}", {"detail": "http request"})
    assert [entry.source for entry in journal.entries] == ["192.0.2.1:0", "192.0.2.2:0"]
    assert journal.entries[1].fields == {"detail": "http request"}
    await asyncio.sleep(61)
    await refusals.note("anonymous", "link", "peer-not-tls", "192.0.2.1:9")
    assert journal.entries[-1].fields == {"repeated": 49, "others": 0}


async def test_a_flood_from_everywhere_is_a_number() -> None:
    refusals, journal = made()
    running = asyncio.ensure_future(refusals.run())
    for number in range(20_000):
        refusals.tell(f"n{number}", "link", "not-on-roster", f"192.0.2.{number % 250}:{number}")
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(200)
    running.cancel()
    assert len(journal.entries) <= 61
    numbers = [entry.fields for entry in journal.entries if entry.outcome == "repeated"]
    assert sum(fields["others"] for fields in numbers) == 20_000 - 60
    assert len(refusals._seen) <= 1000


async def test_what_was_only_counted_is_summed_up_when_it_has_stopped() -> None:
    refusals, journal = made()
    running = asyncio.ensure_future(refusals.run())
    for _ in range(10):
        refusals.tell("beta", "link", "removed-from-mesh", "192.0.2.1:1")
    await asyncio.sleep(200)
    running.cancel()
    assert [(entry.what, entry.fields) for entry in journal.entries] == [
        ("link", {}), ("refusals", {"repeated": 9, "others": 0}),
    ]  # fmt: skip


async def test_a_full_disk_is_no_reason_to_let_anybody_in_or_to_stop() -> None:
    refusals, journal = made()
    journal.fails = StateFull(state="s")
    await refusals.note("anonymous", "link", "peer-not-tls", "192.0.2.1:1")
    journal.fails = None
    await refusals.note("anonymous", "link", "peer-malformed", "192.0.2.1:1")
    assert len(journal.entries) == 1
