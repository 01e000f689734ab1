"""What the calls of people answer: records whose keys are the documented, versioned JSON contract.

Instants are RFC 3339 strings in UTC, names are names and ids are ids as ``docs/calls.md`` says. ``path`` is escaped,
``path_b64`` exact (base64).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from caso_mesh.model.documents import CalendarDoc, DevicePoolDoc, LogonDoc, MediaSetDoc, PolicyDoc, SelectionDoc
from caso_mesh.model.rules import ErrorRule


class Done(Struct, frozen=True):
    """The call did what it should; nothing more to say."""


class StatusView(Struct, frozen=True):
    """``admin`` is never a remembered one: ``None`` unless this server is in office or linked to the one that is."""

    mesh: str
    server: str
    admin: str | None
    term: int
    voters: tuple[str, ...]
    servers: int
    running: int
    alerts: int
    version: str = ""


class ServerView(Struct, frozen=True):
    name: str
    id: str
    state: str
    connected: bool
    admin: bool
    voter: bool
    pools: tuple[str, ...]
    address: str
    version: str
    silent_since: str | None = None
    silent_s: float | None = None
    running: int = 0
    code: str | None = None
    queue_on_hold: bool = False
    data_location: str = "admin"


class ServerList(Struct, frozen=True):
    servers: tuple[ServerView, ...]
    more: bool = False


class TokenView(Struct, frozen=True):
    """``link`` is secret until it is used. ``id`` is what it is called in lists."""

    link: str
    expires: str
    id: str = ""


class CaView(Struct, frozen=True):
    """The certification authority of the mesh: the SHA-256 of its ``root``. ``rotation`` is ``never``, ``announced`` (it signs
    nothing yet), ``switched`` (the old one is believed ``until``) or ``finished``. ``lacking``: who does not know the new
    one yet, after the switch: who has no certificate of it."""

    root: str
    rotation: str
    announced: str | None
    switch_at: str | None
    until: str | None
    finished: str | None
    lacking: tuple[str, ...]


class OperatorInvited(Struct, frozen=True):
    """``link`` is secret until it is used."""

    name: str
    role: str
    servers: tuple[str, ...]
    pools: tuple[str, ...]
    link: str
    expires: str


class OperatorView(Struct, frozen=True):
    """``role`` holds in the whole mesh; ``on`` has the roles on single servers, by their names, ``on_pools`` those on the
    members of pools. ``state`` is ``active``, or ``invited`` until ``expires``. ``home``: the server that keeps the key."""

    name: str
    id: str | None
    state: str
    role: str | None
    on: dict[str, str]
    on_pools: dict[str, str]
    created: str | None = None
    expires: str | None = None
    home: str | None = None


class OperatorList(Struct, frozen=True):
    operators: tuple[OperatorView, ...]


class PeerView(Struct, frozen=True):
    address: str
    source: str


class PeerList(Struct, frozen=True):
    """What ``server`` knows: each server keeps its own. ``""``: its program is an earlier one, which does not say."""

    peers: tuple[PeerView, ...]
    server: str = ""


class PoolView(Struct, frozen=True):
    name: str
    servers: tuple[str, ...]


class PoolList(Struct, frozen=True):
    pools: tuple[PoolView, ...]


class KitView(Struct, frozen=True):
    """A recovery kit. ``confirmed`` is null until its file was known to open; ``missing`` are devices that it cannot
    open yet."""

    id: str
    created: str
    created_by: str
    confirmed: str | None
    devices: tuple[str, ...]
    missing: tuple[str, ...]


class KitList(Struct, frozen=True):
    kits: tuple[KitView, ...]


class DeviceView(Struct, frozen=True):
    """``free_bytes`` and ``used_bytes`` are what its servers reported last; ``used_bytes`` is the vault's own size.
    ``quotas``: server -> how many bytes its sets may take, for those that may not take all. ``disabled``: servers that
    see it and may not use it. ``mesh``: that from which an imported device came."""

    name: str
    id: str
    kind: str
    servers: tuple[str, ...]
    paths: dict[str, str]
    state: str
    free_bytes: int | None
    used_bytes: int | None
    sets: int
    running: int
    concurrency: int
    low_space_bytes: int
    warnings: tuple[str, ...] = ()
    quotas: dict[str, int] = {}
    disabled: tuple[str, ...] = ()
    mesh: str | None = None


class DeviceList(Struct, frozen=True):
    devices: tuple[DeviceView, ...]
    more: bool = False


class LogonRecipients(Struct, frozen=True):
    """The mesh's id, and the keys (raw X25519, by node id) of the servers to which a secret is to be sealed."""

    mesh: str
    keys: dict[str, bytes]


class LogonView(Struct, frozen=True):
    """Logon information without its secret. ``there`` are the servers that have a copy of the secret, ``lacking`` those that
    may use it and have none yet."""

    name: str
    definition: LogonDoc
    there: tuple[str, ...]
    lacking: tuple[str, ...]
    changed: str
    changed_by: str


class LogonList(Struct, frozen=True):
    logons: tuple[LogonView, ...]


class ErrorRuleList(Struct, frozen=True):
    rules: tuple[ErrorRule, ...]


