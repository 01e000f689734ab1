"""States of servers, devices, jobs, runs and attempts, as shown and stored."""

from __future__ import annotations

from enum import StrEnum


class ServerState(StrEnum):
    """What was set for a server, overridden by what liveness found."""

    ENABLED = "enabled"
    PAUSED = "paused"
    DISABLED = "disabled"
    STALLED = "stalled"
    NO_COMMUNICATION = "no-communication"
    DISCOVERED = "discovered"


class Liveness(StrEnum):
    """What the administrator found by heartbeats."""

    ALIVE = "alive"
    STALLED = "stalled"
    NO_COMMUNICATION = "no-communication"


class DeviceState(StrEnum):
    """What a person has set; ``IMPORTED`` is only shown, of one that came from another mesh and can be read."""

    ONLINE = "online"
    OFFLINE = "offline"
    PAUSED = "paused"
    READ_ONLY = "read-only"
    IMPORTED = "imported"


class JobState(StrEnum):
    ACTIVE = "active"
    ON_HOLD = "on-hold"


class RunState(StrEnum):
    SCHEDULED = "scheduled"
    READY = "ready"
    ON_HOLD = "on-hold"
    QUEUED = "queued"
    DELEGATED = "delegated"
    RUNNING = "running"
    VERIFYING = "verifying"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_EXCEPTIONS = "succeeded-with-exceptions"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed-out"
    MISSED = "missed"
    SUPERSEDED = "superseded"


class AttemptState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    VERIFYING = "verifying"
    SUCCEEDED = "succeeded"
    SUCCEEDED_WITH_EXCEPTIONS = "succeeded-with-exceptions"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed-out"
    INTERRUPTED = "interrupted"
    RECOVERED = "recovered"
    REDUNDANT = "redundant"


#: Ends of a run, best first: a run of several parts takes the worst of its parts.
RUN_ENDS: tuple[RunState, ...] = (
    RunState.SUCCEEDED,
    RunState.SUCCEEDED_WITH_EXCEPTIONS,
    RunState.SUPERSEDED,
    RunState.MISSED,
    RunState.CANCELED,
    RunState.TIMED_OUT,
    RunState.FAILED,
)
ATTEMPT_ACTIVE: frozenset[AttemptState] = frozenset({AttemptState.QUEUED, AttemptState.RUNNING, AttemptState.VERIFYING})
#: Attempt ends that close their part of the run.
ATTEMPT_GOOD: frozenset[AttemptState] = frozenset({AttemptState.SUCCEEDED, AttemptState.SUCCEEDED_WITH_EXCEPTIONS})
#: Attempt ends after which the same part is tried again.
ATTEMPT_AGAIN: frozenset[AttemptState] = frozenset({AttemptState.INTERRUPTED, AttemptState.RECOVERED})


class JobKind(StrEnum):
    BACKUP = "backup"
    RESTORE = "restore"
    VERIFY = "verify"
    DUPLICATE = "duplicate"
    SYNTHETIC = "synthetic"
    DRILL = "drill"
    TEST_RUN = "test-run"
    INVENTORY = "inventory"
    CATALOG = "catalog"
    ERASE = "erase"


#: What is about a device as a whole.
OF_DEVICE: frozenset[JobKind] = frozenset({JobKind.INVENTORY, JobKind.CATALOG, JobKind.ERASE})
#: What a server that reaches a device does alone: it needs nobody's files, and no other device.
IN_PLACE: frozenset[JobKind] = frozenset({JobKind.VERIFY, JobKind.SYNTHETIC}) | OF_DEVICE


class BackupType(StrEnum):
    FULL = "full"
    INCREMENTAL = "incremental"
    DIFFERENTIAL = "differential"
    COPY = "copy"


class SnapshotMode(StrEnum):
    """Whether files are read from a snapshot of their file system: where it has them, or else not at all."""

    NEVER = "never"
    AUTO = "auto"
    REQUIRED = "required"


class Priority(StrEnum):
    HIGHEST = "highest"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    LOWEST = "lowest"


