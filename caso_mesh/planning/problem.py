"""The tables that placement looks at, and what it answers with. Ids are node ids and device ids; names are for people."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from caso_mesh.model.dialects import OWN, Dialects
from caso_mesh.model.features import FEATURE_LEVEL
from caso_mesh.model.jobs import Target, Waiting
from caso_mesh.model.states import DeviceState, JobKind, Priority, ServerState


class ServerRow(Struct, frozen=True):
    """A server. ``running`` of ``concurrency`` jobs use it as media server, ``reading`` of ``source_concurrency`` read
    (or write) its file systems. ``silent_since_ns``: since when it is not connected, if that is known. ``held``: its
    queue is on hold. ``level``: the feature level of its program, ``bulk``: how its workers speak. ``local``: its device and media data are on it, so that
    nothing is delegated to it."""

    id: str
    name: str
    state: ServerState
    connected: bool
    running: int = 0
    concurrency: int = 4
    reading: int = 0
    source_concurrency: int = 2
    silent_since_ns: int | None = None
    held: bool = False
    level: int = FEATURE_LEVEL
    bulk: Dialects = OWN
    local: bool = False


class DeviceRow(Struct, frozen=True):
    """A device, with the servers that have an enabled path to it. ``free_bytes`` ``None`` = not known. ``reserved_bytes``
    of them are what running jobs are predicted to store yet. ``left_bytes``: what is left of the quota of a server that
    has one, reservations taken off. ``no_key``: no server that sees it opens it. ``lost``: none can use it, although nobody
    has put it offline: what is wrong with it is for an inventory to find out. ``imported``: it came from another mesh, and
    nothing is written to it. ``taken``: the run that erases it; ``emptied``: that has begun, and did not end."""

    id: str
    name: str
    state: DeviceState
    servers: tuple[str, ...]
    running: int = 0
    concurrency: int = 2
    free_bytes: int | None = None
    low_space_bytes: int = 0
    reserved_bytes: int = 0
    left_bytes: tuple[tuple[str, int], ...] = ()
    no_key: bool = False
    lost: bool = False
    imported: bool = False
    taken: str = ""
    emptied: bool = False

    def low(self) -> bool:
        """Whether nothing more may be written, however little."""
        return self.free_bytes is not None and self.free_bytes - self.reserved_bytes < self.low_space_bytes


class PoolRow(Struct, frozen=True):
    name: str
    servers: tuple[str, ...]


class DevicePoolRow(Struct, frozen=True):
    """``devices``: (device, priority); the smaller number is taken first."""

    name: str
    devices: tuple[tuple[str, int], ...]


class ReadyPart(Struct, frozen=True):
    """A part of a run without an active attempt.

    ``target`` is a backup's or copy's; ``device`` is the one that holds the set that is read, or that the work is about (``None``: no device has
    it). ``predicted_s`` is how long it will take on a server of speed 1, ``None`` if nobody knows; ``elsewhere_s`` the
    same on a device that holds no set of the source, where all has to be stored anew. ``predicted_bytes`` is what it will
    store, ``elsewhere_bytes`` on such a device. ``recovered_on``: servers that were lost with an attempt of it. ``within``: a server or pool that alone may
    write it. ``window``: when it may start; ``behind``: the run whose end it waits for; ``first``: the job that must
    complete once before. ``level``: the feature level that a server needs to do it. ``no_logon``: a logon whose secret its
    source needs and has no copy of. ``unended``: an earlier attempt that its source may be at yet. ``medium``: the
    label of the one that the set lies on, if it is known. ``second``: where another device is that it needs beside the first one.
    """

    run: str
    job: str
    job_name: str
    source: str
    kind: JobKind
    priority: Priority
    due_at_ns: int
    target: Target | None = None
    device: str | None = None
    not_before_ns: int = 0
    predicted_s: float | None = None
    elsewhere_s: float | None = None
    predicted_bytes: int = 0
    elsewhere_bytes: int = 0
    on_hold: bool = False
    stranded: bool = False
    recovered_on: tuple[str, ...] = ()
    within: Target | None = None
    window: str = ""
    behind: str | None = None
    first: str | None = None
    level: int = 1
    no_logon: str | None = None
    unended: str = ""
    medium: str = ""
    second: Target | None = None


class Busy(Struct, frozen=True):
    """An active attempt: another run of the same job waits for the same source. ``ends_at_ns``: when it is predicted to
    end, ``None`` if nobody knows."""

    job: str
    source: str
    run: str
    server: str = ""
    device: str = ""
    ends_at_ns: int | None = None


class Problem(Struct, frozen=True):
    """Everything that placement depends on.

    ``holdings``: (source, device) where the device holds sets of the source. ``no_data_path``: (source, server) that
    cannot reach each other. ``speeds``: (server, device, how fast jobs run there), where that is known to differ from 1.
    ``in_grace``: the administrator has just taken office and does not know yet who is there. ``telling``: servers that are
    back and have not told yet what they did. ``shut``: until when (ns) servers (node ids) send nothing to others.
    """

    servers: tuple[ServerRow, ...]
    devices: tuple[DeviceRow, ...]
    parts: tuple[ReadyPart, ...]
    pools: tuple[PoolRow, ...] = ()
    device_pools: tuple[DevicePoolRow, ...] = ()
    busy: tuple[Busy, ...] = ()
    holdings: tuple[tuple[str, str], ...] = ()
    no_data_path: tuple[tuple[str, str], ...] = ()
    speeds: tuple[tuple[str, str, float], ...] = ()
    in_grace: bool = False
    telling: tuple[str, ...] = ()
    shut: Mapping[str, int] = {}


class Assignment(Struct, frozen=True):
    """The part of ``source`` of a run is handed to ``server``, which writes to (or reads from) ``device``. Of a copy of
    a set ``reader`` is the server that reads it on ``from_device``. ``second_server`` writes the same to
    ``second_device``."""

    run: str
    source: str
    server: str
    device: str
    reader: str = ""
    from_device: str = ""
    second_server: str = ""
    second_device: str = ""


class Plan(Struct, frozen=True):
    """Assignments in the order in which they were made, and for every other part, as (run, source), why it waits."""

    assignments: tuple[Assignment, ...]
    waiting: Mapping[tuple[str, str], Waiting]
