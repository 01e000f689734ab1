"""Why there is no TLS with a peer: was it refused, or lost?"""

from __future__ import annotations

import ssl

from caso_mesh.model.errors import CasoError, CertificateRefused, PeerNotTls


def of_certificate(address: str, exc: BaseException) -> CertificateRefused | None:
    """The refusal behind ``exc`` if it is about a certificate: ours by the peer at ``address``, or the peer's by us."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return CertificateRefused(peer="this server", detail=f"{address}: {exc.verify_message}")
    if isinstance(exc, ssl.SSLError) and _is_alert_of_certificate(exc.reason or ""):
        return CertificateRefused(peer=address, detail=(exc.reason or "").lower().replace("_", " "))
    return None


def _is_alert_of_certificate(reason: str) -> bool:
    words = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")
    return "ALERT" in reason and any(word in reason for word in words)


def of_handshake(address: str, exc: ssl.SSLError) -> CasoError:
    """Why there was no handshake with who dialled."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return CertificateRefused(peer="this server", detail=f"{address}: {exc.verify_message}")
    return PeerNotTls(peer=address, detail=(exc.reason or "the handshake failed").lower().replace("_", " "))
