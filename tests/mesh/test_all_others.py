"""What servers that do not vote need of the others: to find the administrator, to be heard, not to be given up too
soon."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from mesh.inside import MemoryMesh
from waiting import wait_for_async

from caso_mesh.model import facts
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NoAdmin, Unavailable
from caso_mesh.model.states import ServerState
from caso_mesh.wire.memory import MemoryEndpoint


async def setting(mesh: MemoryMesh, name: str, value: str, *, pool: str | None = None) -> None:
    await mesh.call("alpha", "settings.set", q.SettingSet(name, value, pool=pool), v.SettingList)


async def row(mesh: MemoryMesh, name: str, at: str = "alpha") -> v.ServerView:
    return next(each for each in await mesh.servers(at) if each.name == name)


def beats(mesh: MemoryMesh, name: str) -> list[float]:
    """The moments at which a server's heartbeats leave it, from now on."""
    heart, loop, seen = mesh.nodes[name].server._heart, asyncio.get_running_loop(), list[float]()
    made = heart._beat

    def beat() -> n.Heartbeat:
        seen.append(loop.time())
        return made()

    heart._beat = beat
    return seen


@pytest.mark.jumping
async def test_a_member_whose_only_reachable_peer_is_a_plain_member_is_reached_by_the_administrator(memory_mesh):
    """The member has moved while it was away: nobody knows its address, and it reaches beta alone, which tells the
    administrator where it is."""
    mesh = await memory_mesh(3)
    gamma = mesh.endpoint("gamma")
    await mesh.stop("gamma")
    config = mesh.state("gamma") / "config.toml"
    config.write_text(config.read_text("utf-8").replace("gamma:7300", "elsewhere:7400"), "utf-8")
    refuses_dials_of(gamma, "alpha")
    await mesh.run("gamma")
    await mesh.wait_connected("gamma")
    link = mesh.nodes["gamma"].links.get(mesh.nodes["alpha"].server.keys.id)
    assert not link.dialled, "the administrator has dialled"

    async def known() -> bool:
        return (await row(mesh, "gamma")).address == "elsewhere:7400"

    await wait_for_async(known, 10.0, what="the mesh knows where gamma is")


def refuses_dials_of(endpoint: MemoryEndpoint, host: str) -> None:
    """Whoever is at ``endpoint`` cannot dial ``host``, but can be dialled from there."""
    dial = endpoint.dial

    async def not_there(address: str, **how: object) -> object:
        return await dial("nowhere:1" if address.startswith(f"{host}:") else address, **how)  # type: ignore[arg-type]

    endpoint.dial = not_there  # type: ignore[method-assign,assignment]


@pytest.mark.jumping
async def test_silence_is_shown_before_it_has_consequences_and_both_limits_are_settings_of_pools_too(memory_mesh):
    mesh = await memory_mesh(3)
    await mesh.add_pool("far", "gamma")
    await setting(mesh, "stalled-after-s", "100s")
    await setting(mesh, "no-communication-after-s", "50s")
    await setting(mesh, "stalled-after-s", "1000s", pool="far")
    for name in ("beta", "gamma"):
        await mesh.stop(name)
    await asyncio.sleep(40)
    beta = await row(mesh, "beta")
    assert (beta.state, beta.connected) == ("enabled", False)
    assert beta.silent_s == pytest.approx(40, abs=2)
    assert (await row(mesh, "alpha")).silent_s is None
    await asyncio.sleep(65)
    assert (await row(mesh, "beta")).state == "stalled"
    await asyncio.sleep(50)
    assert (await row(mesh, "beta")).state == "no-communication"
    assert (await row(mesh, "gamma")).state == "enabled", "its pool is given more time"
    await asyncio.sleep(860)
    assert (await row(mesh, "gamma")).state == "stalled"
    await mesh.run("beta")
    await wait_for_async(lambda: alive(mesh, "beta"), 30, what="beta is back")


async def alive(mesh: MemoryMesh, name: str) -> bool:
    found = await row(mesh, name)
    return (found.state, found.silent_s) == ("enabled", None)


