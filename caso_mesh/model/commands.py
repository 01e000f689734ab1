"""Commands: how the control state changes. Each is proposed to the replicated log, and applied by the reducer in
``control/`` in the order of the log, on every voter alike.

A command carries everything its effect depends on (instants, ids, random values): applying it reads no clock. It
travels in an ``Envelope`` with the request id (repeated, it has no second effect) and who asked.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from caso_mesh.model.copies import CopyTo, FollowOrders, NoteCopy, TakeCopy
from caso_mesh.model.errors import PeerMalformed
from caso_mesh.model.features import SetFeatureLevel
from caso_mesh.model.importing import ImportDevice, NoteImported
from caso_mesh.model.jobs import Attempt, CronSchedule, Failure, Job, JobSpec
from caso_mesh.model.logons import DeleteLogon, GrantLogon, PutLogon
from caso_mesh.model.mesh import Anchor, MeshInfo, Operator, OperatorGrant, Pool, Server, SetDataLocation
from caso_mesh.model.notices import (
    DeleteNoticeRule,
    DeleteRecipient,
    DeleteRecipientGroup,
    PutNoticeRule,
    PutRecipient,
    PutRecipientGroup,
    SetMailServer,
)
from caso_mesh.model.policies import DayCalendar, DevicePool, Policy, SelectionList
from caso_mesh.model.remembering import RememberCall
from caso_mesh.model.report_schedules import DeleteReportSchedule, NoteReport, PutReportSchedule
from caso_mesh.model.rules import Again, ErrorRule
from caso_mesh.model.states import AttemptState, DeviceState, JobState, Liveness, Priority, RunState, ServerState
from caso_mesh.model.storage import Device, DeviceKind, DevicePath, MediaSet
from caso_mesh.model.wholeness import decode_whole


class FoundMesh(Struct, frozen=True, tag="found-mesh", tag_field="do"):
    """The first command of a mesh: what it is, its first server and its operator."""

    mesh: MeshInfo
    anchors: tuple[Anchor, ...]
    server: Server
    operators: tuple[Operator, ...]
    media_sets: tuple[MediaSet, ...]


class CreateToken(Struct, frozen=True, tag="create-token", tag_field="do"):
    digest: bytes
    expires_at_ns: int


class RevokeToken(Struct, frozen=True, tag="revoke-token", tag_field="do"):
    """Nobody joins by the token of ``digest`` any more."""

    digest: bytes


class AdmitServer(Struct, frozen=True, tag="admit-server", tag_field="do"):
    """A new server joins, with its local operator. ``token`` is the digest of the join token it used, committed as
    used before anything is signed; ``None`` = approved by a person. Repeated with the same key it has no effect."""

    server: Server
    operator: Operator | None
    token: bytes | None


class ReplaceServer(Struct, frozen=True, tag="replace-server", tag_field="do"):
    """A new machine, ``server``, takes the place of the server ``old`` (id), with all that it had. ``admin`` is the server in
    office, which cannot be replaced. Otherwise as ``AdmitServer``."""

    server: Server
    operator: Operator
    token: bytes
    old: str
    admin: str


class AnnounceCa(Struct, frozen=True, tag="announce-ca", tag_field="do"):
    """A new certification authority: everybody is to trust ``issuing`` (DER) from now on, which signs nothing before the
    switch. ``by`` is the server that holds the keys."""

    root: bytes
    issuing: bytes
    by: str
    switch_at_ns: int
    urgent: bool = False


class SwitchCa(Struct, frozen=True, tag="switch-ca", tag_field="do"):
    """The authority that was announced signs from now on; what the old one has signed is renewed."""

    issuing: bytes


class NoteCa(Struct, frozen=True, tag="note-ca", tag_field="do"):
    """Servers and operators that know the new authority, or after the switch have certificates of it."""

    ids: tuple[str, ...]


class FinishCa(Struct, frozen=True, tag="finish-ca", tag_field="do"):
    """Everybody has certificates of the new authority, or has had the time: the old anchors go."""

    issuing: bytes


class InviteOperator(Struct, frozen=True, tag="invite-operator", tag_field="do"):
    """Somebody may become the operator of ``grant``: whoever shows the secret of ``digest`` first."""

    digest: bytes
    expires_at_ns: int
    grant: OperatorGrant


class AdmitOperator(Struct, frozen=True, tag="admit-operator", tag_field="do"):
    """Who was invited has made a key (DER) and shown the secret of ``token``. Repeated with the same key it has no effect."""

    token: bytes
    operator: str
    public_key: bytes


class RevokeOperator(Struct, frozen=True, tag="revoke-operator", tag_field="do"):
    """An operator, or an invitation that was not followed yet, by its name. The key is refused from now on."""

    name: str


class SetServerState(Struct, frozen=True, tag="set-server-state", tag_field="do"):
    server: str
    state: ServerState


class SetServerAddresses(Struct, frozen=True, tag="set-server-addresses", tag_field="do"):
    """Where a linked server says it may be reached, and which version it runs."""

    server: str
    addresses: tuple[str, ...]
    version: str


class SetLiveness(Struct, frozen=True, tag="set-liveness", tag_field="do"):
    """A transition of liveness as the administrator in office found it."""

    server: str
    liveness: Liveness
    silent_since_ns: int | None


class RemoveServer(Struct, frozen=True, tag="remove-server", tag_field="do"):
    """The server's row leaves the roster; its id is refused from now on. ``admin`` is the server in office, which
    cannot be removed."""

    server: str
    admin: str = ""


class SetVoter(Struct, frozen=True, tag="set-voter", tag_field="do"):
    """A server has become a voter, or is none any more. ``certificate`` (DER) is its issuing certificate, listed as a
    trust anchor for as long as it votes. ``never_admin``: a person wants it (not) to be one; ``None`` leaves that."""

    server: str
    voter: bool
    certificate: bytes | None = None
    never_admin: bool | None = None


class CreatePool(Struct, frozen=True, tag="create-pool", tag_field="do"):
    pool: Pool


class SetPool(Struct, frozen=True, tag="set-pool", tag_field="do"):
    pool: Pool


class DeletePool(Struct, frozen=True, tag="delete-pool", tag_field="do"):
    name: str


class AddDevice(Struct, frozen=True, tag="add-device", tag_field="do"):
    device: Device


class SetDevice(Struct, frozen=True, tag="set-device", tag_field="do"):
    """New state, concurrency or threshold of a device; ``None`` leaves a value as it is. ``quotas``: (server, bytes that
    its sets may take there), ``None`` = as many as there are."""

    device: str
    state: DeviceState | None = None
    concurrency: int | None = None
    low_space_bytes: int | None = None
    quotas: tuple[tuple[str, int | None], ...] = ()


class SetDevicePaths(Struct, frozen=True, tag="set-device-paths", tag_field="do"):
    """A device lies elsewhere, other servers see it, or may use it: all of its places. ``copies``: what opens an imported one,
    sealed to servers (node ids) that had none."""

    device: str
    kind: DeviceKind
    paths: tuple[DevicePath, ...]
    copies: dict[str, bytes] = {}


class RetireMedium(Struct, frozen=True, tag="retire-medium", tag_field="do"):
    """A medium of a device (id) takes no further sets; those on it stay."""

    device: str
    label: str


class BeginErase(Struct, frozen=True, tag="begin-erase", tag_field="do"):
    """All that speaks against erasing its device was looked at, and nothing does: the attempt may begin. Until one that erases
    the device has ended well, nothing else is done with it."""

    attempt: str


class RemoveDevice(Struct, frozen=True, tag="remove-device", tag_field="do"):
    device: str


class SetSetting(Struct, frozen=True, tag="set-setting", tag_field="do"):
    """A mesh setting, or one of all members of ``pool``, or of ``server`` (id). ``value`` ``None`` removes it."""

    name: str
    value: float | str | None
    server: str | None = None
    pool: str | None = None


class AddKit(Struct, frozen=True, tag="add-kit", tag_field="do"):
    """A recovery kit is being made: from now on content keys are wrapped to it. Repeated with the same key it has no
    effect."""

    kit: str
    public_key: bytes
    at_ns: int


class ConfirmKit(Struct, frozen=True, tag="confirm-kit", tag_field="do"):
    """The file of a recovery kit was written and opens."""

    kit: str
    at_ns: int


class NoteKitDevice(Struct, frozen=True, tag="note-kit-device", tag_field="do"):
    """All content keys of a device are wrapped to these kits, or (not ``complete``) not known to be any more."""

    device: str
    kits: tuple[str, ...]
    complete: bool = True


class CreateJob(Struct, frozen=True, tag="create-job", tag_field="do"):
    """A job; with ``run_now`` its first run as well, in one step."""

    job: Job
    run_now: bool
    at_ns: int


class RunNow(Struct, frozen=True, tag="run-now", tag_field="do"):
    """``sets``: by source, what a job that verifies is about now."""

    job: str
    at_ns: int
    sets: dict[str, str] = {}


class SetJob(Struct, frozen=True, tag="set-job", tag_field="do"):
    job: str
    state: JobState | None = None
    priority: Priority | None = None


class EditJob(Struct, frozen=True, tag="edit-job", tag_field="do"):
    """Another definition of a job that a person made. Runs that are open go on as they began."""

    job: str
    spec: JobSpec
    schedule: CronSchedule | None
    priority: Priority


class SetRunPriority(Struct, frozen=True, tag="set-run-priority", tag_field="do"):
    """Of one run, whatever its job has. It counts while parts of it wait."""

    run: str
    priority: Priority


class DeleteJob(Struct, frozen=True, tag="delete-job", tag_field="do"):
    job: str


class OpenRun(Struct, frozen=True, tag="open-run", tag_field="do"):
    """A recurring job's due time has come. The id of the run is made of it, so it opens once.

    ``superseded_by``: the run that takes its place; it is closed at once. ``after``: the run that it follows, due at
    ``after_due_at_ns``. ``sets``: by source, what a job that verifies is about.
    """

    job: str
    due_at_ns: int
    at_ns: int
    superseded_by: str | None = None
    after: str | None = None
    after_due_at_ns: int = 0
    sets: dict[str, str] = {}


class Delegate(Struct, frozen=True, tag="delegate", tag_field="do"):
    """An attempt is handed to its media server. ``second``: the one that takes what it reads to another device, with the
    run that it opens for that."""

    attempt: Attempt
    second: Attempt | None = None


class CloseAttempt(Struct, frozen=True, tag="close-attempt", tag_field="do"):
    """An attempt ended, or (``recovered``) is given up by the administrator. Closing a closed one has no effect, save
    that a late success closes its part if that is still open, and else is remembered as redundant.

    ``retry_not_before_ns`` holds back the attempt after a second recovery. ``taken_back``: a recovered attempt that
    had not started; it does not count as a recovery. ``again``: what an error-handling rule makes of a failure.
    """

    attempt: str
    state: AttemptState
    at_ns: int
    set: str | None = None
    failure: Failure | None = None
    retry_not_before_ns: int = 0
    taken_back: bool = False
    again: Again | None = None


class CloseRun(Struct, frozen=True, tag="close-run", tag_field="do"):
    """The administrator closes a run that will not get further: ``missed`` closes the parts that never started,
    ``canceled`` and ``timed-out`` close all that wait and ask active attempts for their end, ``failed`` closes all that
    wait and lets the others go on."""

    run: str
    state: RunState
    at_ns: int
    failure: Failure | None = None


class CancelRun(Struct, frozen=True, tag="cancel-run", tag_field="do"):
    """Asks for the end of a run: waiting parts end at once, active attempts when their workers say so, or are killed
    (``by_force``)."""

    run: str
    at_ns: int
    by_force: bool = False


class HoldRun(Struct, frozen=True, tag="hold-run", tag_field="do"):
    run: str
    held: bool


class AnswerAlert(Struct, frozen=True, tag="answer-alert", tag_field="do"):
    """An alert is answered. The first answer in the log's order wins."""

    alert: str
    response: str
    at_ns: int