#: Sort key of a priority: a smaller number goes first.
PRIORITY_RANK: dict[Priority, int] = {priority: rank for rank, priority in enumerate(Priority)}


class Overwrite(StrEnum):
    """What a restore does when the name exists."""

    NEVER = "never"
    OLDER = "older"
    ALWAYS = "always"


class Role(StrEnum):
    """Roles of people, each holding what the ones before it hold."""

    VIEWER = "viewer"
    RESTORE = "restore"
    OPERATOR = "operator"
    ADMIN = "admin"


ROLE_RANK: dict[Role, int] = {role: rank for rank, role in enumerate(Role)}


class WaitReason(StrEnum):
    """Why a run waits. One enumeration, shown wherever a job is shown; its fields are in ``REASON_TEXT``."""

    NOT_YET_DUE = "not-yet-due"
    ON_HOLD = "on-hold"
    QUEUE_ON_HOLD = "queue-on-hold"
    NO_SERVER_IN_POOL = "no-server-in-pool"
    NO_SERVER_REACHABLE = "no-server-reachable"
    SERVER_PAUSED = "server-paused"
    SERVER_STALLED = "server-stalled"
    SOURCE_UNREACHABLE = "source-unreachable"
    LIMIT_AT_SOURCE = "limit-at-source"
    NO_IDLE_DEVICE = "no-idle-device"
    NO_IDLE_SERVER = "no-idle-server"
    BETTER_PLACE_SOON = "better-place-soon"
    DEVICE_PAUSED = "device-paused"
    DEVICE_OFFLINE = "device-offline"
    DEVICE_IMPORTED = "device-imported"
    DEVICE_LOW_ON_SPACE = "device-low-on-space"
    DEVICE_NOT_REACHABLE = "device-not-reachable"
    NO_DEVICE_IN_TARGET = "no-device-in-target"
    NO_DATA_PATH = "no-data-path"
    NO_KEY_FOR_DEVICE = "no-key-for-device"
    WAITING_FOR_SERVER = "waiting-for-server"
    NO_SERVER_LEFT = "no-server-left"
    ADMIN_IN_GRACE = "admin-in-grace"
    RETRY_LATER = "retry-later"
    BLOCKED_BY_RUN = "blocked-by-run"
    ERASE_UNFINISHED = "erase-unfinished"
    OUTSIDE_WINDOW = "outside-window"
    WAITING_FOR_FIRST = "waiting-for-first"
    SERVER_TOO_OLD = "server-too-old"
    NO_LOGON = "no-logon"
    DATA_ON_SERVER = "data-on-server"
    MEMBERSHIP_UNCONFIRMED = "membership-unconfirmed"
    REMOVED_FROM_MESH = "removed-from-mesh"
    IDENTITY_IN_USE = "identity-in-use"
    NEWS_ON_ITS_WAY = "news-on-its-way"
    END_UNCONFIRMED = "end-unconfirmed"
    WAITING_FOR_MEDIA = "waiting-for-media"
    BANDWIDTH_WINDOW = "bandwidth-window"


#: What ends by itself. A test run waits for these, and tells all others as what is found.
PASSING: frozenset[WaitReason] = frozenset(
    {
        WaitReason.NOT_YET_DUE,
        WaitReason.ON_HOLD,
        WaitReason.QUEUE_ON_HOLD,
        WaitReason.LIMIT_AT_SOURCE,
        WaitReason.NO_IDLE_DEVICE,
        WaitReason.NO_IDLE_SERVER,
        WaitReason.BETTER_PLACE_SOON,
        WaitReason.ADMIN_IN_GRACE,
        WaitReason.RETRY_LATER,
        WaitReason.BLOCKED_BY_RUN,
        WaitReason.OUTSIDE_WINDOW,
        WaitReason.WAITING_FOR_FIRST,
        WaitReason.NEWS_ON_ITS_WAY,
        WaitReason.END_UNCONFIRMED,
        WaitReason.BANDWIDTH_WINDOW,
    }
)

