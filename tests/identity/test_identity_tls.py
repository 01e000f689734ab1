"""Real TLS 1.3 handshakes over socket pairs: who is let in, as whom, and who is not."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from caso_mesh.identity import certificates, tls
from caso_mesh.identity.authority import Authority, create_ca_key, public_key_of_key
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.roster import Peer, authorise, may
from caso_mesh.identity.store import IdentityStore
from caso_mesh.model.errors import CertificateRefused, Misuse, NotOnRoster, RemovedFromMesh, StateDamaged
from caso_mesh.model.mesh import Anchor, MeshInfo, Roster, RosterRow
from caso_mesh.model.states import Role

NOW = 1_800_000_000_000_000_000
DAY = 86400 * 10**9


class World:
    """One mesh with an authority, and a folder for the PEM files that ``ssl`` wants."""

    def __init__(self, folder: Path, name: str = "lab") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.first = NodeKeys.create()
        self.authority = Authority.create(mesh_id="m" * 26, mesh_name=name, voter=self.first.id, now_ns=NOW)
        self.roster = Roster(MeshInfo("m" * 26, name, NOW), self.authority.anchors(self.first.id), ())

    @property
    def anchors(self) -> list[bytes]:
        return [anchor.certificate for anchor in self.roster.anchors]

    def admit(self, keys: NodeKeys | SigningKey, name: str, role: Role | None = None) -> None:
        row = RosterRow(keys.id, name, "operator" if role else "node", keys.public_key, role=role)
        self.roster = Roster(self.roster.mesh, self.roster.anchors, (*self.roster.rows, row), self.roster.removed)

    def member(self, name: str, *, authority: Authority | None = None, issued_at: int = NOW) -> tuple[Path, Path]:
        keys = NodeKeys.create()
        self.admit(keys, name)
        return self.files(keys.signing, authority=authority, issued_at=issued_at)

    def files(self, key: SigningKey, *, authority: Authority | None = None, issued_at: int = NOW) -> tuple[Path, Path]:
        authority = authority or self.authority
        certificate = authority.issue_node(key.public_key, now_ns=issued_at)
        stem = self.folder / os.urandom(6).hex()
        chain, private = stem.with_suffix(".pem"), stem.with_suffix(".key")
        chain.write_bytes(certificates.to_pem(authority.chain(certificate)))
        private.write_bytes(key.to_pem())
        return chain, private


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes | None, bytes | None]:
    """A handshake and one byte each way; gives the certificates that (server, client) saw, or raises what broke it."""
    left, right = socket.socketpair()
    loop = asyncio.get_running_loop()

    async def accept() -> tuple[bytes | None, asyncio.StreamWriter]:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, left, ssl=server)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            writer.write(b"s")
            assert await reader.readexactly(1) == b"c"
            return transport.get_extra_info("ssl_object").getpeercert(True), writer
        except BaseException:
            transport.abort()
            raise

    async def dial() -> tuple[bytes | None, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(sock=right, ssl=client, server_hostname="")
        try:
            writer.write(b"c")
            assert await reader.readexactly(1) == b"s"
            return writer.get_extra_info("ssl_object").getpeercert(True), writer
        except BaseException:
            writer.transport.abort()
            raise

    results = await asyncio.gather(accept(), dial(), return_exceptions=True)
    for result in results:
        if not isinstance(result, BaseException):
            result[1].transport.abort()
    await asyncio.sleep(0)
    left.close()
    right.close()
    broken = [result for result in results if isinstance(result, BaseException)]
    if broken:
        # the one that refuses says why; the other sees an alert or the end
        raise next((each for each in broken if isinstance(each, ssl.SSLCertVerificationError)), broken[0])
    (seen_by_server, _), (seen_by_client, _) = results  # type: ignore[misc]
    return seen_by_server, seen_by_client


async def test_two_members_see_each_other_as_their_roster_rows(world: World) -> None:
    alpha, beta = world.member("alpha"), world.member("beta")
    by_server, by_client = await shake(
        tls.server_context(*alpha, world.anchors), tls.client_context(*beta, world.anchors)
    )
    assert authorise(world.roster, by_server, now_ns=NOW).name == "beta"
    seen = authorise(world.roster, by_client, now_ns=NOW)
    assert (seen.name, seen.kind, seen.expired) == ("alpha", "node", False)


async def test_a_server_of_another_mesh_is_refused_by_both_ends(world: World, tmp_path: Path) -> None:
    foreign = World(tmp_path, "foreign")
    alpha, stranger = world.member("alpha"), foreign.member("beta")
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(*alpha, world.anchors), tls.client_context(*stranger, world.anchors))
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(*stranger, world.anchors), tls.client_context(*alpha, world.anchors))


async def test_a_member_that_only_copied_the_names_of_another_is_refused(world: World, tmp_path: Path) -> None:
    """A CA with the same names but another key: nothing but the key counts."""
    double = World(tmp_path, "double")
    double.authority = Authority.create(mesh_id="m" * 26, mesh_name="lab", voter=world.first.id, now_ns=NOW)
    alpha, stranger = world.member("alpha"), double.member("alpha")
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(*alpha, world.anchors), tls.client_context(*stranger, world.anchors))


async def test_an_expired_certificate_passes_tls_and_may_only_renew(world: World) -> None:
    alpha, old = world.member("alpha"), world.member("old", issued_at=NOW - 60 * DAY)
    by_server, by_client = await shake(
        tls.server_context(*alpha, world.anchors), tls.client_context(*old, world.anchors)
    )
    peer = authorise(world.roster, by_server, now_ns=NOW)
    assert (peer.name, peer.expired) == ("old", True)
    assert authorise(world.roster, by_client, now_ns=NOW).expired is False
    # and the other way round: the administrator dials the one whose certificate expired
    _, by_client = await shake(tls.server_context(*old, world.anchors), tls.client_context(*alpha, world.anchors))
    assert authorise(world.roster, by_client, now_ns=NOW).expired is True


async def test_really_expired_by_the_clock_of_this_machine_still_passes_tls(world: World) -> None:
    """The other tests use a fixed time; here OpenSSL itself would see an expired certificate if it looked."""
    past = World(world.folder, "past")
    past.authority = Authority.create(
        mesh_id="p" * 26, mesh_name="past", voter=past.first.id, now_ns=1_500_000_000 * 10**9
    )
    past.roster = Roster(past.roster.mesh, past.authority.anchors(past.first.id), ())
    first, second = (past.member(name, issued_at=1_500_000_000 * 10**9) for name in ("first", "second"))
    by_server, _ = await shake(tls.server_context(*first, past.anchors), tls.client_context(*second, past.anchors))
    assert authorise(past.roster, by_server, now_ns=1_700_000_000 * 10**9).expired is True


async def test_a_removed_server_passes_tls_and_is_refused_by_the_roster(world: World) -> None:
    alpha = world.member("alpha")
    keys = NodeKeys.create()
    gone = world.files(keys.signing)
    by_server, _ = await shake(tls.server_context(*alpha, world.anchors), tls.client_context(*gone, world.anchors))
    with pytest.raises(NotOnRoster) as unknown:
        authorise(world.roster, by_server, now_ns=NOW)
    assert not isinstance(unknown.value, RemovedFromMesh)
    # its id stays refused even if a row for it were left behind
    world.admit(keys, "gone")
    roster = Roster(world.roster.mesh, world.roster.anchors, world.roster.rows, (keys.id,))
    with pytest.raises(RemovedFromMesh):
        authorise(roster, by_server, now_ns=NOW)


async def test_without_a_certificate_a_client_is_anonymous(world: World) -> None:
    alpha = world.member("alpha")
    by_server, by_client = await shake(
        tls.server_context(*alpha, world.anchors), tls.client_context(None, None, world.anchors)
    )
    assert by_server is None
    assert authorise(world.roster, by_server, now_ns=NOW) == Peer(id="", name="anonymous", kind="anonymous")
    assert authorise(world.roster, by_client, now_ns=NOW).name == "alpha"


async def test_an_issuing_certificate_that_was_dropped_is_no_way_in(world: World) -> None:
    """Also when the peer shows it in its chain, and though the root, which signed it, is still listed."""
    voter = NodeKeys.create()
    second = Authority.from_root(
        world.authority.root,
        world.authority.root_key_bytes(),
        voter=voter.id,
        mesh_name="lab",
        now_ns=NOW,
    )
    alpha, beta = world.member("alpha"), world.member("beta", authority=second)
    listed = (*world.anchors, second.issuing)
    by_server, _ = await shake(tls.server_context(*alpha, listed), tls.client_context(*beta, listed))
    with pytest.raises(CertificateRefused):
        authorise(world.roster, by_server, now_ns=NOW)
    with_it = Roster(world.roster.mesh, (*world.roster.anchors, Anchor(second.issuing, voter.id)), world.roster.rows)
    assert authorise(with_it, by_server, now_ns=NOW).name == "beta"
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(*alpha, world.anchors), tls.client_context(*beta, world.anchors))
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(*beta, world.anchors), tls.client_context(*alpha, world.anchors))


async def test_a_voter_whose_issuing_certificate_another_voter_signed_issues_too(world: World) -> None:
    """The administrator's issuing certificate has path length 0; a listed one is an anchor of its own."""
    voter = NodeKeys.create()
    store = IdentityStore(world.folder / "voter")
    asked = store.prepare_issuing()
    assert store.prepare_issuing() == asked
    issued = world.authority.issue_issuing(asked, voter=voter.id, mesh_name="lab", now_ns=NOW)
    store.accept_issuing(world.authority.root, issued)
    # a seat that is given again before the server knew that it had lost it: a new certificate for the key it has
    again = world.authority.issue_issuing(asked, voter=voter.id, mesh_name="lab", now_ns=NOW + 1)
    second = store.accept_issuing(world.authority.root, again)
    assert second.issuing == store.load_authority().issuing == again
    strange = world.authority.issue_issuing(voter.public_key, voter=voter.id, mesh_name="lab", now_ns=NOW)
    with pytest.raises(Misuse):
        store.accept_issuing(world.authority.root, strange)
    alpha, beta = world.member("alpha"), world.member("beta", authority=second)
    listed = (*world.anchors, second.issuing)
    by_server, _ = await shake(tls.server_context(*alpha, listed), tls.client_context(*beta, listed))
    roster = Roster(world.roster.mesh, (*world.roster.anchors, Anchor(second.issuing, voter.id)), world.roster.rows)
    assert authorise(roster, by_server, now_ns=NOW).name == "beta"


