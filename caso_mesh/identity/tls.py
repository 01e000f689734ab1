"""TLS contexts: TLS 1.3 only (RFC 8446), both ends show certificates, each listed issuing certificate is an anchor.

OpenSSL checks signatures and purpose here; *when* a certificate is valid and *who* it is, ``roster.authorise`` decides,
which every link calls next. OpenSSL is therefore told not to look at times: a node whose certificate expired while it
was away must still be let in, to renew it and for nothing else.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from caso_mesh.identity.der import is_self_signed
from caso_mesh.model.errors import StateDamaged

#: X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h, which Python has no name for.
_NO_CHECK_TIME = 0x200000


def server_context(
    chain_path: Path | str, key_path: Path | str, anchors: Iterable[bytes], *, ask_client: bool = True
) -> ssl.SSLContext:
    """For listening. ``anchors`` are DER; files are PEM.

    With ``ask_client`` a client may show a certificate, which then must be signed by an anchor; one that shows none is
    anonymous (``getpeercert`` gives ``None``) and may only enrol. Raises ``StateDamaged`` if the files do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context, chain_path, key_path)
    # no resumption: it would carry a decision of the roster beyond its life
    context.num_tickets = 0
    if ask_client:
        _trust(context, anchors)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    chain_path: Path | str | None, key_path: Path | str | None, anchors: Iterable[bytes]
) -> ssl.SSLContext:
    """For dialling. The server must show a certificate that an anchor signed; its host name means nothing.

    Without ``chain_path`` the client is anonymous. Raises ``StateDamaged`` if the files do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _common(context, chain_path, key_path)
    _trust(context, anchors)
    return context


def unverified_client_context(
    chain_path: Path | str | None = None, key_path: Path | str | None = None
) -> ssl.SSLContext:
    """For the first contact of joining and of adoption only: whoever answers is nobody yet.

    The caller checks what it is told against the join link, or has a person compare a code, before it believes
    anything or sends any secret.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _common(context, chain_path, key_path)
    return context


def _common(context: ssl.SSLContext, chain_path: Path | str | None, key_path: Path | str | None) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    if chain_path is None:
        return
    try:
        # without a password callback OpenSSL would ask at the terminal for that of a locked key
        context.load_cert_chain(chain_path, key_path, password=b"")
    except (OSError, ValueError) as error:
        raise StateDamaged(path=chain_path, detail=_reason(error)) from error


def _trust(context: ssl.SSLContext, anchors: Iterable[bytes]) -> None:
    listed = list(anchors)
    # Beside issuing certificates the root is left out: with it, an issuing certificate that was dropped from the list
    # would still be believed by way of the root.
    issuing = [anchor for anchor in listed if not is_self_signed(anchor)]
    trusted = issuing or listed
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    if trusted:
        context.load_verify_locations(cadata=b"".join(trusted))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"certificate and key cannot be used ({error.reason or error})"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
