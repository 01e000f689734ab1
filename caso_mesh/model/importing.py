"""Taking over a device that another mesh wrote: commands, and what is asked on the way."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.model.storage import BackupSet, Device

#: Bytes of objects that one answer holds.
PIECE_BYTES = 512 * 1024


class ImportDevice(Struct, frozen=True, tag="import-device", tag_field="do"):
    """``device`` is one of another mesh, and only read. Its ``imported`` says from which; the name of that mesh is changed if
    another one that devices came from has it."""

    device: Device


class NoteImported(Struct, frozen=True, tag="note-imported", tag_field="do"):
    """The sets of a device (id) that came from another mesh are in the records."""

    device: str


# --- people ----------------------------------------------------------------------------------------------------------


class DeviceLook(Struct, frozen=True):
    """The vault of another mesh in the folder ``path`` of ``server`` is to be taken over by somebody who has its kit."""

    server: str
    path: str


class ForeignVault(Struct, frozen=True):
    """``keys`` and ``copies`` are the objects that hold content keys and copies of that mesh, each with its size; all are
    sealed. ``node`` and ``encryption_key`` (raw X25519) are those of the server that has the folder."""

    vault: str
    mesh: str
    keys: tuple[tuple[str, int], ...]
    copies: tuple[tuple[str, int], ...]
    node: str = ""
    encryption_key: bytes = b""


class DeviceRead(Struct, frozen=True):
    """The header, objects that hold content keys, or copies of the mesh, of the vault in a folder. ``offset`` is that in the
    first of them."""

    server: str
    path: str
    vault: str
    names: tuple[str, ...]
    offset: int = 0


class ForeignObjects(Struct, frozen=True):
    """As many of the objects as fit, in the order in which they were asked for: of the first from the offset on as much as
    fits, of the others all."""

    objects: dict[str, bytes]


class DeviceImport(Struct, frozen=True):
    """The vault is a device of this mesh from now on. ``copies``: what opens it, sealed to the server that has the folder (by
    node id). ``signers``: the public keys of the servers of its mesh, by node id, as far as they are known."""

    name: str
    server: str
    path: str
    vault: str
    mesh: str
    mesh_name: str
    copies: dict[str, bytes]
    signers: dict[str, bytes]
    concurrency: int = 1


# --- the server that has the folder ----------------------------------------------------------------------------------


class FolderLook(Struct, frozen=True):
    """See ``DeviceLook``."""

    path: str


class FolderRead(Struct, frozen=True):
    """See ``DeviceRead``."""

    path: str
    vault: str
    names: tuple[str, ...]
    offset: int = 0


class FolderOpen(Struct, frozen=True):
    """Whether the server that is asked can read the vault with its copy of what opens it. See ``DeviceImport``."""

    name: str
    path: str
    vault: str
    mesh: str
    copies: dict[str, bytes]
    signers: dict[str, bytes]


class FolderOpened(Struct, frozen=True):
    """``names``: of the servers whose files or sets are there, ``signed``: those that signed something; by node ids. ``problems``
    are what is damaged, in plain words."""

    sets: int
    names: dict[str, str]
    signed: tuple[str, ...]
    problems: tuple[str, ...] = ()


class ForeignSeal(Struct, frozen=True):
    """What opens an imported device (id) is to be sealed to more ``servers`` (node ids), whose keys the roster has."""

    device: str
    servers: tuple[str, ...]


class ForeignSealed(Struct, frozen=True):
    copies: dict[str, bytes]


def as_here(backup: BackupSet, device: Device) -> BackupSet:
    """A set of an imported device as this mesh knows it: on that device, its servers and medium said to be of another mesh. Any
    other one as it is."""
    came = device.imported
    if came is None:
        return backup
    return replace(
        backup,
        device=device.id,
        device_name=device.name,
        source_name=came.shown(backup.source, backup.source_name),
        server_name=came.shown(backup.server, backup.server_name),
        medium=f"{backup.medium}@{came.mesh_name}",
    )
