"""Every call of the table with hostile values, asked of real nodes in memory by whoever may reach them: nobody's call ends in
anything but the error tree, hangs, or changes the state when it was refused; and the mesh works on."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import random
import uuid
from typing import Any

import pytest
from api.hostile_values import Hostile
from mesh.inside import MemoryMesh

from caso_mesh.identity.requests import sign_request
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model import outcomes as o
from caso_mesh.model.calls import CALLS, Call
from caso_mesh.model.errors import CasoError, InternalError, LinkLost, Misuse, TimedOut
from caso_mesh.model.nodes import SignedCall
from caso_mesh.server.folder import StateFolder
from caso_mesh.wire.codec import pack, to_wire
from caso_mesh.wire.link import Link
from caso_mesh.wire.typed import RefusesAll

pytestmark = pytest.mark.jumping
#: Who asks: somebody on the network, a member, and operators by the state folder that their key lies in.
OPERATORS = {"viewer": "gamma", "admin": "alpha"}
#: Virtual seconds that the slowest honest answer takes: one that waits for something to be shown.
_WAITS_S = 25.0
#: How often a call that was refused is asked again while the state changes.
_TRIES = 4
#: What an administrator may do and would end what the rest is tried with.
_ENDS_IT = {"server.remove", "admin.transfer"}


class Site:
    """A mesh with something in it, and who attacks it."""

    def __init__(self, mesh: MemoryMesh, files: pathlib.Path, seed: int, names: list[str]) -> None:
        self.mesh, self.files = mesh, files
        chance = random.Random(seed)
        self._values = [Hostile(chance, names), Hostile(chance, names, wrong=0.05)]
        self._links: dict[str, Link] = {}

    def state(self) -> bytes:
        voter = self.mesh.nodes["alpha"].seat.voter
        assert voter is not None
        return voter.keeper.state.snapshot()

    async def link(self, who: str) -> Link:
        link = self._links.get(who)
        if link is None or link.closed:
            if who == "anonymous":
                network, tls = self.mesh.network.endpoint(None, name="anybody"), None
            elif who == "node":
                network, tls = self.mesh.endpoint("gamma"), None
            else:
                network, tls = self.mesh._operator_network(OPERATORS[who])
            address = self.mesh.nodes["alpha"].address
            link = await network.dial(address, tls=tls, authorise=lambda shown: "alpha", handler=RefusesAll())
            self._links[who] = link
        return link

    def signed(self, name: str, call: str, params: Any) -> Any:
        identity = IdentityStore(StateFolder(self.mesh.state(name)).identity)
        made = sign_request(
            identity.load_operator().key, mesh=identity.load_mesh_id(), call=call, params=pack(params),
            request_id=uuid.uuid4().hex, now_ns=self.mesh.clock(name).now_ns(),
        )  # fmt: skip
        fields = ("call", "params", "request_id", "operator", "at_ns", "signature")
        return to_wire(SignedCall(**{each: getattr(made, each) for each in fields}))

    async def ask(self, who: str, call: Call, round_: int) -> tuple[CasoError | None, Any]:
        """Why a call with hostile values was refused, if it was; and the values."""
        params = self._values[round_ % 2].request(call.request)
        return await self.again(who, call, params), params

    async def again(self, who: str, call: Call, params: Any) -> CasoError | None:
        link = await self.link(who)
        try:
            if who in OPERATORS and call.role is not None:
                params = self.signed(OPERATORS[who], call.name, params)
                await link.call("call.signed", params, timeout_s=2 * _WAITS_S)
            else:
                await link.call(call.name, params, timeout_s=2 * _WAITS_S)
        except CasoError as error:
            return error
        except Misuse:
            return None  # our own end refuses to send it
        return None

    async def works(self) -> bool:
        """Of the two others: whoever has the key of a member may do to that one, and to nobody else, what it likes."""
        run = (await self.mesh.backup("alpha", self.files, "device:disk")).run
        return run is not None and (await self.mesh.result(run)).state == "succeeded"

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()


async def site(memory_mesh: Any, folder: pathlib.Path, seed: int) -> Site:
    mesh: MemoryMesh = await memory_mesh(3, seed=seed)
    (files := folder / "files").mkdir()
    (files / "one").write_text("one")
    await mesh.add_device("beta", "disk")
    await mesh.add_pool("vaults", "beta")
    run = (await mesh.backup("gamma", files, "device:disk")).run
    assert run is not None
    made: o.RunResult = await mesh.result(run)
    nodes = [node.server.keys.id for node in mesh.nodes.values()]
    names = [*mesh.names, *nodes, "disk", "vaults", "device:disk", "pool:vaults", "keep-4-weeks", f"gamma:{files}"]
    return Site(mesh, files, seed, [*names, run, f"{run}#1", run.partition("@")[0], str(made.set), "local-gamma"])


async def attack(at: Site, rounds: int, caplog: pytest.LogCaptureFixture) -> None:
    """What an administrator is allowed may end all others' work: that is seen to before it is its turn."""
    await by("anonymous", at, rounds, caplog)
    await by("node", at, rounds, caplog)
    await by("viewer", at, rounds, caplog)
    assert await at.works()
    await by("admin", at, rounds, caplog)
    assert at.mesh.nodes["alpha"].in_office
    await at.close()


async def by(who: str, at: Site, rounds: int, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    for call in CALLS:
        if who == "admin" and call.name in _ENDS_IT:
            continue
        for round_ in range(rounds):
            caplog.clear()
            before, began_s = at.state(), loop.time()
            refused, params = await at.ask(who, call, round_)
            what = f"{call.name} by {who}, {str(params)[:1000]}: {refused!r}"
            assert not isinstance(refused, InternalError | TimedOut), what
            assert loop.time() - began_s <= _WAITS_S, what
            failed = [each.getMessage() for each in caplog.records if each.exc_info]
            assert not failed, f"{what}: {failed}"
            tries = _TRIES
            while refused is not None and not isinstance(refused, LinkLost) and at.state() != before:
                # a duty may have, at the same moment
                tries -= 1
                assert tries, f"{what} has changed the state"
                before = at.state()
                refused = await at.again(who, call, params)


async def test_no_call_of_the_table_can_be_made_to_fail_hang_or_change_what_it_refuses(
    memory_mesh: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    at = await site(memory_mesh, tmp_path, 1)
    await attack(at, 1, caplog)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 22))
async def test_nor_can_it_by_any_of_many_seeds(
    memory_mesh: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR)
    at = await site(memory_mesh, tmp_path, seed)
    await attack(at, 6, caplog)
