"""What is copied to a server, so that it runs there without the administrator, and the commands about it.

A *copy* is one parcel for one server: definitions, narrowed to what that server can do by itself. It is kept, and is part
of that server's orders, until its journal says what came of it; the server takes each once, by its id.

A server keeps what was copied to it, and what was made there, in a control state of its own: the same records, changed
by the same commands through the same reducer, in a log of its own (``local/``). ``FollowOrders`` and ``TakeCopy`` are
commands of that log alone.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.jobs import Job
from caso_mesh.model.logons import LogonOrder
from caso_mesh.model.mesh import MeshInfo, Pool, Server
from caso_mesh.model.policies import Association, DayCalendar, DevicePool, Policy, SelectionList
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.storage import Device, MediaSet


class Clash(StrEnum):
    """What becomes of a name that is taken at the server."""

    OVERWRITE = "overwrite"
    SKIP = "skip"


class Came(StrEnum):
    """What came of one thing that was copied."""

    MADE = "made"
    OVERWRITTEN = "overwritten"
    SKIPPED = "skipped"
    REFUSED = "refused"


class Outcome(Struct, frozen=True):
    """``kind`` is kebab-case, as in ``selection-list``. ``reason``: why it was refused."""

    kind: str
    name: str
    came: Came
    reason: str = ""


class Copy(Struct, frozen=True):
    """One parcel for ``server`` (node id). ``number`` rises with the place in the log at which it was asked for: parcels are
    taken in that order. Once ``outcomes`` are known (``taken_at_ns``) its content is not kept any more.

    ``pools`` and ``device_pools`` are those that targets name, with this server and its devices as their only members.
    """

    id: str
    number: int
    server: str
    clash: Clash
    who: str
    at_ns: int
    lists: tuple[SelectionList, ...] = ()
    policies: tuple[Policy, ...] = ()
    associations: tuple[Association, ...] = ()
    jobs: tuple[Job, ...] = ()
    error_rules: tuple[ErrorRule, ...] = ()
    calendars: tuple[DayCalendar, ...] = ()
    device_pools: tuple[DevicePool, ...] = ()
    pools: tuple[Pool, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    taken_at_ns: int | None = None

    def without_content(self) -> Copy:
        """What is remembered of it."""
        return Copy(
            self.id, self.number, self.server, self.clash, self.who, self.at_ns,
            outcomes=self.outcomes, taken_at_ns=self.taken_at_ns,
        )  # fmt: skip


class CopyTo(Struct, frozen=True, tag="copy-to", tag_field="do"):
    """One parcel for each of ``servers`` (node ids). ``lists``, ``policies`` and ``jobs`` are ids; a policy brings the lists
    that it is associated with, as far as they name places of the server, and is associated there with those of ``lists``, too.
    ``settings``: those of the mesh become the
    server's own, in the same step. The ids of the parcels come of ``seed``."""

    servers: tuple[str, ...]
    clash: Clash
    seed: str
    at_ns: int
    lists: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    error_rules: bool = False
    settings: bool = False


class NoteCopy(Struct, frozen=True, tag="note-copy", tag_field="do"):
    """A server has taken a parcel: it is not sent any more."""

    copy: str
    outcomes: tuple[Outcome, ...]
    at_ns: int


class FollowOrders(Struct, frozen=True, tag="follow-orders", tag_field="do"):
    """A server's own control state becomes as its orders say: what the mesh is, who it is, its devices, media sets,
    settings, and the logons that it may use."""

    mesh: MeshInfo
    server: Server
    devices: tuple[Device, ...]
    media_sets: tuple[MediaSet, ...]
    settings: dict[str, float | str]
    logons: tuple[LogonOrder, ...] = ()


class TakeCopy(Struct, frozen=True, tag="take-copy", tag_field="do"):
    """A server takes a parcel into its own control state. Jobs that it makes have ids of ``seed``."""

    copy: Copy
    seed: str
