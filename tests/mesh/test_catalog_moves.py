"""Catalogs on the move: another mode under load, with servers killed in the middle, and what is left when one is dead."""

from __future__ import annotations

import asyncio
import random
import shutil
from functools import partial

import pytest
from mesh.catalog_site import admin_at, browsed, find, ls, mode_of, set_mode, settled, small_tree
from mesh.test_catalog_modes import a_site, two_sets
from mesh.trees import assert_equal
from waiting import wait_for_async

from caso_mesh.admin.ports import Caller
from caso_mesh.identity.roster import Peer
from caso_mesh.model import browsing as b
from caso_mesh.model import catalogs as c
from caso_mesh.model import nodes as n
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.catalogs import CatalogMode
from caso_mesh.model.documents import MediaSetDoc
from caso_mesh.model.errors import CasoError, CatalogAway, CatalogNotHere
from caso_mesh.model.listing import CatalogFind
from caso_mesh.model.states import Role

pytestmark = pytest.mark.jumping
MODES = [each.value for each in CatalogMode]


async def three_voters(mesh):
    async def voting():
        return len((await mesh.call("alpha", "status", q.Nothing(), v.StatusView)).voters) == 3

    await wait_for_async(voting, 60.0, every_s=0.1, what="three servers vote")


async def restored(mesh, set_id, to, base, *, at="alpha", paths=()):
    request = q.RestoreRequest(set=set_id, to=(to, bytes(base)), paths=paths)
    submitted = await mesh.call(at, "restore", request, o.Submitted)
    result = await mesh.result(submitted.run, at=at)
    assert result.state == "succeeded", result


async def whole(mesh, set_id, tree, device, *, at="alpha"):
    """That every folder of a set is listed as it lies in the device."""
    waiting = [tree]
    while waiting:
        folder = waiting.pop()
        there = await ls(mesh, set_id, folder, at=at, from_device=device)
        assert await ls(mesh, set_id, folder, at=at) == there, folder
        waiting += [
            folder.parent / each.path for each in there.entries if each.type == "directory" and "\\" not in each.path
        ]


