"""What a server keeps of its own alerts: what stands is found again, what the administrator says of them counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from server.server_world import NODE, Daemon, FakeRunner, World, backs_up, daemon
from server.test_server_folder import nothing_waits

from caso_mesh.model import facts
from caso_mesh.model.nodes import AlertNews
from caso_mesh.model.states import AlertKind
from caso_mesh.server.facts import Forwarding
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.own_alerts import MOST, OwnAlert
from caso_mesh.server.room import Room


@asynccontextmanager
async def up(folder: Path, off: tuple[str, ...] = ()) -> AsyncIterator[Daemon]:
    folder.mkdir(exist_ok=True)
    world = World(folder)
    async with daemon(
        folder, world, FakeRunner(backs_up(world)), run=False, forwarding=lambda: Forwarding(alerts_off=frozenset(off))
    ) as d:
        yield d


async def kept(d: Daemon) -> dict[str, OwnAlert]:
    return {each.id: each for each in (await d.facts.alerts()).all()}


async def test_a_full_disk_is_one_alert_over_restarts_and_ends_with_the_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost its id with the daemon: it was told again at each start, and never ended."""
    folder = StateFolder(tmp_path / "state")
    folder.create()

    def room(d: Daemon) -> Room:
        return Room(folder, d.facts, "alpha", lambda: None, waiting=nothing_waits, setting=lambda name: 1000.0)

    monkeypatch.setattr("caso_mesh.server.room.LOW_BYTES", 1 << 62)
    for _ in range(2):
        async with up(tmp_path) as d:
            await room(d).look()
            (alert,) = await d.of(facts.AlertRaised)
    monkeypatch.setattr("caso_mesh.server.room.LOW_BYTES", 1)
    async with up(tmp_path) as d:
        await room(d).look()
        assert [fact.id for fact in await d.of(facts.AlertCleared)] == [alert.id]
        assert (await kept(d))[alert.id].over_ns is not None and d.facts.unsettled_alerts() == ()


async def test_an_answer_that_was_given_here_stays_open_to_the_word_of_the_administrator_which_counts(
    tmp_path: Path,
) -> None:
    async with up(tmp_path) as d:
        id_ = await d.facts.alert(AlertKind.ERROR, "catalog-error", "text")
        await d.facts.append(facts.AlertAnswered(id_, "boss", "mine"))
    async with up(tmp_path) as d:
        assert (await kept(d))[id_].response == "mine" and d.facts.unsettled_alerts() == (id_,)
        await d.facts.alerts_heard([AlertNews(id_, 5, "ann", "theirs"), AlertNews("unknown", 5, "ann", "x")])
    async with up(tmp_path) as d:
        found = (await kept(d))[id_]
        assert (found.who, found.response, found.answered_ns) == ("ann", "theirs", 5)
        assert d.facts.unsettled_alerts() == () and len(await kept(d)) == 1


async def test_what_is_kept_is_bounded_and_what_stands_and_what_is_open_stays_longest(tmp_path: Path) -> None:
    async with up(tmp_path) as d:
        standing = await d.facts.alert(AlertKind.ERROR, "state-full", "text", object="alpha")
        first = await d.facts.alert(AlertKind.ERROR, "catalog-error", "text")
        closed = await d.facts.alert(AlertKind.ERROR, "catalog-error", "text")
        await d.facts.append(facts.AlertAnswered(closed, "boss", "ok"))
        for _ in range(MOST - 2):
            await d.facts.alert(AlertKind.ERROR, "catalog-error", "text")
        assert len(await kept(d)) == MOST and closed not in await kept(d) and first in await kept(d)
        await d.facts.alert(AlertKind.ERROR, "catalog-error", "text")
    async with up(tmp_path) as d:
        assert len(await kept(d)) == MOST and first not in await kept(d) and standing in await kept(d)


async def test_alerts_of_others_and_of_the_mesh_are_not_among_its_own(tmp_path: Path) -> None:
    async with up(tmp_path) as d:
        await d.facts.append(facts.AlertRaised("of-the-mesh", AlertKind.ATTENTION, "mass-change", "x"))
        await d.facts.append(facts.AlertRaised("x/elsewhere", AlertKind.ERROR, "job-failed", "x"))
        own = await d.facts.alert(AlertKind.ERROR, "catalog-error", "text")
        assert set(await kept(d)) == {own} and own.endswith(f"/{NODE}")


async def test_what_is_turned_off_stays_here_with_its_end_and_its_answer(tmp_path: Path) -> None:
    async with up(tmp_path, ("catalog-error", "job-held", "own-work-failed")) as d:
        first, second = [await d.facts.alert(AlertKind.ERROR, "catalog-error", "text") for _ in range(2)]
        loud = await d.facts.alert(AlertKind.ATTENTION, "job-held", "text")
        await d.facts.append(facts.AlertCleared(first), facts.AlertAnswered(second, "boss", "ok"))
        assert [fact.id for fact in await d.of(facts.AlertRaised)] == [loud]
        assert await d.of(facts.AlertCleared) == await d.of(facts.AlertAnswered) == []
        assert d.facts.unsettled_alerts() == (loud,)
        standing = [await d.facts.alert(AlertKind.ERROR, "own-work-failed", "x", object="a") for _ in range(2)]
        assert standing[0] == standing[1], "it is raised once, also when a restart has forgotten it"
        again = facts.AlertRaised(second, AlertKind.ERROR, "catalog-error", "text")
        await d.facts.append(again)
        assert [fact.id for fact in await d.of(facts.AlertRaised)] == [loud]
    async with up(tmp_path) as d:
        found = await kept(d)
        assert found[first].over_ns is not None and found[second].response == "ok" and found[loud].open
        assert d.facts.unsettled_alerts() == (loud,), "what was kept back is not told later"
