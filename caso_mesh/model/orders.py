"""Orders: the slice of the control state that one server is handed, whole, and keeps on disk."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

from caso_mesh.model.copies import Copy
from caso_mesh.model.device_jobs import CatalogSpec, EraseSpec, InventorySpec
from caso_mesh.model.jobs import (
    BackupSpec,
    DrillSpec,
    DuplicateSpec,
    PartSpec,
    RestoreSpec,
    SyntheticSpec,
    TestRunSpec,
    VerifySpec,
)
from caso_mesh.model.logons import LogonOrder
from caso_mesh.model.mesh import NodeAddress, Roster, Server
from caso_mesh.model.storage import Device, MediaSet


class Authority(Struct, frozen=True, order=True):
    """What an order stands on. A server refuses a lower triple."""

    lineage: int
    term: int
    index: int

    @property
    def of_term(self) -> tuple[int, int]:
        """Whose word it is: that of one administrator in one term of office."""
        return self.lineage, self.term

    def __str__(self) -> str:
        return f"{self.lineage}.{self.term}.{self.index}"


class SecondEnd(Struct, frozen=True):
    """Where the end that reads takes what it reads, beside its own attempt: another one, with its media server (node id)
    and device (id), ticket and secret."""

    attempt: str
    media: str
    device: str
    ticket: bytes = b""
    secret: bytes = b""


class AttemptOrder(Struct, frozen=True):
    """One attempt as its device's server and its source's (or target's) server are told of it.

    ``end``: which end this server is; ``both`` if the files and the device are on this server. ``media`` and
    ``source`` are node ids (for a restore ``source`` is the server that is written to). ``ticket`` admits the two
    workers to each other; ``secret`` names the attempt's bulk channel and admits reconnects. ``avoid``: sets that
    must not be a base. ``cancel``: it is to end, ``by_force``: at once. ``origin``: the id under which the sets of the source are kept, if it is in the place of another
    machine. Of a duplicate ``reader`` (a node id) reads the set on ``from_device`` that is copied to ``device``. ``second`` is
    told to the end that reads; the second attempt itself is ``beside`` the first one.
    """

    attempt: str
    run: str
    job: str
    job_name: str
    source: str
    media: str
    end: Literal["device", "source", "both"]
    device: str
    spec: PartSpec
    number: int
    cancel: bool = False
    by_force: bool = False
    ticket: bytes = b""
    secret: bytes = b""
    avoid: tuple[str, ...] = ()
    origin: str = ""
    reader: str = ""
    from_device: str = ""
    second: SecondEnd | None = None
    beside: str = ""

    @property
    def other(self) -> str:
        """The node id of the end that is not the media server's."""
        return self.reader or self.source

    @property
    def writes_files(self) -> bool:
        """Whether this end writes files of its server, which the next attempt of the part writes as well."""
        return isinstance(self.spec, RestoreSpec) and self.end != "device"

    @property
    def tickets(self) -> dict[str, bytes]:
        """What admits this end to others, by attempt: of the one beside it too."""
        found = {self.attempt: self.ticket} | ({} if self.second is None else {self.second.attempt: self.second.ticket})
        return {attempt: ticket for attempt, ticket in found.items() if ticket}

    @property
    def kept_as(self) -> str:
        """The ``source`` of the sets that this attempt makes and builds on."""
        return self.origin or self.source


class Orders(Struct, frozen=True):
    """All that a server must know to do its part, also while the administrator is away. ``logons`` are those that it may
    use, ``copies`` those that it has not reported taken, in their order."""

    authority: Authority
    admin: str
    server: Server
    roster: Roster
    nodes: tuple[NodeAddress, ...]
    settings: dict[str, float | str]
    devices: tuple[Device, ...]
    media_sets: tuple[MediaSet, ...]
    attempts: tuple[AttemptOrder, ...] = ()
    logons: tuple[LogonOrder, ...] = ()
    copies: tuple[Copy, ...] = ()


class OrdersChange(Struct, frozen=True):
    """Orders for a server whose roster and addresses are known: ``base`` is their digest. They are ``orders`` but for the
    rows of the roster and the addresses, of which only those that are others are named. ``rows_gone`` and ``nodes_gone``
    are ids."""

    base: bytes
    orders: Orders
    rows_gone: tuple[str, ...] = ()
    nodes_gone: tuple[str, ...] = ()


def ticket_paths(spec: PartSpec, source: str) -> tuple[bytes, ...]:
    """What a ticket of an attempt at ``source`` is bound to: the roots that are read, or the paths that are restored and
    where to."""
    match spec:
        case BackupSpec(sources=sources) | TestRunSpec(backup=BackupSpec(sources=sources)):
            return tuple(root for each in sources if each.server == source for root in each.roots)
        case RestoreSpec(set=set_id, into_command=str() as name, paths=paths):
            return (set_id.encode(), b"@into/" + name.encode(), *paths)
        case RestoreSpec(set=set_id, base=base, paths=paths, selection=selection):
            many = (b"@selection/" + hashlib.sha256(selection).digest(),) if selection else ()
            return (set_id.encode(), b"" if base is None else b"/" + base.lstrip(b"/"), *paths, *many)
        case VerifySpec(set=set_id) | DrillSpec(set=set_id):
            return (set_id.encode(),)
        case DuplicateSpec() | SyntheticSpec():
            return (spec.set_of(source).encode(),)
        case CatalogSpec() | InventorySpec() | EraseSpec():
            return ()
