"""Location modes of catalogs, row by row of the table: centralized, distributed, replicated."""

from __future__ import annotations

import base64

import pytest
from mesh.catalog_site import browsed, find, ls, mode_of, set_mode, settled, small_tree, versions

from caso_mesh.model import browsing as b
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import UNAVAILABLE, CatalogAway, InvalidValue

pytestmark = pytest.mark.jumping


async def two_sets(mesh, tree, *, source="beta", at="beta"):
    """A full and an incremental set at ``at``, in which one file differs."""
    first = await mesh.result((await mesh.backup(source, tree, f"server:{at}")).run)
    (tree / "changed").write_text("once more")
    second = await mesh.result((await mesh.backup(source, tree, f"server:{at}", type="incremental")).run)
    assert (first.state, second.state, second.warnings) == ("succeeded", "succeeded", ()), (first, second)
    return first.set, second.set


async def a_site(memory_mesh, tmp_path, mode, *, servers=2):
    tree = small_tree(tmp_path / "data")
    mesh = await memory_mesh(servers)
    await mesh.add_device("beta")
    if mode is not None:
        await set_mode(mesh, mode)
    return mesh, tree


@pytest.mark.parametrize(
    ("mode", "at_admin", "at_server"), [("centralized", 2, 0), ("distributed", 0, 2), ("replicated", 2, 2)]
)
async def test_each_mode_keeps_catalogs_where_it_says_and_browsing_is_the_same(
    memory_mesh, tmp_path, mode, at_admin, at_server
):
    mesh, tree = await a_site(memory_mesh, tmp_path, mode)
    sets = await two_sets(mesh, tree)
    view = await settled(mesh, sets=2)
    assert (view.mode, view.at_admin, view.at_server, view.percent) == (mode, at_admin, at_server, 100.0)
    assert all(row.catalog for row in await mesh.sets())
    seen = await browsed(mesh, sets, tree, "changed")
    assert [row[2] for row in seen.versions] == [1, 1]
    assert all(seen.folders) and len(seen.found) == 12
    await set_mode(mesh, "centralized")
    await settled(mesh)
    assert await browsed(mesh, sets, tree, "changed") == seen


async def test_centralized_and_the_server_is_away_full_browse_at_the_admin(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "centralized")
    sets = await two_sets(mesh, tree)
    seen = await browsed(mesh, sets, tree, "changed")
    await mesh.stop("beta")
    assert await browsed(mesh, sets, tree, "changed") == seen


async def test_replicated_and_the_server_is_away_full_browse_at_the_admin(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "replicated")
    sets = await two_sets(mesh, tree)
    await settled(mesh, sets=2)
    seen = await browsed(mesh, sets, tree, "changed")
    await mesh.stop("beta")
    assert await browsed(mesh, sets, tree, "changed") == seen
    assert (await find(mesh, "*.txt")).away == ()


async def test_distributed_and_the_server_is_away_sets_are_listed_and_details_say_where_they_are(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed")
    sets = await two_sets(mesh, tree)
    await settled(mesh, sets=2)
    await mesh.stop("beta")
    assert {row.id for row in await mesh.sets()} == set(sets)
    with pytest.raises(CatalogAway) as away:
        await ls(mesh, sets[0], tree)
    since = away.value.fields["since"]
    assert away.value.message == f"catalog is on beta, not reachable since {since}"
    assert since.startswith("2025-01-06T")
    assert (away.value.code, away.value.exit_status) == ("catalog-away", UNAVAILABLE)
    assert (
        f"disk-beta cannot be reached either, and the set not be restored: beta is not connected since {since[:16]}"
        in (away.value.hint)
    )
    found = await find(mesh, "*.txt")
    assert (found.matches, [each.text for each in found.away]) == ((), [away.value.message])
    with pytest.raises(CatalogAway, match="catalog is on beta, not reachable since"):
        await versions(mesh, "beta", tree / "changed")
    view = await mode_of(mesh)
    assert (view.connected, view.unreachable_since, view.note) == (False, since, away.value.message)


async def test_a_search_goes_on_page_by_page_over_all_servers_and_modes(memory_mesh, tmp_path):
    mesh, tree = await a_site(memory_mesh, tmp_path, "distributed", servers=3)
    await mesh.add_device("alpha")
    await two_sets(mesh, tree, source="beta")
    for source, target in (("alpha", "alpha"), ("gamma", "alpha"), ("gamma", "beta"), ("alpha", "beta")):
        (tree / f"of-{source}").write_text(source)
        assert (await mesh.result((await mesh.backup(source, tree, f"server:{target}")).run)).state == "succeeded"
    await settled(mesh, sets=4)

    async def pages(limit: int, after: str | None = None) -> list[b.MatchView]:
        found = []
        while True:
            page = await find(mesh, f"*{tree.name}/*", limit=limit, after=after)
            assert len(page.matches) <= limit and not page.cut_off and not page.away
            assert page.more == (page.next is not None)
            found += page.matches
            if page.next is None:
                return found
            last, after = found[-1], page.next
            assert after == f"{last.server}:{last.path}"

    whole = await find(mesh, f"*{tree.name}/*")
    assert (whole.more, whole.next) == (False, None)
    assert len(whole.matches) == len({(each.server, each.path) for each in whole.matches}) > 30
    assert {each.server for each in whole.matches} == {"alpha", "beta", "gamma"}
    in_order = sorted(whole.matches, key=lambda each: (each.server, path_key(base64.b64decode(each.path_b64))))
    assert list(whole.matches) == in_order, "by the names of servers, whatever their ids"
    for limit in (7, 20):
        assert await pages(limit) == list(whole.matches)
    for mode in ("replicated", "centralized", "distributed"):
        await set_mode(mesh, mode)
        await settled(mesh, sets=4)
        middle = whole.matches[13]
        assert await pages(9, f"{middle.server}:{middle.path}") == list(whole.matches[14:])
    await mesh.stop("beta")
    away = await find(mesh, f"*{tree.name}/*", limit=5)
    assert (away.more, len(away.matches), [each.server for each in away.away]) == (True, 5, ["beta"])
    with pytest.raises(InvalidValue, match="place in the catalogs"):
        await find(mesh, "*", after="nowhere")