class PutMediaSet(Struct, frozen=True, tag="put-media-set", tag_field="do"):
    """A media set; ``new``: one of that name must not be there yet, else it must."""

    media_set: MediaSet
    new: bool


class CreateErrorRule(Struct, frozen=True, tag="create-error-rule", tag_field="do"):
    rule: ErrorRule


class DeleteErrorRule(Struct, frozen=True, tag="delete-error-rule", tag_field="do"):
    name: str


class DeleteMediaSet(Struct, frozen=True, tag="delete-media-set", tag_field="do"):
    name: str


class PutDevicePool(Struct, frozen=True, tag="put-device-pool", tag_field="do"):
    pool: DevicePool
    new: bool


class DeleteDevicePool(Struct, frozen=True, tag="delete-device-pool", tag_field="do"):
    name: str


class PutCalendar(Struct, frozen=True, tag="put-calendar", tag_field="do"):
    calendar: DayCalendar
    new: bool


class DeleteCalendar(Struct, frozen=True, tag="delete-calendar", tag_field="do"):
    name: str


class PutList(Struct, frozen=True, tag="put-list", tag_field="do"):
    """A selection list, new by its id or changed; jobs made of it follow. The ids of new ones come of ``seed``, here as
    in all of these. ``before``: it must still be like this, or somebody else has changed it meanwhile."""

    list: SelectionList
    seed: str
    before: SelectionList | None = None


