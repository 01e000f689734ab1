"""The error tree: every failure a person or a peer can see.

Each class is one failure. Its docstring is the message template: the first paragraph is the message with named
``{fields}``, the second says what to do next (the hint). ``code`` is stable, kebab-case, and the same on the wire, in
``--json`` and in the database. An error crosses the wire as ``{"code": ..., "fields": {...}}``.

Two roots: ``CasoError`` is what went wrong in the world or at a peer (``PeerFault`` below it is a peer that broke
the protocol); ``Misuse`` is our own programming mistake, which never crosses the wire under its own name.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, ClassVar

_FIELD = re.compile(r"\{(\w+)\}")

#: Exit statuses of the command line (``interface.md``).
FAILED, USAGE, UNAVAILABLE, REFUSED, NOT_FOUND, CONFLICT, WITH_EXCEPTIONS = 1, 2, 3, 4, 5, 6, 7


class Misuse(RuntimeError):
    """A mistake in this program: an interface used against its contract. Never the user's or a peer's fault."""


class CasoError(Exception):
    """Something went wrong.

    See the log of the daemon.
    """

    code: ClassVar[str] = "error"
    category: ClassVar[str] = "general"
    exit_status: ClassVar[int] = FAILED
    retryable: ClassVar[bool] = False

    def __init__(self, **fields: Any) -> None:
        missing = self.field_names() - fields.keys()
        if missing:
            raise Misuse(f"{type(self).__name__} needs the fields {sorted(missing)}")
        self.fields: dict[str, Any] = {name: _plain(value) for name, value in fields.items()}
        super().__init__(self.message)

    @classmethod
    def _paragraphs(cls) -> list[str]:
        return [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or cls.code).split("\n\n")]

    @classmethod
    def template(cls) -> str:
        """The message with its ``{fields}`` unfilled."""
        return cls._paragraphs()[0]

    @classmethod
    def hint_template(cls) -> str:
        """What to do next, with its ``{fields}`` unfilled; may be empty."""
        parts = cls._paragraphs()
        return parts[1] if len(parts) > 1 else ""

    @classmethod
    def field_names(cls) -> set[str]:
        return set(_FIELD.findall(cls.template() + cls.hint_template()))

    @property
    def message(self) -> str:
        """One line: what happened, to which object."""
        return _fill(self.template(), self.fields)

    @property
    def hint(self) -> str:
        """One line: what to do next; may be empty."""
        return _fill(self.hint_template(), self.fields)

    def to_wire(self) -> dict[str, Any]:
        """``{"code": str, "fields": {str: str | int | float | bool | None | list}}``."""
        return {"code": self.code, "fields": self.fields}

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_wire, ({"code": self.code, "fields": self.fields},))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


def _fill(template: str, fields: dict[str, Any]) -> str:
    def one(match: re.Match[str]) -> str:
        value = fields.get(match[1])
        if match[1] == "kind":  # a person reads words
            return str(value).replace("-", " ")
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return _FIELD.sub(one, template)


def all_errors() -> dict[str, type[CasoError]]:
    """Every error of the tree by its code."""
    found: dict[str, type[CasoError]] = {}
    pending: list[type[CasoError]] = [CasoError]
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return dict(sorted(found.items()))


def from_wire(record: dict[str, Any]) -> CasoError:
    """The error a peer sent. An unknown code (a newer peer) becomes ``UnknownError`` and keeps code and fields."""
    code, fields = str(record.get("code", "error")), record.get("fields")
    fields = {str(k): v for k, v in fields.items()} if isinstance(fields, dict) else {}
    cls = all_errors().get(code)
    if cls is None or not cls.field_names() <= fields.keys():
        return UnknownError(peer_code=code, detail=", ".join(f"{k}={v}" for k, v in sorted(fields.items())))
    return cls(**fields)


class UnknownError(CasoError):
    """The other side reports {peer_code} ({detail}).

    It may run a newer version; update this one.
    """

    code = "unknown-error"


class InternalError(CasoError):
    """Internal error: {detail}.

    This is a bug. The daemon's log has the traceback.
    """

    code = "internal-error"


# --- usage -----------------------------------------------------------------------------------------------------------


class UsageError(CasoError):
    """{detail}."""

    code = "usage"
    category = "usage"
    exit_status = USAGE


class InvalidName(UsageError):
    """ "{name}" is not a valid name for a {kind}.

    Use lower-case letters, digits, ".", "_" and "-", starting with a letter or digit, 63 characters at most.
    """

    code = "invalid-name"


class InvalidValue(UsageError):
    """ "{value}" is not a valid {what}.

    {expected}.
    """

    code = "invalid-value"


class InvalidSchedule(UsageError):
    """The schedule "{cron}" is not valid: {detail}.

    Five fields: minute hour day-of-month month day-of-week, as in "0 2 * * *".
    """

    code = "invalid-schedule"


class ScheduleOutsideWindow(InvalidSchedule):
    """The schedule "{cron}" is not valid: {detail}.

    Choose another time, or another window: "caso-mesh selection edit LIST --window".
    """

    code = "schedule-outside-window"


class UnknownZone(UsageError):
    """There is no time zone "{zone}".

    Use a name of the IANA data base, as in "Europe/Berlin".
    """

    code = "unknown-zone"


class InvalidPolicy(UsageError):
    """The policy {name} cannot be carried out: {detail}.

    Correct it and save it again; nothing was changed.
    """

    code = "invalid-policy"


class UnknownSetting(UsageError):
    """There is no setting "{name}".

    "caso-mesh settings list" shows all.
    """

    code = "unknown-setting"


class ConfigInvalid(UsageError):
    """{path}, line {line}: {detail}.

    Correct the file, then start again.
    """

    code = "config-invalid"


# --- state folder and daemon -----------------------------------------------------------------------------------------


class StateLocked(CasoError):
    """Another daemon is already running on {state}.

    Stop it first, or use another --state.
    """

    code = "state-locked"
    category = "state"
    exit_status = CONFLICT


class WorkersLeft(CasoError):
    """A worker of the daemon before this one has not ended: it waits for a file system that does not answer.

    See which one hangs (a network mount, a disk), mend or unmount it, and start the daemon again. The process is the one
    that holds {lock}.
    """

    code = "workers-left"
    category = "state"
    exit_status = CONFLICT


class StateNotEmpty(CasoError):
    """{state} already belongs to the server {server}.

    Use another --state, or remove that folder if it is not needed any more.
    """

    code = "state-not-empty"
    category = "state"
    exit_status = CONFLICT


class StateForeign(CasoError):
    """{state} is not empty, and what lies there is not of caso-mesh.

    Use another --state: a folder that does not exist yet, or an empty one.
    """

    code = "state-foreign"
    category = "state"
    exit_status = CONFLICT


class StateMissing(CasoError):
    """There is no caso-mesh server in {state}.

    "caso-mesh init" makes a new mesh there, "caso-mesh join" makes the server a member of one.
    """

    code = "state-missing"
    category = "state"
    exit_status = UNAVAILABLE


class StateTooNew(CasoError):
    """{state} was written by a newer version ({found}, this program knows {known}).

    Install that version again, or a later one; "caso-mesh help guide", "Upgrading", tells the way back.
    """

    code = "state-too-new"
    category = "state"


class StateDamaged(CasoError):
    """{path} is damaged: {detail}.

    Restore the state folder from a copy, or remove the server from the mesh and join again.
    """

    code = "state-damaged"
    category = "state"


class TakenOver(CasoError):
    """{server} took the mesh over by hand, in lineage {lineage}; what this server decides in lineage {own} does not count.

    It goes on as a member. What it had decided and {server} was not told is gone; facts come back from the journals.
    """

    code = "taken-over"
    category = "state"


class SeatMissing(CasoError):
    """By its orders this server votes, and {path} is not there: its state folder was put back to before it did.

    Take its vote away and give it again: caso-mesh voter remove NAME, then caso-mesh voter add NAME.
    """

    code = "seat-missing"
    category = "state"


class NothingToGoOnFrom(CasoError):
    """{server} has nothing from which it could take over: {detail}.

    Take over at a voter that has it; if there is none, rebuild the mesh from a device: caso-mesh recover DEVICE-PATH --kit
    FILE. If the administrator can still be reached, start this server again: what is missing comes by itself.
    """

    code = "nothing-to-go-on-from"
    category = "state"
    exit_status = CONFLICT


class StateRolledBack(CasoError):
    """{path} is an older copy of itself: {peer} has seen this server confirm more than it holds ({detail}).

    It takes no part in elections with that copy. Remove the server from the mesh and join it again, with a new state
    folder.
    """

    code = "state-rolled-back"
    category = "state"


class LogContradicted(CasoError):
    """The replicated log of {server} contradicts what was committed: {detail}.

    It has stopped before anything was changed. Another server is right: remove this one from the mesh and join it again
    with a new state folder.
    """

    code = "log-contradicted"
    category = "state"


class StateFull(CasoError):
    """The disk of the state folder {state} is full.

    Free space there. No new work is taken until then.
    """

    code = "state-full"
    category = "state"
    retryable = True


class JournalFull(CasoError):
    """{waiting} of facts wait on {server} for an administrator, and its limit is {limit}.

    Look why none takes them: without a majority of the voters there is none. No new work is taken until then, or until
    journal-limit-mb is raised.
    """

    code = "journal-full"
    category = "state"
    retryable = True


class StateDiskFailed(CasoError):
    """{path} cannot be read or written: {detail}.

    Check the disk and the rights of the state folder.
    """

    code = "state-disk-failed"
    category = "state"


class PortInUse(CasoError):
    """{address} is already in use.

    Choose another --listen, or stop the program that listens there.
    """

    code = "port-in-use"
    category = "state"
    exit_status = CONFLICT


class CannotListen(CasoError):
    """Cannot listen on {address}: {detail}.

    --listen takes HOST:PORT of this machine.
    """

    code = "cannot-listen"
    category = "state"


class DaemonNotRunning(CasoError):
    """No daemon answers at {address}.

    Start it with "caso-mesh run --state {state}".
    """

    code = "daemon-not-running"
    category = "unavailable"
    exit_status = UNAVAILABLE
    retryable = True


class ServiceManagerMissing(CasoError):
    """This machine has no systemd.

    Have its own service manager start "caso-mesh run --state {state}"; "caso-mesh service install --print" shows what
    systemd would do.
    """

    code = "service-manager-missing"
    category = "state"


class ServiceManagerFailed(CasoError):
    """{command} failed: {detail}.

    "journalctl -u caso-mesh" may say more.
    """

    code = "service-manager-failed"
    category = "state"


class DemoFailed(CasoError):
    """The demo stopped: {detail}.

    "caso-mesh demo --keep" leaves its folder and logs.
    """

    code = "demo-failed"


# --- availability ----------------------------------------------------------------------------------------------------


class Unavailable(CasoError):
    """{what} cannot answer now.

    Try again later.
    """

    code = "unavailable"
    category = "unavailable"
    exit_status = UNAVAILABLE
    retryable = True


class DeviceAway(Unavailable):
    """The device {device} cannot be reached now: {why}.

    It answers as soon as a server that reaches it is back; "caso-mesh device list" shows them.
    """

    code = "device-away"


class NoneReadable(Unavailable):
    """There are {sets} sets with {what}, and none can be read now: {why}.

    "caso-mesh device list" shows who reaches the devices; what an inventory did not find is looked for by the next one:
    caso-mesh device inventory DEVICE.
    """

    code = "none-readable"


class NoneWhole(CasoError):
    """No set with {what} can be restored whole now: {why}.

    What is whole in the set {set} is restored by its id: caso-mesh restore {command}. Files that are damaged are left out, and named.
    Whether it is damaged still is found out by: caso-mesh verify {set}.
    """

    code = "none-whole"
    category = "data"


class NoAdmin(Unavailable):
    """No administrator is in office or reachable from {server}.

    "caso-mesh status" shows who is known; the call may be repeated.
    """

    code = "no-admin"


class ServerTwice(NoAdmin):
    """{server} is turned away: another machine with its key is linked, from {address}.

    Its state folder was copied. Stop one of the two for good; to have one more server, join it with a new state folder.
    """

    code = "server-twice"


class StrangeCertificates(NoAdmin):
    """No administrator is reachable from {server}: where it reaches a server, one does not believe the other ({detail}).

    Compare the clocks. If it was away while the CA of the mesh was rotated, or all its voters were replaced, it has to join
    again: "caso-mesh token create" at another server, then "caso-mesh join LINK --replaces {server}" here, with a new state
    folder.
    """

    code = "strange-certificates"


class VotersUnknown(NoAdmin):
    """No administrator is reachable from {server} that it could believe: {admin} is said to be in office, and was no voter when
    {server} last had orders. None of those who were then ({voters}) is reached.

    One of them that is in the mesh still is enough: start it. Else {server} has to join again: "caso-mesh token create" at
    another server, then "caso-mesh join LINK --replaces {server}" here, with a new state folder.
    """

    code = "voters-unknown"


class NotLeader(Unavailable):
    """This server is not the administrator in office.

    The call is forwarded to the one that is.
    """

    code = "not-leader"


class LogUnavailable(Unavailable):
    """The replicated log cannot take the command: {detail}.

    The command may be repeated; it carries its request id.
    """

    code = "log-unavailable"


class ServerNotLinked(Unavailable):
    """The server {server} is not connected.

    Start its daemon, or check the network between it and the administrator.
    """

    code = "server-not-linked"


class TimedOut(Unavailable):
    """{what} did not answer within {seconds} s.

    Try again, or raise --timeout.
    """

    code = "timed-out"


class LinkLost(Unavailable):
    """The connection to {peer} was lost.

    It is made anew by itself; the call may be repeated.
    """

    code = "link-lost"


class CannotConnect(Unavailable):
    """Cannot connect to {address}: {detail}.

    Check the address, the port and the firewall (one TCP port).
    """

    code = "cannot-connect"


class NoDataPath(Unavailable):
    """Neither {source} nor {server} can reach the other.

    Open the TCP port of one of them for the other, or set its --advertise address.
    """

    code = "no-data-path"


class VersionsDiffer(Unavailable):
    """{server} (caso-mesh {version}) speaks version {spoken} of the bulk dialogue, {peer} (caso-mesh {peer_version}) version
    {peer_spoken}: they have none in common.

    Upgrade the program on {older}, then repeat it; no set was made of what was under way.
    """

    code = "versions-differ"


# --- refused ---------------------------------------------------------------------------------------------------------


class Refused(CasoError):
    """Refused: {detail}."""

    code = "refused"
    category = "security"
    exit_status = REFUSED


class RoleTooLow(Refused):
    """{who} may not call {call}: it needs the role {role}.

    The operator of the first server has all roles, at its state folder or by a context (--context); "caso-mesh help guide".
    """

    code = "role-too-low"


class OutsideScope(Refused):
    """{call} is refused: {who} has the role {role} on some servers only, and what is named is not one of them or theirs.

    "caso-mesh operator list" shows who may do what on which servers; an administrator may give more.
    """

    code = "outside-scope"


class NotOnRoster(Refused):
    """{peer} is not on the roster of this mesh.

    It was removed, or belongs to another mesh.
    """

    code = "not-on-roster"


class RemovedFromMesh(NotOnRoster):
    """{peer} was removed from this mesh.

    To use that machine again, join it with a new state folder. A person whose key was revoked needs a new invitation.
    """

    code = "removed-from-mesh"


class IdentityInUse(Refused):
    """{server} is linked from {address}: this is a second machine with its key.

    A state folder may run on one machine only. Stop the copy for good; to have one more server, join it with a new state folder.
    """

    code = "identity-in-use"


class RequestRefused(Refused):
    """The request of {who} was refused: {detail}.

    Check the clocks of both machines, then repeat the command.
    """

    code = "request-refused"


class CaUnusable(CasoError):
    """The certification authority in {path} cannot be used: {detail}.

    The folder needs ca.pem and ca.key, or ca.pem, issuing.pem and issuing.key.
    """

    code = "ca-unusable"
    category = "security"
    exit_status = USAGE


class CertificateRefused(Refused):
    """The certificate was refused by {peer}: {detail}.

    It belongs to another mesh, has expired, or its server was removed.
    """

    code = "certificate-refused"


class WrongPeer(Refused):
    """{address} is {found}, not {expected}.

    The address belongs to another server now.
    """

    code = "wrong-peer"


class JoinLinkInvalid(Refused):
    """The join link is not valid: {detail}.

    An administrator makes a new one: "caso-mesh token create" for a server, "caso-mesh operator create" for a person.
    """

    code = "join-link-invalid"


class JoinLinkExpired(Refused):
    """The join link has expired.

    "caso-mesh token create" at the administrator makes a new one.
    """

    code = "join-link-expired"


class JoinLinkUsed(Refused):
    """The join link was already used by another server.

    "caso-mesh token create" at the administrator makes a new one.
    """

    code = "join-link-used"


class JoinLinkForeign(Refused):
    """The server at {address} belongs to another mesh than the join link.

    Check the link; nothing was sent to that server.
    """

    code = "join-link-foreign"


class CodeMismatch(Refused):
    """The code {code} is not the one of {server}.

    Compare with the code that the new server printed. If they differ, somebody may be in between: do not approve.
    """

    code = "code-mismatch"


class RateLimited(Refused):
    """Too many attempts from {peer}.

    Wait a minute.
    """

    code = "rate-limited"
    retryable = True


class TicketInvalid(Refused):
    """The ticket of attempt {attempt} was refused: {detail}."""

    code = "ticket-invalid"


class UnknownAttempt(Refused):
    """{peer} asked for the bulk channel of an attempt that {server} knows nothing of.

    It may be over; if it was never there, look at who asked.
    """

    code = "unknown-attempt"


class StaleOrders(Refused):
    """Orders of an earlier administrator ({given}) were refused; {current} is in force."""

    code = "stale-orders"


class NotAllowedHere(Refused):
    """{server} does not allow to {action} {path}.

    The [allow] section of config.toml on that server decides it, not the administrator.
    """

    code = "not-allowed-here"


class Protected(Refused):
    """The set {set} is protected until {until}."""

    code = "protected"


class ClocksDiffer(Refused):
    """The clocks of {server} and {other} differ by {seconds} s: nothing is deleted by a doubtful clock.

    Set them right, and try again.
    """

    code = "clocks-differ"


class AwaitingApproval(Refused):
    """{call} needs a second operator, {who} being the first.

    Nothing was done. It is done when another operator gives the same command, word for word, within a day.
    """

    code = "awaiting-approval"


# --- not found, conflict ---------------------------------------------------------------------------------------------


#: The command that lists what is of a kind. What is not here is part of something, or has no list of its own.
LISTED_BY = {
    **{
        kind: f"{kind} list"
        for kind in (
            "calendar", "device", "error-rule", "kit", "logon", "mediaset", "medium", "operator", "policy", "pool",
            "report", "server", "set",
        )
    },
    "alert": "alert list --all",
    "attempt": "history",
    "backup-of-the-server": "set list",
    "catalog": "set list",
    "path-in-any-backup-set": "catalog find PATTERN",
    "context": "context list",
    "device-pool": "device pool list",
    "discovered-server": "server list --discovered",
    "job": "job list --state all",
    "join-link": "token list --all",
    "media-set": "mediaset list",
    "notify-rule": "notify rule list",
    "recipient": "notify recipient list",
    "recipient-group": "notify group list",
    "report-schedule": "report scheduled",
    "rule": "policy show POLICY",
    "run": "job list --state all",
    "selection-list": "selection list",
    "template": "policy show POLICY",
}  # fmt: skip


class NotFound(CasoError):
    """There is no {kind} "{name}".

    The command that lists them shows what there is.
    """

    code = "not-found"
    category = "not-found"
    exit_status = NOT_FOUND

    @property
    def hint(self) -> str:
        """Names the command, if there is one."""
        command = LISTED_BY.get(str(self.fields["kind"]).replace(" ", "-"))
        return "" if command is None else f'"caso-mesh {command}" shows what there is.'


class Ambiguous(CasoError):
    """ "{name}" could be more than one {kind}: {candidates}.

    Give more characters.
    """

    code = "ambiguous"
    category = "not-found"
    exit_status = NOT_FOUND


class DeviceNotSeen(CasoError):
    """The server {server} does not see the device {device}.

    "caso-mesh device share {device} --on {server}=FOLDER" lets one more server use a device.
    """

    code = "device-not-seen"
    category = "not-found"
    exit_status = NOT_FOUND


class PathNotInSet(CasoError):
    """The set {set} has no "{path}".

    "caso-mesh catalog ls {set}" shows what it has.
    """

    code = "path-not-in-set"
    category = "not-found"
    exit_status = NOT_FOUND


class CatalogNotHere(CasoError):
    """The catalog of set {set} has not arrived yet.

    It comes with the link to {server}.
    """

    code = "catalog-not-here"
    category = "unavailable"
    exit_status = UNAVAILABLE
    retryable = True


class CatalogAway(CasoError):
    """catalog is on {server}, not reachable since {since}

    {way}.
    """

    code = "catalog-away"
    category = "unavailable"
    exit_status = UNAVAILABLE


class CatalogBaseMissing(CasoError):
    """The catalog of set {set} only says what changed since set {base}, which is not here.

    It is asked for as a full listing instead.
    """

    code = "catalog-base-missing"
    category = "unavailable"
    exit_status = UNAVAILABLE
    retryable = True


class Conflict(CasoError):
    """{detail}."""

    code = "conflict"
    category = "conflict"
    exit_status = CONFLICT


class AlreadyExists(Conflict):
    """The {kind} "{name}" is there already.

    Choose another name.
    """

    code = "already-exists"

    @property
    def hint(self) -> str:
        """A new machine in the place of a lost server keeps its name."""
        replaces = f"caso-mesh join LINK --replaces {self.fields['name']}"
        place = (
            f'. A new machine that takes its place joins with "{replaces}"' if self.fields["kind"] == "server" else ""
        )
        return f"Choose another name{place}."


class InUse(Conflict):
    """The {kind} "{name}" is in use: {by}.

    End that first.
    """

    code = "in-use"


class MadeByPolicy(Conflict):
    """The job "{name}" was made of the policy {policy} for the selection list {list}.

    Edit these, or let it go with "caso-mesh associate {list} {policy} --remove".
    """

    code = "made-by-policy"


class LastGood(Conflict):
    """The device {device} holds the last good backup set of {lines}.

    Back that up to another device first, or give the command with --even-last-good.
    """

    code = "last-good"


class NotWithoutAdmin(Conflict):
    """The attempt {attempt} does nothing without the administrator: what it is about is not for a server alone to decide.

    Give the command without --local.
    """

    code = "not-without-admin"


class NotOfThisServer(Conflict):
    """{what} are not of {server}: by itself a server works on its own files and devices only.

    Without --local the administrator delegates it.
    """

    code = "not-of-this-server"


class EmptyTarget(Conflict):
    """No device belongs to the target {target} of the template {template}, for the selection list {list}.

    Add a device or a server to it, or choose another target.
    """

    code = "empty-target"


class Superseded(Conflict):
    """It was not needed: {by} runs in its place.

    A rule of its policy, or that a full backup beats a differential and that an incremental one, says so.
    """

    code = "superseded"


class FeatureLevelTooLow(Conflict):
    """That needs feature level {needed}; {what} is at level {level}.

    Upgrade the program there ("caso-mesh voter list" shows the level of each voter, "caso-mesh server list" every version), then
    repeat it.
    """

    code = "feature-level-too-low"


class WrongState(Conflict):
    """The {kind} "{name}" is {state}.

    That cannot be done in this state.
    """

    code = "wrong-state"


# --- devices and the store -------------------------------------------------------------------------------------------


class DeviceError(CasoError):
    """The device {device} failed: {detail}."""

    code = "device-error"
    category = "device"
    retryable = True


class DevicePathInvalid(CasoError):
    """{path} on {server} cannot be a device: {detail}.

    Give an existing folder that the daemon may write.
    """

    code = "device-path-invalid"
    category = "device"
    exit_status = USAGE


class DeviceForeign(CasoError):
    """{path} holds a vault of another mesh ({mesh}).

    Choose another folder, or take it over with the recovery kit of that mesh: "caso-mesh device import"; "vault restore"
    reads it without a mesh.
    """

    code = "device-foreign"
    category = "device"
    exit_status = CONFLICT


class DeviceNotForeign(CasoError):
    """{path} on {server} holds a vault of this very mesh: there is nothing to import.

    If it is a device that was carried here: "caso-mesh device move NAME --to SERVER=FOLDER"; one that was removed from the
    mesh comes back with "caso-mesh device add".
    """

    code = "device-not-foreign"
    category = "device"
    exit_status = CONFLICT


class DeviceImported(CasoError):
    """The device {device} is imported from the mesh {mesh}, read-only: {what}.

    Copy sets to a device of this mesh with "caso-mesh duplicate SET --to device:NAME"; what is on an imported device stays
    until the device is removed from the mesh.
    """

    code = "device-imported"
    category = "device"
    exit_status = REFUSED


class DeviceNotShared(CasoError):
    """{first} and {second} do not see the same folder.

    Mount one shared folder on both, or add two devices of kind disk.
    """

    code = "device-not-shared"
    category = "device"
    exit_status = CONFLICT


class DeviceFull(DeviceError):
    """The device {device} is full.

    Free space on it, or use another device. Nothing written before is lost.
    """

    code = "device-full"


class DeviceVanished(DeviceError):
    """The device {device} is gone: {detail}.

    Mount it again. It is never taken for an empty one.
    """

    code = "device-vanished"


class EraseUnfinished(DeviceError):
    """What lies on the device {device} is being erased, and that is unfinished.

    Nothing of it can be used any more. Run it again: caso-mesh device erase NAME.
    """

    code = "erase-unfinished"


class DeviceReadOnly(DeviceError):
    """The device {device} cannot be written: {detail}.

    Mount it writable.
    """

    code = "device-read-only"


class ObjectMissing(CasoError):
    """The object {name} is not in the vault.

    Verify the device.
    """

    code = "object-missing"
    category = "data"


class ObjectExists(CasoError):
    """The object {name} exists already; objects are added once and never overwritten."""

    code = "object-exists"
    category = "data"
    exit_status = CONFLICT


class DataDamaged(CasoError):
    """{object} is damaged: {detail}.

    "caso-mesh verify" names the files hit; all others can be restored.
    """

    code = "data-damaged"
    category = "data"


class SealBroken(CasoError):
    """{object} cannot be opened: it was changed, or it was sealed with another key.

    Verify the device; a copy on another device is not touched by this.
    """

    code = "seal-broken"
    category = "data"


class PassphraseWrong(CasoError):
    """The passphrase does not open {object}.

    Type it again; if it is the right one, the file was changed: use another copy.
    """

    code = "passphrase-wrong"
    category = "security"
    exit_status = REFUSED


class KitMissing(CasoError):
    """There is no recovery kit in {path}.

    Give the file that "caso-mesh kit create" wrote.
    """

    code = "kit-missing"
    category = "not-found"
    exit_status = NOT_FOUND


class KitDamaged(CasoError):
    """The recovery kit {path} cannot be used: {detail}.

    Use another copy of it. Nothing was changed.
    """

    code = "kit-damaged"
    category = "data"


class KitTooNew(CasoError):
    """The recovery kit {path} was written by a newer version ({found}, this program knows {known}).

    Use that version of caso-mesh, or a newer one.
    """

    code = "kit-too-new"
    category = "data"


class KitForeign(CasoError):
    """The recovery kit is of the mesh {kit}, but {path} holds a vault of the mesh {vault}.

    Use the kit of that mesh.
    """

    code = "kit-foreign"
    category = "security"
    exit_status = REFUSED


class KitIncomplete(CasoError):
    """The recovery kit {kit} has no key for the device at {path}.

    It was made while that device was away, or before it was added and without having been completed since. Use
    another kit of that mesh.
    """

    code = "kit-incomplete"
    category = "security"
    exit_status = REFUSED


class NoMeshCopy(CasoError):
    """No copy of the mesh that this kit opens lies in {path}.

    Use another device of the mesh. Backup sets can be restored all the same: "caso-mesh vault list".
    """

    code = "no-mesh-copy"
    category = "not-found"
    exit_status = NOT_FOUND


class MeshCopiesDiffer(CasoError):
    """The copies of the mesh contradict each other: {detail}.

    Somebody who voted once may have made one later, to be believed. Find out who was the administrator in the end, and
    say so: "caso-mesh recover --made-by SERVER". There are copies by: {servers}.
    """

    code = "mesh-copies-differ"
    category = "security"
    exit_status = REFUSED


class RootKeyGone(CasoError):
    """The root key of the mesh is not on {server} any more: it lies in the recovery kits made before.

    Copy one of those files, or make a new kit out of one with "caso-mesh kit create FILE --from KIT".
    """

    code = "root-key-gone"
    category = "conflict"
    exit_status = CONFLICT


class VaultTooNew(CasoError):
    """The vault has format {found}; this program knows up to {known}.

    Update caso-mesh on this server.
    """

    code = "vault-too-new"
    category = "data"


class NoKey(CasoError):
    """This server has no key for the device {device}.

    It is handed one by a server that has it and is connected; of a device that it does not see yet, when it is added to that
    ("caso-mesh device share"). If nobody is left: "caso-mesh vault grant", with a recovery kit or the state folder of a server
    that had it.
    """

    code = "no-key"
    category = "security"
    exit_status = REFUSED


class StateKeyless(CasoError):
    """The machine of the state folder {state} had no key for the device at {path}.

    Use the state folder of another server that could use it, or a recovery kit.
    """

    code = "state-keyless"
    category = "security"
    exit_status = REFUSED


class DataLocationRefused(CasoError):
    """The device and media data of {server} cannot lie on that server with the catalog mode {mode}.

    On the server only a distributed catalog is possible: "caso-mesh settings set catalog-mode distributed --server {server}".
    """

    code = "data-location-refused"
    category = "conflict"
    exit_status = REFUSED


class NoLogon(CasoError):
    """{server} has no copy of the secret of the logon {logon}.

    Let it use the logon with "caso-mesh logon set {logon} --add-server {server}". It is handed a copy by a server that has
    one; if there is none, by "caso-mesh logon set {logon} --secret-file FILE".
    """

    code = "no-logon"
    category = "security"
    exit_status = REFUSED
    retryable = True


class LogonNotPermitted(CasoError):
    """{server} may not use the logon {logon}.

    Let it with "caso-mesh logon set {logon} --add-server {server}".
    """

    code = "logon-not-permitted"
    category = "security"
    exit_status = REFUSED


class NotDelivered(CasoError):
    """{recipient} was not told: {detail}.

    It is tried again by itself. Try the way with "caso-mesh notify test {recipient}".
    """

    code = "not-delivered"
    category = "unavailable"
    retryable = True

    #: The receiver said so much that it wants no more, and when to try again at the earliest.
    gone: bool = False
    after_s: float = 0.0


class MessageRefused(NotDelivered):
    """{recipient} does not take this message: {detail}.

    After a few tries it is given up; others are sent.
    """

    code = "message-refused"


class JournalGap(CasoError):
    """The journal of {server} goes on with record {found} of {incarnation}, but {expected} comes next.

    It is sent again from there.
    """

    code = "journal-gap"
    category = "data"
    retryable = True


class JournalChainBroken(CasoError):
    """Record {seq} of {incarnation} in the journal of {server} does not follow from what is known of it.

    The server was restored from an old copy, or its journal is damaged. Nothing known is replaced.
    """

    code = "journal-chain-broken"
    category = "data"


# --- sources and restoring -------------------------------------------------------------------------------------------


class SourcePathMissing(CasoError):
    """{server} has no {path}.

    Check the path on that server.
    """

    code = "source-path-missing"
    category = "source"
    exit_status = NOT_FOUND


class ContainsNoData(CasoError):
    """Nothing, or far less than last time, was found to back up in {paths}.

    Check that the folder is mounted and not excluded; the job log has the figures. If so much less is right, back it
    up once with --allow-shrink.
    """

    code = "contains-no-data"
    category = "source"


class NotReady(CasoError):
    """A backup could not start now: {reason}.

    Put that right and run the test again.
    """

    code = "not-ready"
    category = "general"


class CommandNotAllowed(CasoError):
    """{server} has no command "{name}" of the kind {kind}.

    The [commands] section of config.toml on that server lists what may be run there.
    """

    code = "command-not-allowed"
    category = "source"
    exit_status = REFUSED


class CommandFailed(CasoError):
    """The command "{name}" on {server} failed: {detail}.

    The job log has what it said.
    """

    code = "command-failed"
    category = "source"


class SnapshotFailed(CasoError):
    """There is no snapshot to read {path} on {server} from: {detail}.

    With "--snapshot auto" it is read as it is where there can be none.
    """

    code = "snapshot-failed"
    category = "source"


class TargetInvalid(CasoError):
    """Cannot restore to {path}: {detail}."""

    code = "target-invalid"
    category = "source"


class AttemptFailed(CasoError):
    """The attempt {attempt} failed: {detail}.

    "caso-mesh job log {attempt}" shows its log.
    """

    code = "attempt-failed"
    category = "general"


class RunTooLong(CasoError):
    """It was not done {limit} after it began.

    Its schedule says after which time it is canceled.
    """

    code = "run-too-long"
    category = "source"


class WorkerDied(CasoError):
    """The worker of attempt {attempt} ended unexpectedly: {detail}.

    The next attempt begins by itself.
    """

    code = "worker-died"
    category = "general"
    retryable = True


class Canceled(CasoError):
    """Canceled by {who}."""

    code = "canceled"
    category = "general"


# --- a peer that breaks the protocol ---------------------------------------------------------------------------------


class PeerFault(CasoError):
    """{peer} broke the protocol: {detail}.

    It may run an incompatible version, or is not a caso-mesh server.
    """

    code = "peer-fault"
    category = "protocol"


class PeerNotTls(PeerFault):
    """{peer} does not speak TLS as this mesh does: {detail}.

    caso-mesh speaks TLS 1.3 only; whoever speaks anything else there is not one of it.
    """

    code = "peer-not-tls"


class PeerMalformed(PeerFault):
    """{peer} sent a malformed message: {detail}.

    It may run an incompatible version, or is not a caso-mesh server.
    """

    code = "peer-malformed"


class PeerOversized(PeerFault):
    """{peer} sent a frame of {size} bytes; {limit} are allowed."""

    code = "peer-oversized"


class UnknownCall(PeerFault):
    """{peer} asked for the call "{call}", which this version does not have.

    Update the older of the two.
    """

    code = "unknown-call"
