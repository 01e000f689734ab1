"""Copies of the mesh in a vault: objects ``mesh/<seq>``, each sealed to recovery kits and to nobody else.

The servers that carry them cannot read them: they get finished objects.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import msgspec

from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import DataDamaged, Misuse, NoKey, ObjectExists, ObjectMissing, SealBroken
from caso_mesh.sealing.aead import TAG_SIZE, Sealer
from caso_mesh.sealing.derive import derive
from caso_mesh.sealing.wrapping import wrap
from caso_mesh.vault.backend import Backend, Readable
from caso_mesh.vault.names import Kind, mesh_name, parse_mesh
from caso_mesh.vault.objects import NO_NONCE, SALT_SIZE, framed, parse_preamble, preamble
from caso_mesh.vault.packing import Compressor, unpack

#: So many stay in a vault, the newest.
KEPT = 8
#: The longest, before it is compressed and as an object; in bytes.
LONGEST, LONGEST_OBJECT = 256 << 20, 64 << 20
_KEY_SIZE = 32
_LENGTHS = struct.Struct("<IBI")
_TRIES = 16


def seal_copy(content: bytes, recipients: Mapping[str, bytes], *, mesh: str, randomness: Randomness) -> bytes:
    """The object. ``recipients``: raw X25519 public keys by the ids of kits. Raises ``SealBroken``."""
    if not recipients or len(content) > LONGEST:
        raise Misuse("a copy of the mesh is for somebody, and has a bounded length")
    key, salt = randomness(_KEY_SIZE), randomness(SALT_SIZE)
    aad = framed(mesh.encode(), salt)
    wrapped = {
        kit: wrap(key, public_key, aad=aad, randomness=randomness) for kit, public_key in sorted(recipients.items())
    }
    who = msgspec.msgpack.encode(wrapped)
    flags, payload = Compressor().pack(content)
    head = preamble(Kind.MESH_STATE, salt, "") + _LENGTHS.pack(len(who), flags, len(content)) + who
    return head + _sealer(key, mesh, salt).seal(NO_NONCE, bytes(payload), head)


def open_copy(
    name: str, stored: bytes, recipient: str, private_key_unwrap: Callable[[bytes, bytes], bytes], *, mesh: str
) -> bytes:
    """The content of an object, for one kit. Raises ``NoKey`` if it is not among the recipients, ``DataDamaged``."""
    salt, _, end = parse_preamble(name, Kind.MESH_STATE, stored)
    try:
        who_length, flags, raw_length = _LENGTHS.unpack_from(stored, end)
        start = end + _LENGTHS.size + who_length
        if len(stored) < start + TAG_SIZE:
            raise DataDamaged(object=name, detail="it is too short")
        wrapped = msgspec.msgpack.decode(stored[end + _LENGTHS.size : start], type=dict[str, bytes])
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataDamaged(object=name, detail=str(error)) from None
    mine = wrapped.get(recipient)
    if mine is None:
        raise NoKey(device=name)
    try:
        key = private_key_unwrap(mine, framed(mesh.encode(), salt))
        if len(key) != _KEY_SIZE:
            raise DataDamaged(object=name, detail="what it holds is no key")
        payload = _sealer(key, mesh, salt).open(NO_NONCE, stored[start:], stored[:start])
    except SealBroken:
        raise DataDamaged(object=name, detail="it was changed, or sealed for another mesh") from None
    return bytes(unpack(flags, payload, raw_length, LONGEST, name=name))


def copy_names(backend: Readable) -> list[str]:
    """The copies in a vault, newest first."""
    found = [(sequence, name) for name, _ in backend.list("mesh/") if (sequence := parse_mesh(name)) is not None]
    return [name for _, name in sorted(found, reverse=True)]


def put_copy(backend: Backend, stored: bytes) -> str:
    """Adds a copy behind all that are there, then removes the oldest beyond ``KEPT``. Its name.

    Raises ``DataDamaged`` for what is no such object, and what ``Backend.put`` raises.
    """
    parse_preamble("a copy of the mesh", Kind.MESH_STATE, stored)
    if len(stored) > LONGEST_OBJECT:
        raise DataDamaged(object="a copy of the mesh", detail="it is far too long")
    tries = 0
    while True:
        names = copy_names(backend)
        sequence = (parse_mesh(names[0]) or 0) + 1 if names else 1
        try:
            backend.put(mesh_name(sequence), [stored])
        except ObjectExists:
            tries += 1  # another server was quicker
            if tries == _TRIES:
                raise
            continue
        for old in names[KEPT - 1 :]:
            try:
                backend.delete(old)
            except ObjectMissing:
                continue
        return mesh_name(sequence)


def _sealer(key: bytes, mesh: str, salt: bytes) -> Sealer:
    derived = derive(key, domain=Kind.MESH_STATE.domain, context=framed(mesh.encode(), salt))
    return Sealer(derived, object="a copy of the mesh")
