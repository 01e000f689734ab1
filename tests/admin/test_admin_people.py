"""Calls of people at the administrator: what they answer, and that asking again does nothing twice."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from admin.admin_world import KEYS, OPERATOR, admin_world, name_of, node

from caso_mesh.catalog.segment import CatalogEntry, SegmentWriter, chain_of
from caso_mesh.identity import enrolment, tokens
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.roster import Peer, servers_of
from caso_mesh.model import browsing as b
from caso_mesh.model import facts
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.calls import BY_NAME
from caso_mesh.model.entries import EntryType
from caso_mesh.model.errors import (
    AlreadyExists,
    DeviceNotShared,
    InUse,
    InvalidValue,
    JoinLinkInvalid,
    JoinLinkUsed,
    LinkLost,
    NotFound,
    NotOnRoster,
    RateLimited,
    ServerNotLinked,
    WrongState,
)
from caso_mesh.model.join_links import TokenListRequest, TokenName
from caso_mesh.model.states import AttemptState, Role
from caso_mesh.wire.codec import to_wire

pytestmark = pytest.mark.jumping


async def test_a_repeated_backup_makes_one_job_and_gets_the_same_answer(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        request = q.BackupRequest(sources=(("alpha", b"/srv"),), target="any", name="mine")
        first = await w.ask("backup", request, id="r1")
        w.links.get(KEYS.id).answers["path.check"] = lambda _: 1 / 0
        assert await w.ask("backup", request, id="r1") == first
        assert len(w.state.jobs) == 1
        with pytest.raises(ZeroDivisionError):
            await w.ask("backup", request, id="r2")


async def test_a_repeated_join_token_is_the_same_link_and_the_link_is_good(tmp_path: Path) -> None:
    """Asked again, the office once answered with a link whose secret it had never committed."""
    async with admin_world(tmp_path) as w:
        first = await w.ask("token.create", q.TokenCreate(), id="r1")
        assert await w.ask("token.create", q.TokenCreate(), id="r1") == first
        assert set(w.state.tokens) == {tokens.digest(tokens.parse_link(first.link).secret)}
        with pytest.raises(InvalidValue):
            await w.ask("token.create", q.TokenCreate(ttl_s=float("nan")))


async def test_removing_twice_by_one_request_is_done_and_by_two_is_not_found(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("server.remove", q.ServerName("beta"), id="r1")
        await w.ask("server.remove", q.ServerName("beta"), id="r1")
        with pytest.raises(NotFound):
            await w.ask("server.remove", q.ServerName("beta"), id="r2")


async def test_following_a_run_ends_with_its_figures_set_and_catalog(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        backup = w.made_set(attempt)
        data = io.BytesIO()
        writer = SegmentWriter(data, set_id=backup.id, chain=chain_of(backup))
        writer.add(CatalogEntry(b"srv", EntryType.DIRECTORY))
        digest, size = writer.finish()
        arrived = asyncio.Event()

        async def piece(request: n.CatalogRead) -> n.CatalogPiece:
            await arrived.wait()
            return n.CatalogPiece(data.getvalue()[request.offset : request.offset + request.length], size)

        w.links.get(node("beta")).answers["catalog.read"] = piece
        started, published, ended = w.success(attempt, backup)
        await w.report("beta", started, published, facts.CatalogDetail(backup.id, digest, size), ended)
        assert (await w.ask("run.follow", q.RunFollow(run))).result is None
        arrived.set()
        await w.until(lambda: not list((tmp_path / "incoming").iterdir()))
        await asyncio.sleep(1)
        result = (await w.ask("run.follow", q.RunFollow(run))).result
        assert (result.set, result.type, result.server, result.device) == (backup.id, "full", "beta", "dbeta")
        assert (result.files, result.bytes_read, result.seconds, result.warnings) == (3, 30, 1.5, ())
        assert [entry.path for entry in (await w.ask("catalog.ls", b.CatalogList(backup.id, b""))).entries] == ["/srv"]
        assert [entry.path for entry in (await w.ask("catalog.ls", b.CatalogList(backup.id, roots=True))).entries] == [
            "/srv"
        ]


async def test_a_catalog_of_another_set_under_this_ones_name_is_refused(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        backup = w.made_set(attempt)
        data = io.BytesIO()
        writer = SegmentWriter(data, set_id="another", chain=chain_of(backup))
        digest, size = writer.finish()
        w.links.get(node("beta")).answers["catalog.read"] = lambda r: n.CatalogPiece(data.getvalue(), size)
        w.links.get(node("beta")).answers["catalog.make"] = lambda r: n.CatalogMade(digest, size)  # nor out of the tree
        await w.report("beta", facts.SetPublished(backup), facts.CatalogDetail(backup.id, digest, size))
        await w.until(lambda: w.facts.alerts("catalog-error"))
        assert await w.tables.detail_states([backup.id]) == {backup.id: "damaged"}


async def test_following_does_not_wait_for_a_server_that_is_lost(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        run = await w.backup(to="device:dbeta")
        attempt = await w.delegated(run)
        backup = w.made_set(attempt)
        w.silent.add(node("beta"))
        w.links.down(node("beta"))
        started, published, ended = w.success(attempt, backup)
        await w.report("beta", started, published, facts.CatalogDetail(backup.id, b"d" * 32, 9), ended)
        assert (await w.ask("run.follow", q.RunFollow(run))).result is None
        await w.until(lambda: w.facts.alerts("server-no-communication"), 1300)
        assert len((await w.ask("run.follow", q.RunFollow(run))).result.warnings) == 1


async def test_a_failed_run_of_two_sources_names_what_became_of_each(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        request = q.BackupRequest(sources=(("beta", b"/srv"), ("gamma", b"/srv")), target="pool:p")
        run = (await w.ask("backup", request)).run
        one, two = await w.delegated(run, 1), await w.delegated(run, 2)
        backup = w.made_set(one)
        await w.report(name_of(one), *w.success(one, backup))
        assert (await w.ask("run.follow", q.RunFollow(run))).result is None
        await w.report(name_of(two), w.end(two, AttemptState.FAILED))
        result = (await w.ask("run.follow", q.RunFollow(run))).result
        assert (result.state, result.attempt, result.server, result.device, result.set) == ("failed",) + (None,) * 4
        assert {each.source: (each.set, each.state) for each in result.sets} == {
            w.state.name_of(one.source): (backup.id, "succeeded"),
            w.state.name_of(two.source): (None, "failed"),
        }
        assert [each.state for each in (await w.ask("job.list", q.JobListRequest(state="failed"))).jobs] == ["failed"]


async def test_a_canceled_run_that_never_started_has_its_result_at_once(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        await w.ask("device.set", q.DeviceSet("dbeta", state="paused"))
        run = await w.backup(to="device:dbeta")
        await w.ask("job.cancel", q.JobCancel(run))
        assert (await w.ask("run.follow", q.RunFollow(run))).result.state == "canceled"


async def test_who_may_write_on_one_server_cannot_restore_the_files_of_another_there(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(source="gamma", to="device:dbeta"))
        backup = w.made_set(attempt)
        await w.report("beta", *w.success(attempt, backup))
        local = Peer("b", "local-beta", "operator", Role.VIEWER, ((node("beta"), Role.OPERATOR),))
        both = Peer("c", "carol", "operator", None, ((node("beta"), Role.RESTORE), (node("gamma"), Role.RESTORE)))
        for link in w.links.links.values():
            link.answers["path.check"] = lambda _: n.PathCheckReply()
        request = q.RestoreRequest(backup.id, to=("beta", b"/tmp/x"))
        concerned = await w.office.concerned(BY_NAME["restore"], request)
        assert concerned == {backup.source, node("beta")}
        assert not concerned <= (servers_of(local, Role.RESTORE) or set())
        assert concerned <= (servers_of(both, Role.RESTORE) or set())
        assert (await w.ask("restore", request, person=both)).run


# --- devices ---


def _device_answers(w: object, *, nonces: dict[str, dict[str, bytes]] | None = None) -> dict[str, dict[str, str]]:
    """Servers with folders: path -> vault. ``nonces``: what a server finds beside its own."""
    vaults: dict[str, dict[str, str]] = {}
    shared: dict[str, bytes] = {}

    def prepare(name: str):
        def answer(request: n.DevicePrepare) -> n.DevicePrepareReply:
            mine = vaults.setdefault("shared" if nonces is None else name, {})
            vault = mine.setdefault(request.path, request.vault)
            return n.DevicePrepareReply(vault, vault == request.vault, 1, 2, "/")

        return answer

    def proof(name: str):
        def answer(request: n.DeviceProof) -> n.DeviceProofReply:
            if request.step == "write":
                shared[node(name)] = request.nonce
            own = {node(name): shared.get(node(name), b"")}
            return n.DeviceProofReply(shared if nonces is None else own)

        return answer

    for name in ("beta", "gamma"):
        link = w.links.get(node(name))  # type: ignore[attr-defined]
        link.answers |= {"device.prepare": prepare(name), "device.proof": proof(name)}
    return vaults


async def test_a_repeated_device_add_makes_one_device(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        _device_answers(w)
        request = q.DeviceAdd("new", "disk", {"beta": "/mnt//new/"})
        first = await w.ask("device.add", request, id="r1")
        assert first.paths == {"beta": "/mnt/new"}
        assert (await w.ask("device.add", request, id="r1")).id == first.id
        with pytest.raises(AlreadyExists):
            await w.ask("device.add", request, id="r2")


async def test_two_local_folders_are_no_shared_device_and_nothing_is_made_in_them(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        vaults = _device_answers(w, nonces={})
        with pytest.raises(DeviceNotShared):
            await w.ask("device.add", q.DeviceAdd("new", "shared", {"beta": "/mnt/a", "gamma": "/mnt/a"}))
        assert vaults == {}
        assert w.links.get(node("gamma")).told("device.proof")[-1]["step"] == "remove"


async def test_a_device_whose_server_was_lost_in_the_middle_can_be_added_again(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        _device_answers(w)
        good = w.links.get(node("gamma")).answers["device.prepare"]

        def lost(request: object) -> object:
            raise LinkLost(peer="gamma", detail="cut")

        w.links.get(node("gamma")).answers["device.prepare"] = lost
        request = q.DeviceAdd("new", "shared", {"beta": "/mnt/a", "gamma": "/mnt/a"})
        with pytest.raises(LinkLost):
            await w.ask("device.add", request, id="r1")
        assert "new" not in {device.name for device in w.state.device_list()}
        w.links.get(node("gamma")).answers["device.prepare"] = good
        assert (await w.ask("device.add", request, id="r1")).servers == ("beta", "gamma")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (q.DeviceAdd("new", "disk", {"beta": "/mnt/beta/below"}), InUse),
        (q.DeviceAdd("new", "disk", {"beta": "/mnt"}), InUse),
        (q.DeviceAdd("new", "disk", {"beta": "mnt"}), InvalidValue),
        (q.DeviceAdd("new", "disk", {"beta": "/mnt/x"}, concurrency=0), InvalidValue),
        (q.DeviceAdd("new", "disk", {"nobody": "/mnt/x"}), NotFound),
        (q.DeviceAdd("dbeta", "disk", {"beta": "/mnt/x"}), AlreadyExists),
        (q.DeviceAdd("new", "disk", {"beta": "/mnt/x", "gamma": "/mnt/x"}), InvalidValue),
    ],
)
async def test_a_device_that_cannot_be_is_refused_before_its_server_is_asked(
    tmp_path: Path, request_: q.DeviceAdd, error: type[Exception]
) -> None:
    async with admin_world(tmp_path) as w:
        with pytest.raises(error):
            await w.ask("device.add", request_)
        assert w.links.get(node("beta")).told("device.prepare") == []
        w.links.down(node("beta"))
        with pytest.raises(ServerNotLinked):
            await w.ask("device.add", q.DeviceAdd("new", "disk", {"beta": "/mnt/x"}))


async def test_a_device_with_sets_stays(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        attempt = await w.delegated(await w.backup(to="device:dbeta"))
        await w.report("beta", *w.success(attempt))
        with pytest.raises(InUse):
            await w.ask("device.remove", q.DeviceName("dbeta"))
        await w.ask("device.remove", q.DeviceName("dgamma"), id="r1")
        await w.ask("device.remove", q.DeviceName("dgamma"), id="r1")


# --- joining ---


def _application(link: str, keys: NodeKeys, operator: SigningKey, name: str = "delta") -> j.JoinRequest:
    parsed = tokens.parse_link(link)
    newcomer = enrolment.Newcomer(name, keys.public_key, keys.encryption_key, ("delta:1",), version="1")
    signature = enrolment.sign_application(keys, newcomer, mesh=parsed.mesh, binding=tokens.digest(parsed.secret))
    return j.JoinRequest(
        parsed.secret, name, keys.public_key, keys.encryption_key, operator.public_key, ("delta:1",), "1", signature
    )


async def test_the_same_token_and_key_get_the_same_answer_also_with_a_new_operator_key(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        link = (await w.ask("token.create", q.TokenCreate())).link
        keys, lost, operator = NodeKeys.create(), NodeKeys.create().signing, NodeKeys.create().signing
        await w.node_call("", "enrol.join", _application(link, keys, lost))
        reply = await w.node_call("", "enrol.join", _application(link, keys, operator))
        rows = {row.id: row for row in reply.orders.roster.rows}
        assert rows[keys.id].name == "delta"
        assert rows[operator.id].server_roles == ((keys.id, Role.OPERATOR),)
        assert lost.id not in {row.id for row in w.state.roster().rows}
        with pytest.raises(JoinLinkUsed):
            await w.node_call("", "enrol.join", _application(link, NodeKeys.create(), operator, "epsilon"))
        await w.ask("server.remove", q.ServerName("delta"))
        with pytest.raises(NotOnRoster):
            await w.node_call("", "enrol.join", _application(link, keys, operator))
        assert parsed_secret(link) not in repr(to_wire(list(w.facts.audits("enrol.join"))))


def parsed_secret(link: str) -> str:
    return repr(tokens.parse_link(link).secret)


async def test_links_are_listed_without_their_secret_and_one_that_was_taken_back_lets_nobody_in(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        made = [await w.ask("token.create", q.TokenCreate(ttl_s)) for ttl_s in (3600.0, 60.0, 7200.0)]
        keys, operator = NodeKeys.create(), NodeKeys.create().signing
        await w.node_call("", "enrol.join", _application(made[0].link, keys, operator))
        await w.ask("operator.create", q.OperatorCreate("ann", Role.VIEWER, (), (), 1800.0))
        found = (await w.ask("token.list", TokenListRequest())).tokens
        assert [(row.id, row.operator, row.uses_left) for row in found] == [
            (made[2].id, None, 1), (found[1].id, "ann", 1), (made[1].id, None, 1),
        ]  # fmt: skip
        await asyncio.sleep(61)
        rows = {row.id: row for row in (await w.ask("token.list", TokenListRequest(all=True))).tokens}
        assert (rows[made[0].id].state, rows[made[0].id].used_by, rows[made[0].id].uses_left) == ("used", "delta", 0)
        assert (rows[made[1].id].state, rows[made[1].id].uses_left) == ("expired", 0)
        assert (rows[made[2].id].expires, rows[made[2].id].created_by) == (made[2].expires, found[0].created_by)
        for each in made:
            secret = tokens.parse_link(each.link).secret
            assert not any(text in str(rows) for text in (each.link, repr(secret), secret.hex()))

        await w.ask("token.revoke", TokenName(made[2].id[:6]), id="r1")
        await w.ask("token.revoke", TokenName(made[2].id[:6]), id="r1")
        with pytest.raises(JoinLinkInvalid):
            await w.node_call("", "enrol.join", _application(made[2].link, NodeKeys.create(), operator, "epsilon"))
        with pytest.raises(WrongState):
            await w.ask("token.revoke", TokenName(made[0].id))
        with pytest.raises(NotFound):
            await w.ask("token.revoke", TokenName(made[2].id))
        await w.node_call("", "enrol.join", _application(made[0].link, keys, operator))
        assert [row.operator for row in (await w.ask("token.list", TokenListRequest())).tokens] == ["ann"]


async def test_guessing_tokens_is_limited_and_joining_is_not(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        good = (await w.ask("token.create", q.TokenCreate())).link
        keys = NodeKeys.create()
        wrong = tokens.make_link(
            mesh="mesh-1", root_fingerprint=b"f" * 32, addresses=("a:1",), secret=b"s" * 20, expires_at_ns=1 << 61
        )
        for _ in range(10):
            with pytest.raises(JoinLinkInvalid):
                await w.node_call("", "enrol.join", _application(wrong, keys, OPERATOR))
        with pytest.raises(RateLimited):
            await w.node_call("", "enrol.join", _application(wrong, keys, OPERATOR))
        await w.node_call("", "enrol.join", _application(good, keys, NodeKeys.create().signing))
        await asyncio.sleep(61)
        with pytest.raises(JoinLinkInvalid):
            await w.node_call("", "enrol.join", _application(wrong, keys, OPERATOR))


async def test_what_could_not_be_signed_is_refused_before_the_token_is_used(tmp_path: Path) -> None:
    async with admin_world(tmp_path) as w:
        link = (await w.ask("token.create", q.TokenCreate())).link
        keys, operator = NodeKeys.create(), NodeKeys.create().signing
        request = _application(link, keys, operator)
        broken = j.JoinRequest(**(to_wire(request) | {"operator_public_key": b"garbage", "addresses": ("delta:1",)}))
        with pytest.raises(InvalidValue):
            await w.node_call("", "enrol.join", broken)
        assert next(iter(w.state.tokens.values())).used_by is None
        await w.node_call("", "enrol.join", request)