class DeleteList(Struct, frozen=True, tag="delete-list", tag_field="do"):
    list: str


class PutPolicy(Struct, frozen=True, tag="put-policy", tag_field="do"):
    policy: Policy
    seed: str
    before: Policy | None = None


class DeletePolicy(Struct, frozen=True, tag="delete-policy", tag_field="do"):
    policy: str


class Associate(Struct, frozen=True, tag="associate", tag_field="do"):
    """One job for each template of the policy, at once. Repeated it has no effect."""

    policy: str
    list: str
    seed: str


class Dissociate(Struct, frozen=True, tag="dissociate", tag_field="do"):
    """The jobs go, their history and backup sets stay."""

    policy: str
    list: str


class Batch(Struct, frozen=True, tag="batch", tag_field="do"):
    """Several commands in one step: all of them or none. What is made of policies is made at the end."""

    commands: tuple[Command, ...]
    seed: str


class Prune(Struct, frozen=True, tag="prune", tag_field="do"):
    """Forget closed runs, used or expired tokens, answers and request ids from before an instant; runs perhaps from
    before a later one."""

    before_ns: int
    runs_before_ns: int | None = None


Command = (
    FoundMesh
    | SetFeatureLevel
    | CreateToken
    | RevokeToken
    | AdmitServer
    | ReplaceServer
    | AnnounceCa
    | SwitchCa
    | NoteCa
    | FinishCa
    | InviteOperator
    | AdmitOperator
    | RevokeOperator
    | SetServerState
    | SetDataLocation
    | SetServerAddresses
    | SetLiveness
    | RemoveServer
    | SetVoter
    | CreatePool
    | SetPool
    | DeletePool
    | AddDevice
    | SetDevice
    | SetDevicePaths
    | RetireMedium
    | BeginErase
    | RemoveDevice
    | ImportDevice
    | NoteImported
    | SetSetting
    | AddKit
    | ConfirmKit
    | NoteKitDevice
    | CreateJob
    | RunNow
    | SetJob
    | EditJob
    | SetRunPriority
    | DeleteJob
    | OpenRun
    | Delegate
    | CloseAttempt
    | CloseRun
    | CancelRun
    | HoldRun
    | AnswerAlert
    | PutMediaSet
    | DeleteMediaSet
    | CreateErrorRule
    | DeleteErrorRule
    | PutLogon
    | GrantLogon
    | DeleteLogon
    | SetMailServer
    | PutRecipient
    | DeleteRecipient
    | PutRecipientGroup
    | DeleteRecipientGroup
    | PutNoticeRule
    | DeleteNoticeRule
    | PutReportSchedule
    | DeleteReportSchedule
    | NoteReport
    | PutDevicePool
    | DeleteDevicePool
    | PutCalendar
    | DeleteCalendar
    | PutList
    | DeleteList
    | PutPolicy
    | DeletePolicy
    | Associate
    | Dissociate
    | CopyTo
    | NoteCopy
    | FollowOrders
    | TakeCopy
    | RememberCall
    | Batch
    | Prune
)


class Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    """A command as it lies in the log. ``who`` is an operator's name, or ``admin`` for what the office decides."""

    request_id: str
    who: str
    at_ns: int
    command: Command


def encode(envelope: Envelope) -> bytes:
    return msgspec.msgpack.encode(envelope)


_decoder = msgspec.msgpack.Decoder(Envelope)


def decode(data: bytes) -> Envelope:
    """Raises ``PeerMalformed``: a command that is not understood, or not whole, stops applying, it is never skipped."""
    try:
        return decode_whole(_decoder, encode, data)
    except msgspec.MsgspecError as error:
        raise PeerMalformed(peer="the replicated log", detail=str(error)) from None