async def test_a_node_cannot_issue_certificates_with_its_own_key(world: World) -> None:
    """A chain below a node's certificate is refused by TLS and, in memory, by the roster."""
    alpha = world.member("alpha")
    rogue = SigningKey.create()
    world.admit(rogue, "rogue")
    rogue_certificate = world.authority.issue_node(rogue.public_key, now_ns=NOW)
    victim = SigningKey.create()
    world.admit(victim, "victim")
    forged = certificates.issue_node(victim.public_key, signer=rogue_certificate, signer_key=rogue.private, now_ns=NOW)
    chain, key = world.folder / "forged.pem", world.folder / "forged.key"
    chain.write_bytes(certificates.to_pem([forged, rogue_certificate, world.authority.issuing]))
    key.write_bytes(victim.to_pem())
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(*alpha, world.anchors), tls.client_context(chain, key, world.anchors))
    with pytest.raises(CertificateRefused):
        authorise(world.roster, forged, now_ns=NOW)


async def test_tls_1_2_is_refused_on_both_ends(world: World) -> None:
    alpha, beta = world.member("alpha"), world.member("beta")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.load_cert_chain(*beta)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(tls.server_context(*alpha, world.anchors), old)
    old_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old_server.load_cert_chain(*alpha)
    old_server.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(old_server, tls.client_context(*beta, world.anchors))