#: What a person reads.
REASON_TEXT: dict[WaitReason, str] = {
    WaitReason.NOT_YET_DUE: "due at {due}",
    WaitReason.ON_HOLD: "on hold; release it with: caso-mesh job release {job}",
    WaitReason.QUEUE_ON_HOLD: "the queue is on hold: {servers}",
    WaitReason.NO_SERVER_IN_POOL: "the pool {pool} has no server; add one",
    WaitReason.NO_SERVER_REACHABLE: "no server of the target is connected: {servers}",
    WaitReason.SERVER_PAUSED: "paused or disabled: {servers}",
    WaitReason.SERVER_STALLED: "silent: {servers}",
    WaitReason.SOURCE_UNREACHABLE: "{source} is unreachable since {since}",
    WaitReason.LIMIT_AT_SOURCE: "{source} already runs {limit} jobs as a source",
    WaitReason.NO_IDLE_DEVICE: "all devices of the target are busy: {devices}",
    WaitReason.NO_IDLE_SERVER: "all servers of the target are busy: {servers}",
    WaitReason.BETTER_PLACE_SOON: "it would end later on {devices}, which is idle, than where it waits for a slot",
    WaitReason.DEVICE_PAUSED: "paused: {devices}",
    WaitReason.DEVICE_OFFLINE: "offline: {devices}",
    WaitReason.DEVICE_IMPORTED: "imported from another mesh, read-only: {devices}",
    WaitReason.DEVICE_LOW_ON_SPACE: "low on space: {devices}",
    WaitReason.DEVICE_NOT_REACHABLE: "no permitted server reaches {devices}",
    WaitReason.NO_DEVICE_IN_TARGET: "no device that may be used belongs to the target {target}",
    WaitReason.NO_DATA_PATH: "{source} and {server} cannot reach each other",
    WaitReason.NO_KEY_FOR_DEVICE: "no key for {devices}",
    WaitReason.WAITING_FOR_SERVER: "{server} holds the set and is not connected",
    WaitReason.NO_SERVER_LEFT: "no other server of the target is left; runs when one returns",
    WaitReason.ADMIN_IN_GRACE: "the administrator has just taken office and waits for the servers to report",
    WaitReason.RETRY_LATER: "tried again at {at}",
    WaitReason.BLOCKED_BY_RUN: "waits for the end of {run}",
    WaitReason.ERASE_UNFINISHED: "an erase has begun and is unfinished: {devices}",
    WaitReason.OUTSIDE_WINDOW: "outside the window of its selection list, which opens at {opens}",
    WaitReason.WAITING_FOR_FIRST: "{first} must complete once before it starts",
    WaitReason.SERVER_TOO_OLD: "the program is too old for it on {servers}",
    WaitReason.DATA_ON_SERVER: "the device and media data of {servers} are on it: nothing is delegated there",
    WaitReason.NO_LOGON: "{source} has no copy of the secret of the logon {logon}",
    WaitReason.MEMBERSHIP_UNCONFIRMED: "nobody has confirmed that {server} belongs to the mesh: its certificate ended at {since}",
    WaitReason.REMOVED_FROM_MESH: "{server} was removed from the mesh",
    WaitReason.IDENTITY_IN_USE: "another machine works with the key of {server}: it is linked from {address}",
    WaitReason.NEWS_ON_ITS_WAY: "{server} is back and may have done it: what it did is on its way",
    WaitReason.END_UNCONFIRMED: "{server} has not confirmed yet that {attempt}, which writes the same files, has ended there",
    WaitReason.WAITING_FOR_MEDIA: "it reads {media}, which is on {devices}, offline",
    WaitReason.BANDWIDTH_WINDOW: "{servers} sends nothing to other servers at this time of day (bandwidth-limit), until {opens}",
}

