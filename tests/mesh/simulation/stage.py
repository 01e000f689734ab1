"""What a simulated mesh begins with: five servers with devices and settings, made once, copied for each seed; and the
product's own ways to the disk and to threads, led through the simulation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mesh.simulation.loop import InPlace, SimulationLoop
from mesh.simulation.world import World
from waiting import wait_for_async

from caso_mesh.database import Database, database
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.founding import init_mesh, join_mesh
from caso_mesh.journal import Head, Record, journal, replica
from caso_mesh.journal.record import record_hash
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.server import patience

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")
#: The first three vote from the beginning.
VOTERS = NAMES[:3]
#: Device -> servers that reach it.
DEVICES = {"disk-beta": ("beta",), "disk-gamma": ("gamma",), "shared": ("delta", "epsilon")}
PRESET = "lan"
#: When a run begins: after all that was made before, whose certificates are of no use earlier.
BEGAN_S = 60.0
#: So that hours of the product pass in minutes.
SETTINGS = {
    "heartbeat-interval-s": "3s",
    "stalled-after-s": "12s",
    "no-communication-after-s": "30s",
    "recovery-retry-s": "10s",
    "start-window-s": "90s",
    "status-interval-s": "10s",
    "server-concurrency": "3",
}


#: On every device, whatever there is on this machine.
_FREE_BYTES = 1 << 40


class Stage:
    """A folder in memory where there is one. ``close`` removes it."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(
            tempfile.mkdtemp(prefix="caso-mesh-sim-", dir=memory if os.access(memory, os.W_OK) else None)
        )
        self._template = self.folder / "template"
        self._work = self.folder / "work"
        self._made = False
        self._written: dict[bytes, tuple[Record, bytes]] = {}
        self._refused: dict[tuple[str, str, int], str] = {}

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def set(self) -> Path:
        """A fresh mesh; the last one is gone."""
        if not self._made:
            self._make()
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._template, self._work, symlinks=True)
        return self._work

    def remembered(self, world: World) -> None:
        """What was written before."""
        world.written.update(self._written)
        world.refused.update(self._refused)

    def _make(self) -> None:
        # made where it will be used: paths of devices are in the control state
        self._work.mkdir()
        with asyncio.Runner(loop_factory=SimulationLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, SimulationLoop)
            world = World(0, self._work, loop)
            with simulated(world):
                runner.run(_found(world))
        assert not world.problems, world.problems
        self._written, self._refused = world.written, world.refused
        self._work.rename(self._template)
        self._made = True


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """While it lasts, writes of databases take as long as their disk says, and what threads would do is done in place."""
    write, on_commit = Database.write, Database._on_commit

    async def slow_write(self: Database, fn: Any) -> Any:
        server = world.server_of(self.path)
        if server is not None:
            name = Path(self.path).name
            slow_s = max(server.disk_s, server.log_s if "consensus" in name else 0.0)
            slow_s = max(slow_s, server.tables_s if "tables" in name else 0.0)
            if slow_s > 0:
                await asyncio.sleep(slow_s * world.random.random())
        return await write(self, fn)

    def committed(self: Database) -> None:
        world.committed(self.path)
        on_commit(self)

    append, refuse = journal._append, replica.refuse

    def appended(conn: sqlite3.Connection, number: int, head: Head, facts: Iterable[tuple[int, str, bytes]]) -> Head:
        given = list(facts)
        after = append(conn, number, head, given)
        seq, before = head.seq, head.hash
        for at_ns, kind, data in given:
            seq += 1
            digest = record_hash(before, head.incarnation, seq, at_ns, kind, data)
            world.written[digest] = (Record(head.incarnation, seq, at_ns, kind, data, digest), before)
            before = digest
        return after

    def refused(conn: sqlite3.Connection, server: str, record: Record, reason: str) -> None:
        world.refused[server, record.incarnation, record.seq] = reason
        refuse(conn, server, record, reason)

    with (
        mock.patch.object(Database, "write", slow_write),
        mock.patch.object(journal, "_append", appended),
        mock.patch.object(FolderBackend, "space", lambda self: (_FREE_BYTES, 2 * _FREE_BYTES)),
        mock.patch.object(replica, "refuse", refused),
        mock.patch.object(Database, "_on_commit", committed),
        mock.patch.object(patience, "_THREADS", InPlace()),
        mock.patch.object(database, "ThreadRunner", _no_thread),
    ):
        yield


def _no_thread() -> None:
    raise AssertionError("a database in a thread of its own: how long it takes is not up to the seed")


async def _found(world: World) -> None:
    async with world.closing():
        first = world.add(NAMES[0])
        await init_mesh(
            mesh="meadow", server=first.name, state=first.state, listen=f"{first.name}:7300", preset=PRESET,
            ports=newcomer(world, first.name),
        )  # fmt: skip
        world.use_operator(first.state)
        world.start(first.name)
        await wait_for_async(lambda: first.node is not None and first.node.in_office, 30.0, every_s=0.05)
        for name in NAMES[1:]:
            link = (await world.call(NAMES[0], "token.create", q.TokenCreate(), v.TokenView)).link
            server = world.add(name)
            await join_mesh(
                link=link, server=name, state=server.state, listen=f"{name}:7300", preset=PRESET,
                never_admin=name not in VOTERS, ports=newcomer(world, name),
            )  # fmt: skip
            world.start(name)

        async def connected() -> bool:
            rows = (await world.call(NAMES[0], "server.list", q.ServerListRequest(), v.ServerList)).servers
            votes = world.servers[NAMES[0]].node.seat.voter.consensus.leadership().voters
            return len(rows) == len(NAMES) and all(row.connected for row in rows) and len(votes) == len(VOTERS)

        await wait_for_async(connected, 60.0, every_s=0.5)
        for name, value in SETTINGS.items():
            await world.ask("settings.set", q.SettingSet(name, value), v.SettingList)
        for device, servers in DEVICES.items():
            folder = world.folder / device
            folder.mkdir()
            kind = "disk" if len(servers) == 1 else "shared"
            add = q.DeviceAdd(device, kind, dict.fromkeys(servers, str(folder)))
            await world.ask("device.add", add, v.DeviceView)
        await world.ask("pool.create", q.PoolEdit("vaults", ("beta", "gamma", "delta", "epsilon")), v.PoolView)
        await asyncio.sleep(5.0)
        assert world.loop.time() < BEGAN_S, world.loop.time()


def newcomer(world: World, name: str, machine: str = "") -> Any:
    """What a server needs that is not a member yet. Another ``machine`` has other keys."""
    import random

    from caso_mesh.machine import Ports

    rng = random.Random(f"newcomer {name}{machine}")
    return Ports(
        network=world.network.endpoint(None, name=f"{name} as a newcomer"),
        clock=world.servers[name].clock,
        randomness=rng.randbytes,
        jitter=rng,
        same_thread=True,
    )
