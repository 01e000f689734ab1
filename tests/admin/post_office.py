"""A real mail server and a real web server on this machine, which behave as they are told; and an outbox that uses them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email
import email.policy
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from admin.admin_world import KEYS, LoopFacts
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from control.control_world import NOW, SECOND, Script
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mesh.clock import VirtualClock

from caso_mesh.admin.alarms import Alarms
from caso_mesh.admin.gathering import Gathering
from caso_mesh.admin.keeping import Followers
from caso_mesh.admin.live import Live
from caso_mesh.admin.notifying import Notifying
from caso_mesh.admin.outbox import Outbox, Pauses
from caso_mesh.admin.overnight import overnight
from caso_mesh.admin.reporting import Reporting
from caso_mesh.admin.retaining import Retaining
from caso_mesh.admin.schema import MIGRATIONS
from caso_mesh.admin.tables import Tables
from caso_mesh.database import Database
from caso_mesh.model.clock import WallCalendar
from caso_mesh.model.errors import NoLogon
from caso_mesh.model.logons import Credentials, Logon, PutLogon
from caso_mesh.model.notices import MailServer, MailTls, PutRecipient, Recipient, SetMailServer

SENDER = "backup@mesh.example"


class MailBox:
    """What came, and how the server behaves: ``answer`` instead of taking a mail, ``slow_s`` before it answers."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.to: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.answer: Callable[[EmailMessage], str | None] = lambda mail: None
        self.refuses_recipient: Callable[[str], str | None] = lambda address: None
        self.slow_s = 0.0
        self.port = 0

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802 - aiosmtpd calls it so
        refused = self.refuses_recipient(address)
        if refused is None:
            envelope.rcpt_tos.append(address)
        return refused or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        await asyncio.sleep(self.slow_s)
        refused = self.answer(mail)
        if refused is not None:
            return refused
        self.mails.append(mail)
        self.to += envelope.rcpt_tos
        self.encrypted.append(session.ssl is not None)
        return "250 taken as 4711"

    def login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password == b"correct horse", handled=False)

    def keys(self) -> list[str]:
        """What of the Message-IDs is before the @."""
        return [str(mail["message-id"]).strip("<>").partition("@")[0] for mail in self.mails]


@contextlib.asynccontextmanager
async def mail_server(
    box: MailBox | None = None,
    *,
    port: int = 0,
    starttls: ssl.SSLContext | None = None,
    implicit: ssl.SSLContext | None = None,
    login: bool = False,
) -> AsyncIterator[MailBox]:
    box = box or MailBox()
    open_: list[SMTP] = []

    def make() -> SMTP:
        smtp = SMTP(
            box, hostname="mail.example", tls_context=starttls, require_starttls=False,
            authenticator=box.login if login else None, auth_required=login, auth_require_tls=implicit is None,
        )  # fmt: skip
        open_.append(smtp)
        return smtp

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port, ssl=implicit)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        for smtp in open_:
            if smtp.transport is not None:
                smtp.transport.abort()
        await server.wait_closed()


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1, and the certificate that is believed of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "mail.pem").write_bytes(pem + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "mail.pem")
    return context, pem.decode()


