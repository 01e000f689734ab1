"""Records that only the control state keeps, and how a command's effect on its tables is written down."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from caso_mesh.model.copies import Copy
from caso_mesh.model.errors import CasoError, from_wire
from caso_mesh.model.jobs import Attempt, Job, Run
from caso_mesh.model.logons import Logon
from caso_mesh.model.mesh import Anchor, CaRotation, JoinToken, MeshInfo, Operator, Pool, RecoveryKit, RosterRow, Server
from caso_mesh.model.notices import MailServer, NoticeRule, Recipient, RecipientGroup
from caso_mesh.model.orders import Authority
from caso_mesh.model.policies import Association, DayCalendar, DevicePool, Policy, SelectionList
from caso_mesh.model.report_schedules import ReportSchedule
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.storage import Device, MediaSet

TableName = Literal[
    "mesh",
    "anchors",
    "rotation",
    "servers",
    "removed",
    "former",
    "operators",
    "tokens",
    "pools",
    "devices",
    "media_sets",
    "mesh_settings",
    "pool_settings",
    "jobs",
    "runs",
    "attempts",
    "answers",
    "requests",
    "kits",
    "device_pools",
    "calendars",
    "lists",
    "policies",
    "associations",
    "error_rules",
    "logons",
    "copies",
    "mail_server",
    "recipients",
    "recipient_groups",
    "notice_rules",
    "report_schedules",
]


class AlertAnswer(Struct, frozen=True):
    """The answer that counts: the first in the log's order."""

    alert: str
    who: str
    response: str
    at_ns: int


class Outcome(Struct, frozen=True):
    """What a command came to: its result in plain wire values, or its error as it crosses the wire."""

    result: Any = None
    failure: dict[str, Any] | None = None

    @property
    def error(self) -> CasoError | None:
        return None if self.failure is None else from_wire(self.failure)

    def value(self) -> Any:
        """The result. Raises the command's error."""
        if self.failure is not None:
            raise from_wire(self.failure)
        return self.result


class Request(Struct, frozen=True):
    """A request id that was seen, with what it came to."""

    id: str
    at_ns: int
    outcome: Outcome


class Put(Struct, frozen=True):
    """One row of one table changes; ``record`` ``None`` removes it. ``key`` is empty for ``mesh`` and ``anchors``."""

    table: TableName
    key: Any
    record: Any


class Effect(Struct, frozen=True):
    """What a command does: its result, and the rows it changes."""

    result: Any = None
    changes: tuple[Put, ...] = ()


class Context(Struct, frozen=True):
    """Who asked for a command, and when."""

    who: str
    at_ns: int


class Image(Struct, frozen=True):
    """The whole control state as a snapshot holds it, every table in the order of its keys (requests in the order in
    which they came)."""

    version: int
    authority: Authority
    mesh: MeshInfo | None
    anchors: tuple[Anchor, ...]
    servers: tuple[Server, ...]
    removed: tuple[tuple[str, str], ...]
    operators: tuple[Operator, ...]
    tokens: tuple[JoinToken, ...]
    pools: tuple[Pool, ...]
    devices: tuple[Device, ...]
    media_sets: tuple[MediaSet, ...]
    mesh_settings: tuple[tuple[str, float | str], ...]
    pool_settings: tuple[tuple[str, tuple[tuple[str, float | str], ...]], ...]
    jobs: tuple[Job, ...]
    runs: tuple[Run, ...]
    attempts: tuple[Attempt, ...]
    answers: tuple[AlertAnswer, ...]
    requests: tuple[Request, ...]
    former: tuple[RosterRow, ...] = ()
    kits: tuple[RecoveryKit, ...] = ()
    device_pools: tuple[DevicePool, ...] = ()
    calendars: tuple[DayCalendar, ...] = ()
    lists: tuple[SelectionList, ...] = ()
    policies: tuple[Policy, ...] = ()
    associations: tuple[Association, ...] = ()
    error_rules: tuple[ErrorRule, ...] = ()
    rotation: CaRotation | None = None
    logons: tuple[Logon, ...] = ()
    copies: tuple[Copy, ...] = ()
    mail_server: MailServer | None = None
    recipients: tuple[Recipient, ...] = ()
    recipient_groups: tuple[RecipientGroup, ...] = ()
    notice_rules: tuple[NoticeRule, ...] = ()
    report_schedules: tuple[ReportSchedule, ...] = ()
