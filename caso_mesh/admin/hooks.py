"""One message to one webhook: a POST of JSON, signed as https://www.standardwebhooks.com says.

``webhook-signature`` is HMAC-SHA256 over ``ID.TIMESTAMP.BODY`` with the secret of the recipient's logon; ``webhook-id`` is
the key of the message, the same when it is sent again.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import hmac
import json
import os
import ssl
from urllib.parse import urljoin, urlsplit

import aiohttp

from caso_mesh import __version__
from caso_mesh.admin.mailing import one_line
from caso_mesh.model.errors import MessageRefused, NotDelivered
from caso_mesh.model.notices import Message
from caso_mesh.model.units import format_instant

_ANSWER_S, _CONNECT_S = 30.0, 10.0
_LONGEST_ANSWER, _LONGEST_DETAIL = 16384, 300
_MOST_REDIRECTS = 3
#: Answers that are about this message, and not about the way to where it goes.
_OF_MESSAGE = frozenset({400, 413, 415, 422})
_MOVED, _MOVED_OTHERWISE = frozenset({307, 308}), frozenset({301, 302, 303})
#: The receiver wants no more: nothing is sent until a person has changed the recipient.
GONE = 410
_PREFIX = "whsec_"


def body_of(message: Message, *, mesh: str, at_ns: int) -> bytes:
    """The JSON body. Of a message it says what ``data`` says, and nothing that was only written for mail."""
    data = {"mesh": mesh, "subject": message.subject, "text": message.text, **message.data}
    document = {"type": message.type, "timestamp": format_instant(at_ns), "data": data}
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode()


def signature(secret: str, key: str, at_s: int, body: bytes) -> str:
    """``v1,`` and base64. A secret that begins with ``whsec_`` is base64, any other one is taken as it is."""
    raw = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            raw = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass
    mac = hmac.new(raw, f"{key}.{at_s}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


async def send(url: str, secret: str | None, body: bytes, *, recipient: str, key: str, at_s: int) -> str:
    """Posts ``body``; the answer's status, as in ``HTTP 204``. Raises ``NotDelivered``, ``MessageRefused`` if this one is not taken."""
    headers = {
        "content-type": "application/json",
        "user-agent": f"caso-mesh/{__version__}",
        "webhook-id": key,
        "webhook-timestamp": str(at_s),
        "idempotency-key": key,
    }
    if secret is not None:
        headers["webhook-signature"] = signature(secret, key, at_s, body)
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S, connect=_CONNECT_S)
    target = url
    try:
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            for _ in range(_MOST_REDIRECTS + 1):
                async with session.post(target, data=body, headers=headers, allow_redirects=False) as answer:
                    if answer.status not in _MOVED | _MOVED_OTHERWISE:
                        said = (await answer.content.read(_LONGEST_ANSWER)).decode("utf-8", "replace")
                        return _judged(answer.status, answer.headers.get("retry-after"), said, url, recipient)
                    target = _moved(target, answer.status, answer.headers.get("location", ""), recipient)
    except TimeoutError:
        raise NotDelivered(recipient=recipient, detail=f"{shown(url)} did not answer in time") from None
    except aiohttp.ClientConnectorError as error:
        detail = f"cannot connect to {error.host}:{error.port}: {_reason(error)}"
        raise NotDelivered(recipient=recipient, detail=one_line(detail, _LONGEST_DETAIL)) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        text = str(error).replace(url, shown(url)) or type(error).__name__
        raise NotDelivered(recipient=recipient, detail=one_line(f"{shown(url)}: {text}", _LONGEST_DETAIL)) from None
    raise NotDelivered(recipient=recipient, detail=f"{shown(url)} redirects without end")


def shown(url: str) -> str:
    """Where a URL leads, without what is a secret in many of them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Why there is no connection, as people say it."""
    cause = error.os_error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"there is no address of that name ({cause.strerror or cause})"
    if cause.errno == errno.ECONNREFUSED:
        return "connection refused, nothing listens there"
    known = cause.errno is not None and cause.errno in errno.errorcode and not isinstance(cause, ssl.SSLError)
    return os.strerror(cause.errno) if known and cause.errno is not None else cause.strerror or str(cause)


def _moved(target: str, status: int, location: str, recipient: str) -> str:
    """The URL to go on with: content and signature are only for whom a person has named."""
    new = urljoin(target, location)
    if status in _MOVED and location and shown(new) == shown(target):
        return new
    detail = f"{shown(target)} redirects ({status}) to {one_line(shown(new), 100)}, which is not followed"
    raise NotDelivered(recipient=recipient, detail=detail)


def _judged(status: int, retry_after: str | None, said: str, url: str, recipient: str) -> str:
    if 200 <= status < 300:
        return f"HTTP {status}"
    detail = one_line(f"{shown(url)} answers {status} {said}", _LONGEST_DETAIL)
    if status in _OF_MESSAGE:
        raise MessageRefused(recipient=recipient, detail=detail)
    failure = NotDelivered(recipient=recipient, detail=detail)
    failure.gone = status == GONE
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        failure.after_s = float(retry_after[:6])
    raise failure
