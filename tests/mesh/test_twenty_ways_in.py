"""Ways in that must fail: each is tried at the real listener of a real daemon, is refused with a reason, and is in the audit log
with who, what and where from."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import sqlite3
import ssl
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from mesh.process import Answer, ProcessMesh, running_mesh
from msgspec import structs
from waiting import wait_for, wait_for_async

from caso_mesh.discovery.memory import MemoryDiscovery, MemoryHub
from caso_mesh.discovery.sighting import Sighting
from caso_mesh.identity import certificates, enrolment, tickets, tokens
from caso_mesh.identity.approval import NONCE_SIZE, commitment
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.requests import sign_request
from caso_mesh.identity.roster import ANONYMOUS
from caso_mesh.identity.store import IdentityStore
from caso_mesh.identity.tls import client_context, server_context
from caso_mesh.jobs.bulk import bulk_token
from caso_mesh.jobs.bulk_wire import Join
from caso_mesh.model import audit as audit_log
from caso_mesh.model import joining as j
from caso_mesh.model import nodes as n
from caso_mesh.model import requests as q
from caso_mesh.model.errors import CasoError, LinkLost, NotOnRoster
from caso_mesh.model.orders import AttemptOrder, Orders
from caso_mesh.wire.bulk import dial_bulk
from caso_mesh.wire.codec import pack, to_wire
from caso_mesh.wire.limits import FRAGMENT_BYTES
from caso_mesh.wire.link import Link
from caso_mesh.wire.network import ClientTls, ServerTls, split_address
from caso_mesh.wire.typed import RefusesAll
from caso_mesh.wire.websocket import WebSocketNetwork

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Site:
    """A mesh of real daemons, and the keys of all of them: whoever was taken over has his own."""

    mesh: ProcessMesh
    #: A set of gamma's files on beta's disk.
    set: str

    def identity(self, name: str) -> IdentityStore:
        return IdentityStore(self.mesh.state(name) / "identity")

    def anchors(self) -> tuple[bytes, ...]:
        return self.identity("alpha").load_anchors()

    def as_node(self, name: str) -> ClientTls:
        store = self.identity(name)
        return ClientTls(lambda: client_context(store.chain_path, store.key_path, self.anchors()))

    def as_operator(self, name: str) -> ClientTls:
        store = self.identity(name)
        return ClientTls(lambda: client_context(store.operator_chain_path, store.operator_key_path, self.anchors()))

    def showing(self, chain: tuple[bytes, ...], key: SigningKey) -> ClientTls:
        """A certificate that somebody made for a key of his own."""
        folder = self.mesh.folder / f"shown-{uuid.uuid4().hex}"
        folder.mkdir()
        (folder / "chain.pem").write_bytes(certificates.to_pem(chain))
        (folder / "key.pem").write_bytes(key.to_pem())
        return ClientTls(lambda: client_context(folder / "chain.pem", folder / "key.pem", self.anchors()))

    def orders(self, name: str) -> Orders:
        """What a server holds of the administrator's word, read from its disk."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.mesh.state(name) / 'queue.db'}?mode=ro", uri=True)
        ) as found:
            (data,) = found.execute("SELECT data FROM orders").fetchone()
        return msgspec.msgpack.decode(data, type=Orders)

    def audited(self, outcome: str, **fields: str) -> dict[str, Any]:
        """The entry of a refusal: it comes from wherever that was."""

        def found() -> dict[str, Any] | None:
            rows = self.mesh.ok("alpha", "audit", "list")["entries"]
            fit = (row for row in rows if row["outcome"] == outcome)
            return next((row for row in fit if all(row[key] == value for key, value in fields.items())), None)

        entry = wait_for(found, 30.0, what=f"{outcome} is in the audit log", every_s=0.2)
        assert entry is not None
        assert entry["source"], entry
        return entry

    def audited_from(self, host: str, outcome: str) -> dict[str, Any]:
        """The entry of a refusal of whoever called from ``host``."""

        def enough(rows: list[dict[str, Any]]) -> bool:
            return any(row["source"].startswith(f"{host}:") for row in rows)

        rows = self.mesh.audited(enough=enough, outcome=outcome, what="link")
        return next(row for row in rows if row["source"].startswith(f"{host}:"))

    def anna(self, *words: str) -> Answer:
        """The operator who has the role ``operator`` on gamma only."""
        home = self.mesh.folder / "machine-anna"
        argv = ("--context", "home", *words)
        return self.mesh.execute(
            [sys.executable, "-m", "caso_mesh", *argv, "--json"], argv, json_output=True, HOME=str(home)
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_mesh(tmp_path_factory.mktemp("ways") / "mesh") as mesh:
        mesh.start(3)
        for name in ("disk", "files", "machine-anna"):
            (mesh.folder / name).mkdir()
        (mesh.folder / "files" / "secret").write_text("of gamma")
        mesh.ok("alpha", "device", "add", "disk", "--server", "beta", "--path", str(mesh.folder / "disk"))
        made = mesh.ok("alpha", "backup", f"gamma:{mesh.folder / 'files'}", "--to", "device:disk", "--wait")
        link = mesh.ok("alpha", "operator", "create", "anna", "--role", "operator", "--server", "gamma")["link"]
        words = ["context", "create", "home", "--link", link, "--json"]
        home = str(mesh.folder / "machine-anna")
        mesh.execute([sys.executable, "-m", "caso_mesh", *words], tuple(words), json_output=True, HOME=home)
        site = Site(mesh, made["set"])
        wait_for(lambda: site.anna("status").status == 0, what="anna is known")
        yield site


@contextlib.asynccontextmanager
async def link_with(address: str, tls: ClientTls) -> AsyncIterator[Link]:
    link = await WebSocketNetwork().dial(address, tls=tls, authorise=lambda certificate: None, handler=RefusesAll())
    try:
        yield link
    finally:
        await link.close()


def refusal(attack: Callable[[], Awaitable[Any]]) -> str:
    """The code of the error that whoever tries it is told."""

    async def tried() -> str:
        try:
            got = await attack()
        except CasoError as error:
            return error.code
        pytest.fail(f"it got in: {got!r}")

    return ran(tried())


def ran(work: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``; a transport that was aborted closes its socket only in the rounds that follow."""

    async def wait() -> T:
        try:
            return await work
        finally:
            await asyncio.sleep(0.05)

    return asyncio.run(wait())


def calling(address: str, tls: ClientTls, method: str, params: Any) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        async with link_with(address, tls) as link:
            return await link.call(method, params)

    return call


def signed(site: Site, name: str, call_: str, request: Any, **changes: Any) -> dict[str, Any]:
    """A call as the local operator of ``name`` signs it, and what somebody makes of it."""
    store = site.identity(name)
    made = sign_request(
        store.load_operator().key, mesh=store.load_mesh_id(), call=call_, params=pack(to_wire(request)),
        request_id=uuid.uuid4().hex, now_ns=time.time_ns(),
    )  # fmt: skip
    fields = ("call", "params", "request_id", "operator", "at_ns", "signature")
    return to_wire(n.SignedCall(**({each: getattr(made, each) for each in fields} | changes)))


# --- before there is a link ---


def raw(site: Site, host: str, speak: Callable[[socket.socket], bytes]) -> bytes:
    """Speaks with alpha's port from a host of its own, as somebody who has no business there."""
    where = split_address(site.mesh.endpoint("alpha"))
    with socket.create_connection(where, 60.0, source_address=(host, 0)) as plain:
        return speak(plain)


def test_plain_tcp(site: Site) -> None:
    def speak(plain: socket.socket) -> bytes:
        plain.sendall(b"GET /link HTTP/1.1\r\nHost: alpha\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # what was sent is thrown away unread
            return plain.recv(1000)
        return b""

    assert raw(site, "127.0.0.21", speak) == b""
    entry = site.audited("peer-not-tls", what="link", who="anonymous", category="security")
    assert entry["source"].startswith("127.0.0.21:")
    assert "http request" in entry["fields"]["detail"]


def test_tls_1_2(site: Site) -> None:
    def speak(plain: socket.socket) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain)
        return b""

    raw(site, "127.0.0.22", speak)
    assert "protocol" in site.audited_from("127.0.0.22", "peer-not-tls")["fields"]["detail"]


def shown_from(site: Site, host: str, tls: ClientTls) -> None:
    """TLS 1.3 tells a client with its first read that its certificate is not taken."""

    def speak(plain: socket.socket) -> bytes:
        context = tls.current()
        with context.wrap_socket(plain) as secure, pytest.raises(ssl.SSLError):
            secure.recv(1)
        return b""

    raw(site, host, speak)
    entry = site.audited_from(host, "certificate-refused")
    assert (entry["who"], entry["category"]) == ("anonymous", "security")


def test_a_certificate_of_another_mesh(site: Site) -> None:
    other = Authority.create(mesh_id="other", mesh_name="other", voter="x", now_ns=time.time_ns())
    keys = NodeKeys.create()
    chain = other.chain(other.issue_node(keys.public_key, now_ns=time.time_ns()))
    shown_from(site, "127.0.0.23", site.showing(chain, keys.signing))


def test_a_self_signed_certificate_for_the_key_of_a_member(site: Site) -> None:
    keys = site.identity("beta").load_keys()
    chain = (certificates.self_signed(keys.signing.private, time.time_ns()),)
    shown_from(site, "127.0.0.24", site.showing(chain, keys.signing))


def test_a_certificate_of_this_mesh_for_a_key_that_is_not_on_the_roster(site: Site) -> None:
    authority, keys = site.identity("alpha").load_authority(), NodeKeys.create()
    chain = authority.chain(authority.issue_node(keys.public_key, now_ns=time.time_ns()))
    tls = site.showing(chain, keys.signing)
    assert refusal(calling(site.mesh.endpoint("alpha"), tls, "enrol.anchors", {})) == "not-on-roster"
    site.audited("not-on-roster", who=keys.id[:13], what="link")


# --- with a certificate ---


def test_an_expired_certificate_does_nothing_but_renew(site: Site) -> None:
    authority, keys = site.identity("alpha").load_authority(), site.identity("gamma").load_keys()
    then_ns = time.time_ns() - 30 * 86400 * 10**9
    tls = site.showing(authority.chain(authority.issue_node(keys.public_key, now_ns=then_ns)), keys.signing)
    assert refusal(calling(site.mesh.endpoint("alpha"), tls, "journal.cursors", {})) == "role-too-low"
    site.audited("role-too-low", who="gamma", what="journal.cursors")


def test_a_removed_server(site: Site) -> None:
    site.mesh.ok("delta", "join", site.mesh.link(), "--server", "delta", "--listen", "127.0.0.1:0", json_output=False)
    site.mesh.ok("alpha", "server", "remove", "delta")
    tls = site.as_node("delta")

    def has_heard(at: str) -> bool:
        try:
            return refusal(calling(site.mesh.endpoint(at), tls, "enrol.anchors", {})) == "removed-from-mesh"
        except pytest.fail.Exception:
            return False  # it gets in until then

    for at in ("alpha", "beta"):
        wait_for(lambda at=at: has_heard(at), what=f"{at} has heard of it")
        site.audited("removed-from-mesh", who="delta", what="link", server=at)


def test_a_role_that_does_not_reach(site: Site) -> None:
    refused = site.mesh.cli("beta", "token", "create")
    assert (refused.status, refused.error_code) == (4, "role-too-low"), refused
    site.audited("role-too-low", who="local-beta", what="token.create")


def test_a_person_who_poses_as_a_server(site: Site) -> None:
    at = site.mesh.endpoint("alpha")
    assert refusal(calling(at, site.as_operator("alpha"), "journal.cursors", {})) == "role-too-low"
    site.audited("role-too-low", who="local-alpha", what="journal.cursors")


def test_an_operator_outside_of_his_scope(site: Site) -> None:
    refused = site.anna("backup", "beta:/etc", "--to", "any")
    assert (refused.status, refused.error_code) == (4, "outside-scope"), refused
    site.audited("outside-scope", who="anna", what="backup")
    # what is not there is answered alike: nobody learns what others have
    for name in (site.set[:-1] + "x", "no-such-set"):
        assert site.anna("verify", name).error_code == "outside-scope"
    assert site.anna("verify", site.set).status == 0


def test_a_revoked_operator_on_the_link_that_he_has(site: Site) -> None:
    invited = site.mesh.ok("alpha", "operator", "create", "mallory", "--role", "admin")
    key, link_secret = SigningKey.create(), tokens.parse_link(invited["link"], "operator")
    binding = tokens.digest(link_secret.secret)
    signature = enrolment.sign_operator(key, mesh=link_secret.mesh, binding=binding)
    request = j.OperatorRequest(link_secret.secret, key.public_key, signature)
    at = site.mesh.endpoint("beta")

    async def attack() -> Any:
        nobody = ClientTls(lambda: client_context(None, None, site.anchors()))
        async with link_with(at, nobody) as link:
            reply = await link.call("enrol.operator", to_wire(request))

        def mallory(name: str) -> dict[str, Any]:
            made = sign_request(
                key, mesh=link_secret.mesh, call=name, params=pack({}), request_id=uuid.uuid4().hex,
                now_ns=time.time_ns(),
            )  # fmt: skip
            fields = ("call", "params", "request_id", "operator", "at_ns", "signature")
            return to_wire(n.SignedCall(**{each: getattr(made, each) for each in fields}))

        mine = site.showing(tuple(reply["certificate"]), key)

        async def lets_in() -> bool:
            with contextlib.suppress(NotOnRoster):  # the administrator has answered, and tells the others now
                async with link_with(at, mine) as link:
                    return bool(await link.call("call.signed", mallory("pool.list")) == {"pools": []})
            return False

        await wait_for_async(lets_in, what="beta has heard of mallory")
        async with link_with(at, mine) as link:
            assert await link.call("call.signed", mallory("pool.list")) == {"pools": []}
            await asyncio.to_thread(site.mesh.ok, "alpha", "operator", "revoke", "mallory")
            return await link.call("call.signed", mallory("pool.list"))

    # by the administrator who knows it already, or by the server that heard of it a moment later
    assert refusal(attack) == "removed-from-mesh"
    site.audited("removed-from-mesh")


def test_a_server_that_changes_a_persons_call(site: Site) -> None:
    forged = signed(site, "alpha", "server.list", q.ServerListRequest(), call="token.create")
    assert (
        refusal(calling(site.mesh.endpoint("alpha"), site.as_node("beta"), "call.signed", forged)) == "request-refused"
    )
    site.audited("request-refused", who="beta", what="token.create")


def test_a_persons_call_that_is_played_again_much_later(site: Site) -> None:
    store = site.identity("alpha")
    made = sign_request(
        store.load_operator().key, mesh=store.load_mesh_id(), call="pool.list", params=pack({}),
        request_id="again", now_ns=time.time_ns() - 3600 * 10**9,
    )  # fmt: skip
    fields = ("call", "params", "request_id", "operator", "at_ns", "signature")
    replayed = to_wire(n.SignedCall(**{each: getattr(made, each) for each in fields}))
    at = site.mesh.endpoint("alpha")
    assert refusal(calling(at, site.as_node("gamma"), "call.signed", replayed)) == "request-refused"
    site.audited("request-refused", who="gamma", what="pool.list")


# --- the administrator's word ---


def test_orders_of_an_older_term_and_of_another_lineage(site: Site) -> None:
    """Whoever got at the administrator's key, or an administrator of before, puts an old word in force."""
    orders, at = site.orders("beta"), site.mesh.endpoint("beta")
    now = orders.authority
    for old in (
        structs.replace(now, term=now.term - 1, index=10**9),
        structs.replace(now, lineage=now.lineage - 1, term=99),
    ):
        params = to_wire(structs.replace(orders, authority=old))
        assert refusal(calling(at, site.as_node("alpha"), "orders.put", params)) == "stale-orders"
    site.audited("stale-orders", who="alpha", what="orders.put", server="beta")


def test_orders_of_who_is_not_in_office(site: Site) -> None:
    orders = site.orders("beta")
    taken = structs.replace(orders, authority=structs.replace(orders.authority, term=99))
    params, at = to_wire(taken), site.mesh.endpoint("beta")
    assert refusal(calling(at, site.as_node("gamma"), "orders.put", params)) == "refused"
    site.audited("refused", who="gamma", what="orders.put", server="beta")
    gamma = site.identity("gamma").load_id()
    params = to_wire(structs.replace(taken, admin=gamma))
    assert refusal(calling(at, site.as_node("gamma"), "orders.put", params)) == "refused"  # it is no voter


def test_a_path_outside_of_the_servers_own_allow_list(site: Site) -> None:
    """Also for an administrator: what a server's own file does not allow is not read."""
    refused = site.mesh.cli("alpha", "backup", f"beta:{site.mesh.state('beta')}", "--to", "any")
    assert (refused.status, refused.error_code) == (4, "not-allowed-here"), refused
    site.audited("not-allowed-here", who="local-alpha", what="backup")
    site.audited("not-allowed-here", who="alpha", what="path.check", server="beta")


# --- joining ---


def test_the_second_use_of_a_join_link(site: Site) -> None:
    link = site.mesh.link()
    site.mesh.ok("eps", "join", link, "--server", "eps", "--listen", "127.0.0.1:0", json_output=False)
    second = site.mesh.cli("zeta", "join", link, "--server", "zeta", "--listen", "127.0.0.1:0")
    assert (second.status, second.error_code) == (4, "join-link-used"), second
    site.audited("join-link-used", who="zeta", what="enrol.join")
    site.mesh.ok("alpha", "server", "remove", "eps")


def test_a_link_for_a_person_is_none_for_a_server(site: Site) -> None:
    made = site.mesh.ok("alpha", "operator", "create", "eve", "--role", "viewer")
    parsed = tokens.parse_link(made["link"], "operator")
    turned = tokens.make_link(
        mesh=parsed.mesh, root_fingerprint=parsed.root, addresses=parsed.addresses, secret=parsed.secret,
        expires_at_ns=parsed.expires_at_ns,
    )  # fmt: skip
    refused = site.mesh.cli("eta", "join", turned, "--server", "eta", "--listen", "127.0.0.1:0")
    assert (refused.status, refused.error_code) == (4, "join-link-invalid"), refused
    site.audited("join-link-invalid", who="eta", what="enrol.join")


def test_a_flood_of_guesses_is_bounded_and_does_not_fill_the_audit_log(site: Site) -> None:
    nobody = ClientTls(lambda: client_context(None, None, site.anchors()))
    guess = to_wire(j.JoinRequest(b"guess" * 4, "flood", b"k", b"e" * 32, b"o", (), "1", b"s"))

    async def attack() -> list[str]:
        codes = []
        async with link_with(site.mesh.endpoint("alpha"), nobody) as link:
            for _ in range(300):
                try:
                    await link.call("enrol.join", guess)
                except CasoError as error:
                    codes.append(error.code)
        return codes

    codes = ran(attack())
    assert len(codes) == 300
    assert codes.count("join-link-invalid") <= 10
    assert codes.count("rate-limited") >= 290
    site.audited("rate-limited", who="anonymous", what="enrol.join", category="security")
    entries = site.mesh.ok("alpha", "audit", "list")["entries"]
    assert sum(row["who"] == "flood" or row["outcome"] == "rate-limited" for row in entries) <= 12


async def test_an_approval_code_that_was_ground(tmp_path: pathlib.Path) -> None:
    """Somebody in between commits to one key and, having seen the administrator's nonce, reveals another one whose code fits."""
    from mesh.inside import LiveMesh
    from waiting import wait_for_async

    from caso_mesh.model import views as v

    hub = MemoryHub()

    class Ground:
        """It announces itself as a new server, and shows another key than it had committed to."""

        def __init__(self) -> None:
            self.keys, self.other = NodeKeys.create(), NodeKeys.create()
            self.nonce = os.urandom(NONCE_SIZE)

        async def call(self, link: Any, method: str, params: Any) -> Any:
            if method == "adopt.commit":
                return to_wire(j.AdoptCommitReply(commitment(self.nonce, self.other.public_key)))
            return to_wire(
                j.AdoptRevealReply(
                    self.nonce, self.keys.public_key, "newcomer", b"e" * 32, self.other.public_key, (), "1", b"s",
                    "lan", False,
                )
            )  # fmt: skip

        async def notify(self, link: Any, method: str, params: Any) -> None: ...

        async def stream(self, link: Any, method: str, params: Any, stream: Any) -> None: ...

    class Seeing(LiveMesh):
        def ports(self, name: str, certificate: bytes | None) -> Any:
            seen = contextlib.nullcontext(MemoryDiscovery(hub))
            return dataclasses.replace(super().ports(name, certificate), discovery=lambda config: seen)

    mesh, ground = Seeing(tmp_path), Ground()
    (tmp_path / "cert.pem").write_bytes(
        certificates.to_pem((certificates.self_signed(ground.keys.signing.private, time.time_ns()),))
    )
    (tmp_path / "key.pem").write_bytes(ground.keys.signing.to_pem())
    try:
        await mesh.start(1)
        tls = ServerTls(lambda: server_context(tmp_path / "cert.pem", tmp_path / "key.pem", (), ask_client=False))
        listening = WebSocketNetwork().listen("127.0.0.1:0", tls=tls, authorise=lambda _: ANONYMOUS, handler=ground)
        async with listening as listener:
            claim = Sighting(None, ground.keys.id, "newcomer", (listener.address,), "1", "i", "mdns")
            await MemoryDiscovery(hub).announce(claim)

            async def audited() -> Any:
                found = await mesh.call("alpha", "audit.list", audit_log.AuditListRequest(), audit_log.AuditList)
                return next((row for row in found.entries if row.what == "server.greet"), None)

            entry = await wait_for_async(audited, 30.0, what="it is in the audit log", every_s=0.1)
            assert (entry.who, entry.outcome, entry.source) == ("newcomer", "peer-fault", listener.address)
            assert "another key" in entry.fields["detail"]
            listed = await mesh.call("alpha", "server.list", q.ServerListRequest(discovered=True), v.ServerList)
            assert listed.servers == ()  # nobody can approve it
    finally:
        await mesh.close()


# --- what is said ---


def test_an_oversized_frame(site: Site) -> None:
    async def attack() -> Any:
        async with link_with(site.mesh.endpoint("alpha"), site.as_operator("beta")) as link:
            await link._channel._websocket.send_bytes(b"\0" * (FRAGMENT_BYTES + 100))  # type: ignore[attr-defined]
            reason = await link.wait_closed()
            assert reason is not None
            raise reason

    assert refusal(attack) in {"peer-oversized", LinkLost.code}
    site.audited("peer-oversized", who="local-beta", what="link")


def test_mistyped_fields_and_calls_that_do_not_exist(site: Site) -> None:
    at = site.mesh.endpoint("alpha")
    beta, gamma = site.as_node("beta"), site.as_node("gamma")
    assert refusal(calling(at, beta, "server.heartbeat", {"now_ns": "soon", "running": 7})) == "peer-malformed"
    site.audited("peer-malformed", who="beta", what="server.heartbeat")
    assert refusal(calling(at, gamma, "call.signed", {"call": 1, "params": "x"})) == "peer-malformed"
    site.audited("peer-malformed", who="gamma", what="call.signed")
    assert refusal(calling(at, beta, "mesh.give-me-all", {})) == "unknown-call"
    site.audited("unknown-call", who="beta", what="mesh.give-me-all")


# --- bulk channels ---


def test_a_bulk_channel_of_no_attempt(site: Site) -> None:
    async def attack() -> Any:
        return await dial_bulk(
            site.mesh.endpoint("beta"), bulk_token(os.urandom(32)), tls=site.as_node("gamma"),
            authorise=lambda certificate: None, handler=RefusesAll(),
        )  # fmt: skip

    assert refusal(attack) == "cannot-connect"
    site.audited("unknown-attempt", what="bulk", server="beta")


@pytest.fixture
def waiting(site: Site) -> Iterator[AttemptOrder]:
    """An attempt at beta whose source, gamma, does not come: whoever has gamma's key may try in its place."""
    made = site.mesh.ok(
        "alpha", "backup", f"gamma:{site.mesh.folder / 'files'}", "--to", "device:disk", "--schedule", "0 3 1 1 *",
        "--name", f"job-{uuid.uuid4().hex[:8]}",
    )  # fmt: skip
    site.mesh.signal("gamma", signal.SIGSTOP)
    try:
        site.mesh.ok("alpha", "job", "run", made["job"])

        def delegated() -> AttemptOrder | None:
            return next((each for each in site.orders("beta").attempts if each.job == made["job"]), None)

        order = wait_for(delegated, 30.0, what="it is delegated to beta", every_s=0.1)
        assert order is not None
        wait_for(lambda: site.mesh.workers("beta"), 30.0, what="beta's worker waits for the source")
        yield order
    finally:
        site.mesh.signal("gamma", signal.SIGCONT)
        site.mesh.cli("alpha", "job", "cancel", made["job"])
        site.mesh.wait_connected("gamma")


@contextlib.asynccontextmanager
async def bulk(site: Site, order: AttemptOrder, who: str) -> AsyncIterator[Link]:
    link = await dial_bulk(
        site.mesh.endpoint("beta"), bulk_token(order.secret), tls=site.as_node(who),
        authorise=lambda certificate: None, handler=RefusesAll(),
    )  # fmt: skip
    try:
        yield link
    except LinkLost as lost:
        # the goodbye, which says why, was before the answer
        raise await link.wait_closed() or lost from None
    finally:
        await link.close()


def joining(site: Site, order: AttemptOrder, ticket: bytes, who: str = "gamma") -> str:
    async def attack() -> Any:
        async with bulk(site, order, who) as link:
            return await link.call("join", to_wire(Join(order.attempt, ticket, order.secret)))

    return refusal(attack)


def test_tickets_that_were_used_before_borrowed_or_are_for_other_paths(site: Site, waiting: AttemptOrder) -> None:
    issuer = site.identity("alpha").load_keys()
    true = tickets.read_unchecked(waiting.ticket)

    def made(**changes: Any) -> bytes:
        ticket = structs.replace(true, **changes)
        return tickets.issue(
            issuer, attempt=ticket.attempt, part=ticket.part, dialler=ticket.dialler, acceptor=ticket.acceptor,
            paths=ticket.paths, lineage=ticket.lineage, term=ticket.term, index=ticket.index,
            now_ns=ticket.issued_at_ns, randomness=os.urandom,
        )  # fmt: skip

    alpha = site.identity("alpha").load_id()
    ways = {
        "it is for another attempt": made(attempt="an-earlier-one@1#1"),  # played again
        "it is for other servers": made(dialler=alpha),  # borrowed
        "it is for other paths": made(paths=tickets.digest_of_paths([b"etc"])),  # outside of what it is for
        "an administrator of an earlier term issued it": made(term=true.term - 1),
        "it has expired": made(issued_at_ns=time.time_ns() - 3600 * 10**9),
        "it is malformed": b"ticket",
    }
    for reason, ticket in ways.items():
        assert joining(site, waiting, ticket) == "ticket-invalid", reason
    rows: list[dict[str, Any]] = []

    def all_told() -> bool:
        rows[:] = [
            row for row in site.mesh.ok("alpha", "audit", "list")["entries"] if row["outcome"] == "ticket-invalid"
        ]
        return {row["fields"]["reason"] for row in rows} >= set(ways)

    wait_for(all_told, 30.0, what="each is in the audit log", every_s=0.2)
    assert {(row["who"], row["what"], row["server"]) for row in rows} == {("gamma", "bulk", "beta")}
    assert all(row["source"].startswith("127.0.0.1:") and row["fields"]["attempt"] == waiting.attempt for row in rows)
    # another member has the true one, and even the secret
    assert joining(site, waiting, waiting.ticket, who="alpha") == "wrong-peer"
    site.audited("wrong-peer", what="bulk", server="beta")


def test_a_source_that_names_what_it_never_sent(site: Site, waiting: AttemptOrder) -> None:
    """The id of a tree of somebody else, in the hope that it is restored to it one day."""

    async def attack() -> Any:
        async with bulk(site, waiting, "gamma") as link:
            await link.call("join", to_wire(Join(waiting.attempt, waiting.ticket, waiting.secret)))
            await link.call("begin", {"number": 1, "low": 1, "params": {"now_ns": time.time_ns()}})
            counts = {"files": 0, "bytes": 0, "bytes_read": 0, "bytes_stored": 0, "entries": 0, "exceptions": 0}
            finish = {"root": os.urandom(32), "report": {"counts": counts}}
            return await link.call("finish", {"number": 2, "low": 2, "params": finish})

    assert refusal(attack) == "peer-fault"
    entry = site.audited("peer-fault", who="gamma", what="bulk", server="beta")
    assert "never sent" in entry["fields"]["reason"]
