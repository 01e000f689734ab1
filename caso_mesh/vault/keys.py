"""Content keys: each wrapped to whoever may use it, and vouched for with the mesh's id key.

A wrapped key alone proves nothing: anybody who can write to the device could wrap a key of their own to our public
keys, and would read all that is written with it. So each object carries a MAC made with the id key, which only the
mesh has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import msgspec
from blake3 import blake3
from msgspec import Struct

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CasoError, DataDamaged, Misuse, NoKey, ObjectMissing, SealBroken
from caso_mesh.sealing.derive import derive
from caso_mesh.sealing.wrapping import wrap
from caso_mesh.vault.backend import Backend, Readable
from caso_mesh.vault.chunking import ID_KEY_SIZE
from caso_mesh.vault.header import VaultHeader, read_header
from caso_mesh.vault.names import FORMAT, Kind, check_id, key_name, parse_key
from caso_mesh.vault.objects import SALT_SIZE, VaultKeys, framed, parse_preamble, preamble

_MAC_SIZE = 32
_KEY_SIZE = 32


class _Wrapped(Struct):
    """Recipient (node id, or a recovery kit's id) to the content key wrapped to it."""

    recipients: dict[str, bytes]


def create_content_key(
    backend: Backend,
    recipients: Mapping[str, bytes],
    *,
    key_id: str,
    randomness: Randomness,
    id_key: bytes,
    header: VaultHeader | None = None,
) -> None:
    """Makes a new content key, wraps it to each recipient's raw X25519 public key (32 bytes), and adds ``keys/<id>``.

    From then on writers that can open it seal with it if ``key_id`` is the greatest in byte order: ids of keys rise
    with time. ``header``: of the vault, if it is known. Raises ``ObjectExists``, ``NotFound`` (no vault), ``SealBroken`` (an impossible public key).
    """
    check_id(key_id, "key")
    if not recipients:
        raise Misuse("a content key that nobody can open")
    header = header or _header(backend)
    _add(backend, header, key_name(key_id), key_id, randomness(_KEY_SIZE), recipients, id_key, randomness)


def add_recipients(
    backend: Backend, keys: VaultKeys, recipients: Mapping[str, bytes], *, randomness: Randomness = os.urandom
) -> None:
    """Wraps every content key in ``keys`` to more recipients, in objects beside those that are there."""
    header = _header(backend)
    for key_id, content_key in sorted(keys.content_keys.items()):
        name = key_name(key_id, randomness(16).hex())
        _add(backend, header, name, key_id, content_key, recipients, keys.id_key, randomness)


def add_missing_recipients(
    backend: Backend, keys: VaultKeys, recipients: Mapping[str, bytes], *, randomness: Randomness = os.urandom
) -> int:
    """Wraps each content key in ``keys`` to those of ``recipients`` that it is not wrapped to yet, by what sound key
    objects say. How many keys were wrapped anew; repeated, nothing happens."""
    header = _header(backend)
    have: dict[str, set[str]] = {}
    for name, _ in backend.list("keys/"):
        key_id = parse_key(name)
        if key_id is None or key_id not in keys.content_keys:
            continue
        try:
            have.setdefault(key_id, set()).update(_read(backend, header, name, key_id, keys.id_key).recipients)
        except (DataDamaged, ObjectMissing):
            continue  # who it was for is not known: they get another one
    added = 0
    for key_id, content_key in sorted(keys.content_keys.items()):
        missing = {each: recipients[each] for each in recipients if each not in have.get(key_id, set())}
        if missing:
            name = key_name(key_id, randomness(16).hex())
            _add(backend, header, name, key_id, content_key, missing, keys.id_key, randomness)
            added += len(missing)
    return added


def wrapped_keys(backend: Readable, id_key: bytes) -> dict[str, dict[str, bytes]]:
    """What sound key objects hold: of each content key, by its id, how it was wrapped to whom."""
    header = _header(backend)
    found: dict[str, dict[str, bytes]] = {}
    for name, _ in backend.list("keys/"):
        key_id = parse_key(name)
        if key_id is None:
            continue
        try:
            recipients = _read(backend, header, name, key_id, id_key).recipients
        except (DataDamaged, ObjectMissing):
            continue  # whoever can use another one does
        found[key_id] = {**recipients, **found.get(key_id, {})}
    return found


def wrapping_context(vault: str, key_id: str) -> bytes:
    """The additional data with which the content key ``key_id`` of a vault is wrapped."""
    return framed(vault.encode(), key_id.encode())


def open_content_key(
    vault: str, key_id: str, wrapped: bytes, private_key_unwrap: Callable[[bytes, bytes], bytes]
) -> bytes:
    """A content key as ``wrapped_keys`` has it. Raises ``SealBroken``."""
    content_key = private_key_unwrap(wrapped, wrapping_context(vault, key_id))
    if len(content_key) != _KEY_SIZE:
        raise SealBroken(object=f"the content key {key_id}")
    return content_key


def load_keys(
    backend: Readable, recipient: str, private_key_unwrap: Callable[[bytes, bytes], bytes], id_key: bytes
) -> VaultKeys:
    """All content keys that were wrapped to ``recipient``.

    ``private_key_unwrap(wrapped, aad)`` opens with its private key (``sealing.wrapping.unwrap``) and raises
    ``SealBroken``. A damaged or forged key object is passed over as long as there is another that gives a key. Raises
    ``NoKey`` if there is none for this recipient, else the first damage if that left nothing.
    """
    if len(id_key) != ID_KEY_SIZE:
        raise Misuse("the id key has 32 bytes")
    header = _header(backend)
    found: dict[str, bytes] = {}
    damage: CasoError | None = None
    for name, _ in sorted(backend.list("keys/")):
        key_id = parse_key(name)
        if key_id is None or key_id in found:
            continue
        try:
            wrapped = _read(backend, header, name, key_id, id_key).recipients.get(recipient)
            if wrapped is None:
                continue
            content_key = private_key_unwrap(wrapped, _aad(header, key_id))
        except SealBroken as error:
            damage = damage or DataDamaged(object=name, detail=f"it does not open for {recipient} ({error})")
            continue
        except (DataDamaged, ObjectMissing) as error:
            damage = damage or error
            continue
        if len(content_key) != _KEY_SIZE:
            damage = damage or DataDamaged(object=name, detail="what it holds is no key")
            continue
        found[key_id] = content_key
    if not found:
        raise damage or NoKey(device=header.vault)
    return VaultKeys(id_key=id_key, content_keys=found, write_key=max(found))


def check_key_objects(backend: Backend, header: VaultHeader, id_key: bytes) -> list[str]:
    """What is wrong with the key objects of a vault, one line each."""
    found = []
    for name, _ in backend.list("keys/"):
        key_id = parse_key(name)
        try:
            if key_id is None:
                raise DataDamaged(object=name, detail="no object of a vault has such a name")
            _read(backend, header, name, key_id, id_key)
        except (DataDamaged, ObjectMissing) as error:
            found.append(f"{name}: {error.message}")
    return found


def _header(backend: Readable) -> VaultHeader:
    header = read_header(backend)
    if header is None:
        raise ObjectMissing(name=FORMAT)
    return header


def _aad(header: VaultHeader, key_id: str) -> bytes:
    return wrapping_context(header.vault, key_id)


def _mac(header: VaultHeader, name: str, id_key: bytes, content: bytes) -> bytes:
    key = derive(id_key, domain=Kind.CONTENT_KEY.domain, context=framed(header.vault.encode(), name.encode()))
    return blake3(content, key=key).digest()


def _add(
    backend: Backend,
    header: VaultHeader,
    name: str,
    key_id: str,
    content_key: bytes,
    recipients: Mapping[str, bytes],
    id_key: bytes,
    randomness: Randomness,
) -> None:
    aad = _aad(header, key_id)
    wrapped = {
        recipient: wrap(content_key, public_key, aad=aad, randomness=randomness)
        for recipient, public_key in sorted(recipients.items())
    }
    content = preamble(Kind.CONTENT_KEY, randomness(SALT_SIZE), key_id) + msgspec.msgpack.encode(_Wrapped(wrapped))
    backend.put(name, [content, _mac(header, name, id_key, content)])


def _read(backend: Readable, header: VaultHeader, name: str, key_id: str, id_key: bytes) -> _Wrapped:
    stored = backend.get(name)
    content, mac = stored[:-_MAC_SIZE], stored[-_MAC_SIZE:]
    if mac != _mac(header, name, id_key, content):
        raise DataDamaged(object=name, detail="it was changed, or was not made by this mesh")
    _, found, end = parse_preamble(name, Kind.CONTENT_KEY, content)
    if found != key_id:
        raise DataDamaged(object=name, detail=f"it holds the key {found}")
    try:
        return msgspec.msgpack.decode(memoryview(content)[end:], type=_Wrapped)
    except msgspec.MsgspecError as error:
        raise DataDamaged(object=name, detail=str(error)) from error
