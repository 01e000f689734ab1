"""The tables of a voter follow those of the administrator, and are equal to them in the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from admin.admin_world import Reporter
from waiting import wait_for_async

from caso_mesh.admin import copying
from caso_mesh.admin import following as module
from caso_mesh.admin.asking import Asking
from caso_mesh.admin.following import Followed, Following
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.standby import Standby
from caso_mesh.admin.tables import Tables
from caso_mesh.catalog.catalog import Catalog
from caso_mesh.database import Database
from caso_mesh.identity.roster import Peer
from caso_mesh.machine import SystemClock
from caso_mesh.model import facts
from caso_mesh.model import telling as t
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.errors import JournalChainBroken, LinkLost, NoAdmin, Refused, StateTooNew
from caso_mesh.model.states import AlertKind
from caso_mesh.wire.codec import from_wire, to_wire

VOTER = Peer(id="node-beta", name="beta", kind="node")
#: Everything that must be equal; numbers and lives are a copy's own.
TABLES = (
    (
        "SELECT i.server, i.incarnation, r.seq, r.at_ns, r.kind, r.data, r.hash, r.refused FROM journal_record r"
        " JOIN journal_incarnation i ON i.number = r.incarnation ORDER BY 1, 2, 3"
    ),
    "SELECT * FROM alert ORDER BY id, server",
    "SELECT * FROM audit ORDER BY at_ns, server, who",
    "SELECT * FROM log_line ORDER BY attempt, at_ns, text",
    "SELECT * FROM run_wait ORDER BY run, source, since_ns",
)


class Link:
    """A link that answers by the handlers of the other end; ``lost`` from the call on that counts it down to 0."""

    def __init__(self, followed: Followed, peer: Peer = VOTER) -> None:
        self._handlers = followed.handlers()
        self._asking = peer
        self.peer = Peer(id="node-alpha", name="alpha", kind="node")
        self.calls_left: int | None = None

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        if self.calls_left is not None:
            if self.calls_left == 0:
                raise LinkLost(peer="alpha", detail="it was cut")
            self.calls_left -= 1
        request = from_wire(params, BY_NAME[method].request)
        return to_wire(await self._handlers[method](self._asking, request, None))

    async def notify(self, method: str, params: Any = None) -> None:
        raise AssertionError(method)


@contextlib.asynccontextmanager
async def tables_at(path: Path) -> AsyncIterator[Tables]:
    async with Database.open(path, MIGRATIONS, durable=False, same_thread=True) as database:
        yield Tables(database)


def followed_at(folder: Path, tables: Tables, may: Callable[[Peer], bool] = lambda peer: True) -> Followed:
    return Followed(tables, may, Followers(SystemClock()), folder)


def following_at(folder: Path, tables: Tables) -> Following:
    """One that settles whenever there is something to settle."""
    own = folder / "own"
    own.mkdir(exist_ok=True)
    return Following(tables, lambda: None, own)


@contextlib.asynccontextmanager
async def two(folder: Path) -> AsyncIterator[Any]:
    async with tables_at(folder / "alpha.db") as alpha, tables_at(folder / "beta.db") as beta:
        followed = followed_at(folder, alpha, lambda peer: peer == VOTER)
        yield SimpleNamespace(alpha=alpha, beta=beta, followed=followed, following=following_at(folder, beta))


async def everything(tables: Tables) -> list[list[tuple[Any, ...]]]:
    def read(conn: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
        return [conn.execute(sql).fetchall() for sql in TABLES]

    return await tables._database.read(read)


async def fill(tables: Tables, *reporters: Reporter, count: int, at: int = 0) -> None:
    """Each reporter raises alerts, is audited and logs; pushes of one and two records take turns."""
    for number in range(at, at + count):
        for reporter in reporters:
            new = [
                facts.AlertRaised(f"alert-{number}", AlertKind.WARNING, "device-full", "x" * 2000, object="disk"),
                facts.Audit("ann", f"backup-{number}", "work", outcome="done", source="", fields={"n": number}),
            ]
            records = reporter.records(1000 + number, *new)
            await tables.accept(reporter.node, records[:1], {(records[0].incarnation, records[0].seq): "forged"}
                                if number % 5 == 0 else None)  # fmt: skip
            await tables.accept(reporter.node, records[1:])


async def test_what_came_and_what_comes_is_equal_in_the_end(tmp_path: Path) -> None:
    async with two(tmp_path) as w:
        one, other = Reporter("node-alpha"), Reporter("node-gamma")
        await fill(w.alpha, one, other, count=700)
        link = Link(w.followed)

        async def at_once() -> None:
            return

        task = asyncio.create_task(w.following.run(lambda: link, at_once))
        try:
            await fill(w.alpha, one, other, count=50, at=700)

            async def equal() -> bool:
                return await everything(w.alpha) == await everything(w.beta)

            await wait_for_async(equal, 30.0, what="the tables are equal", every_s=0.05)
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_cut_at_any_call_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with two(tmp_path) as w:
        one, other = Reporter("node-alpha"), Reporter("node-gamma")
        cuts = 0
        for number in range(12):
            await fill(w.alpha, one, other, count=60, at=60 * number)
            link = Link(w.followed)
            link.calls_left = number % 4
            try:
                await w.following.catch_up(link)
            except LinkLost:
                cuts += 1
        await w.following.catch_up(Link(w.followed))
        assert cuts >= 6
        assert await everything(w.alpha) == await everything(w.beta)


async def test_a_voter_follows_whoever_is_in_office_next_and_keeps_what_only_it_held(tmp_path: Path) -> None:
    async with two(tmp_path) as w, tables_at(tmp_path / "gamma.db") as gamma:
        one, other = Reporter("node-alpha"), Reporter("node-gamma")
        await fill(w.alpha, one, other, count=20)
        await w.following.catch_up(Link(w.followed))
        await following_at(tmp_path, gamma).catch_up(Link(w.followed))
        # only beta has this of alpha, which dies; gamma is elected and asks beta
        await fill(w.alpha, one, count=5, at=20)
        await w.following.catch_up(Link(w.followed))
        await fill(gamma, other, count=5, at=20)
        await following_at(tmp_path, gamma).catch_up(Link(followed_at(tmp_path, w.beta)))
        await w.following.catch_up(Link(followed_at(tmp_path, gamma)))
        assert await everything(gamma) == await everything(w.beta)
        assert len((await everything(gamma))[0]) == 2 * (20 + 20 + 5 + 5)


async def test_who_is_no_voter_is_refused(tmp_path: Path) -> None:
    async with two(tmp_path) as w:
        stranger = Peer(id="node-x", name="x", kind="node")
        with pytest.raises(Refused, match="x is no voter"):
            await w.following.catch_up(Link(w.followed, stranger))
        with pytest.raises(Refused):
            await Link(w.followed, stranger).call("replica.pull", to_wire(t.ReplicaPull(t.ReplicaPlace("", 0))))


async def test_another_history_of_the_same_journal_is_not_taken_in(tmp_path: Path) -> None:
    async with two(tmp_path) as w:
        one, forged = Reporter("node-alpha"), Reporter("node-alpha")
        await fill(w.beta, one, count=2)
        await w.alpha.accept("node-alpha", forged.records(1, *(facts.ServerStarted(str(n)) for n in range(9))))
        before = await everything(w.beta)
        with pytest.raises(JournalChainBroken):
            await w.following.catch_up(Link(w.followed))
        assert await everything(w.beta) == before


async def test_tables_that_are_made_anew_are_followed_from_their_beginning(tmp_path: Path) -> None:
    async with two(tmp_path) as w, tables_at(tmp_path / "new.db") as new:
        one = Reporter("node-alpha")
        await fill(w.alpha, one, count=3)
        link = Link(w.followed)
        at = asyncio.Event()
        at.set()
        task = asyncio.create_task(w.following.run(lambda: link, at.wait))
        try:
            await wait_for_async(lambda: _holds(w.beta, 6), 30.0, what="beta has followed")
            await fill(new, one, count=0)
            records = [each.record for each in (await w.alpha.arrived(0))[1]]
            await new.accept("node-alpha", records)
            await new.accept("node-alpha", one.records(5, facts.ServerStarted("2")))
            link._handlers = followed_at(tmp_path, new).handlers()
            # what wakes the question that waits at the old tables
            await w.alpha.accept("node-gamma", Reporter("node-gamma").records(5, facts.ServerStarted("1")))
            await wait_for_async(lambda: _holds(w.beta, 8), 30.0, what="beta follows the new ones")
        finally:
            task.cancel()
            await asyncio.wait([task])


async def _holds(tables: Tables, count: int) -> bool:
    return len((await everything(tables))[0]) == count


async def test_without_an_administrator_a_voter_waits(tmp_path: Path) -> None:
    async with two(tmp_path) as w:
        tries = 0

        def none() -> Any:
            nonlocal tries
            tries += 1
            raise NoAdmin(server="beta")

        async def at_once() -> None:
            return

        task = asyncio.create_task(w.following.run(none, at_once))
        await wait_for_async(lambda: _tried(lambda: tries, 2), 30.0, what="it has tried twice")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def _tried(count: Any, least: int) -> bool:
    return bool(count() >= least)


async def test_tables_of_the_version_before_are_numbered_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    one = Reporter("node-alpha")
    records = one.records(1, *(facts.ServerStarted(str(n)) for n in range(5)))
    async with Database.open(path, MIGRATIONS[:2], durable=False, same_thread=True) as database:

        def old(conn: sqlite3.Connection) -> None:
            conn.execute(
                "INSERT INTO journal_incarnation (server, incarnation, seq, hash) VALUES (?, ?, 5, ?)",
                (one.node, one.incarnation, one.hash),
            )
            rows = [(1, r.seq, r.at_ns, r.kind, r.data, r.hash) for r in records]
            conn.executemany("INSERT INTO journal_record VALUES (?, ?, ?, ?, ?, ?)", rows)

        await database.write(old)
    async with tables_at(path) as tables, tables_at(tmp_path / "beta.db") as beta:
        await following_at(tmp_path, beta).catch_up(Link(followed_at(tmp_path, tables)))
        assert [row[2] for row in (await everything(beta))[0]] == [1, 2, 3, 4, 5]
        await tables.accept(one.node, one.records(2, facts.ServerStarted("6")))


async def meaning(tables: Tables) -> list[Any]:
    """Everything but the records themselves, and how far journals are held."""
    return [*(await everything(tables))[1:], sorted(await tables.heads())]


async def test_a_voter_that_comes_after_records_were_pruned_takes_over_the_tables_with_what_only_it_held(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as w, tables_at(tmp_path / "new.db") as new:
        one, other, own = Reporter("node-alpha"), Reporter("node-gamma"), Reporter("node-beta")
        await fill(w.alpha, one, other, count=30)
        await w.following.catch_up(Link(w.followed))
        await fill(w.alpha, one, other, count=30, at=30)
        await fill(w.beta, own, count=3)  # nobody else has this
        settled = await w.alpha.settle()
        assert await w.alpha.prune_records(settled, 0) == 60 * 2 * 2
        await fill(w.alpha, one, other, count=5, at=60)
        for tables in (w.beta, new):
            await following_at(tmp_path, tables).catch_up(Link(w.followed))
        assert await meaning(new) == await meaning(w.alpha)
        await following_at(tmp_path, w.alpha).catch_up(Link(followed_at(tmp_path, w.beta)))
        assert await meaning(w.beta) == await meaning(w.alpha)
        assert len((await everything(w.beta))[2]) == 65 * 2 + 3  # each fact was taken in once
        assert list(tmp_path.glob("**/taken*")) == list(tmp_path.glob("**/copy*")) == []


async def test_a_voter_of_an_earlier_version_is_told_so_before_tables_are_sent_that_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were sent again every few seconds, and no log said why nothing came of it."""
    async with two(tmp_path) as w, tables_at(tmp_path / "new.db") as new:
        await fill(w.alpha, Reporter("node-alpha"), count=5)
        await w.alpha.prune_records(await w.alpha.settle(), 0)
        later = [*MIGRATIONS, "CREATE TABLE later (x INTEGER) STRICT;"]
        begin = w.followed._begin

        async def by_a_later_program(peer: Peer, request: t.ReplicaBegin, link: Any) -> t.ReplicaPlace:
            with monkeypatch.context() as patch:
                patch.setattr(module, "MIGRATIONS", later)
                return await begin(peer, request, link)

        monkeypatch.setattr(w.followed, "_begin", by_a_later_program)
        voters = Voters(alpha=w.followed)
        with pytest.raises(StateTooNew) as refused:
            await following_at(tmp_path, new).catch_up(voters.get("alpha"))
        assert refused.value.fields["known"] == len(MIGRATIONS)
        assert ("alpha", "replica.copy") not in voters.asked


