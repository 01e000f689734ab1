"""Real TLS 1.3 handshakes over socket pairs: who is let in, as whom, and who is not."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest

from caso_mesh.identity import certificates, tls
from caso_mesh.identity.authority import Authority
from caso_mesh.identity.keys import NodeKeys, SigningKey
from caso_mesh.identity.roster import Peer, authorise, may
from caso_mesh.model.errors import CertificateRefused, NotOnRoster, RemovedFromMesh, StateDamaged
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

    def files(
        self, key: SigningKey, *, authority: Authority | None = None, issued_at: int = NOW
    ) -> tuple[Path, Path]:
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
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = loop.create_future()

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

    accepted.cancel()
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
