"""One mail to one address, by the mail server of the mesh."""

from __future__ import annotations

import asyncio
import email.policy
import email.utils
import socket
import ssl
from contextlib import suppress
from email.message import EmailMessage

import aiosmtplib

from caso_mesh.model.errors import MessageRefused, NotDelivered
from caso_mesh.model.logons import Credentials
from caso_mesh.model.notices import MailServer, MailTls, Message

#: For one answer of the server, and for all of one mail.
_ANSWER_S, _MAIL_S, _GOODBYE_S = 30.0, 120.0, 5.0
_LONGEST_SUBJECT, _LONGEST_DETAIL = 200, 300
#: Lines of seven bits, which no server on the way has to change. A subject that needs no encoding stays on its line: folded
#: it would begin with a space for some programs.
_POLICY = email.policy.SMTP.clone(cte_type="7bit")
_UNFOLDED = _POLICY.clone(max_line_length=998)
_START: dict[MailTls, bool | None] = {
    MailTls.STARTTLS: True,
    MailTls.IF_OFFERED: None,
    MailTls.IMPLICIT: False,
    MailTls.NONE: False,
}


def composed(message: Message, *, sender: str, to: str, mesh: str, mesh_id: str, server: str, at_s: float) -> bytes:
    """A message as mail. Sent again it has the same Message-ID, by which mailboxes know it as one."""
    subject = one_line(f"[{mesh}] {message.subject}", _LONGEST_SUBJECT)
    mail = EmailMessage(policy=_UNFOLDED if subject.isascii() else _POLICY)
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = subject
    mail["Date"] = email.utils.formatdate(at_s, usegmt=True)
    mail["Message-ID"] = f"<{message.key}@{mesh_id.lower()}.caso-mesh>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(printable(f"{message.text.rstrip()}\n\n-- \ncaso-mesh {mesh}, sent by {server}\n"))
    if message.html is not None:
        mail.add_alternative(printable(message.html), subtype="html")
    for each in message.attachments:
        kind, _, sub = each.type.partition("/")
        mail.add_attachment(each.data, maintype=kind, subtype=sub, filename=one_line(each.name, 100))
    return mail.as_bytes()


def one_line(text: str, longest: int) -> str:
    """A text without what would begin another line, or another header."""
    plain = " ".join("".join(each if each.isprintable() else " " for each in printable(text)).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def printable(text: str) -> str:
    """A text that can be encoded: bytes of names that are no UTF-8 are shown as numbers."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


async def send(server: MailServer, credentials: Credentials | None, mail: bytes, *, recipient: str, to: str) -> str:
    """Gives a mail to the server; its answer. Raises ``NotDelivered``, ``MessageRefused`` if it does not take this one."""
    try:
        context = await asyncio.to_thread(_context, server)
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls is MailTls.IMPLICIT,
            start_tls=_START[server.tls],
            tls_context=context,
            timeout=_ANSWER_S,
            local_hostname=_own_name(server.sender),
        )
        try:
            async with asyncio.timeout(_MAIL_S):
                await client.connect()
                if credentials is not None:
                    await client.login(credentials.user, credentials.secret)
                _, answer = await client.sendmail(server.sender, [to], mail)
            # it was taken: how they part changes nothing
            with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await client.quit()
        finally:
            client.close()
    except aiosmtplib.SMTPDataError as error:
        kind = MessageRefused if error.code >= 500 else NotDelivered
        raise kind(recipient=recipient, detail=_said(server, f"{error.code} {error.message}")) from None
    except aiosmtplib.SMTPRecipientsRefused as error:
        said = "; ".join(f"{each.code} {each.message}" for each in error.recipients)
        raise NotDelivered(
            recipient=recipient, detail=_said(server, f"it does not take mail to {to}: {said}")
        ) from None
    except aiosmtplib.SMTPResponseException as error:
        raise NotDelivered(recipient=recipient, detail=_said(server, f"{error.code} {error.message}")) from None
    except TimeoutError:
        raise NotDelivered(recipient=recipient, detail=_said(server, "it did not answer in time")) from None
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise NotDelivered(recipient=recipient, detail=_said(server, str(error) or type(error).__name__)) from None
    return one_line(answer, _LONGEST_DETAIL)


def _said(server: MailServer, text: str) -> str:
    return one_line(f"the mail server {server.host}:{server.port} says: {text}", _LONGEST_DETAIL)


def _context(server: MailServer) -> ssl.SSLContext:
    """Raises ``ssl.SSLError`` (an ``OSError``) for certificates that are none."""
    context = ssl.create_default_context(cadata=server.ca_pem or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if server.tls is MailTls.IF_OFFERED:
        # whoever can stand in between can hide the offer as well: here it only keeps those out who merely listen
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _own_name(sender: str) -> str:
    """How this machine greets. Many servers refuse a name without a dot."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else sender.rpartition("@")[2]