#: What would end the wait. ``next`` is what is expected to end first, if that is known.
REASON_ENDS: dict[WaitReason, str] = {
    WaitReason.NOT_YET_DUE: "ends at {due}",
    WaitReason.ON_HOLD: "ends when it is released: caso-mesh job release {job}",
    WaitReason.QUEUE_ON_HOLD: "ends when the queue of one of these is released, with caso-mesh server release-queue NAME: {servers}",
    WaitReason.NO_SERVER_IN_POOL: "ends when the pool {pool} gets a server: caso-mesh pool set {pool} --server NAME ...",
    WaitReason.NO_SERVER_REACHABLE: "ends when one of these is linked again: {servers}",
    WaitReason.SERVER_PAUSED: "ends when one of these is resumed or enabled: {servers}",
    WaitReason.SERVER_STALLED: "ends when one of these answers again: {servers}",
    WaitReason.SOURCE_UNREACHABLE: "ends when {source} is linked again",
    WaitReason.LIMIT_AT_SOURCE: "ends when a job that uses {source} as its source ends",
    WaitReason.NO_IDLE_DEVICE: "ends when a job on one of these ends: {devices}",
    WaitReason.NO_IDLE_SERVER: "ends when a job of one of these ends: {servers}",
    WaitReason.BETTER_PLACE_SOON: "ends when a job on a faster server or on a device with its sets ends",
    WaitReason.DEVICE_PAUSED: "ends when one of these is resumed, with caso-mesh device resume NAME: {devices}",
    WaitReason.DEVICE_OFFLINE: "ends when one of these can be used again: {devices}",
    WaitReason.DEVICE_IMPORTED: "ends when the target gets a device of this mesh",
    WaitReason.DEVICE_LOW_ON_SPACE: "ends when space is freed on one of these, or a job ends that has reserved it: {devices}",
    WaitReason.DEVICE_NOT_REACHABLE: "ends when a permitted server has a path to one of these: {devices}",
    WaitReason.NO_DEVICE_IN_TARGET: "ends when the target {target} gets a device, or a server of it may use one: caso-mesh device set NAME --enable",
    WaitReason.NO_DATA_PATH: "ends when {source} and one of these reach each other, which is tried every ten minutes, and when one is linked anew: {server}",
    WaitReason.NO_KEY_FOR_DEVICE: "ends when the server has been handed the key of {devices}",
    WaitReason.WAITING_FOR_SERVER: "ends when one of these is linked again: {server}",
    WaitReason.NO_SERVER_LEFT: "ends when another server of the target returns",
    WaitReason.ADMIN_IN_GRACE: "ends when all servers have reported, after a few seconds at the latest",
    WaitReason.RETRY_LATER: "ends at {at}",
    WaitReason.BLOCKED_BY_RUN: "ends when {run} ends",
    WaitReason.ERASE_UNFINISHED: "ends when it is run again and ends well, with caso-mesh device erase NAME: {devices}",
    WaitReason.OUTSIDE_WINDOW: "ends at {opens}",
    WaitReason.WAITING_FOR_FIRST: "ends when {first} has completed",
    WaitReason.SERVER_TOO_OLD: "ends when the program is upgraded on {servers}",
    WaitReason.DATA_ON_SERVER: "ends when one of these is told caso-mesh server set NAME --data-location admin: {servers}",
    WaitReason.NO_LOGON: "ends when {source} may use it and is handed a copy, by a linked server that has one or by: "
    "caso-mesh logon set {logon}",
    WaitReason.MEMBERSHIP_UNCONFIRMED: "ends when {server} meets an administrator, who renews its certificate",
    WaitReason.REMOVED_FROM_MESH: "never ends: that machine may join again, with another state folder",
    WaitReason.IDENTITY_IN_USE: "ends when one of the two machines with the key of {server} is stopped for good",
    WaitReason.NEWS_ON_ITS_WAY: "ends when {server} has told all, after a minute at the latest",
    WaitReason.END_UNCONFIRMED: "ends when nothing of {attempt} is left on {server}, which ends it within half a minute unless"
    " it hangs in a file system",
    WaitReason.WAITING_FOR_MEDIA: "ends when one of these can be used again: {devices}",
    WaitReason.BANDWIDTH_WINDOW: "ends at {opens}",
}


class DataLocation(StrEnum):
    """Where the device and media data of a server lie, and by it who decides what its devices do."""

    ADMIN = "admin"
    SERVER = "server"


class AlertKind(StrEnum):
    ATTENTION = "attention-required"
    ERROR = "error"
    WARNING = "warning"
    INFORMATION = "information"