async def test_a_new_server_shows_its_own_key_to_whoever_adopts_it(world: World) -> None:
    new, alpha = NodeKeys.create(), world.member("alpha")
    chain, key = world.folder / "new.pem", world.folder / "new.key"
    chain.write_bytes(certificates.to_pem([certificates.self_signed(new.signing.private, NOW)]))
    key.write_bytes(new.signing.to_pem())
    by_server, by_client = await shake(
        tls.server_context(chain, key, [], ask_client=False), tls.unverified_client_context(*alpha)
    )
    assert by_server is None
    assert by_client is not None
    assert certificates.public_key_of(by_client) == new.public_key
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake(tls.server_context(chain, key, [], ask_client=False), tls.client_context(*alpha, world.anchors))


async def test_a_p256_server_and_a_p256_authority_work_as_well(world: World, tmp_path: Path) -> None:
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = certificates.create_root("q" * 26, "own", root_key, NOW)
    own = World(tmp_path, "own")
    own.authority = Authority.from_root(root, root_key, voter=own.first.id, mesh_name="own", now_ns=NOW)
    own.roster = Roster(own.roster.mesh, own.authority.anchors(own.first.id), ())
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    own.admit(key, "beta")
    by_server, _ = await shake(
        tls.server_context(*own.member("alpha"), own.anchors), tls.client_context(*own.files(key), own.anchors)
    )
    assert authorise(own.roster, by_server, now_ns=NOW).id == key.id


