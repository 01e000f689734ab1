"""Records of storage: devices, media, media sets, backup sets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.imported import Imported
from caso_mesh.model.states import BackupType, DeviceState


class DeviceKind(StrEnum):
    DISK = "disk"
    SHARED = "shared"


class DevicePath(Struct, frozen=True, gc=False):
    """Where one server (node id) sees a device. ``quota_bytes``: how much its sets may take there; ``None`` = as much as
    there is."""

    server: str
    path: str
    enabled: bool = True
    quota_bytes: int | None = None


class Device(Struct, frozen=True, gc=False):
    """A storage device. ``concurrency`` is jobs at once; below ``low_space_bytes`` free no new job starts. ``retired``: labels
    of its media that take nothing more. ``imported``: it came from another mesh, and is only read. ``erasing``: the id of the vault that it
    becomes, while it is erased or that is unfinished; media that were opened before ``formatted_at_ns`` are in it no more."""

    name: str
    id: str
    kind: DeviceKind
    vault: str
    paths: tuple[DevicePath, ...]
    concurrency: int = 2
    low_space_bytes: int = 0
    state: DeviceState = DeviceState.ONLINE
    retired: tuple[str, ...] = ()
    imported: Imported | None = None
    erasing: str = ""
    formatted_at_ns: int = 0

    def path_on(self, server: str) -> DevicePath | None:
        return next((place for place in self.paths if place.server == server), None)


def foreign_name(devices: Mapping[str, Device], node: str) -> str | None:
    """What a server of another mesh (node id) is called here, if devices with its sets are among these."""
    for device in devices.values():
        if device.imported is not None and node in device.imported.names:
            return device.imported.shown(node, node)
    return None


class MediaSet(Struct, frozen=True):
    """A group of media with one life cycle. ``None`` = without end.

    ``append_s``: how long a medium takes further sets, from its first write; ``medium_bytes``: until so much is stored on it. ``protection_s``: no overwrite, from the
    end of the last write to the medium. ``keep_s``: how long a set is kept. ``keep_last``: beyond that, so many newest
    sets of each list and server, and the newest one of so many days, weeks, months and years that have one.
    """

    name: str
    append_s: float | None
    protection_s: float | None
    keep_s: float | None
    keep_last: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    medium_bytes: int | None = None

    def counts(self) -> tuple[tuple[int, str], ...]:
        """The numbers of sets to keep, each with what it counts."""
        return (
            (self.keep_last, "last"),
            (self.keep_daily, "daily"),
            (self.keep_weekly, "weekly"),
            (self.keep_monthly, "monthly"),
            (self.keep_yearly, "yearly"),
        )


#: The media sets every mesh has. They cannot be deleted.
FACTORY_MEDIA_SETS: tuple[MediaSet, ...] = (
    MediaSet("keep-4-weeks", append_s=6 * 86400.0, protection_s=28 * 86400.0, keep_s=28 * 86400.0),
    MediaSet("keep-infinitely", append_s=None, protection_s=None, keep_s=None),
)
DEFAULT_MEDIA_SET = "keep-4-weeks"


class MediumState(StrEnum):
    APPENDABLE = "appendable"
    FULL = "full"
    PROTECTED = "protected"
    RECYCLABLE = "recyclable"
    RETIRED = "retired"
    IMPORTED = "imported"


class Medium(Struct, frozen=True):
    """A labelled, logical container of backup sets on one device, of one media set, written by one server.

    ``label`` carries the writing server's name as a prefix (``BETA-000017``), so that an offline writer needs no
    central counter.
    """

    label: str
    device: str
    media_set: str
    server: str
    opened_at_ns: int
    last_write_at_ns: int
    closes_at_ns: int | None
    bytes: int = 0
    sets: int = 0


#: ``bytes`` under another name: in a record with a field called ``bytes`` the plain name would mean that field.
Octets = bytes


class BackupSet(Struct, frozen=True, gc=False):
    """One backup set: a complete tree of one source server as of its time. It is what lies, signed, in the vault.

    ``source`` and ``server`` are node ids (where the files live; who wrote), with their names at that time.
    ``device`` is the device's id. ``roots`` are absolute paths without the leading slash, in path order. ``filters`` is the digest of
    everything that decides what is read (roots, excludes, limits): an incremental builds only on a set with the same
    one. ``root`` is the id of the tree. ``parent`` is the set that change was measured against. ``bytes`` is the size
    of all files, ``bytes_read`` what was read from the source, ``bytes_stored`` what was added to the device, packs and
    metadata included. ``copy_of`` is the set of which this one is a copy on another device: times and type are those of
    that set (its own times, if it was stored beside that one by the same reading). ``made_of`` is the set whose tree this full one has, which was made without reading the source: the times
    are those of that set.
    """

    id: str
    mesh: str
    vault: str
    source: str
    source_name: str
    server: str
    server_name: str
    device: str
    device_name: str
    medium: str
    media_set: str
    type: BackupType
    job: str
    run: str
    attempt: str
    started_at_ns: int
    ended_at_ns: int
    roots: tuple[Octets, ...]
    filters: Octets
    root: Octets
    parent: str | None
    files: int
    entries: int
    bytes: int
    bytes_read: int
    bytes_stored: int
    exceptions: int
    copy_of: str | None = None
    made_of: str | None = None
