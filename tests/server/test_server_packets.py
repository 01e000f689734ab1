"""Large packets that are lost are told of when it is sure, and so is their end."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest
from mesh.clock import VirtualClock

from caso_mesh.model import facts
from caso_mesh.model.errors import CannotConnect, CasoError, NotOnRoster
from caso_mesh.model.ids import local_id
from caso_mesh.model.states import AlertKind
from caso_mesh.server.own_alerts import OwnAlerts
from caso_mesh.server.packets import Packets
from caso_mesh.server.trust import Trust
from caso_mesh.wire.limits import Limits
from caso_mesh.wire.link import Link

pytestmark = pytest.mark.jumping

ADDRESS = "192.0.2.1:7300"


class Peer:
    name = "alpha"


class FakeLink:
    def __init__(self, segment_bytes: int | None) -> None:
        self.peer, self.remote_address, self.segment_bytes = Peer(), ADDRESS, segment_bytes
        self._over = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._over.is_set()

    async def wait_closed(self) -> None:
        await self._over.wait()

    async def close(self) -> None:
        self._over.set()


class Way:
    """A network with one address: large packets get lost there, or what else is ``wrong``."""

    def __init__(self) -> None:
        self.wrong: CasoError | None = CannotConnect(address=ADDRESS, detail="no answer")
        self.silent_s = 10.0
        self.dialled = 0

    async def dial(self, address: str, *, whole: bool, **options: Any) -> FakeLink:
        assert (address, whole) == (ADDRESS, True)
        self.dialled += 1
        await asyncio.sleep(self.silent_s)
        if self.wrong is not None:
            raise self.wrong
        return FakeLink(None)


class Facts:
    def __init__(self) -> None:
        self.own = OwnAlerts("node")
        self.told: list[str] = []

    async def alerts(self) -> OwnAlerts:
        return self.own

    async def alert(self, alert: AlertKind, category: str, text: str, *, object: str = "") -> None:
        self.told.append(category)
        raised = facts.AlertRaised(local_id(f"a{len(self.told)}", "node"), alert, category, text, object=object)
        self._put(raised)

    async def append(self, fact: facts.AlertCleared) -> None:
        self.told.append("over")
        self._put(fact)

    def _put(self, fact: facts.Fact) -> None:
        after = self.own.after(fact, 1, ())
        assert after is not None
        self.own.put(self.own.notes([after]))


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
def told() -> Facts:
    return Facts()


@pytest.fixture
async def packets(way: Way, told: Facts) -> Packets:
    clock = VirtualClock(asyncio.get_running_loop())
    options: dict[str, Any] = {"network": way, "handler": None, "facts": told}
    return Packets(
        **options, trust=cast("Trust", _NoTrust()), limits=Limits(), server="beta", clock=clock, jitter=random.Random(1)
    )


class _NoTrust:
    client_tls = None
    authorise = None


async def test_large_packets_that_are_lost_twice_are_told_of_until_they_come_through(
    packets: Packets, way: Way, told: Facts
) -> None:
    link = FakeLink(1200)
    watching = asyncio.create_task(packets.watch(cast("Link", link)))
    await asyncio.sleep(3600)
    assert told.told == ["large-packets-lost"], "told once, however often it is tried"
    assert way.dialled > 3
    way.wrong = None
    await asyncio.sleep(700)
    assert told.told == ["large-packets-lost", "over"]
    assert watching.done()


async def test_it_is_over_with_the_link(packets: Packets, told: Facts) -> None:
    link = FakeLink(1200)
    watching = asyncio.create_task(packets.watch(cast("Link", link)))
    await asyncio.sleep(100)
    await link.close()
    await watching
    assert told.told == ["large-packets-lost", "over"]


@pytest.mark.parametrize(
    ("wrong", "silent_s"),
    [(None, 0.1), (CannotConnect(address=ADDRESS, detail="Connection refused"), 0.1), (NotOnRoster(peer="alpha"), 9.0)],
    ids=["was-busy", "hung-up", "refused"],
)
async def test_what_is_no_loss_of_large_packets_is_not_told_of_as_one(
    packets: Packets, way: Way, told: Facts, wrong: CasoError | None, silent_s: float
) -> None:
    way.wrong, way.silent_s = wrong, silent_s
    watching = asyncio.create_task(packets.watch(cast("Link", FakeLink(1200))))
    await asyncio.sleep(700)
    assert not told.told
    assert watching.done() is (wrong is None)
    watching.cancel()


async def test_a_link_with_large_packets_ends_what_was_told_before_a_restart(
    packets: Packets, way: Way, told: Facts
) -> None:
    await told.alert(AlertKind.WARNING, "large-packets-lost", "lost", object="alpha")
    await packets.watch(cast("Link", FakeLink(None)))
    assert told.told == ["large-packets-lost", "over"]
    assert not way.dialled
