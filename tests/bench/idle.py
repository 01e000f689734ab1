"""What idle members cost the administrator: its CPU, its memory, what is said to it, and how long an order takes to
reach all of them.

The administrator is a real daemon in a process of its own. The members are thin, all in this process: they join as
real ones do, dial over real TLS, greet, hand over their journal, beat with the real ``Heart`` and take orders; they run
nothing and keep nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import pathlib
import random
import resource
import tempfile
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bench import report
from bench.metering import cpu_s, memory
from mesh.process import ProcessMesh
from msgspec import structs

from caso_mesh.cli.client import Client, connect
from caso_mesh.cli.options import Common
from caso_mesh.config import Config
from caso_mesh.control.orders import shared_digest, with_change
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.store import IdentityStore
from caso_mesh.identity.tls import client_context
from caso_mesh.journal.record import first_hash, record_hash
from caso_mesh.machine import SystemClock
from caso_mesh.model import facts
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model import views as v
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.errors import CasoError, UnknownCall
from caso_mesh.model.nodes import Heartbeat, HelloReply, HelloRequest, OrdersTaken
from caso_mesh.model.orders import Orders
from caso_mesh.model.settings import number
from caso_mesh.server.beating import Heart
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.joining import join_by_link
from caso_mesh.wire.codec import from_wire, to_wire
from caso_mesh.wire.link import Link
from caso_mesh.wire.network import ClientTls
from caso_mesh.wire.typed import ask
from caso_mesh.wire.websocket import WebSocketNetwork

_JOIN_AT_ONCE, _DIAL_AT_ONCE = 8, 16
#: Before a member that found nobody to answer dials again.
_AGAIN_S = 1.0
#: A setting that changes nothing for idle members.
_SETTING = "joblog-keep-s"


#: Orders of which members hold rows and addresses, by their digest.
_ALIKE: dict[bytes, Orders] = {}


class Member:
    """One thin member. ``orders`` are the last that it took, ``taken`` how often it took some."""

    def __init__(self, name: str, state: pathlib.Path, admin: str, clock: SystemClock) -> None:
        self.name, self.admin = name, admin
        self.folder = StateFolder(state)
        self.orders: Orders | None = None
        self.taken = 0
        self.changed = asyncio.Event()
        self.link: Link | None = None
        self._shared = b""
        self._clock = clock

    async def join(self, link: str, network: WebSocketNetwork) -> None:
        config = Config(server=self.name, listen="127.0.0.1:1")
        await join_by_link(
            link, folder=self.folder, config=config, addresses=("127.0.0.1:1",), never_admin=True, network=network,
            clock=self._clock, version="1",
        )  # fmt: skip

    async def up(self, network: WebSocketNetwork) -> None:
        """Links, greets and hands its journal over."""
        identity = IdentityStore(self.folder.identity)
        self.id = identity.load_keys().id
        context = client_context(identity.chain_path, identity.key_path, identity.load_anchors())
        self.link = await network.dial(
            self.admin,
            tls=ClientTls(lambda: context),
            authorise=lambda _: Peer("a", "alpha", "node"),
            handler=self,
            timeout_s=60.0,
        )
        hello = HelloRequest(self.name, "1", ("127.0.0.1:1",), None, None, self._clock.now_ns())
        await ask(self.link, "link.hello", hello, HelloReply, timeout_s=60.0)
        cursors = await ask(self.link, "journal.cursors", q.Nothing(), t.JournalCursors, timeout_s=60.0)
        if not cursors.cursors:
            await ask(self.link, "journal.push", self._journal(), t.JournalCursors, timeout_s=60.0)

    def _journal(self) -> t.JournalPush:
        kind, data = facts.encode(facts.ServerStarted("1"))
        now_ns, incarnation = self._clock.now_ns(), self.id[:20]
        digest = record_hash(first_hash(self.id, incarnation), incarnation, 1, now_ns, kind, data)
        return t.JournalPush((t.JournalRecord(incarnation, 1, now_ns, kind, data, digest),))

    def heart(self, servers: int) -> Heart:
        link = self.link
        assert link is not None

        async def nothing(*told: object) -> None:
            return

        return Heart(
            admin=lambda: link,
            wait_admin=nothing,
            beat=lambda: Heartbeat(self._clock.now_ns(), self.orders.authority if self.orders else None, (), ()),
            heard=nothing,
            interval_s=lambda: number(self.orders.settings, "heartbeat-interval-s") if self.orders else 5.0,
            servers=lambda: servers,
            refused=nothing,
            jitter=random.Random(self.name),
        )

    def _take(self, orders: Orders) -> None:
        """What all hold alike is kept once for all: a thousand copies would not fit into this process."""
        self._shared = shared_digest(orders)
        alike = _ALIKE.setdefault(self._shared, orders)
        roster = structs.replace(orders.roster, rows=alike.roster.rows)
        self.orders = structs.replace(orders, roster=roster, nodes=alike.nodes)
        self.taken += 1
        self.changed.set()

    # what the administrator asks

    async def call(self, link: Link, method: str, params: Any) -> Any:
        if method == "orders.put":
            self._take(from_wire(params, BY_NAME[method].request))
            return to_wire(v.Done())
        if method == "orders.change":
            change = from_wire(params, BY_NAME[method].request)
            if self.orders is None or change.base != self._shared:
                return to_wire(OrdersTaken(False))
            self._take(with_change(self.orders, change))
            return to_wire(OrdersTaken(True))
        raise UnknownCall(peer=self.name, call=method, detail="a thin member")

    async def notify(self, link: Link, method: str, params: Any) -> None:
        return

    async def stream(self, link: Link, method: str, params: Any, stream: Any) -> None:
        raise UnknownCall(peer=self.name, call=method, detail="a thin member")


async def _many(count: int, work: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """``work(number)`` for each number, all at once but for what it waits for itself."""
    async with asyncio.TaskGroup() as group:
        for number_ in range(count):
            group.create_task(work(number_))


async def measure(mesh: ProcessMesh, members: int, seconds: float) -> int:
    """Prints the figures; 1 if a goal was missed."""
    mesh.init("alpha", preset="lan")
    mesh.run("alpha")
    pid, admin, clock, network = mesh.pid("alpha"), mesh.endpoint("alpha"), SystemClock(), WebSocketNetwork()
    alone = memory([pid])
    made = [Member(f"m{n:04d}", mesh.folder / "members" / f"m{n:04d}", admin, clock) for n in range(members)]
    (mesh.folder / "members").mkdir()
    with connect(Common(state=mesh.state("alpha"), timeout="120s")) as client:
        await _join(client, made, network, pid)
        await _link("all linked", made, network, pid)
        await asyncio.gather(*(each.link.close() for each in made if each.link is not None))
        await asyncio.to_thread(mesh.restart, "alpha")
        pid = mesh.pid("alpha")
        print(f"pid of the administrator, which was started again: {pid}", flush=True)
        await _link("all linked again", made, network, pid)
        async with asyncio.TaskGroup() as group:
            beating = [group.create_task(each.heart(members).run()) for each in made]
            # until every second beat is somewhere in its interval, and what the links set off is done
            await asyncio.sleep(10.0)
            good = await _idle(made, pid, alone, seconds)
            await _order(client, made, pid)
            for task in beating:
                task.cancel()
    await asyncio.gather(*(each.link.close() for each in made if each.link is not None))
    return 0 if good else 1


async def _until_done(name: str, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """As often as it takes: a machine that is busy with others may let somebody wait for too long."""
    while True:
        try:
            await do()
            return
        except CasoError as error:
            print(f"{name}: {error}", flush=True)
            await asyncio.sleep(_AGAIN_S)


async def _join(client: Client, made: list[Member], network: WebSocketNetwork, pid: int) -> None:
    began, before, slots, asking = time.monotonic(), cpu_s([pid]), asyncio.Semaphore(_JOIN_AT_ONCE), asyncio.Lock()

    async def one(number_: int) -> None:
        async with slots:
            async with asking:
                token = await asyncio.to_thread(client.call, "token.create", q.TokenCreate(), v.TokenView)
            await _until_done(made[number_].name, lambda: made[number_].join(token.link, network))

    await _many(len(made), one)
    seconds, spent = time.monotonic() - began, cpu_s([pid]) - before
    print(f"{len(made)} joined in {seconds:.1f} s, {1000 * spent / len(made):.1f} ms of its CPU each", flush=True)


async def _link(what: str, made: list[Member], network: WebSocketNetwork, pid: int) -> None:
    began, before, slots = time.monotonic(), cpu_s([pid]), asyncio.Semaphore(_DIAL_AT_ONCE)

    before_taken = {each.name: each.taken for each in made}

    async def one(number_: int) -> None:
        async with slots:
            await _until_done(made[number_].name, lambda: made[number_].up(network))

    await _many(len(made), one)
    for member in made:
        while member.taken == before_taken[member.name]:
            member.changed.clear()
            await member.changed.wait()
    seconds, spent = time.monotonic() - began, cpu_s([pid]) - before
    print(f"{what} and with orders in {seconds:.1f} s, {1000 * spent / len(made):.1f} ms of its CPU each", flush=True)


def _said(made: list[Member]) -> tuple[int, int]:
    """Messages and bytes in both directions so far."""
    found = [each.link.statistics() for each in made if each.link is not None]
    return sum(s.messages_in + s.messages_out for s in found), sum(s.bytes_in + s.bytes_out for s in found)


async def _idle(made: list[Member], pid: int, alone: int, seconds: float) -> bool:
    messages, octets = _said(made)
    before, began, taken = cpu_s([pid]), time.monotonic(), sum(each.taken for each in made)
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    spent, resident = (cpu_s([pid]) - before) / took, memory([pid])
    messages, octets = (now - then for now, then in zip(_said(made), (messages, octets), strict=True))
    each = (resident - alone) / len(made)
    print(
        f"idle for {took:.0f} s: {100 * spent:.1f} % of a core; {resident / 1e6:.0f} MB resident ({alone / 1e6:.0f} MB"
        f" alone), {each / 1000:.0f} kB a member; in an hour {messages * 3600 / took:,.0f} messages and"
        f" {octets * 3600 / took / 1e6:,.1f} MB, pings and TLS apart; {sum(m.taken for m in made) - taken} orders sent",
        flush=True,
    )
    return spent < 0.05 and each < 200_000 and resident < 300_000_000


async def _order(client: Client, made: list[Member], pid: int) -> None:
    """One change of a setting of the mesh: until all have it."""
    for days in (100, 101, 102):
        value, before, (_, octets) = days * 86400.0, cpu_s([pid]), _said(made)
        began = time.monotonic()
        change = q.SettingSet(_SETTING, f"{days}d")
        asked = asyncio.create_task(asyncio.to_thread(client.call, "settings.set", change, v.SettingList))
        for member in made:
            while member.orders is None or member.orders.settings[_SETTING] != value:
                member.changed.clear()
                await member.changed.wait()
        seconds, spent, sent = time.monotonic() - began, cpu_s([pid]) - before, _said(made)[1] - octets
        await asked
        print(
            f"one change of orders: all have it after {seconds:.2f} s, {spent:.2f} s of its CPU, {sent / 1e6:.1f} MB",
            flush=True,
        )


def main(chosen: argparse.Namespace) -> int:
    """Runs it; 1 if a goal was missed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="caso-mesh-bench-", dir=chosen.folder) as name:
        mesh = ProcessMesh(pathlib.Path(name) / "mesh")
        try:
            status = asyncio.run(measure(mesh, chosen.members, chosen.seconds))
        finally:
            with contextlib.suppress(AssertionError):
                mesh.stop()
    print(report.machine())
    return status
