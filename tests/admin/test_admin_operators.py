"""Operators at the administrator: invited, admitted with their own key, limited to their servers, revoked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from admin.admin_world import World, admin_world, node

from caso_mesh.catalog.index import Found, Wanted
from caso_mesh.identity import enrolment, tokens
from caso_mesh.identity.keys import SigningKey
from caso_mesh.identity.roster import ANONYMOUS, Peer, authorise, find, of_row, servers_of
from caso_mesh.model import joining as j
from caso_mesh.model import requests as q
from caso_mesh.model.calls import BY_NAME, CALLS
from caso_mesh.model.errors import (
    AlreadyExists,
    Conflict,
    JoinLinkExpired,
    JoinLinkInvalid,
    JoinLinkUsed,
    NotFound,
    NotOnRoster,
    RateLimited,
)
from caso_mesh.model.listing import CatalogFind
from caso_mesh.model.states import AlertKind, Role

pytestmark = pytest.mark.jumping


def application(w: World, link: str, key: SigningKey, kind: tokens.Kind = "operator") -> j.OperatorRequest:
    secret = tokens.parse_link(link, kind).secret
    signature = enrolment.sign_operator(key, mesh=w.state.info().id, binding=tokens.digest(secret))
    return j.OperatorRequest(secret, key.public_key, signature)


async def follow(w: World, request: j.OperatorRequest, host: str = "192.0.2.1") -> j.OperatorReply:
    link: Any = SimpleNamespace(peer=ANONYMOUS, remote_address=f"{host}:5")
    return await w.office.node_handlers["enrol.operator"](ANONYMOUS, request, link)


async def become(w: World, name: str, role: Role, **scope: Any) -> Peer:
    """Somebody who was invited and came; as the roster has him."""
    key = SigningKey.create()
    invited = await w.ask("operator.create", q.OperatorCreate(name, role, **scope))
    await follow(w, application(w, invited.link, key))
    return of_row(find(w.state.roster(), key.id))


async def test_who_follows_an_invitation_is_an_operator_by_the_key_that_he_made(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        request = q.OperatorCreate("anna", Role.RESTORE, servers=("beta",))
        invited = await w.ask("operator.create", request, id="r1")
        assert await w.ask("operator.create", request, id="r1") == invited
        key = SigningKey.create()
        listed = next(row for row in (await w.ask("operator.list", q.Nothing())).operators if row.name == "anna")
        assert (listed.state, listed.id, listed.on) == ("invited", None, {"beta": "restore"})
        reply = await follow(w, application(w, invited.link, key))
        again = await follow(w, application(w, invited.link, key))
        assert (reply.name, again.name) == ("anna", "anna")
        assert reply.addresses[0] == "alpha:1"
        peer = authorise(w.state.roster(), reply.certificate[0], now_ns=w.clock.now_ns())
        assert (peer.id, peer.kind, peer.role, peer.server_roles) == (
            key.id, "operator", None, ((node("beta"), Role.RESTORE),),
        )  # fmt: skip
        assert servers_of(peer, Role.OPERATOR) == frozenset()
        assert w.facts.audits("enrol.operator")[0].who == "anna"
        with pytest.raises(JoinLinkUsed):
            await follow(w, application(w, invited.link, SigningKey.create()))
        assert [each.outcome for each in w.facts.audits("enrol.operator")] == ["done", "done", "join-link-used"]


async def test_an_invitation_is_no_way_in_for_others_than_it_was_made_for(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        invited = await w.ask("operator.create", q.OperatorCreate("anna", Role.ADMIN, ttl_s=60.0))
        with pytest.raises(JoinLinkInvalid, match="for an operator"):
            tokens.parse_link(invited.link)
        for taken in ("anna", "boss"):
            with pytest.raises(AlreadyExists):
                await w.ask("operator.create", q.OperatorCreate(taken, Role.VIEWER))
        with pytest.raises(NotFound):
            await w.ask("operator.create", q.OperatorCreate("dora", Role.VIEWER, servers=("nobody",)))
        mine, thief = SigningKey.create(), SigningKey.create()
        forged = application(w, invited.link, thief)
        with pytest.raises(JoinLinkInvalid, match="prove"):
            await follow(w, j.OperatorRequest(forged.secret, mine.public_key, forged.signature))
        server = await w.ask("token.create", q.TokenCreate())
        with pytest.raises(JoinLinkInvalid, match="for a server"):
            await follow(w, application(w, server.link, mine, "server"))
        w.clock.wall_offset_s += 61.0
        with pytest.raises(JoinLinkExpired):
            await follow(w, application(w, invited.link, mine))
        assert await become(w, "anna", Role.ADMIN)  # the name is free again


async def test_guessing_the_secret_of_an_invitation_is_limited(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        key = SigningKey.create()
        for _ in range(10):
            with pytest.raises(JoinLinkInvalid):
                await follow(w, j.OperatorRequest(b"x" * 20, key.public_key, b"s" * 64))
        with pytest.raises(RateLimited):
            await follow(w, j.OperatorRequest(b"y" * 20, key.public_key, b"s" * 64))


async def test_who_is_revoked_is_off_the_roster_for_good_and_the_last_one_who_administers_stays(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        with pytest.raises(Conflict, match="last operator"):
            await w.ask("operator.revoke", q.OperatorName("boss"))
        key = SigningKey.create()
        first = await w.ask("operator.create", q.OperatorCreate("anna", Role.ADMIN))
        await follow(w, application(w, first.link, key))
        await w.ask("operator.revoke", q.OperatorName("boss"))
        await w.ask("operator.create", q.OperatorCreate("bob", Role.VIEWER))
        await w.ask("operator.revoke", q.OperatorName("bob"), id="r1")
        await w.ask("operator.revoke", q.OperatorName("bob"), id="r1")
        with pytest.raises(NotFound):
            await w.ask("operator.revoke", q.OperatorName("bob"))
        assert await become(w, "anna2", Role.ADMIN)
        await w.ask("operator.revoke", q.OperatorName("anna"))
        assert {row.name for row in (await w.ask("operator.list", q.Nothing())).operators if not row.home} == {"anna2"}
        again = await w.ask("operator.create", q.OperatorCreate("anna", Role.ADMIN))
        with pytest.raises(NotOnRoster):
            await follow(w, application(w, again.link, key))


async def test_a_role_on_a_pool_is_a_role_on_whoever_is_in_it_now(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("pool.create", q.PoolEdit("west", ("beta",)))
        peer = await become(w, "pia", Role.OPERATOR, pools=("west",))
        assert servers_of(peer, Role.OPERATOR) == {node("beta")}
        await w.ask("pool.set", q.PoolEdit("west", ("gamma",)))
        assert servers_of(of_row(find(w.state.roster(), peer.id)), Role.OPERATOR) == {node("gamma")}
        await w.ask("pool.delete", q.PoolName("west"))
        await w.ask("pool.create", q.PoolEdit("west", ("alpha", "beta")))
        assert servers_of(of_row(find(w.state.roster(), peer.id)), Role.VIEWER) == frozenset()


async def test_lists_show_only_what_concerns_the_servers_of_the_caller(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("pool.create", q.PoolEdit("both", ("beta", "gamma")))
        sets = {}
        for source in ("beta", "gamma"):
            attempt = await w.delegated(await w.backup(source=source, to=f"device:d{source}"))
            sets[source] = w.made_set(attempt)
            await w.report(source, *w.success(attempt, sets[source]))
        await w.ask("backup", q.BackupRequest((("gamma", b"/g"),), "any", schedule="0 3 * * *", name="nightly"))
        for name in ("beta", "gamma"):
            await w.facts.alert(AlertKind.WARNING, "clock-differs", "It differs", object=name)
        await w.facts.alert(AlertKind.WARNING, "no-recovery-kit", "There is none", object="home")
        peer = await become(w, "vera", Role.VIEWER, servers=("beta",))

        async def shown(name: str, request: Any, reply: str, field: str) -> set[Any]:
            return {getattr(row, field) for row in getattr(await w.ask(name, request, person=peer), reply)}

        assert await shown("server.list", q.ServerListRequest(), "servers", "name") == {"beta"}
        assert await shown("server.list", q.ServerListRequest(pool="both"), "servers", "name") == {"beta"}
        assert await shown("pool.list", q.Nothing(), "pools", "servers") == {("beta",)}
        assert await shown("device.list", q.DeviceListRequest(), "devices", "name") == {"dbeta"}
        assert await shown("device.list", q.DeviceListRequest(server="gamma"), "devices", "name") == set()
        assert await shown("set.list", q.SetListRequest(), "sets", "id") == {sets["beta"].id}
        assert await shown("set.list", q.SetListRequest(source="gamma"), "sets", "id") == set()
        assert await shown("job.list", q.JobListRequest("all"), "jobs", "source") == {"beta"}
        assert await shown("alert.list", q.AlertListRequest(all=True), "alerts", "object") == {"beta"}
        everything = await w.ask("job.list", q.JobListRequest("all"))
        assert {job.name for job in everything.jobs} >= {"nightly"}


async def test_what_a_call_concerns_is_found_by_the_fields_that_the_table_names(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(source="gamma", to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        alert = await w.facts.alert(AlertKind.ERROR, "device-error", "It is broken", object="beta:dbeta")
        mesh = await w.facts.alert(AlertKind.ERROR, "no-recovery-kit", "There is none", object="home")
        await w.ask("pool.create", q.PoolEdit("both", ("beta", "gamma")))
        await w.ask("pool.create", q.PoolEdit("none"))

        async def concerned(name: str, request: Any) -> set[str]:
            found = await w.office.concerned(BY_NAME[name], request)
            return {w.state.name_of(each) for each in found}

        assert await concerned("verify", q.VerifyRequest(backup.id)) == {"gamma"}
        assert await concerned("drill", q.DrillRequest("gamma", server="beta")) == {"beta", "gamma"}
        assert await concerned("restore", q.RestoreRequest(backup.id, into_command=("beta", "x"))) == {"beta", "gamma"}
        assert await concerned("job.cancel", q.JobCancel(attempt.run)) == {"gamma"}
        assert await concerned("run.follow", q.RunFollow(attempt.run)) == {"gamma"}
        assert await concerned("device.set", q.DeviceSet("dbeta")) == {"beta"}
        assert await concerned("alert.answer", q.AlertAnswer(alert)) == {"beta"}
        assert await concerned("alert.answer", q.AlertAnswer(mesh)) == set()
        assert await concerned("settings.set", q.SettingSet("stalled-after-s", "9", pool="both")) == {"beta", "gamma"}
        assert await concerned("settings.set", q.SettingSet("stalled-after-s", "9")) == set()
        with pytest.raises(NotFound):
            await concerned("settings.set", q.SettingSet("stalled-after-s", "9", pool="none"))
        restored = await w.ask("verify", q.VerifyRequest(backup.id))
        assert await concerned("job.show", q.JobName(restored.job)) == {"gamma"}


async def test_files_of_other_servers_are_not_found_by_name(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        peer = await become(w, "rita", Role.RESTORE, servers=("beta",))
        asked: list[frozenset[str] | None] = []

        async def find(glob: bytes, wanted: Wanted, **_: Any) -> Found:
            asked.append(wanted.sources)
            return Found([])

        w.catalog.find = find  # type: ignore[method-assign]
        for request in (CatalogFind(b"*"), CatalogFind(b"*", server="beta"), CatalogFind(b"*", server="gamma")):
            answer = await w.ask("catalog.find", request, person=peer)
            assert answer.matches == () and answer.only == (() if request.server == "beta" else ("beta",))
        assert (await w.ask("catalog.find", CatalogFind(b"*"))).only == ()
        asked.pop()
        assert asked == [{node("beta")}, {node("beta")}, frozenset()]


def test_a_call_that_names_a_server_or_what_belongs_to_one_says_so() -> None:
    """Else whoever has a role on that server could not use it."""
    # they name members, or who sees a device or may use a logon, and decide for all; of the audit log where it was written
    # down, which for the one in office is what all of the mesh is about; a report that is sent goes to anybody
    of_the_mesh = {"operator.create", "pool.create", "pool.set", "device.share", "logon.recipients", "audit.list"}
    # and sets of another mesh are whose they are, wherever their disk is
    of_the_mesh |= {"report.schedule", "device.look", "device.read", "device.import"}
    for call in CALLS:
        if call.role is not None and call.place == "admin" and call.name not in of_the_mesh:
            named = {"server", "servers", "sources", "set", "run", "pool"} & set(call.request.__struct_fields__)
            assert call.scope or not named, call.name
