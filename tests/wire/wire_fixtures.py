"""Certificates, handlers and small waits for the tests of the wire."""

from __future__ import annotations

import asyncio
import datetime
import functools
import ipaddress
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from caso_mesh.model.errors import NotOnRoster, UnknownCall
from caso_mesh.wire.link import Link
from caso_mesh.wire.network import ClientTls, ServerTls
from caso_mesh.wire.stream import Stream

_LIFE = datetime.timedelta(days=1)


class Identity:
    """One key and certificate under a CA, as PEM files' contents and the leaf's DER."""

    def __init__(self, ca: Authority, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = ca.sign(key.public_key(), name)
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.pem = (
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        ).decode()


class Authority:
    """A CA of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")])
        self.certificate = self._builder(self._name, self._key.public_key(), ca=True).sign(self._key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, key: ec.EllipticCurvePublicKey, name: str) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            self._builder(subject, key, ca=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LIFE)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )


@functools.cache
def pki() -> tuple[Authority, Identity, Identity, Identity]:
    """A CA, two identities under it, and one under another CA; made once per run."""
    ours, foreign = Authority(), Authority()
    return ours, Identity(ours, "alpha"), Identity(ours, "beta"), Identity(foreign, "eve")


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # the ssl module reads keys from files only
        Path(file.name).write_text(identity.pem)
        context.load_cert_chain(file.name)


def server_tls(identity: Identity, *, optional: bool = False) -> ServerTls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, identity)
    context.load_verify_locations(cadata=pki()[0].pem)
    context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return ServerTls(lambda: context)


def client_tls(identity: Identity | None) -> ClientTls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki()[0].pem)
    if identity is not None:
        _load(context, identity)
    return ClientTls(lambda: context)


def only(*allowed: bytes | None) -> Callable[[bytes | None], str]:
    """An ``authorise`` that knows these certificates."""

    def authorise(certificate: bytes | None) -> str:
        if certificate not in allowed:
            raise NotOnRoster(peer="somebody")
        return f"peer{allowed.index(certificate)}"

    return authorise


class Answers:
    """A handler out of functions: ``calls[method](link, params)``, and all notifications in order."""

    def __init__(self, **calls: Callable[[Link, Any], Any]) -> None:
        self.calls = calls
        self.streams: dict[str, Callable[[Link, Any, Stream], Any]] = {}
        self.notices: list[tuple[str, Any]] = []
        self.gate: asyncio.Event | None = None

    async def call(self, link: Link, method: str, params: Any) -> Any:
        if method not in self.calls:
            raise UnknownCall(peer=link.remote_address, call=method)
        return await self.calls[method](link, params)

    async def notify(self, link: Link, method: str, params: Any) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.notices.append((method, params))

    async def stream(self, link: Link, method: str, params: Any, stream: Stream) -> None:
        if method not in self.streams:
            raise UnknownCall(peer=link.remote_address, call=method)
        await self.streams[method](link, params, stream)


async def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Until ``condition`` holds, or the test fails."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)
