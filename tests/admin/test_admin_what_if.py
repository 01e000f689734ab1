"""``what-if``: what it says of a night is what the office then does; and how it is told."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.admin.what_if import beside_the_loop
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.documents import PolicyDoc, SelectionDoc, TemplateDoc
from caso_mesh.model.errors import InvalidValue, NotFound, NotReady
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState, BackupType, Priority
from caso_mesh.model.what_if import WhatIf, WhatIfView

pytestmark = pytest.mark.jumping
SECOND = 1_000_000_000
#: The world begins on Monday 2025-01-06 at midnight.
SETTLED_S = 6


async def what_if(w: World, *without: str, devices: tuple[str, ...] = (), minutes: int = 60, **more: Any) -> WhatIfView:
    until_ns = w.clock.now_ns() + minutes * 60 * SECOND if "days" not in more and "morning" not in more else None
    view = await w.ask("what-if", WhatIf(without, devices, until_ns=until_ns, **more))
    assert isinstance(view, WhatIfView)
    return view


async def nightly(w: World, name: str, source: str, **fields: Any) -> None:
    await w.ask("backup", q.BackupRequest(sources=((source, b"/srv"),), name=name, **{"target": "pool:p", **fields}))


async def ran_before(w: World, job: str, source: str, seconds: float, server: str = "beta", **fields: Any) -> None:
    """Three nights ago, two nights ago and yesterday."""
    made = [
        _set(
            w, w.state.job_named(job).id, source, server, w.clock.now_ns() - nights * 86400 * SECOND, seconds, **fields
        )
        for nights in (3, 2, 1)
    ]
    # straight into the tables: nobody remembers those attempts any more
    await w.tables.accept(node(server), w.records(server, *map(facts.SetPublished, made)))
    w.office.runs.delegation.facts_came()


def _set(w: World, job: str, source: str, server: str, at_ns: int, seconds: float, **fields: Any) -> Any:
    class Told:
        id = f"{job}@{at_ns // SECOND}#1"
        run = f"{job}@{at_ns // SECOND}"

    Told.job, Told.source, Told.server, Told.device = job, node(source), node(server), f"dev-{server}"
    ended_ns = at_ns + round(seconds * SECOND)
    return w.made_set(Told, started_at_ns=at_ns, ended_at_ns=ended_ns, **{"bytes_stored": 0, **fields})


class MediaServers:
    """What is delegated takes as long as history, or what is told here, says."""

    def __init__(self, w: World, seconds: dict[str, float]) -> None:
        self._w = w
        self._seconds = seconds
        self._tells = asyncio.Lock()  # a journal goes on one record after the other

    async def _tell(self, server: str, *new: facts.Fact) -> None:
        async with self._tells:
            await self._w.report(server, *new)

    async def run(self) -> None:
        begun: set[str] = set()
        async with asyncio.TaskGroup() as group:
            async for _ in self._w.keeper.changes():
                for attempt in self._w.state.active_attempts():
                    if attempt.id not in begun:
                        begun.add(attempt.id)
                        group.create_task(self._carry_out(attempt))

    async def _carry_out(self, attempt: Any) -> None:
        w, server = self._w, attempt.server.removeprefix("node-")
        name = w.state.job(attempt.job).name
        type = BackupType.INCREMENTAL if name.endswith(".inc") else BackupType.FULL
        await self._tell(server, facts.AttemptStarted(attempt.id, attempt.server, attempt.device, type))
        ends_ns = attempt.delegated_at_ns + round(self._seconds[name] * SECOND)
        await asyncio.sleep((ends_ns - w.clock.now_ns()) / SECOND)
        backup = w.made_set(
            attempt, type=type, started_at_ns=attempt.delegated_at_ns, ended_at_ns=ends_ns, bytes_stored=0
        )
        await self._tell(server, facts.SetPublished(backup), w.end(attempt, AttemptState.SUCCEEDED, set=backup.id))


async def test_what_it_says_of_a_night_is_what_the_office_then_does(tmp_path: Path) -> None:
    """Two media servers with two slots each, fourteen jobs that are due within five minutes, of several priorities, some
    of which must go to one of the two, one that shares its source with others, and a policy with a superseded run, one
    that follows another, and copies."""
    async with admin_world(tmp_path) as w:
        rng, seconds = random.Random(5), dict[str, float]()
        for number in range(14):
            name, source = f"j{number:02}", rng.choice(("alpha", "beta", "gamma"))
            target = rng.choice(("pool:p", "pool:p", "device:dbeta", "device:dgamma"))
            seconds[name] = round(rng.uniform(20, 150), 1)
            minute = rng.randrange(5, 10)
            await nightly(
                w, name, source, target=target, schedule=f"{minute} 0 * * *", priority=rng.choice(list(Priority)[1:4])
            )
            server = rng.choice(("beta", "gamma")) if target == "pool:p" else target.removeprefix("device:d")
            await ran_before(w, name, source, seconds[name], server)
        await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(("alpha:/home",))))
        templates = {
            "full": TemplateDoc("full", to="device:dbeta", schedule="daily 00:06"),
            "inc": TemplateDoc("incremental", to="pool:p", schedule="daily 00:06"),
            "extra": TemplateDoc("copy", to="pool:p", schedule="daily 00:07"),
            "off": TemplateDoc("duplicate", to="device:dgamma"),
        }
        rules = ("when full succeeds start off", "on conflict full then extra")
        await w.ask("policy.create", q.PolicyCreate("nightly", PolicyDoc(templates, rules)))
        await w.ask("associate", q.AssociationEdit("home", "nightly"))
        for template, length in (("full", 95.5), ("extra", 33.3)):
            seconds[f"home.nightly.{template}"] = length
            await ran_before(w, f"home.nightly.{template}", "alpha", length, "beta")
        await w.until(lambda: w.clock.monotonic_s() > 90, 100)
        view = await what_if(w, minutes=40)
        # a copy like which there was none counts as what is typical
        seconds["home.nightly.off"] = view.typical_s
        media = asyncio.create_task(MediaServers(w, seconds).run())
        await w.until(lambda: w.clock.monotonic_s() > 1200, 1200)
        assert not media.done(), media
        media.cancel()
        assert len(view.runs) == 14 + 4
        for told in view.runs:
            run = w.state.run(told.run)
            attempts = w.state.attempts_of(told.run)
            assert not any(attempt.state in ATTEMPT_ACTIVE for attempt in attempts)
            assert run.state == told.state, told
            if told.state == "superseded":
                continue
            (attempt,) = attempts
            assert (w.state.name_of(attempt.server), w.state.device(attempt.device).name) == (
                told.server,
                told.device,
            ), told
            for real_ns, said in ((attempt.delegated_at_ns, told.begins), (attempt.ended_at_ns, told.ends)):
                assert abs(real_ns / SECOND - _seconds(said)) < SETTLED_S, told
        assert sum(told.state == "superseded" for told in view.runs) == 1
        assert view.verdict.startswith("All ends by 00:")
        assert view.guessed == 1


def _seconds(text: str | None) -> float:
    import datetime

    assert text is not None
    return datetime.datetime.fromisoformat(text).timestamp()


async def test_the_verdict_names_what_misses_and_by_how_much_later_all_ends(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("selection.create", q.SelectionCreate("home", SelectionDoc(("beta:/home",))))
        full = TemplateDoc("full", to="pool:p", schedule="daily 00:06", start_window="10m")
        await w.ask("policy.create", q.PolicyCreate("nightly", PolicyDoc({"full": full})))
        await w.ask("associate", q.AssociationEdit("home", "nightly"))
        await w.ask("device.set", q.DeviceSet("dgamma", concurrency=1))
        await w.ask("device.set", q.DeviceSet("dbeta", concurrency=1))
        for name in ("one", "two"):
            await nightly(w, name, "alpha", schedule="6 0 * * *")
            await ran_before(w, name, "alpha", 600.0, "beta" if name == "one" else "gamma")
        await ran_before(w, "home.nightly.full", "beta", 60.0)
        await w.until(lambda: w.clock.monotonic_s() > 90, 100)
        usual = await what_if(w)
        assert usual.verdict == "All ends by 00:17."
        assert (usual.good, usual.usual_ends, usual.later_s) == (True, None, None)
        view = await what_if(w, "beta")
        assert view.verdict.startswith(
            "2 of 3 runs are done by 00:26, 9m 00s later than with beta; 1 list misses: home (beta is unreachable since "
        )
        assert (view.good, view.without, view.runs_total) == (False, ("beta",), 3)
        (home, *others) = view.lists
        assert (home.name, home.kind, home.runs, home.missed, home.away, home.usual) == (
            "home",
            "list",
            1,
            1,
            ("beta",),
            True,
        )
        assert [(each.name, each.kind, each.done, each.usual) for each in others] == [
            ("one", "job", 1, True),
            ("two", "job", 1, True),
        ]
        (run,) = (each for each in view.runs if each.selection == "home")
        assert (run.state, run.usual_state, run.reason) == ("missed", "succeeded", "source-unreachable")
        assert [(each.name, each.away) for each in view.servers] == [("beta", True), ("gamma", False)]
        assert [(each.name, each.away, each.runs) for each in view.devices] == [
            ("dbeta", True, 0),
            ("dgamma", False, 2),
        ]
        assert w.state.server_named("beta").silent_since_ns is None, "nothing was changed"
        # who is away now stays away, and a device can be away alone
        w.links.down(node("gamma"))
        view = await what_if(w, devices=("dbeta",))
        assert view.verdict == (
            "0 of 3 runs are done in time; 1 list and 2 jobs miss: "
            "home (offline: dbeta), one (offline: dbeta), two (offline: dbeta)."
        )
        assert "Not connected now, and taken to stay away: gamma." in view.notes


async def test_late_and_full_are_told_and_the_morning_is_that_of_the_schedules(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        w.free_bytes = 10_000
        await w.ask("device.set", q.DeviceSet("dbeta", low_space_bytes=4_000))
        await nightly(w, "big", "alpha", target="device:dbeta", schedule="0 2 * * *", zone="Europe/Berlin")
        await ran_before(w, "big", "alpha", 9 * 3600.0, bytes_stored=7_000)
        await w.until(lambda: w.clock.monotonic_s() > 90, 100)
        view = await what_if(w, morning="06:30")
        assert (view.zone, view.until) == ("Europe/Berlin", "2025-01-06T05:30:00Z")
        assert view.verdict.startswith(
            "Not all is done by 06:30: 0 of 1 runs are, the last one ends at 11:00; late: big"
        )
        (dbeta, dgamma) = view.devices
        assert (dbeta.full, dbeta.days_until_full, dbeta.free_bytes_then) == ("2025-01-06T10:00:00Z", 0.0, 3_000)
        assert (dgamma.full, dgamma.days_until_full) == (None, None)
        view = await what_if(w, days=3, morning="23:00")
        assert view.until == "2025-01-08T22:00:00Z"
        assert [run.state for run in view.runs] == ["succeeded", "missed", "missed"]
        assert "dbeta takes nothing more from 2025-01-06T10:00:00Z on" in view.verdict
        w.free_bytes = 74_000
        await w.heartbeat(node("beta"))
        (dbeta, _) = (await what_if(w, morning="13:00")).devices
        assert (dbeta.bytes_a_day, dbeta.days_until_full) == (7_000, 9.0)


def test_while_a_night_is_worked_out_the_loop_need_not_wait_long_and_afterwards_all_is_as_before() -> None:
    before = (sys.getswitchinterval(), gc.isenabled())
    with pytest.raises(NotReady), beside_the_loop():
        assert (sys.getswitchinterval() <= 0.001, gc.isenabled()) == (True, False)
        raise NotReady(reason="nobody waits")
    assert (sys.getswitchinterval(), gc.isenabled()) == before


async def test_wrong_questions_are_refused_and_a_quiet_night_is_told_as_such(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        assert (await what_if(w, morning="08:00")).verdict == "Nothing is due until 08:00."
        for question, error in (
            (WhatIf(without=("nobody",)), NotFound),
            (WhatIf(without_devices=("nothing",)), NotFound),
            (WhatIf(days=0), InvalidValue),
            (WhatIf(days=32), InvalidValue),
            (WhatIf(morning="8"), InvalidValue),
            (WhatIf(until_ns=1), InvalidValue),
            (WhatIf(from_ns=1), InvalidValue),
            (WhatIf(until_ns=w.clock.now_ns() + 40 * 86400 * SECOND), InvalidValue),
        ):
            with pytest.raises(error):
                await w.ask("what-if", question)