class MediaSetView(Struct, frozen=True):
    """Durations in seconds; ``None`` = without end."""

    name: str
    append_s: float | None
    protection_s: float | None
    keep_s: float | None
    factory: bool
    definition: MediaSetDoc = MediaSetDoc()


class MediaSetList(Struct, frozen=True):
    media_sets: tuple[MediaSetView, ...]


class SelectionView(Struct, frozen=True):
    """A selection list, the policies associated with it, and the jobs that were made of that."""

    name: str
    id: str
    definition: SelectionDoc
    policies: tuple[str, ...]
    jobs: tuple[str, ...]
    created: str
    created_by: str
    warnings: tuple[str, ...] = ()


class SelectionViews(Struct, frozen=True):
    selections: tuple[SelectionView, ...]
    more: bool = False


class PolicyView(Struct, frozen=True):
    """A policy, the selection lists associated with it, and the jobs that were made of that."""

    name: str
    id: str
    definition: PolicyDoc
    selections: tuple[str, ...]
    jobs: tuple[str, ...]
    created: str
    created_by: str
    warnings: tuple[str, ...] = ()


class PolicyViews(Struct, frozen=True):
    policies: tuple[PolicyView, ...]


class DevicePoolView(Struct, frozen=True):
    name: str
    definition: DevicePoolDoc


class DevicePoolViews(Struct, frozen=True):
    device_pools: tuple[DevicePoolView, ...]


class CalendarView(Struct, frozen=True):
    name: str
    definition: CalendarDoc


class CalendarViews(Struct, frozen=True):
    calendars: tuple[CalendarView, ...]


class PreviewRow(Struct, frozen=True):
    """A due time of a job. ``state`` is ``scheduled``, ``superseded`` (``by`` another job, due at ``by_due``), or
    ``on-hold``. ``after``: it waits for the end of that job's run. ``first``: that job must complete once before, and is not
    due before it. ``starts``: what it starts by rules, and when."""

    due: str
    job: str
    type: str | None
    selection: str | None
    policy: str | None
    template: str | None
    state: str
    by: str | None = None
    by_due: str | None = None
    after: str | None = None
    starts: tuple[str, ...] = ()
    first: str | None = None


class PreviewList(Struct, frozen=True):
    """In the order of their due times; ``more``: there are more than were asked for."""

    runs: tuple[PreviewRow, ...]
    more: bool = False


class Mistake(Struct, frozen=True):
    """What is wrong in a file, at which line (from 1)."""

    line: int
    place: str
    message: str
    hint: str = ""


class Change(Struct, frozen=True):
    """What a file changes: ``create``, ``change`` or ``delete``. ``details``: one line for each value."""

    action: str
    kind: str
    name: str
    details: tuple[str, ...] = ()


class Applied(Struct, frozen=True):
    """``applied``: the changes were made; not with mistakes, and not in a dry run."""

    applied: bool
    changes: tuple[Change, ...]
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()


class Exported(Struct, frozen=True):
    """The text of a file that ``config.apply`` takes."""

    text: str


class MediumView(Struct, frozen=True):
    label: str
    device: str
    media_set: str
    server: str
    state: str
    opened: str
    last_write: str
    bytes: int
    sets: int


class MediumList(Struct, frozen=True):
    media: tuple[MediumView, ...]
    more: bool = False


class SettingView(Struct, frozen=True):
    """``origin`` is where the value comes from: ``default``, ``mesh``, ``pool:NAME`` or ``server:NAME``."""

    name: str
    value: float | str
    origin: str
    default: float | str
    text: str


class SettingList(Struct, frozen=True):
    settings: tuple[SettingView, ...]


class AlertView(Struct, frozen=True):
    """``here``, where a server shows its own alerts: what of it is kept there, the answer until it is the one that counts, or all."""

    id: str
    alert: str
    category: str
    server: str
    object: str
    text: str
    raised: str
    answered: str | None
    answered_by: str | None
    response: str | None
    cleared: str | None
    here: str | None = None


class AlertList(Struct, frozen=True):
    """``more``: there are more than were asked for."""

    alerts: tuple[AlertView, ...]
    more: bool = False


class CopyOutcome(Struct, frozen=True):
    """What came of one thing that was copied: ``made``, ``overwritten``, ``skipped`` or ``refused``, with the reason."""

    kind: str
    name: str
    came: str
    reason: str = ""


class CopyView(Struct, frozen=True):
    """What was copied to a server at once. ``state`` is ``waiting`` until the server has told what came of it."""

    id: str
    number: int
    server: str
    state: str
    clash: str
    copied: str
    copied_by: str
    taken: str | None
    outcomes: tuple[CopyOutcome, ...]


class CopyRefused(Struct, frozen=True):
    """A server of the pool to which nothing is copied, and the error that says why."""

    server: str
    error: dict[str, Any]


class Copied(Struct, frozen=True):
    """``settings``: how many servers have the settings of the mesh as their own now."""

    copies: tuple[CopyView, ...]
    refused: tuple[CopyRefused, ...] = ()
    settings: int = 0


class CopyList(Struct, frozen=True):
    """``more``: there are more than were asked for."""

    copies: tuple[CopyView, ...]
    more: bool = False
