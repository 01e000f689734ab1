"""The recovery kit: one small file that, with its passphrase, opens every device and signs as the root of the mesh.

It is text, so that it can be printed: a title, a few clear lines for people, the SHA-256 of the sealed part (a cut or
mistyped copy is told from a wrong passphrase by it), and the sealed part in base64. ``docs/format.md`` has every byte.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import secrets
import unicodedata
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from msgspec import Struct

from caso_mesh.identity import certificates
from caso_mesh.identity.authority import belongs
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    DataDamaged,
    KitDamaged,
    KitMissing,
    KitTooNew,
    Misuse,
    SealBroken,
)
from caso_mesh.model.ids import NAME
from caso_mesh.model.units import format_instant
from caso_mesh.sealing import wrapping
from caso_mesh.sealing.passphrase import Cost, open_with_passphrase, seal_with_passphrase

VERSION = 1
_TITLE = "caso-mesh recovery kit"
_PURPOSE = "recovery-kit/1"
_LONGEST = 64 * 1024
_LINE = 64
#: Characters of a passphrase made here: base32 without those that are mistaken for each other (Crockford).
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_MADE = re.compile(f"[{_ALPHABET}]{{26}}\\Z")
_LOOKS_LIKE = str.maketrans("oil", "011")
#: Shorter ones than this are said to be weak.
SHORT_PASSPHRASE = 12


class Kit(Struct, frozen=True):
    """What a kit holds. ``root`` is DER, ``root_key`` PKCS #8 DER (empty if the mesh was made with an issuing certificate
    whose root key is elsewhere), ``id_key`` 32 bytes, ``private_key`` raw X25519."""

    id: str
    mesh: str
    mesh_name: str
    root: bytes
    root_key: bytes
    id_key: bytes
    private_key: bytes
    created_at_ns: int = 0

    def __repr__(self) -> str:
        return f"<Kit {self.id} of {self.mesh_name}>"

    @property
    def public_key(self) -> bytes:
        """Raw X25519 public key: what content keys and copies of the mesh are wrapped to."""
        return X25519PrivateKey.from_private_bytes(self.private_key).public_key().public_bytes_raw()

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """See ``sealing.wrapping.unwrap``. Raises ``SealBroken``."""
        return wrapping.unwrap(wrapped, self.private_key, aad=aad)


class KitKeys(Struct, frozen=True):
    """The key pair of a kit that is being made; the private key never leaves the machine where that happens."""

    private_key: bytes
    public_key: bytes

    def __repr__(self) -> str:
        return "<KitKeys>"


def new_keys(randomness: Randomness = os.urandom) -> KitKeys:
    """A new pair."""
    private = randomness(32)
    return KitKeys(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


# --- what the administrator hands over -------------------------------------------------------------------------------


class Secrets(Struct, frozen=True):
    """What only the mesh knows: sealed to a kit's public key it travels from the administrator to where the kit is
    made. ``root_key`` is empty when it has gone into an earlier kit, or never was in the mesh."""

    root_key: bytes
    id_key: bytes

    def __repr__(self) -> str:
        return "<Secrets>"


def seal_secrets(found: Secrets, *, kit: str, public_key: bytes, mesh: str, randomness: Randomness) -> bytes:
    """Sealed to the holder of ``public_key``, for the kit and the mesh alone. Raises ``SealBroken`` for a key that
    nothing can be sealed to."""
    return wrapping.wrap(msgspec.msgpack.encode(found), public_key, aad=_aad(kit, mesh), randomness=randomness)


def open_secrets(sealed: bytes, keys: KitKeys, *, kit: str, mesh: str) -> Secrets:
    """What ``seal_secrets`` sealed. Raises ``SealBroken``."""
    try:
        return msgspec.msgpack.decode(wrapping.unwrap(sealed, keys.private_key, aad=_aad(kit, mesh)), type=Secrets)
    except msgspec.MsgspecError as error:
        raise SealBroken(object="the secrets for a recovery kit") from error


def check_of(root: bytes, found: Secrets) -> bytes:
    """A digest (32 bytes) of what was handed over, by which the administrator knows that it arrived as it was."""
    parts = (root, found.root_key, found.id_key)
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.sha256(b"recovery-kit/check/1" + framed).digest()


def _aad(kit: str, mesh: str) -> bytes:
    return f"recovery-kit/secrets/1/{mesh}/{kit}".encode()


# --- passphrases -----------------------------------------------------------------------------------------------------


def make_passphrase(randomness: Randomness = os.urandom) -> str:
    """128 random bits in groups that can be read aloud and typed."""
    value = int.from_bytes(randomness(16), "big")
    text = "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
    return "-".join((text[:5], text[5:10], text[10:15], text[15:20], text[20:]))


def canonical(passphrase: str) -> str:
    """What really seals: one that was made here counts however it is grouped or written, any other one by its
    characters (Unicode NFC)."""
    joined = re.sub(r"[\s-]", "", passphrase).lower().translate(_LOOKS_LIKE)
    return joined if _MADE.match(joined) else unicodedata.normalize("NFC", passphrase)


# --- the file --------------------------------------------------------------------------------------------------------


def encode(kit: Kit, passphrase: str, *, randomness: Randomness = os.urandom, cost: Cost | None = None) -> bytes:
    """The file's bytes. A third of a second of CPU and 128 MiB. Raises ``Misuse`` for a kit that does not fit
    together."""
    problem = _problem(kit)
    if problem:
        raise Misuse(f"a recovery kit whose {problem}")
    sealed = seal_with_passphrase(
        msgspec.msgpack.encode(kit), canonical(passphrase), purpose=_PURPOSE, randomness=randomness, cost=cost
    )
    text = base64.b64encode(sealed).decode()
    lines = [
        _TITLE,
        f"version: {VERSION}",
        f"mesh: {kit.mesh_name} ({kit.mesh})",
        f"kit: {kit.id}",
        f"made: {format_instant(kit.created_at_ns)}",
        f"sha-256: {hashlib.sha256(sealed).hexdigest()}",
        "",
        *(text[at : at + _LINE] for at in range(0, len(text), _LINE)),
        "",
    ]
    return "\n".join(lines).encode("ascii")


def decode(data: bytes, passphrase: str, *, path: str | Path = "the recovery kit") -> Kit:
    """The kit in a file's bytes; ``path`` names it in messages.

    Raises ``KitDamaged``, ``KitTooNew``, ``PassphraseWrong``.
    """
    sealed = _sealed_part(data, path)
    try:
        plain = open_with_passphrase(sealed, canonical(passphrase), purpose=_PURPOSE, object=str(path))
    except DataDamaged as error:
        raise KitDamaged(path=path, detail=error.fields["detail"]) from None
    try:
        kit = msgspec.msgpack.decode(plain, type=Kit)
    except msgspec.MsgspecError as error:
        raise KitDamaged(path=path, detail=error) from None
    problem = _problem(kit)
    if problem:
        raise KitDamaged(path=path, detail=f"its {problem}")
    return kit


def check_readable(data: bytes, path: str | Path) -> None:
    """Whether a file is a whole kit of a known version, before anybody is asked for the passphrase. Raises
    ``KitDamaged``, ``KitTooNew``."""
    _sealed_part(data, path)


def write(path: Path, data: bytes) -> None:
    """Adds the file, 0600, whole or not at all, durable on return; never in place of another.

    Raises ``AlreadyExists``, or ``KitDamaged`` if the folder does not take it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _move(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise AlreadyExists(kind="file", name=path) from None
    except OSError as error:
        raise KitDamaged(path=path, detail=error.strerror or error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        # file systems of memory sticks know no links
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from None
        os.rename(temporary, path)


def read(path: Path) -> bytes:
    """The file's bytes. Raises ``KitMissing``, ``KitDamaged``."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except FileNotFoundError:
        raise KitMissing(path=path) from None
    except OSError as error:
        raise KitDamaged(path=path, detail=error.strerror or error) from None
    if len(data) > _LONGEST:
        raise KitDamaged(path=path, detail="it is far too long")
    return data


def _sealed_part(data: bytes, path: str | Path) -> bytes:
    def damaged(detail: str) -> CasoError:
        return KitDamaged(path=path, detail=detail)

    try:
        # a copy that went through an editor or a mail may have other line ends
        lines = [line.strip() for line in data.decode("ascii").splitlines()]
    except UnicodeDecodeError:
        raise damaged("it is not text") from None
    if not lines or lines[0] != _TITLE:
        raise damaged("it does not begin as a recovery kit")
    fields: dict[str, str] = {}
    at = 1
    while at < len(lines) and lines[at]:
        name, colon, value = lines[at].partition(":")
        if not colon:
            raise damaged(f"line {at + 1} says nothing")
        fields[name] = value.strip()
        at += 1
    version = fields.get("version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise damaged("it names no version")
    if int(version) > VERSION:
        raise KitTooNew(path=path, found=int(version), known=VERSION)
    if int(version) != VERSION:
        raise damaged(f"there never was a version {version}")
    try:
        sealed = base64.b64decode("".join(lines[at:]), validate=True)
    except (binascii.Error, ValueError):
        raise damaged("its sealed part is not base64; it was cut or changed") from None
    if hashlib.sha256(sealed).hexdigest() != fields.get("sha-256"):
        raise damaged("its checksum differs; it was cut or changed")
    return sealed


def _problem(kit: Kit) -> str:
    """Why a kit does not fit together; empty if it does."""
    if not (NAME.match(kit.id) and NAME.match(kit.mesh)):
        return "ids are none"
    if len(kit.id_key) != 32 or len(kit.private_key) != 32:
        return "keys have not 32 bytes"
    try:
        if not certificates.is_self_signed(kit.root):
            return "root is none"
        if kit.root_key and not belongs(load_der_private_key(kit.root_key, password=None), kit.root):  # type: ignore[arg-type]
            return "root key does not belong to the root"
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "root key or certificate is none"
    return ""