def test_certificates_that_never_saw_tls_are_checked_all_the_same(world: World, tmp_path: Path) -> None:
    keys = NodeKeys.create()
    world.admit(keys, "alpha")
    foreign = World(tmp_path, "foreign")
    with pytest.raises(CertificateRefused, match="nobody who may issue"):
        authorise(world.roster, foreign.authority.issue_node(keys.public_key, now_ns=NOW), now_ns=NOW)
    with pytest.raises(CertificateRefused, match="not a certificate"):
        authorise(world.roster, b"\x30\x03abc", now_ns=NOW)
    good = world.authority.issue_node(keys.public_key, now_ns=NOW)
    assert authorise(world.roster, good, now_ns=NOW).expired is False
    assert authorise(world.roster, good, now_ns=NOW + 8 * DAY).expired is True
    # of a clock that is behind, or was ahead when it was given, no certificate is any worse
    assert authorise(world.roster, good, now_ns=NOW - 30 * DAY).expired is False


def test_a_row_whose_id_is_not_the_hash_of_its_key_gives_nobody_a_role(world: World) -> None:
    mallory, admin = SigningKey.create(), SigningKey.create()
    row = RosterRow(mallory.id, "admin", "operator", admin.public_key, role=Role.ADMIN)
    roster = Roster(world.roster.mesh, world.roster.anchors, (row,))
    with pytest.raises(NotOnRoster):
        authorise(roster, world.authority.issue_operator(mallory.public_key, now_ns=NOW), now_ns=NOW)


def test_roles_hold_in_the_mesh_or_on_the_servers_they_name() -> None:
    peer = Peer("x", "op", "operator", role=Role.VIEWER, server_roles=(("beta", Role.OPERATOR),))
    assert may(peer, Role.VIEWER, None)
    assert may(peer, Role.OPERATOR, "beta")
    assert may(peer, Role.RESTORE, "beta")
    assert not may(peer, Role.OPERATOR, None)
    assert not may(peer, Role.OPERATOR, "alpha")
    assert not may(peer, Role.ADMIN, "beta")
    nobody = Peer("x", "op", "operator", role=None)
    assert not may(nobody, Role.VIEWER, "beta")
    assert not may(Peer("x", "n", "node", role=Role.ADMIN), Role.VIEWER, None)
    assert not may(Peer("x", "op", "operator", role=Role.ADMIN, expired=True), Role.VIEWER, None)
    assert not may(Peer("", "anonymous", "anonymous"), Role.VIEWER, None)


def test_files_that_do_not_fit_are_named_and_nobody_is_asked_for_a_passphrase(world: World) -> None:
    alpha, beta = world.member("alpha"), world.member("beta")
    with pytest.raises(StateDamaged) as mixed:
        tls.server_context(alpha[0], beta[1], world.anchors)
    assert str(alpha[0]) in mixed.value.message
    with pytest.raises(StateDamaged, match="No such file"):
        tls.client_context(world.folder / "none.pem", alpha[1], world.anchors)
    locked = world.folder / "locked.key"
    locked.write_bytes(
        SigningKey.create().private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(StateDamaged):
        tls.server_context(alpha[0], locked, world.anchors)


def test_a_servers_certificate_that_got_into_the_list_of_anchors_signs_nobody_in(world: World) -> None:
    rogue, victim = SigningKey.create(), SigningKey.create()
    world.admit(victim, "victim")
    rogue_certificate = world.authority.issue_node(rogue.public_key, now_ns=NOW)
    roster = Roster(world.roster.mesh, (*world.roster.anchors, Anchor(rogue_certificate)), world.roster.rows)
    forged = certificates.issue_node(victim.public_key, signer=rogue_certificate, signer_key=rogue.private, now_ns=NOW)
    assert certificates.signed_by(forged, rogue_certificate)
    with pytest.raises(CertificateRefused):
        authorise(roster, forged, now_ns=NOW)


def test_a_certificate_is_worth_no_more_than_the_one_that_signed_it(world: World) -> None:
    root_key, issuing_key, key = create_ca_key(), create_ca_key(), SigningKey.create()
    world.admit(key, "alpha")
    root = certificates.create_root("m" * 26, "lab", root_key, NOW)
    long_lived, short_lived = (
        certificates.create_issuing(
            public_key_of_key(issuing_key),
            voter="v" * 52,
            mesh_name="lab",
            signer=root,
            signer_key=root_key,
            now_ns=NOW,
            life_s=life_s,
        )
        for life_s in (30 * 86400.0, 86400.0)
    )
    certificate = certificates.issue_node(key.public_key, signer=long_lived, signer_key=issuing_key, now_ns=NOW)
    for anchors, expired in (((long_lived,), False), ((short_lived,), True), ((short_lived, long_lived), False)):
        roster = Roster(world.roster.mesh, tuple(map(Anchor, anchors)), world.roster.rows)
        assert authorise(roster, certificate, now_ns=NOW + 2 * DAY).expired is expired