class Hook:
    """What was posted, and how it is answered."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[int], web.Response] = lambda number: web.Response(status=204)
        self.hangs = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=very-secret"

    async def take(self, request: web.Request) -> web.Response:
        self.posts.append((request.path, dict(request.headers), await request.read()))
        while self.hangs:  # noqa: ASYNC110 - it ends with the test
            await asyncio.sleep(0.02)
        return self.answer(len(self.posts))


@contextlib.asynccontextmanager
async def web_server() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/{path:.*}", hook.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.port = runner.addresses[0][1]
    try:
        yield hook
    finally:
        hook.hangs = False
        await runner.cleanup()


class Voters:
    """Who votes, as far as the log says."""

    def __init__(self) -> None:
        self.voters: tuple[str, ...] = (KEYS.id,)

    def leadership(self) -> Voters:
        return self


class NoLinks:
    """Nobody is linked."""

    def nodes(self) -> list[str]:
        return []


class Room:
    """Outbox and notification of an office, without the rest of it."""

    def __init__(self, script: Script, tables: Tables, clock: VirtualClock) -> None:
        self.script, self.tables, self.clock = script, tables, clock
        self.facts = LoopFacts(tables, clock)
        self.secrets: dict[str, Credentials] = {}
        self.pauses = Pauses(0.02, 0.1)
        self.alarms = Alarms(tables=tables, facts=self.facts, own=KEYS.id, offices=tuple)
        self.consensus = Voters()
        self.followers = Followers(clock)
        self.outbox = self.make()
        self.notifying = self.make_notifying()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> Any:
        return self.script.state

    def make(self) -> Outbox:
        return Outbox(
            keeper=self.script,  # type: ignore[arg-type]  # of a keeper only its state is asked
            tables=self.tables,
            facts=self.facts,
            alarms=self.alarms,
            credentials=self.credentials,
            server="alpha",
            clock=self.clock,
            randomness=lambda size: b"\x80" * size,
            pauses=self.pauses,
        )

    def make_notifying(self) -> Notifying:
        return Notifying(
            keeper=self.script,  # type: ignore[arg-type]  # as above
            consensus=self.consensus,  # type: ignore[arg-type]  # of the log only who votes is asked
            tables=self.tables,
            followers=self.followers,
            outbox=self.outbox,
            alarms=self.alarms,
            summary=lambda since_ns, until_ns: overnight(self.make_reporting(), since_ns),
            own=KEYS.id,
            clock=self.clock,
            calendar=WallCalendar(self.clock),
        )

    def make_reporting(self) -> Reporting:
        live, keeper = Live(), cast("Any", self.script)
        retaining = Retaining(keeper=keeper, tables=self.tables, live=live, clock=self.clock, away=lambda device: False)
        gathering = Gathering(
            keeper=keeper,
            tables=self.tables,
            live=live,
            links=cast("Any", NoLinks()),
            retaining=retaining,
            known=cast("Any", None),  # nothing is foretold here
            own=KEYS.id,
        )
        return Reporting(keeper=keeper, gathering=gathering, calendar=WallCalendar(self.clock))

    def credentials(self, logon: str) -> Credentials:
        if logon not in self.secrets:
            raise NoLogon(server="alpha", logon=logon)
        return self.secrets[logon]

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.outbox.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def another_office(self) -> None:
        """Another server is in office: it has the tables, and nothing of what was in memory."""
        await self.stop()
        self.alarms = Alarms(tables=self.tables, facts=self.facts, own=KEYS.id, offices=tuple)
        await self.alarms.load()
        self.outbox = self.make()
        self.notifying = self.make_notifying()
        self.start()

    # --- what people set ---

    def mail_by(self, box: MailBox, tls: MailTls = MailTls.NONE, *, logon: str | None = None, ca: str = "") -> None:
        self.script.do(SetMailServer(MailServer("127.0.0.1", box.port, tls, SENDER, logon, ca)))

    def recipient(self, name: str, mail: str = "", url: str = "", **fields: Any) -> None:
        there = name in self.state.recipients
        self.script.do(PutRecipient(Recipient(name, mail, url, 0, **fields), new=not there))

    def logon(self, name: str, user: str, secret: str) -> None:
        self.script.do(PutLogon(Logon(name, user, (), (), "v1", 0, {"node-alpha": b"sealed"}, "", 0, voters=True), 0))
        self.secrets[name] = Credentials(user, secret)


@contextlib.asynccontextmanager
async def room(folder: Path) -> AsyncIterator[Room]:
    # what people set lies before what happens
    clock = VirtualClock(asyncio.get_running_loop(), epoch_ns=NOW + 3600 * SECOND)
    async with Database.open(folder / "tables.db", MIGRATIONS, durable=False, same_thread=True) as database:
        made = Room(Script(), Tables(database), clock)
        made.start()
        try:
            yield made
        finally:
            await made.stop()


def parts(mail: EmailMessage) -> Iterator[tuple[str, str]]:
    """Type and text of the parts of a mail."""
    for part in mail.walk():
        if not part.is_multipart():
            yield part.get_content_type(), str(part.get_content())
