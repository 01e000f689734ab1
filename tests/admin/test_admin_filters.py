"""Every view filtered by server, pool, state and time, and a page at a time."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from admin.admin_world import SECOND, World, admin_world, node
from admin.test_admin_local import told
from msgspec.structs import replace

from caso_mesh.admin.interpret import insert_set
from caso_mesh.admin.live import Live
from caso_mesh.admin.retaining import Retaining
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.set_lists import SetLists
from caso_mesh.admin.tables import Tables
from caso_mesh.control.state import ControlState
from caso_mesh.control.tables import Put
from caso_mesh.database import Database
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model.commands import CreatePool, SetServerState
from caso_mesh.model.documents import SelectionDoc
from caso_mesh.model.errors import InvalidValue, NotFound
from caso_mesh.model.ids import attempt_id, local_id, run_now_id
from caso_mesh.model.listing import SetStanding
from caso_mesh.model.mesh import Pool, Server
from caso_mesh.model.states import AttemptState, BackupType, DeviceState, ServerState
from caso_mesh.model.storage import DEFAULT_MEDIA_SET, FACTORY_MEDIA_SETS, BackupSet, Medium

#: Of each view: its call, its rows and their names.
VIEWS: dict[str, tuple[str, Callable[..., Any], Callable[[Any], list[str]]]] = {
    "servers": ("server.list", q.ServerListRequest, lambda view: [row.name for row in view.servers]),
    "devices": ("device.list", q.DeviceListRequest, lambda view: [row.name for row in view.devices]),
    "media": ("medium.list", q.MediumListRequest, lambda view: [row.label for row in view.media]),
    "selections": ("selection.list", q.SelectionListRequest, lambda view: [row.name for row in view.selections]),
    "sets": ("set.list", q.SetListRequest, lambda view: [row.id for row in view.sets]),
    "jobs": ("job.list", q.JobListRequest, lambda view: [row.name + (row.source or "") for row in view.jobs]),
    "log": (
        "job.log",
        lambda **fields: q.JobLogRequest("logged", **fields),
        lambda view: [line.text for attempt in view.attempts for line in attempt.lines],
    ),
}
DAY = 86400 * SECOND


async def shown(w: World, what: str, **fields: Any) -> tuple[list[str], bool]:
    call, request, rows = VIEWS[what]
    view = await w.ask(call, request(**fields))
    return rows(view), getattr(view, "more", False)


async def furnish(w: World) -> int:
    """Two servers, each with a device, a medium, a selection list, sets of five days, and a run; when it began."""
    now = w.clock.now_ns()
    await w.submit(CreatePool(Pool("west", (node("beta"),))))
    await w.submit(SetServerState(node("gamma"), ServerState.PAUSED))
    for at, name in enumerate(("beta", "gamma")):
        day = now - (at + 1) * DAY
        closed = Medium(f"{name.upper()}-1", f"dev-{name}", DEFAULT_MEDIA_SET, node(name), 0, day, 1)
        opened = Medium(f"{name.upper()}-2", f"dev-{name}", DEFAULT_MEDIA_SET, node(name), 0, now, None)
        new: list[facts.Fact] = [facts.MediumChanged(closed), facts.MediumChanged(opened)]
        for number in range(3):
            job = local_id(f"{name}{number}".ljust(26, "j"), node(name))
            run = run_now_id(job, 1)
            attempt = attempt_id(run, 1)
            backup = w.made_set(
                _Local(attempt, run, job, node(name), f"dev-{name}"),
                id=f"{name[0]}{number}".ljust(26, "a"),
                medium=f"{name.upper()}-0{number}",
                ended_at_ns=now - (100 * at + 60 * number) * DAY,
            )
            new.append(facts.SetPublished(backup))
        new.append(facts.SetLocked("b2".ljust(26, "a"), "dev-beta", "ann") if name == "beta" else _LINE)
        await w.report(name, *new)
        await w.ask("selection.create", q.SelectionCreate(f"list-{name}", SelectionDoc((f"{name}:/srv",))))
    await w.ask("device.set", q.DeviceSet("dbeta", state=DeviceState.PAUSED))
    return now


class _Local:
    """What ``made_set`` has to know of an attempt."""

    def __init__(self, id: str, run: str, job: str, server: str, device: str) -> None:
        self.id, self.run, self.job, self.server, self.source, self.device = id, run, job, server, server, device


_LINE = facts.ServerStarted("1")


B = [f"b{number}".ljust(26, "a") for number in range(3)]
G = [f"g{number}".ljust(26, "a") for number in range(3)]
EVERYTHING: list[tuple[str, dict[str, Any], list[str]]] = [
    ("servers", {}, ["alpha", "beta", "gamma"]),
    ("servers", {"server": "beta"}, ["beta"]),
    ("servers", {"pool": "west"}, ["beta"]),
    ("servers", {"state": "paused"}, ["gamma"]),
    ("servers", {"state": "paused", "pool": "west"}, []),
    ("devices", {}, ["dbeta", "dgamma"]),
    ("devices", {"server": "gamma"}, ["dgamma"]),
    ("devices", {"pool": "west"}, ["dbeta"]),
    ("devices", {"state": "paused"}, ["dbeta"]),
    ("devices", {"state": "paused", "server": "gamma"}, []),
    ("media", {}, ["BETA-1", "BETA-2", "GAMMA-1", "GAMMA-2"]),
    ("media", {"server": "gamma"}, ["GAMMA-1", "GAMMA-2"]),
    ("media", {"pool": "west"}, ["BETA-1", "BETA-2"]),
    ("media", {"state": "protected"}, ["BETA-1", "GAMMA-1"]),
    ("media", {"state": "appendable", "pool": "west"}, ["BETA-2"]),
    ("media", {"since_ns": 0}, ["BETA-2", "GAMMA-2"]),
    ("media", {"until_ns": -DAY}, ["GAMMA-1"]),
    ("media", {"since_ns": -DAY, "until_ns": 0}, ["BETA-1"]),
    ("selections", {}, ["list-beta", "list-gamma"]),
    ("selections", {"server": "gamma"}, ["list-gamma"]),
    ("selections", {"pool": "west"}, ["list-beta"]),
    ("sets", {}, [B[0], B[1], G[0], B[2], G[1], G[2]]),
    ("sets", {"server": "gamma"}, G),
    ("sets", {"source": "gamma"}, G),
    ("sets", {"pool": "west"}, B),
    ("sets", {"pool": "p", "server": "beta"}, B),
    ("sets", {"since_ns": -60 * DAY}, [B[0], B[1]]),
    ("sets", {"since_ns": -120 * DAY, "until_ns": -60 * DAY}, [G[0], B[2]]),
    ("sets", {"state": SetStanding.LOCKED}, [B[2]]),
    ("sets", {"state": SetStanding.LOCKED, "server": "gamma"}, []),
    ("sets", {"state": SetStanding.EXPIRED}, [B[1], G[1], G[2]]),
    ("sets", {"expired": True, "pool": "west"}, [B[1]]),
    ("sets", {"state": SetStanding.KEPT}, [B[0], G[0], B[2]]),
    ("sets", {"state": SetStanding.REDUNDANT}, []),
]


@pytest.mark.jumping
async def test_every_view_shows_what_fits_and_nothing_else(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        now = await furnish(w)
        for what, fields, expected in EVERYTHING:
            asked = {name: value + now if name.endswith("_ns") else value for name, value in fields.items()}
            found, more = await shown(w, what, **asked)
            if what != "sets" or fields.get("state") is not SetStanding.KEPT:
                assert (found, more) == (expected, False), (what, fields)
            else:
                assert sorted(found) == sorted(expected), (what, fields)
            pages: list[str] = []
            while True:
                after = {"after": pages[-1]} if pages else {}
                rows, more = await shown(w, what, limit=1, **asked, **after)
                assert len(rows) <= 1
                pages += rows
                if not more:
                    break
            assert pages == found, f"page by page, {what} {fields}"


@pytest.mark.jumping
async def test_a_state_that_there_is_not_a_server_and_a_row_that_is_unknown_are_told(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        for what in ("servers", "devices", "media", "jobs"):
            with pytest.raises(InvalidValue, match="sleepy"):
                await shown(w, what, state="sleepy")
        for what in ("servers", "devices", "media", "selections", "sets", "jobs"):
            with pytest.raises(NotFound):
                await shown(w, what, server="nobody")
            with pytest.raises(NotFound):
                await shown(w, what, pool="nothing")
        for what in ("sets", "jobs"):
            with pytest.raises(NotFound):
                await shown(w, what, after="never")


@pytest.mark.jumping
async def test_jobs_are_filtered_by_server_pool_state_and_time_and_shown_a_page_at_a_time(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.submit(CreatePool(Pool("west", (node("beta"),))))
        begun = w.clock.now_ns()
        both = q.BackupRequest(sources=(("beta", b"/srv"), ("gamma", b"/srv")), target="device:dbeta", name="both")
        await w.ask("backup", both)
        await w.backup("gamma", to="device:dgamma", name="gammas")
        await w.ask(
            "backup", q.BackupRequest((("gamma", b"/srv"),), "device:dgamma", name="daily", schedule="0 2 * * *")
        )
        run = await told(w, "beta")
        everything = [("daily", 1), ("gammas", 1), ("both", 2), ("mine", 1)]

        async def names(**fields: Any) -> list[str]:
            return [row.name for row in (await w.ask("job.list", q.JobListRequest(**fields))).jobs]

        assert sorted(await names(state="all")) == sorted(name for name, count in everything for _ in range(count))
        assert await names(state="all", pool="west") == ["both", "both", "mine"], "what beta writes is of the pool, too"
        assert await names(state="all", server="gamma") == ["daily", "gammas", "both"]
        assert await names(state="scheduled", server="beta") == []
        assert await names(state="ended") == ["mine"]
        assert await names(state="all", until_ns=begun) == []
        assert await names(state="all", since_ns=begun + DAY * 10) == []
        assert await names(state="scheduled", since_ns=begun, until_ns=begun + DAY) == ["daily"]
        pages: list[Any] = []
        while True:
            after = (pages[-1].run or pages[-1].job) if pages else None
            view = await w.ask("job.list", q.JobListRequest(state="all", limit=1, after=after))
            pages += view.jobs
            if not view.more:
                break
        assert [row.name for row in pages] == await names(state="all"), "a run of two servers is on one page"
        assert pages[-1].run == run.id


@pytest.mark.jumping
async def test_lines_of_a_job_log_are_chosen_by_server_level_and_time(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup("gamma", to="device:dbeta", name="logged")
        attempt = await w.delegated(run)
        now = w.clock.now_ns()
        lines = [(0, "debug", "looked"), (1, "info", "began"), (2, "warning", "slow"), (3, "error", "broke")]
        for server in ("beta", "gamma"):
            told = tuple(facts.LogLine(now + at * SECOND, level, f"{server} {text}") for at, level, text in lines)
            await w.report(server, facts.JobLog(attempt.id, told))
        await w.report("beta", w.end(attempt, AttemptState.FAILED))
        assert len((await shown(w, "log"))[0]) == 8
        assert (await shown(w, "log", server="gamma", level="warning"))[0] == ["gamma slow", "gamma broke"]
        assert (await shown(w, "log", pool="p", since_ns=now + 3 * SECOND))[0] == ["beta broke", "gamma broke"]
        assert (await shown(w, "log", since_ns=now, until_ns=now + SECOND))[0] == ["beta looked", "gamma looked"]
        assert (await shown(w, "log", server="alpha"))[0] == []
        with pytest.raises(InvalidValue, match="level"):
            await shown(w, "log", level="loud")


@pytest.mark.long
async def test_the_sets_of_a_pool_are_listed_at_once_among_a_hundred_thousand_of_three_thousand_servers(
    tmp_path: Path,
) -> None:
    """Every set was decoded and judged for each list: two seconds, for a page of a hundred."""
    now, servers, pools = 20_000 * DAY, 3000, 30
    names = [f"node{number:06d}" for number in range(servers)]
    state = ControlState()
    state.write(Put("servers", each, Server(each, each, b"k", b"x" * 32, b"w", 0)) for each in names)
    state.write(
        Put("pools", f"pool{number}", Pool(f"pool{number}", tuple(names[number::pools]))) for number in range(pools)
    )
    state.write(Put("media_sets", each.name, each) for each in FACTORY_MEDIA_SETS)
    made = BackupSet(
        id="", mesh="m", vault="v", source="", source_name="s", server="", server_name="m", device="d", device_name="d",
        medium="", media_set=DEFAULT_MEDIA_SET, type=BackupType.FULL, job="j", run="j@1", attempt="j@1#1",
        started_at_ns=0, ended_at_ns=0, roots=(b"srv",), filters=b"f", root=b"r" * 32, parent=None, files=3, entries=4,
        bytes=30, bytes_read=30, bytes_stored=40, exceptions=0,
    )  # fmt: skip

    def fill(c: sqlite3.Connection) -> None:
        for number in range(100_000):
            name = names[number % servers]
            fields = {"source": name, "server": name, "medium": f"M{number // servers}"}
            insert_set(c, replace(made, id=f"{number:026d}", ended_at_ns=now - number * SECOND, **fields))

    async with Database.open(tmp_path / "tables.db", MIGRATIONS, durable=False) as database:
        await database.write(fill)
        keeper: Any = SimpleNamespace(state=state)
        clock: Any = SimpleNamespace(now_ns=lambda: now)
        tables, anybody = Tables(database), SimpleNamespace(limits=lambda: None)
        retaining = Retaining(keeper=keeper, tables=tables, live=Live(), clock=clock, away=lambda device: False)
        on_device: Any = None
        lists = SetLists(keeper=keeper, tables=tables, clock=clock, on_device=on_device, retaining=retaining)
        took: list[float] = []
        for number in range(pools):
            before = time.process_time()
            view = await lists.answer(anybody, q.SetListRequest(pool=f"pool{number}", limit=100))  # type: ignore[arg-type]
            took.append(time.process_time() - before)
            assert len(view.sets) == 100
            assert view.more
        assert statistics.median(took) < 0.2
