"""``init --ca DIR``: a certification authority that people bring. Every way in which it does not fit is named."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from caso_mesh.identity import certificates
from caso_mesh.identity.authority import (
    ISSUING_FILE,
    ISSUING_KEY_FILE,
    ROOT_FILE,
    ROOT_KEY_FILE,
    Authority,
    belongs,
    load_ca_key,
)
from caso_mesh.identity.certificates import CaKey
from caso_mesh.identity.private_files import read_private
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CaUnusable, StateDamaged
from caso_mesh.model.units import format_instant


def load_external(
    folder: Path, *, voter: str, mesh_name: str, now_ns: int, randomness: Randomness = os.urandom
) -> Authority:
    """The authority in ``folder`` (its layout: ``certs/README.md``), ready to issue for the first server.

    With ``issuing.pem`` and ``issuing.key`` that intermediate becomes the issuing certificate of ``voter`` (node id);
    with ``ca.key`` alone a new issuing certificate is signed by it. Raises ``CaUnusable``, whose detail says what is
    missing, expired, not a CA, or does not belong together.
    """
    root = _certificate(folder, ROOT_FILE)
    root_key = _key(folder, ROOT_KEY_FILE)
    if not certificates.is_self_signed(root):
        raise CaUnusable(path=folder, detail="ca.pem is not a root: it has not signed itself")
    _check_authority(folder, ROOT_FILE, root, now_ns)
    if root_key is not None and not belongs(root_key, root):
        raise CaUnusable(path=folder, detail="ca.key does not belong to ca.pem")

    has_issuing, has_issuing_key = (folder / ISSUING_FILE).exists(), (folder / ISSUING_KEY_FILE).exists()
    if has_issuing != has_issuing_key:
        present, missing = (ISSUING_FILE, ISSUING_KEY_FILE) if has_issuing else (ISSUING_KEY_FILE, ISSUING_FILE)
        raise CaUnusable(path=folder, detail=f"it has {present} but not {missing}")
    if not has_issuing:
        if root_key is None:
            raise CaUnusable(path=folder, detail="it has neither ca.key nor issuing.pem with issuing.key")
        if _path_length(root) == 0:
            raise CaUnusable(
                path=folder, detail="ca.pem does not allow an issuing certificate below it (path length 0)"
            )
        return Authority.from_root(
            root, root_key, voter=voter, mesh_name=mesh_name, now_ns=now_ns, randomness=randomness
        )

    issuing, issuing_key = _certificate(folder, ISSUING_FILE), _key(folder, ISSUING_KEY_FILE)
    if issuing_key is None:
        raise CaUnusable(path=folder, detail="issuing.key is missing")
    _check_authority(folder, ISSUING_FILE, issuing, now_ns)
    if not certificates.signed_by(issuing, root):
        raise CaUnusable(path=folder, detail="issuing.pem is not signed by ca.pem")
    if certificates.is_self_signed(issuing):
        raise CaUnusable(path=folder, detail="issuing.pem is a root itself; give an intermediate, or ca.key alone")
    if not belongs(issuing_key, issuing):
        raise CaUnusable(path=folder, detail="issuing.key does not belong to issuing.pem")
    return Authority(root=root, issuing=issuing, issuing_key=issuing_key, root_key=root_key)


def _certificate(folder: Path, name: str) -> bytes:
    try:
        pem = read_private(folder / name)
    except StateDamaged as error:
        raise CaUnusable(path=folder, detail=f"{name}: {error.fields['detail']}") from error
    if pem is None:
        raise CaUnusable(path=folder, detail=f"{name} is missing")
    try:
        found = certificates.from_pem(pem)[0]
        certificates.public_key_of(found)
    except ValueError:
        raise CaUnusable(path=folder, detail=f"{name} holds no certificate") from None
    return found


def _key(folder: Path, name: str) -> CaKey | None:
    try:
        return load_ca_key(folder / name)
    except StateDamaged as error:
        raise CaUnusable(path=folder, detail=f"{name}: {error.fields['detail']}") from error


def _check_authority(folder: Path, name: str, certificate: bytes, now_ns: int) -> None:
    """Whether it may sign what we need: servers and operators, for TLS in both roles, under our names, now."""
    if not certificates.is_ca(certificate):
        raise CaUnusable(path=folder, detail=f"{name} is not the certificate of a CA")
    valid = certificates.life(certificate)
    if now_ns > valid.not_after_ns:
        raise CaUnusable(path=folder, detail=f"{name} has expired on {format_instant(valid.not_after_ns)}")
    if now_ns < valid.not_before_ns:
        raise CaUnusable(path=folder, detail=f"{name} is not valid before {format_instant(valid.not_before_ns)}")
    extensions = certificates.parse(certificate).extensions
    try:
        usage = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        pass
    else:
        both = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
        if not both <= usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
            raise CaUnusable(path=folder, detail=f"{name} is not for TLS clients and servers (extended key usage)")
    try:
        extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return
    raise CaUnusable(path=folder, detail=f"{name} has name constraints, which exclude the names of servers here")


def _path_length(certificate: bytes) -> int | None:
    return certificates.parse(certificate).extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
