"""Who may hand over a newer roster to a server that knows none of the voters of now."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from test_server_links import Mesh, Site

from caso_mesh.identity.claims import sign_claim
from caso_mesh.identity.roster import Peer, of_row
from caso_mesh.model.errors import Refused, StaleOrders
from caso_mesh.model.mesh import Anchor, Roster
from caso_mesh.model.nodes import HelloReply, RosterNow
from caso_mesh.model.orders import Authority
from caso_mesh.server.vouching import check_vouched


class Away:
    """The server "d" of a mesh where "a" and "b" voted, on orders 1.1.5; by now "e" does."""

    def __init__(self) -> None:
        self.mesh = mesh = Mesh("a", "b", "c", "d", "e", voters=2)
        site = Site(mesh, "d", mesh.orders("d", admin="a", index=5), in_office=False, peers=())
        self.trust, self.bearings = site.trust, site.bearings
        root, issuing = mesh.roster.anchors[0], mesh.roster.anchors[1].certificate
        self.now = replace(mesh.roster, anchors=(root, Anchor(issuing, mesh.id("e"))))

    def peer(self, name: str) -> Peer:
        row = self.trust.row(self.mesh.id(name))
        assert row is not None
        return of_row(row)

    def given(self, index: int = 6, *, admin: str = "e", roster: Roster | None = None, **changes: Any) -> RosterNow:
        made = RosterNow(Authority(1, 1, index), self.mesh.id(admin), ("e:7000",), roster or self.now)
        return replace(made, **changes)

    def check(self, given: RosterNow, voter: str = "b") -> None:
        check_vouched(given, self.peer(voter), self.peer("d"), self.trust, self.bearings)

    def use(self, given: RosterNow) -> None:
        self.check(given)
        self.trust.use(given.roster)
        self.bearings.vouched(given.authority, given.admin, given.admin_addresses)


def hello(away: Away, admin: str, index: int) -> HelloReply:
    return HelloReply("x", "1", (), Authority(1, 1, index), away.mesh.id(admin), (), 0)


def test_a_voter_that_is_known_says_who_votes_now_and_nobody_else_does() -> None:
    away = Away()
    away.bearings.heard(away.mesh.id("e"), hello(away, "e", 9))
    assert not away.bearings.is_admin(away.mesh.id("e")), "it says so of itself, and no voter does"
    with pytest.raises(Refused, match="c is no voter"):
        away.check(away.given(), "c")
    away.use(away.given())
    assert away.bearings.admin() == away.mesh.id("e")
    away.bearings.heard(away.mesh.id("e"), hello(away, "e", 9))
    assert away.bearings.is_admin(away.mesh.id("e"))


def test_who_votes_no_more_by_the_roster_in_force_says_nothing_any_more() -> None:
    away = Away()
    away.use(away.given())
    for former in ("a", "b"):
        with pytest.raises(Refused, match=f"{former} is no voter"):
            away.check(away.given(99, admin="c", roster=away.mesh.roster), former)


def test_only_news_is_asked_for_and_taken_and_nothing_goes_back() -> None:
    away = Away()
    voter = away.mesh.id("b")
    assert away.bearings.knows_newer(voter, hello(away, "e", 6))
    assert not away.bearings.knows_newer(voter, hello(away, "e", 5)), "orders here stand on as much"
    assert not away.bearings.knows_newer(voter, hello(away, "a", 9)), "a voter that is known: it shows itself"
    assert not away.bearings.knows_newer(away.mesh.id("c"), hello(away, "e", 6)), "of no voter"
    with pytest.raises(StaleOrders):
        away.check(away.given(5))
    away.use(away.given(8))
    with pytest.raises(StaleOrders):
        away.bearings.check_current(Authority(1, 1, 7))
    away.bearings.check_current(Authority(1, 1, 8))


def test_a_lineage_that_is_over_is_handed_over_by_nobody() -> None:
    away = Away()
    assert away.bearings.believe(sign_claim(away.mesh.keys["a"].signing, mesh="mesh", lineage=2))
    with pytest.raises(StaleOrders):
        away.check(away.given(10**9))
    away.check(away.given(authority=Authority(2, 1, 1)))


@pytest.mark.parametrize("wrong", ["mesh", "removed", "not-on-it", "another-key", "admin-is-no-voter"])
def test_a_roster_by_which_this_server_could_not_work_is_refused(wrong: str) -> None:
    away = Away()
    own, roster = away.mesh.id("d"), away.now
    others = tuple(row for row in roster.rows if row.id != own)
    mine = next(row for row in roster.rows if row.id == own)
    rosters = {
        "mesh": replace(roster, mesh=replace(roster.mesh, id="another")),
        "removed": replace(roster, removed=(own,)),
        "not-on-it": replace(roster, rows=others),
        "another-key": replace(roster, rows=(*others, replace(mine, public_key=others[0].public_key))),
    }
    given = away.given(admin="c") if wrong == "admin-is-no-voter" else away.given(roster=rosters[wrong])
    with pytest.raises(Refused):
        away.check(given)
    assert away.trust.roster is away.mesh.roster
