"""Discovered servers: greeting, codes, approval; and every call has its handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from admin.admin_world import World, admin_world

from caso_mesh.config import Config
from caso_mesh.discovery.memory import MemoryDiscovery, MemoryHub
from caso_mesh.discovery.sighting import Sighting
from caso_mesh.identity import certificates
from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.roster import ANONYMOUS
from caso_mesh.model import requests as q
from caso_mesh.model.calls import CALLS
from caso_mesh.model.errors import AlreadyExists, CodeMismatch, NotFound
from caso_mesh.server.newcomer import Newcomer
from caso_mesh.wire.memory import MemoryNetwork
from caso_mesh.wire.network import ServerTls
from caso_mesh.wire.typed import RefusesAll

pytestmark = pytest.mark.jumping


class Arrival:
    """A new server that announces itself and listens."""

    def __init__(self, world: World, hub: MemoryHub, network: MemoryNetwork, name: str) -> None:
        self.name, self.keys = name, NodeKeys.create()
        certificate = certificates.self_signed(self.keys.signing.private, world.clock.now_ns())
        self.endpoint = network.endpoint(certificate, name=name)
        self.said: list[str] = []
        self.newcomer = Newcomer(
            config=Config(server=name, listen=f"{name}:7"), keys=self.keys, operator=NodeKeys.create().signing, randomness=world.random.randbytes,
            version="1", never_admin=False, say=self.said.append,
        )  # fmt: skip
        self.discovery = MemoryDiscovery(hub)

    @contextlib.asynccontextmanager
    async def there(self) -> AsyncIterator[Any]:
        tls = ServerTls(lambda: None)  # type: ignore[arg-type,return-value]
        listening = self.endpoint.listen(
            f"{self.name}:7", tls=tls, authorise=lambda _: ANONYMOUS, handler=self.newcomer
        )
        async with listening as listener:
            claim = Sighting(None, self.keys.id, self.name, (listener.address,), "1", self.keys.id[:8], "mdns")
            await self.discovery.announce(claim)
            yield listener


@contextlib.asynccontextmanager
async def meeting(folder: Path) -> AsyncIterator[tuple[World, MemoryHub, MemoryNetwork]]:
    async with admin_world(folder, start=False) as w:
        hub, network = MemoryHub(), MemoryNetwork()
        w.discovery, w.network = MemoryDiscovery(hub), network.endpoint(w.authority.root, name="alpha")
        w.office = w.make_office()
        w.start()
        yield w, hub, network


async def test_a_newcomer_is_approved_by_the_code_that_both_ends_show(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (w, hub, network):
        one, two = Arrival(w, hub, network, "delta"), Arrival(w, hub, network, "delta")
        two.endpoint = network.endpoint(two.endpoint.certificate, name="other")
        two.name, listed = "other", []
        async with one.there(), two.there():

            async def both() -> bool:
                listed[:] = (await w.ask("server.list", q.ServerListRequest(discovered=True))).servers
                return len(listed) == 2

            async with asyncio.timeout(30):
                while not await both():  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.1)
            code = next(each.code for each in listed if each.id == one.keys.id)
            assert code in one.said[0]
            with pytest.raises(CodeMismatch):
                await w.ask("server.approve", q.ServerApprove("delta", "aaaaaaaa"))
            with pytest.raises(NotFound):
                await w.ask("server.approve", q.ServerApprove("nobody", code))
            one.newcomer.installed.set()
            view = await w.ask("server.approve", q.ServerApprove("delta", code.upper()), id="r1")
            assert (view.id, view.state) == (one.keys.id, "no-communication")
            assert (await w.ask("server.approve", q.ServerApprove("delta", code), id="r1")).id == one.keys.id
            assert one.newcomer.accepted.result().orders.server.name == "delta"
            other = next(each.code for each in listed if each.id == two.keys.id)
            with pytest.raises(AlreadyExists):
                await w.ask("server.approve", q.ServerApprove("delta", other))


async def test_a_newcomer_at_an_address_that_a_person_named_is_found_where_nothing_announces_it(tmp_path: Path) -> None:
    """The guide promised it for networks that multicast does not cross: ``peer add`` at the administrator. Nobody looked."""
    async with meeting(tmp_path) as (w, _, network):
        one, apart = Arrival(w, MemoryHub(), network, "delta"), Arrival(w, MemoryHub(), network, "other")
        async with one.there(), apart.there():
            w.static += ["delta:7", "nowhere:7"]

            async def code() -> str | None:
                found = (await w.ask("server.list", q.ServerListRequest(discovered=True))).servers
                assert [each.name for each in found] in ([], ["delta"])
                return found[0].code if found else None

            async with asyncio.timeout(60):
                while (first := await code()) is None:  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.1)
            assert first in one.said[0]
            network.drop_links()
            async with asyncio.timeout(60):
                while await code() in {None, first}:  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.1)
            one.newcomer.installed.set()
            view = await w.ask("server.approve", q.ServerApprove("delta", str(await code())))
            assert view.id == one.keys.id
        assert not w.facts.audits("server.greet")


async def test_a_member_at_a_named_address_is_no_newcomer_and_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (w, _, network):
        chain = w.authority.chain(w.authority.issue_node(NodeKeys.create().public_key, now_ns=w.clock.now_ns()))
        member, met = network.endpoint(chain[0], name="delta"), []

        def authorise(certificate: bytes | None) -> Any:
            met.append(certificate)
            return ANONYMOUS

        tls = ServerTls(lambda: None)  # type: ignore[arg-type,return-value]
        async with member.listen("delta:7", tls=tls, authorise=authorise, handler=RefusesAll()):
            w.static.append("delta:7")
            await w.until(lambda: met)
            await asyncio.sleep(500)
            assert len(met) == 1
            assert not (await w.ask("server.list", q.ServerListRequest(discovered=True))).servers


async def test_one_that_was_admitted_and_never_got_its_certificate_can_be_approved_again(tmp_path: Path) -> None:
    async with meeting(tmp_path) as (w, hub, network):
        one = Arrival(w, hub, network, "delta")
        async with one.there():

            async def code() -> str | None:
                found = (await w.ask("server.list", q.ServerListRequest(discovered=True))).servers
                return found[0].code if found else None

            async with asyncio.timeout(30):
                while (first := await code()) is None:  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.1)
            network.cut(w.network, one.endpoint)
            approving = asyncio.get_running_loop().create_task(w.ask("server.approve", q.ServerApprove("delta", first)))
            await w.until(lambda: one.keys.id in w.state.servers)
            approving.cancel()
            await asyncio.wait([approving])
            network.drop_links()
            network.heal()
            await asyncio.sleep(20)
            again = await code()
            assert again not in {None, first}
            one.newcomer.installed.set()
            assert (await w.ask("server.approve", q.ServerApprove("delta", str(again)))).id == one.keys.id


async def test_every_call_of_the_table_that_the_administrator_answers_has_its_handler(tmp_path: Path) -> None:
    async with admin_world(tmp_path, start=False) as w:
        people = {call.name for call in CALLS if call.place == "admin" and call.role is not None}
        nodes = {call.name for call in CALLS if call.place == "admin" and call.role is None} - {"call.signed"}
        assert set(w.office.people_handlers) == people
        assert set(w.office.node_handlers) == nodes