@pytest.mark.parametrize("moves", [6, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_change_of_mode_under_load_and_through_kills_loses_nothing(memory_mesh, tmp_path, moves):
    rng = random.Random(7)
    tree = small_tree(tmp_path / "data")
    mesh = await memory_mesh(4, voters=True)
    await three_voters(mesh)
    await mesh.add_device("delta")
    made: list[str] = []
    stop = False

    async def back_up() -> None:
        number = 0
        while not stop:
            await asyncio.sleep(3.0)
            number += 1
            (tree / f"new-{number}").write_text(str(number))
            if number > 3:
                (tree / f"new-{number - 3}").unlink()
            try:
                run = (await mesh.backup("delta", tree, "server:delta", type="incremental")).run
                result = await mesh.result(run)
            except CasoError:
                continue
            if result.set is not None:
                made.append(result.set)

    working = asyncio.create_task(back_up())
    for number in range(moves):
        await set_mode(mesh, rng.choice(MODES), "delta")
        await asyncio.sleep(rng.choice([0.0, 0.3, 1.0, 5.0, 20.0]))
        victim = rng.choice(["delta", "beta", None, None])
        if victim is not None:
            await mesh.stop(victim)
            await asyncio.sleep(rng.choice([0.0, 2.0]))
            await mesh.run(victim)
            await mesh.wait_connected(victim)
        if number % 5 == 4 and made:
            # whatever moves: what was settled once is found by somebody
            await settled(mesh, "delta", timeout_s=300.0)
            await ls(mesh, made[0], tree)
    stop = True
    await working
    assert len(made) > 3
    seen = []
    for mode in ("distributed", "centralized", "replicated"):
        await set_mode(mesh, mode, "delta")
        await settled(mesh, "delta", sets=len(await mesh.sets()), timeout_s=600.0)
        seen.append(await browsed(mesh, made, tree, "odd/large", source="delta"))
    assert seen[0] == seen[1] == seen[2]
    for set_id in (made[0], made[-1]):
        await whole(mesh, set_id, tree, "disk-delta")


@pytest.mark.parametrize("mode", MODES)
async def test_a_set_of_a_dead_server_is_restored_through_another_one_that_reaches_the_device_also_after_a_change_of_admin_whose_disk_is_gone(
    memory_mesh, tmp_path, mode
):
    tree = small_tree(tmp_path / "data")
    mesh = await memory_mesh(5, voters=True)
    await three_voters(mesh)
    folder = mesh.folder / "shared"
    folder.mkdir()
    places = {"delta": str(folder), "epsilon": str(folder)}
    await mesh.call("alpha", "device.add", q.DeviceAdd("nas", "shared", places), v.DeviceView)
    await set_mode(mesh, mode, "delta")
    result = await mesh.result((await mesh.backup("alpha", tree, "server:delta")).run)
    assert result.state == "succeeded", result
    await settled(mesh, "delta", sets=1)
    listed = await ls(mesh, result.set, tree)

    async def followed() -> bool:
        """A voter that has not taken a catalog in waits for delta with it."""
        seats = [mesh.nodes[name].seat.voter for name in ("alpha", "beta", "gamma")]
        told = [await seat.tables.detail_states([result.set]) for seat in seats]
        return told[1] == told[2] == told[0]

    await wait_for_async(followed, 60.0, every_s=0.2, what="the other voters know as much")
    await mesh.stop("delta")
    answered = await answer_of(mesh, result.set, tree)
    await restored(mesh, result.set, "beta", tmp_path / "whole")
    assert_equal(tree, tmp_path / "whole" / str(tree)[1:])
    await restored(mesh, result.set, "beta", tmp_path / "some", paths=(bytes(tree / "odd"),))
    assert_equal(tree / "odd", tmp_path / "some" / str(tree)[1:] / "odd")
    assert await ls(mesh, result.set, tree, from_device="nas") == listed

    await mesh.stop("alpha")
    for each in mesh.state("alpha").iterdir():
        if each.name != "identity":  # of which the operator has a copy
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    mesh.call = partial(mesh.call, by="alpha")
    await admin_at(mesh, "beta", "beta", "gamma")
    assert [row.id for row in await mesh.sets("beta")] == [result.set]
    after = await answer_of(mesh, result.set, tree, at="beta")
    assert after[0] == answered[0] == (listed if mode != "distributed" else None)
    assert (after[1] is None) is (mode != "distributed")
    await restored(mesh, result.set, "gamma", tmp_path / "again", at="beta")
    assert_equal(tree, tmp_path / "again" / str(tree)[1:])
    await restored(mesh, result.set, "gamma", tmp_path / "more", at="beta", paths=(bytes(tree / "odd"),))
    assert_equal(tree / "odd", tmp_path / "more" / str(tree)[1:] / "odd")
    assert await ls(mesh, result.set, tree, at="beta", from_device="nas") == listed


async def answer_of(mesh, set_id, tree, *, at="alpha"):
    """The folder, or what is said of the server that is away."""
    try:
        return await ls(mesh, set_id, tree, at=at), None
    except CatalogAway as away:
        assert away.message == f"catalog is on delta, not reachable since {away.fields['since']}"
        return None, away.message


@pytest.mark.parametrize("mode", MODES)
async def test_a_set_that_is_deleted_while_its_server_is_away_goes_from_both_places(memory_mesh, tmp_path, mode):
    tree = small_tree(tmp_path / "data")
    mesh = await memory_mesh(3)
    folder = mesh.folder / "shared"
    folder.mkdir()
    places = {"beta": str(folder), "gamma": str(folder)}
    await mesh.call("alpha", "device.add", q.DeviceAdd("nas", "shared", places), v.DeviceView)
    await mesh.call(
        "alpha",
        "mediaset.create",
        q.MediaSetEdit("short", MediaSetDoc(append="1s", protection="1s", keep="1s")),
        v.Done,
    )
    await set_mode(mesh, mode)
    sets = []
    for number in range(2):
        (tree / f"only-{number}").write_text("x")
        result = await mesh.result((await mesh.backup("gamma", tree, "server:beta", media_set="short")).run)
        sets.append(result.set)
        (tree / f"only-{number}").unlink()
    await settled(mesh, sets=2)
    await mesh.stop("beta")
    await asyncio.sleep(5.0)
    await mesh.call("alpha", "set.delete", b.SetName(sets[0]), v.Done, timeout_s=60.0)
    await mesh.run("beta")
    await mesh.wait_connected("beta")

    async def gone() -> bool:
        own = mesh.nodes["beta"].server.kept.catalogs
        return sets[0] not in own._mine and not (await find(mesh, "only-0")).matches

    await wait_for_async(gone, 200.0, every_s=1.0, what="the deleted set is forgotten")
    view = await settled(mesh, sets=1)
    assert (view.at_admin, view.at_server) == {"centralized": (1, 0), "distributed": (0, 1), "replicated": (1, 1)}[mode]
    assert [match.set for match in (await find(mesh, "only-1")).matches] == [sets[1]]


async def test_a_person_with_a_role_on_some_servers_finds_nothing_of_others_in_a_distributed_search(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed", servers=3)
    await two_sets(mesh, tree, source="beta")
    (tree / "of-gamma").write_text("secret")
    await mesh.result((await mesh.backup("gamma", tree, "server:beta")).run)
    await settled(mesh, sets=3)
    office = mesh.nodes["alpha"].router.office
    state = mesh.nodes["alpha"].seat.voter.keeper.state
    person = Peer("p", "p", "operator", server_roles=((state.server_named("beta").id, Role.RESTORE),))

    async def found(glob: str) -> b.MatchList:
        return await office.people_handlers["catalog.find"](Caller("p", "", "r", person), CatalogFind(glob.encode()))

    assert (await find(mesh, "of-gamma")).matches
    assert (await found("of-gamma")).matches == ()
    assert {match.server for match in (await found("*.txt")).matches} == {"beta"}
    # the server that keeps the catalogs says more than it was asked for: it is not believed
    answers = mesh.nodes["beta"].server.kept.catalogs

    class Talkative:
        async def matches(self, asked, sources, limit, after, **_):
            return await real.matches(asked, None, limit, after)

    real, answers._catalog = answers._catalog, Talkative()
    assert {match.server for match in (await found("*")).matches} == {"beta"}
    answers._catalog = real


async def test_only_voters_and_the_administrator_ask_a_server_for_its_catalogs_and_it_for_those_of_its_sets(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed", servers=3)
    first, _ = await two_sets(mesh, tree)
    await settled(mesh, sets=2)
    beta, gamma = mesh.nodes["beta"].server, mesh.nodes["gamma"].server
    handlers = beta.handlers()
    for call, request in (
        ("catalog.folder", c.CatalogFolder(first)),
        ("catalog.lookup", c.CatalogLookup(first, (b"x",))),
        ("catalog.search", c.CatalogSearch(CatalogFind(b"*"))),
        ("catalog.history", c.CatalogHistory("x", b"x")),
        ("catalog.look", q.Nothing()),
    ):
        with pytest.raises(CasoError) as refused:
            await handlers[call](gamma.own(), request, None)
        assert refused.value.code == "refused"
    # a server that made nothing is handed nothing of what others made
    node_handlers = mesh.nodes["alpha"].router.office.node_handlers
    for call, request in (("catalog.export", c.CatalogExport(first)), ("catalog.exported", n.CatalogRead(first, 0))):
        with pytest.raises(CasoError) as unknown:
            await node_handlers[call](gamma.own(), request, None)
        assert unknown.value.code == "not-found"
    found = await node_handlers["catalog.records"](gamma.own(), c.CatalogSets((first,)), None)
    assert found == c.CatalogRecords((), ())
    assert (await node_handlers["catalog.assigned"](gamma.own(), c.CatalogAssigned(), None)).sets == ()


async def test_a_mode_of_all_or_of_a_pool_holds_and_the_way_back_is_gone_while_the_server_is_away(
    memory_mesh, tmp_path
):
    mesh, tree = await a_site(memory_mesh, tmp_path, None)
    await mesh.add_pool("west", "beta")
    first, second = await two_sets(mesh, tree)
    await mesh.call("alpha", "settings.set", q.SettingSet("catalog-mode", "distributed", pool="west"), v.SettingList)
    view = await settled(mesh, sets=2)
    assert (view.mode, view.origin, view.at_admin, view.at_server) == ("distributed", "pool:west", 0, 2)
    seen = await browsed(mesh, (first, second), tree, "changed")
    await mesh.stop("beta")
    await mesh.call("alpha", "settings.set", q.SettingSet("catalog-mode", None, pool="west"), v.SettingList)
    await asyncio.sleep(30.0)
    view = await mode_of(mesh)
    assert (view.mode, view.state, view.to_admin, view.to_drop) == ("centralized", "waiting", 2, 2)
    with pytest.raises(CatalogAway):
        await ls(mesh, first, tree)
    await mesh.run("beta")
    await mesh.wait_connected("beta")
    await settled(mesh, sets=2)
    files = mesh.state("beta") / "catalog"
    await wait_for_async(lambda: not list(files.glob("own.db*")), 10.0, what="the server keeps nothing")
    assert await browsed(mesh, (first, second), tree, "changed") == seen
    await mesh.stop("beta")
    assert await browsed(mesh, (first, second), tree, "changed") == seen


async def test_with_the_device_gone_a_mode_is_still_changed_to_and_back(memory_mesh, tmp_path):
    """What one end has in its catalog the other one takes from there: the tree in the device is not needed."""
    mesh, tree = await a_site(memory_mesh, tmp_path, None)
    sets = await two_sets(mesh, tree)
    seen = await browsed(mesh, sets, tree, "changed")
    device = mesh.folder / "disk-beta"
    device.rename(mesh.folder / "away")
    for left in (mesh.state("beta") / "catalog" / "segments").glob("*"):
        left.unlink()
    for mode in ("distributed", "centralized"):
        await set_mode(mesh, mode)
        await settled(mesh, sets=2)
        assert await browsed(mesh, sets, tree, "changed") == seen
    (mesh.folder / "away").rename(device)


async def test_a_set_that_is_not_in_the_own_catalog_yet_has_not_arrived(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed")
    first, _ = await two_sets(mesh, tree)
    await settled(mesh, sets=2)
    own = mesh.nodes["beta"].server.kept.catalogs
    own._mine.discard(first)
    with pytest.raises(CatalogAway):
        await ls(mesh, first, tree)  # it was said to be there
    own.look()

    async def back() -> bool:
        try:
            return bool((await ls(mesh, first, tree)).entries)
        except (CatalogAway, CatalogNotHere):
            return False

    await wait_for_async(back, 60.0, every_s=0.2, what="it is taken in again")


async def test_what_a_dead_server_kept_is_made_anew_at_the_admin_by_a_rebuild_through_another_one(
    memory_mesh, tmp_path
):
    tree = small_tree(tmp_path / "data")
    mesh = await memory_mesh(3)
    folder = mesh.folder / "shared"
    folder.mkdir()
    places = {"beta": str(folder), "gamma": str(folder)}
    await mesh.call("alpha", "device.add", q.DeviceAdd("nas", "shared", places), v.DeviceView)
    await set_mode(mesh, "distributed")
    sets = await two_sets(mesh, tree, source="gamma")
    await settled(mesh, sets=2)
    seen = await browsed(mesh, sets, tree, "changed", source="gamma")
    await mesh.stop("beta")
    rebuilt = await mesh.call("alpha", "catalog.rebuild", q.DeviceName("nas"), b.CatalogRebuilt)
    assert (rebuilt.sets, rebuilt.pending) == (2, 0), "it is where it is to be"
    await set_mode(mesh, "centralized")
    rebuilt = await mesh.call("alpha", "catalog.rebuild", q.DeviceName("nas"), b.CatalogRebuilt)
    assert (rebuilt.server, rebuilt.pending) == ("gamma", 2)

    async def here() -> bool:
        return (await mode_of(mesh)).at_admin == 2

    await wait_for_async(here, 60.0, every_s=0.2, what="the admin has it")
    assert await browsed(mesh, sets, tree, "changed", source="gamma") == seen
