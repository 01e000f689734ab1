"""A whole server without a network: which orders it takes and from whom, what it answers to whom, its facts on their
way to the administrator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from server_world import Clock, FakeRunner, World, backs_up, ids
from test_server_links import Mesh
from waiting import wait_for_async

from caso_mesh.config import Allow, Config
from caso_mesh.control.orders import Difference, as_change, difference, shared_digest
from caso_mesh.database import Database
from caso_mesh.identity.roster import Peer
from caso_mesh.identity.store import IdentityStore
from caso_mesh.journal import Head, Journal
from caso_mesh.machine import SystemClock
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import telling as t
from caso_mesh.model.errors import CasoError, DevicePathInvalid, NotAllowedHere, Refused, ServerNotLinked, StaleOrders
from caso_mesh.model.mesh import NodeAddress, Roster
from caso_mesh.model.orders import Authority, Orders
from caso_mesh.model.storage import Device, DeviceKind, DevicePath
from caso_mesh.server.admin_link import AdminLink
from caso_mesh.server.courier import Courier
from caso_mesh.server.folder import StateFolder
from caso_mesh.server.node import ServerNode
from caso_mesh.server.queue import MIGRATIONS, Queue
from caso_mesh.server.trust import Trust
from caso_mesh.server.twins import Twins


class NoLinks:
    """A link book without links."""

    def __init__(self) -> None:
        self.twins = Twins("", SystemClock())

    def turned_away(self) -> None: ...

    def linked(self, node: str) -> bool:
        return False

    def get(self, node: str) -> Any:
        raise ServerNotLinked(server=node)

    def wake(self) -> None: ...

    def doubt(self, *nodes: str | None) -> None: ...

    async def begin_anew(self) -> None: ...

    def strange(self) -> None: ...

    def observe(self, observer: object) -> None: ...

    async def roster_changed(self) -> None: ...


@asynccontextmanager
async def server(tmp_path: Path, mesh: Mesh, *, allow: Allow | None = None) -> AsyncIterator[ServerNode]:
    """The server "b"; "a" is the administrator."""
    folder = StateFolder(tmp_path / "state")
    folder.create()
    keys = mesh.keys["b"]
    identity = IdentityStore(folder.identity)
    identity.save_keys(keys)
    identity.save_id_key(b"k" * 32)
    identity.save_chain(tuple(mesh.issuer.chain(mesh.issuer.issue_node(keys.public_key, now_ns=mesh.clock.ns))))
    async with (
        Database.open(folder.queue, MIGRATIONS, durable=False, same_thread=True) as database,
        Journal.open(folder.journal, keys.id, clock=mesh.clock, new_id=ids(), same_thread=True) as journal,
    ):
        node = ServerNode(
            folder=folder,
            config=Config(server="b", listen="b:1", allow=allow or Allow()),
            keys=keys,
            identity=identity,
            orders=mesh.orders("b", admin="a", index=5),
            queue=Queue(database),
            journal=journal,
            trust=Trust(mesh.clock, identity.chain_path, identity.key_path),
            runner=FakeRunner(backs_up(World(tmp_path))),
            discovery=None,
            clock=mesh.clock,
            new_id=ids(),
            randomness=os.urandom,
            version="1",
            in_office=lambda: False,
            authority=lambda: None,
        )
        node.use_links(NoLinks())  # type: ignore[arg-type]
        yield node


def peer(mesh: Mesh, name: str) -> Peer:
    return Peer(mesh.id(name), name, "node")


def newer(mesh: Mesh, index: int = 6, admin: str = "a", **changes: Any) -> Orders:
    return structs.replace(mesh.orders("b", admin=admin, index=index), **changes)


async def test_orders_are_on_disk_before_they_are_obeyed_and_older_ones_are_refused(tmp_path: Path) -> None:
    mesh = Mesh("a", "b", "c")
    async with server(tmp_path, mesh) as node:
        await node.take_orders(peer(mesh, "a"), newer(mesh, 7))
        saved = await node._queue.load_orders()
        assert saved == node.orders and saved is not None and saved.authority.index == 7
        for older in (Authority(1, 1, 6), Authority(1, 0, 99), Authority(0, 9, 99)):
            with pytest.raises(StaleOrders):
                await node.take_orders(peer(mesh, "a"), newer(mesh, authority=older))
        await node.take_orders(peer(mesh, "a"), newer(mesh, 7))
        assert node.orders.authority == Authority(1, 1, 7)


async def test_a_change_is_taken_only_by_a_server_that_holds_what_it_changes_and_is_kept_whole(tmp_path: Path) -> None:
    mesh = Mesh("a", "b", "c")
    async with server(tmp_path, mesh) as node:
        change = node.handlers()["orders.change"]
        held, now = node.orders, newer(mesh, 7, nodes=(NodeAddress(mesh.id("c"), "c", ("c:9",)),))
        wrong = as_change(b"x" * 32, now, difference(held, now))
        assert await change(peer(mesh, "a"), wrong, None) == n.OrdersTaken(False)
        assert node.orders is held
        right = as_change(shared_digest(held), now, difference(held, now))
        assert await change(peer(mesh, "a"), right, None) == n.OrdersTaken(True)
        saved = await node._queue.load_orders()
        assert saved is not None and saved == node.orders
        assert (saved.nodes, saved.authority) == (now.nodes, now.authority)
        assert {row.id for row in saved.roster.rows} == {row.id for row in mesh.roster.rows}
        assert await change(peer(mesh, "a"), right, None) == n.OrdersTaken(False), "it holds other ones now"


async def test_orders_that_overtake_each_other_leave_the_newest(tmp_path: Path) -> None:
    mesh = Mesh("a", "b")
    async with server(tmp_path, mesh) as node:
        taking = (node.take_orders(peer(mesh, "a"), newer(mesh, index)) for index in (9, 7, 12, 8, 10))
        await asyncio.gather(*taking, return_exceptions=True)
        saved = await node._queue.load_orders()
        assert node.orders.authority.index == 12 and saved == node.orders


async def test_orders_of_others_for_others_or_that_would_lock_the_server_out_are_refused(tmp_path: Path) -> None:
    mesh, stranger = Mesh("a", "b", "c", voters=1), Mesh("a", "b")
    roster = mesh.roster
    async with server(tmp_path, mesh) as node:
        before = node.orders
        cases = [
            ("c", newer(mesh, admin="c")),  # a member, but no voter
            ("c", newer(mesh, admin="a")),  # in the name of another
            ("a", structs.replace(mesh.orders("c", admin="a", index=9))),
            ("a", newer(mesh, roster=structs.replace(roster, mesh=structs.replace(roster.mesh, id="mesh2")))),
            ("a", newer(mesh, roster=structs.replace(roster, anchors=()))),
            ("a", newer(mesh, roster=Roster(roster.mesh, roster.anchors, roster.rows[:1]))),
            ("a", newer(mesh, roster=structs.replace(stranger.roster, mesh=roster.mesh))),
        ]
        for name, orders in cases:
            with pytest.raises(Refused):
                await node.take_orders(peer(mesh, name), orders)
        assert node.orders is before and await node._queue.load_orders() is None


async def test_settings_out_of_bounds_or_missing_neither_spin_nor_end_the_daemon(tmp_path: Path) -> None:
    mesh = Mesh("a", "b")
    async with server(tmp_path, mesh) as node:
        assert node._setting("heartbeat-interval-s") == 5.0
        for value in (0.0, -1.0, float("nan")):
            await node.take_orders(peer(mesh, "a"), newer(mesh, settings={"heartbeat-interval-s": value}))
            assert node._setting("heartbeat-interval-s") > 0


async def test_what_only_the_administrator_may_ask_is_refused_to_members(tmp_path: Path) -> None:
    mesh = Mesh("a", "b", "c", voters=1)
    async with server(tmp_path, mesh) as node:
        handlers = node.handlers()
        prepare = n.DevicePrepare("d", str(tmp_path), "v", "mesh", 1, {}, True)
        # it says that it is in office: nobody believes it
        node.learnt(mesh.id("c"), n.HelloReply("c", "1", (), Authority(9, 9, 9), mesh.id("c"), (), 0))
        for call, request in {
            "catalog.read": n.CatalogRead("x", 0),
            "device.prepare": prepare,
            "device.proof": n.DeviceProof(str(tmp_path), "read"),
            "path.check": n.PathCheck((b"/",), "read"),
            "attempt.watch": n.WatchAttempts(("x",)),
            "orders.put": newer(mesh, admin="c"),
            "orders.change": as_change(shared_digest(node.orders), newer(mesh, admin="c"), Difference()),
        }.items():
            with pytest.raises(Refused):
                await handlers[call](peer(mesh, "c"), request, None)
        assert (await handlers["enrol.anchors"](Peer("", "", "anonymous"), q.Nothing(), None)).mesh == "mesh"
        status = await handlers["status"](peer(mesh, "c"), q.Nothing(), None)
        assert status.admin is None, "a remembered administrator is never shown"


async def test_devices_lie_where_the_own_file_allows_and_not_inside_of_each_other(tmp_path: Path) -> None:
    mesh = Mesh("a", "b")
    (place := tmp_path / "devices").mkdir()
    for name in ("one", "one/inner", "two"):
        (place / name).mkdir()
    async with server(tmp_path, mesh, allow=Allow(write=(str(place),))) as node:
        own = Device("one", "d1", DeviceKind.DISK, "v1", (DevicePath(mesh.id("b"), str(place / "one")),))
        await node.take_orders(peer(mesh, "a"), newer(mesh, devices=(own,)))
        prepare = node.handlers()["device.prepare"]

        def at(path: str) -> n.DevicePrepare:
            return n.DevicePrepare("d", path, "v", "mesh", 1, {mesh.id("b"): mesh.keys["b"].encryption_key}, True)

        errors: list[tuple[str, type[CasoError]]] = [
            (str(place / "one/inner"), DevicePathInvalid),
            (str(tmp_path), NotAllowedHere),
            (str(tmp_path / "state"), NotAllowedHere),
            (str(place / "two/../.."), NotAllowedHere),
            ("relative", DevicePathInvalid),
            ("/\udcff", DevicePathInvalid),
        ]
        for path, error in errors:
            with pytest.raises(error):
                await prepare(peer(mesh, "a"), at(path), None)
        assert (await prepare(peer(mesh, "a"), at(str(place / "two")), None)).created
        check = node.handlers()["path.check"]
        reply = await check(peer(mesh, "a"), n.PathCheck((os.fsencode(place),), "read"), None)
        assert len(reply.warnings) == 1 and "one" in reply.warnings[0]


# --- facts on their way ---


class Office:
    """An administrator's copy of one journal."""

    def __init__(self) -> None:
        self.records: dict[str, list[t.JournalRecord]] = {}
        self.asked = 0
        self.peer = Peer("a", "a", "node")

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = 15.0) -> Any:
        from caso_mesh.wire.codec import from_wire, to_wire

        match method:
            case "journal.cursors":
                self.asked += 1
            case "journal.push":
                for record in from_wire(params, t.JournalPush).records:
                    known = self.records.setdefault(record.incarnation, [])
                    if record.seq == len(known) + 1:
                        known.append(record)
            case "journal.hash":
                asked = from_wire(params, t.JournalHashAt)
                known = self.records.get(asked.incarnation, [])
                found = known[asked.seq - 1].hash if 0 < asked.seq <= len(known) else None
                return to_wire(t.JournalHashReply(found))
        heads = tuple(t.JournalHead(i, r[-1].seq, r[-1].hash) for i, r in self.records.items() if r)
        return to_wire(t.JournalCursors(heads))

    async def notify(self, method: str, params: Any = None) -> None: ...

    def kinds(self) -> list[str]:
        return [record.kind for known in self.records.values() for record in known]