class Voters:
    """Links with other voters, by name; ``slow`` calls (voter, call) are answered when their event is set."""

    def __init__(self, **followed: Followed) -> None:
        self._links = {name: self._link(name, each) for name, each in followed.items()}
        self.slow: dict[tuple[str, str], asyncio.Event] = {}
        self.asked: list[tuple[str, str]] = []

    def _link(self, name: str, followed: Followed) -> SimpleNamespace:
        inner = Link(followed)

        async def call(method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
            self.asked.append((name, method))
            answer = await inner.call(method, params)
            if (name, method) in self.slow:
                await self.slow[name, method].wait()
            return answer

        return SimpleNamespace(peer=Peer(id=name, name=name, kind="node"), call=call)

    def get(self, node: str) -> Any:
        return self._links[node]

    def linked(self, node: str) -> bool:
        return node in self._links


@contextlib.asynccontextmanager
async def asking(folder: Path, tables: Tables, links: Voters) -> AsyncIterator[Asking]:
    """As the office of alpha does it, beside beta and gamma."""
    everybody = ["alpha", "beta", "gamma"]
    made = Asking(
        tables=tables, links=links, voters=lambda: everybody, own="alpha", changed=lambda: None, copies=folder
    )  # type: ignore[arg-type]
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_voter_that_hangs_does_not_hold_up_what_another_one_tells_a_new_office(tmp_path: Path) -> None:
    """They were asked one after the other, and until a majority has answered what servers pruned is waited for."""
    async with two(tmp_path) as w, tables_at(tmp_path / "new.db") as new:
        await fill(w.alpha, Reporter("node-alpha"), count=30)
        links = Voters(beta=followed_at(tmp_path, w.beta), gamma=followed_at(tmp_path, w.alpha))
        links.slow["beta", "replica.begin"] = asyncio.Event()
        async with asking(tmp_path, new, links) as office:
            assert not office.enough(["alpha", "beta", "gamma"])
            await wait_for_async(lambda: office.enough(["alpha", "beta", "gamma"]), 30.0, what="gamma has answered")
            assert ("beta", "replica.begin") in links.asked
            assert await meaning(new) == await meaning(w.alpha)
            assert not office.enough(["alpha", "beta"])
            links.slow["beta", "replica.begin"].set()
            await wait_for_async(lambda: office.enough(["alpha", "beta"]), 30.0, what="beta has answered")


async def test_of_two_voters_that_have_pruned_the_one_that_was_away_does_not_take_back_what_the_other_told(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as w, tables_at(tmp_path / "new.db") as new:
        one = Reporter("node-alpha")
        await fill(w.alpha, one, count=20)
        await w.following.catch_up(Link(w.followed))
        await w.beta.prune_records(await w.beta.settle(), 0)
        await fill(w.alpha, one, count=20, at=20)  # beta is away
        await w.alpha.prune_records(await w.alpha.settle(), 0)
        links = Voters(beta=followed_at(tmp_path, w.beta), gamma=followed_at(tmp_path, w.alpha))
        # that the new office lacks what beta pruned is true when beta says so, and not when the answer has come
        links.slow["beta", "replica.begin"] = asyncio.Event()
        async with asking(tmp_path, new, links) as office:
            await wait_for_async(lambda: office.enough(["alpha", "gamma"]), 30.0, what="gamma has answered")
            links.slow["beta", "replica.begin"].set()
            await wait_for_async(lambda: office.enough(["alpha", "beta"]), 30.0, what="beta has answered")
        assert ("gamma", "replica.copy") in links.asked
        assert await meaning(new) == await meaning(w.alpha)


async def test_records_go_when_every_voter_that_is_waited_for_has_settled_them(tmp_path: Path) -> None:
    async with two(tmp_path) as w:
        one = Reporter("node-alpha")
        await fill(w.alpha, one, count=20)
        followers = w.followed._followers
        link = Link(w.followed)
        at = asyncio.Event()
        at.set()
        task = asyncio.create_task(w.following.run(lambda: link, at.wait))
        try:
            settled = await w.alpha.settle()
            assert settled == 40

            async def said() -> bool:
                return bool(followers.of(VOTER.id) == settled)

            await wait_for_async(said, 30.0, what="beta has said what it holds durably")
            assert await w.alpha.prune_records(settled, 0) == 40
            assert await w.alpha.held_upto(settled, 1 << 60) == {one.node: [(one.incarnation, 40)]}
        finally:
            task.cancel()
            await asyncio.wait([task])
        # what is pruned here goes there with the next look
        await fill(w.alpha, one, count=1, at=20)
        before = await meaning(w.alpha)
        await following_at(tmp_path, w.beta).catch_up(link)
        assert await w.beta.floors() == await w.alpha.floors() == [(one.node, one.incarnation, 40)]
        assert await _records(w.beta) == await _records(w.alpha) == 2
        assert await meaning(w.beta) == before
        assert await w.beta.hash_at(one.node, one.incarnation, 40) is not None


async def _records(tables: Tables) -> int:
    return len((await everything(tables))[0])


async def test_an_alert_that_another_office_ended_is_ended_in_whichever_order_the_journals_come(tmp_path: Path) -> None:
    """Found by the mesh simulator: the end of an alert is told by whoever is in office then. A voter to which that journal
    came first had nothing to end yet, and showed the alert for ever."""
    raised = Reporter("node-alpha").records(1000, facts.AlertRaised("a", AlertKind.WARNING, "clock-differs", "x"))
    ended = Reporter("node-beta").records(2000, facts.AlertCleared("a", of="node-alpha"))
    again = Reporter("node-gamma").records(1500, facts.AlertCleared("a", of="node-alpha"))
    told = [("node-alpha", raised), ("node-beta", ended), ("node-gamma", again)]
    found = []
    for number, order in enumerate(itertools.permutations(told)):
        async with tables_at(tmp_path / f"{number}.db") as tables:
            for node, records in order:
                await tables.accept(node, records)
            found += [alert.cleared_at_ns for alert in await tables.alerts()]
    assert found == [1500] * 6


async def test_a_voter_whose_log_is_behind_forgets_nothing_of_runs_that_it_does_not_know_yet(tmp_path: Path) -> None:
    """Found by the mesh simulator: a voter that started anew held facts of runs that its log had not come to. It took them
    for forgotten runs, and removed what was told of their attempts, for good."""

    class Keeper:
        def __init__(self) -> None:
            settings: dict[str, Any] = {"mesh_settings": {}, "pool_settings": {}, "settings_of_mesh": dict}
            self.state = SimpleNamespace(runs={}, devices={}, servers={}, **settings)
            self.index, self.came = 0, asyncio.Event()

        async def wait_applied(self, index: int) -> None:
            while self.index < index:
                await self.came.wait()

        async def changes(self) -> AsyncIterator[int]:
            for index in ():
                yield index

    async def runs(tables: Tables) -> list[str]:
        return await tables.runs_told()

    async def at_once() -> None:
        return

    async with two(tmp_path) as w, Catalog.open(tmp_path / "catalog.db", same_thread=True) as catalog:
        reporter, keeper = Reporter("node-gamma"), Keeper()
        for run in ("kept@1", "gone@1"):
            records = reporter.records(1000, facts.AttemptStarted(f"{run}#1", "node-gamma", "disk"))
            await w.alpha.accept(reporter.node, records)
            await w.beta.accept(reporter.node, records)
        await fill(w.alpha, reporter, count=1)  # so that it is answered at once
        link = Link(Followed(w.alpha, lambda peer: True, Followers(SystemClock()), tmp_path, lambda: 7))
        standby = Standby(
            keeper=keeper, tables=w.beta, catalog=catalog, incoming=tmp_path / "incoming", copies=tmp_path, admin=lambda: link,
            wait_admin=at_once, own="node-beta", clock=SimpleNamespace(now_ns=lambda: 2000, monotonic_s=lambda: 0.0),
            randomness=bytes,
        )  # fmt: skip
        task = asyncio.create_task(standby.run())
        try:
            for _ in range(50):
                await asyncio.sleep(0)
            assert await runs(w.beta) == ["gone@1", "kept@1"]
            keeper.state.runs["kept@1"] = object()
            keeper.index = 7
            keeper.came.set()

            async def only_the_gone_one_went() -> bool:
                return await runs(w.beta) == ["kept@1"]

            await wait_for_async(only_the_gone_one_went, 30.0, every_s=0.01)
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_tables_that_are_taken_over_are_all_there_are(tmp_path: Path) -> None:
    """Found by the mesh simulator: a table that was new here was left out, and the ends of alerts differed later."""
    async with tables_at(tmp_path / "a.db") as tables:
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        names = await tables._database.read(lambda c: {row[0] for row in c.execute(sql)})
    assert names - set(copying._TABLES) == {"journal_life", "catalog_here"}