@pytest.mark.jumping
async def test_whatever_a_server_says_counts_as_a_sign_of_life(memory_mesh):
    """On a slow line a heartbeat may wait behind a long report."""
    mesh = await memory_mesh(2, preset="wan")
    await setting(mesh, "stalled-after-s", "4s")
    await setting(mesh, "heartbeat-interval-s", "600s")
    beta = mesh.nodes["beta"].server
    for _ in range(10):
        await asyncio.sleep(3)
        await beta.facts.append(audit())
        assert (await row(mesh, "beta")).state == "enabled"


def audit() -> facts.Audit:
    return facts.Audit("somebody", "test", "security", outcome="done", source="", fields={})


@pytest.mark.jumping
async def test_heartbeats_come_at_their_interval_more_or_less_and_at_once_to_a_new_link(memory_mesh):
    mesh = await memory_mesh(3, preset="lan")
    seen = beats(mesh, "beta")
    await asyncio.sleep(240)
    pauses = [after - before for before, after in itertools.pairwise(seen)]
    assert min(pauses) >= 4.4 and max(pauses) <= 5.6, (min(pauses), max(pauses))
    assert max(pauses) - min(pauses) > 0.5, "not all together"
    await asyncio.sleep(0.3)
    mesh.network.drop_links(mesh.endpoint("beta"))
    count = len(seen)
    await wait_for_async(lambda: len(seen) > count, 3.0, what="beta beats over its new link", every_s=0.05)


@pytest.mark.jumping
async def test_after_a_cut_that_no_link_notices_a_members_call_is_accepted_by_the_next_administrator_within_seconds(
    memory_mesh,
):
    """Whoever was elected looked for its servers after up to five seconds only: no link had ended that would have woken it."""
    mesh = await memory_mesh(5, voters=True)

    async def three_vote() -> bool:
        return sum(each.voter for each in await mesh.servers()) == 3

    await wait_for_async(three_vote, 30.0, what="three servers vote")
    loop, took = asyncio.get_running_loop(), []
    for number in range(3):
        admin = next(name for name, node in mesh.nodes.items() if node.in_office)
        via = "delta" if admin != "delta" else "epsilon"
        for other in mesh.names:
            if other != admin:
                mesh.network.cut(mesh.endpoint(admin), mesh.endpoint(other))
        began = loop.time()

        async def accepted(number: int = number, via: str = via) -> bool:
            try:
                state = ServerState.ENABLED if number % 2 else ServerState.PAUSED
                await mesh.call(via, "server.set-state", q.ServerSetState(via, state), v.ServerView)
            except Unavailable:
                return False
            return True

        await wait_for_async(accepted, 30.0, what="another administrator accepts it", every_s=0.25)
        took.append(loop.time() - began)
        mesh.network.heal()

        async def connected(via: str = via) -> bool:
            return all(each.connected for each in await mesh.servers(via))

        await wait_for_async(connected, 60.0, what="all are connected", every_s=0.1)
    assert max(took) < 3.0, took


@pytest.mark.jumping
async def test_after_a_change_of_administrator_nobody_is_judged_before_the_new_one_has_waited_for_it(memory_mesh):
    mesh = await memory_mesh(5, voters=True)

    async def three_vote() -> bool:
        return sum(each.voter for each in await mesh.servers()) == 3

    await wait_for_async(three_vote, 30.0, what="three servers vote")
    await setting(mesh, "stalled-after-s", "60s")
    await mesh.stop("delta")
    await asyncio.sleep(50)
    await mesh.stop("alpha")

    async def another() -> bool:
        try:
            return any(each.admin and each.name != "alpha" for each in await mesh.servers("epsilon"))
        except NoAdmin:
            return False

    await wait_for_async(another, 30.0, what="another one is in office")
    states = set[tuple[str, str]]()
    for _ in range(11):
        await asyncio.sleep(5)
        states |= {(each.name, each.state) for each in await mesh.servers("epsilon")}
    assert ("delta", "stalled") not in states, "it was silent for 50 s before, and may have been heard by the last one"
    assert {state for name, state in states if name in {"beta", "gamma", "epsilon"}} == {"enabled"}
    await asyncio.sleep(10)
    assert (await row(mesh, "delta", "epsilon")).state == "stalled"