@asynccontextmanager
async def courier(path: Path, current: dict[str, Office]) -> AsyncIterator[tuple[Journal, list[str]]]:
    told: list[str] = []
    clock = Clock()

    async def wait_admin() -> None:
        return

    async def rolled_back(found: Any) -> None:
        told.append("rolled back")

    async def compared() -> None:
        told.append("compared")

    async def held(upto: Mapping[str, int]) -> None:
        told.append(f"held {sorted(upto.values())}")

    async with Journal.open(path, "b", clock=clock, new_id=lambda: os.urandom(8).hex(), same_thread=True) as journal:
        carries = Courier(
            journal, lambda: current["admin"], wait_admin, rolled_back=rolled_back, compared=compared, held=held
        )
        task = asyncio.create_task(carries.run())
        try:
            yield journal, told
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_facts_reach_the_administrator_in_order_and_a_new_one_gets_all_of_them(tmp_path: Path) -> None:
    """After a change of administrator the courier waited for the next fact before: the new one stayed without the
    past until something happened."""
    first, second = Office(), Office()
    current = {"admin": first}
    async with courier(tmp_path / "one.db", current) as (journal, told):
        for kind in ("one", "two", "three"):
            await journal.append([(kind, b"")])
        await wait_for_async(lambda: first.kinds() == ["one", "two", "three"])
        current["admin"] = second
        await wait_for_async(lambda: second.kinds() == ["one", "two", "three"])
        await journal.append([("four", b"")])
        await wait_for_async(lambda: second.kinds()[-1:] == ["four"])
        assert first.kinds() == ["one", "two", "three"] and "rolled back" not in told


async def test_a_folder_put_back_to_an_older_copy_begins_a_new_journal_and_loses_nothing(tmp_path: Path) -> None:
    office = Office()
    path, copy = tmp_path / "j.db", tmp_path / "copy.db"
    async with courier(path, {"admin": office}) as (journal, _):
        await journal.append([("kept", b"")])
        await wait_for_async(lambda: office.kinds() == ["kept"])
    copy.write_bytes(path.read_bytes())
    async with courier(path, {"admin": office}) as (journal, _):
        await journal.append([("lost here", b"")])
        await wait_for_async(lambda: office.kinds() == ["kept", "lost here"])
    path.write_bytes(copy.read_bytes())
    async with Journal.open(path, "b", clock=Clock(), new_id=lambda: "n", same_thread=True) as journal:
        await journal.append([("since", b"")])
    async with courier(path, {"admin": office}) as (journal, told):
        await wait_for_async(lambda: "since" in office.kinds())
        assert told[:2] == ["rolled back", "compared"]
        assert office.kinds() == ["kept", "lost here", "since"] and len(await journal.incarnations()) == 2
        heads: list[Head] = await journal.incarnations()
        assert heads[1].seq == 1


def test_without_a_link_there_is_no_administrator() -> None:
    link = AdminLink(NoLinks(), lambda: "a", "b")  # type: ignore[arg-type]
    with pytest.raises(CasoError):
        link.get()
