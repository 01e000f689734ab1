"""The control state: what shall be, as tables, with the questions that others ask of it.

Only the reducer changes it. Whatever is listed comes in the order of names or ids, never in that of arrival, so that a
state restored from a snapshot answers as the one that lived through the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from caso_mesh.control import image, indexing
from caso_mesh.control.looking_up import kept, named
from caso_mesh.control.roster import rows_of
from caso_mesh.control.tables import AlertAnswer, Put, Request
from caso_mesh.model.copies import Copy
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.errors import NotFound
from caso_mesh.model.ids import resolve_prefix
from caso_mesh.model.jobs import Attempt, Job, Run, Target, TargetKind, TestRunSpec, placed_by
from caso_mesh.model.logons import Logon
from caso_mesh.model.mesh import (
    Anchor,
    CaRotation,
    JoinToken,
    MeshInfo,
    NodeAddress,
    Operator,
    Pool,
    RecoveryKit,
    Roster,
    RosterRow,
    Server,
    row_of,
)
from caso_mesh.model.notices import MailServer, NoticeRule, Recipient, RecipientGroup
from caso_mesh.model.orders import Authority
from caso_mesh.model.policies import Association, DayCalendar, DevicePool, Policy, SelectionList
from caso_mesh.model.report_schedules import ReportSchedule
from caso_mesh.model.rules import ErrorRule
from caso_mesh.model.settings import Value, effective
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState
from caso_mesh.model.storage import Device, MediaSet, foreign_name
from caso_mesh.planning.choosing import is_damage

#: So many request ids are remembered, the newest. A repeated one among them has no second effect.
REQUESTS_KEPT = 10_000

#: Tables that the roster is made of, beside ``servers``, of which only some fields are on it.
_ON_ROSTER = frozenset({"mesh", "anchors", "removed", "former", "operators", "pools"})
_OF_ONE = frozenset({"mesh", "anchors", "rotation", "mail_server"})  # tables of one record
#: Tables of which every server's orders may hold something.
_IN_ALL_ORDERS = _ON_ROSTER | {"pool_settings", "mesh_settings", "devices", "media_sets"}


class ControlState:
    """The tables. ``authority`` is the place of the last applied command. Read it; change it only by the reducer."""

    def __init__(self) -> None:
        self.authority = Authority(0, 0, 0)
        self.mesh: MeshInfo | None = None
        self.anchors: tuple[Anchor, ...] = ()
        self.rotation: CaRotation | None = None
        self.servers: dict[str, Server] = {}
        self.removed: dict[str, str] = {}
        self.former: dict[str, RosterRow] = {}
        self.operators: dict[str, Operator] = {}
        self.tokens: dict[bytes, JoinToken] = {}
        self.pools: dict[str, Pool] = {}
        self.devices: dict[str, Device] = {}
        self.media_sets: dict[str, MediaSet] = {}
        self.mesh_settings: dict[str, Value] = {}
        self.pool_settings: dict[str, dict[str, Value]] = {}
        self.jobs: dict[str, Job] = {}
        self.runs: dict[str, Run] = {}
        self.attempts: dict[str, Attempt] = {}
        self.answers: dict[str, AlertAnswer] = {}
        self.requests: dict[str, Request] = {}
        self.kits: dict[str, RecoveryKit] = {}
        self.device_pools: dict[str, DevicePool] = {}
        self.calendars: dict[str, DayCalendar] = {}
        self.lists: dict[str, SelectionList] = {}
        self.policies: dict[str, Policy] = {}
        self.associations: dict[str, Association] = {}
        self.error_rules: dict[str, ErrorRule] = {}
        self.logons: dict[str, Logon] = {}
        self.copies: dict[str, Copy] = {}
        self.mail_server: MailServer | None = None
        self.recipients: dict[str, Recipient] = {}
        self.recipient_groups: dict[str, RecipientGroup] = {}
        self.notice_rules: dict[str, NoticeRule] = {}
        self.report_schedules: dict[str, ReportSchedule] = {}
        # Indices over runs and attempts, kept by ``write``: history is long, what is open is short.
        self._open: dict[str, Run] = {}
        self._open_ids: list[str] = []
        self._active: dict[str, Attempt] = {}
        self._attempts_of = indexing.Groups[Attempt]()
        self._runs_of = indexing.Groups[Run]()
        self._apart: dict[str, Run] = {}
        self._readings: dict[str, Run] = {}
        self._found_damage: dict[str, Attempt] = {}
        self._trail = indexing.Trail()
        self._devices_at: dict[str, list[Device]] | None = None
        # The jobs (ids) of each association, as (policy, list).
        self._made_of: dict[tuple[str, str], tuple[str, ...]] = {}
        # What every server's orders share, until one of its tables changes.
        self._roster: Roster | None = None
        self._addresses: tuple[NodeAddress, ...] | None = None
        # How often what is in all orders, and what is in those of one server alone, has changed.
        self._all_orders = 0
        self._orders_of: dict[str, int] = {}

    # --- questions -------------------------------------------------------------------------------------------------

    def info(self) -> MeshInfo:
        """The mesh. Raises ``NotFound`` before it was founded."""
        if self.mesh is None:
            raise NotFound(kind="mesh", name="")
        return self.mesh

    def server_named(self, name: str) -> Server:
        """Raises ``NotFound``, as all of these."""
        return named(self.servers.values(), name, "server")

    def device_named(self, name: str) -> Device:
        return named(self.devices.values(), name, "device")

    def pool_named(self, name: str) -> Pool:
        return named(self.pools.values(), name, "pool")

    def media_set_named(self, name: str) -> MediaSet:
        return named(self.media_sets.values(), name, "media-set")

    def operator_named(self, name: str) -> Operator:
        return named(self.operators.values(), name, "operator")

    def device_pool_named(self, name: str) -> DevicePool:
        return named(self.device_pools.values(), name, "device-pool")

    def calendar_named(self, name: str) -> DayCalendar:
        return named(self.calendars.values(), name, "calendar")

    def logon_named(self, name: str) -> Logon:
        return named(self.logons.values(), name, "logon")

    def list_named(self, name: str) -> SelectionList:
        return named(self.lists.values(), name, "selection-list")

    def policy_named(self, name: str) -> Policy:
        return named(self.policies.values(), name, "policy")

    def job_named(self, name: str) -> Job:
        """A job by its name, its id, or a unique beginning of its id. ``NotFound``, ``Ambiguous``."""
        found = next((job for job in self.jobs.values() if job.name == name), None)
        return found or self.jobs[resolve_prefix(name, self.jobs, "job")]

    def run_named(self, id: str) -> Run:
        """A run by its id, or a unique beginning of it. ``NotFound``, ``Ambiguous``."""
        return self.runs[resolve_prefix(id, self.runs, "run")]

    def server(self, id: str) -> Server:
        return kept(self.servers, id, "server")

    def device(self, id: str) -> Device:
        return kept(self.devices, id, "device")

    def job(self, id: str) -> Job:
        return kept(self.jobs, id, "job")

    def selection(self, id: str) -> SelectionList:
        return kept(self.lists, id, "selection-list")

    def policy(self, id: str) -> Policy:
        return kept(self.policies, id, "policy")

    def run(self, id: str) -> Run:
        return kept(self.runs, id, "run")

    def attempt(self, id: str) -> Attempt:
        return kept(self.attempts, id, "attempt")

    def name_of(self, server: str) -> str:
        """For people: of a server that left the mesh its last name, else its id. Also of a device, the source of work on it."""
        known = self.servers.get(server) or self.devices.get(server)
        return known.name if known else self.removed.get(server) or foreign_name(self.devices, server) or server

    def successor_of(self, server: str) -> Server | None:
        """The server of that id, or that in the place of the machine that had it."""
        known = self.servers.get(server)
        return known or next((each for each in self.servers.values() if server in each.succeeds), None)

    def origin_of(self, server: str) -> str:
        """The id under which the sets of a server, or of a machine that was replaced, are kept."""
        known = self.successor_of(server)
        return server if known is None else known.origin

    def server_list(self) -> list[Server]:
        return sorted(self.servers.values(), key=lambda server: server.name)

    def device_list(self) -> list[Device]:
        return sorted(self.devices.values(), key=lambda device: device.name)

    def pool_list(self) -> list[Pool]:
        return [self.pools[name] for name in sorted(self.pools)]

    def media_set_list(self) -> list[MediaSet]:
        return [self.media_sets[name] for name in sorted(self.media_sets)]

    def operator_list(self) -> list[Operator]:
        return sorted(self.operators.values(), key=lambda operator: (operator.name, operator.id))

    def job_list(self) -> list[Job]:
        return sorted(self.jobs.values(), key=lambda job: job.name)

    def selection_lists(self) -> list[SelectionList]:
        return sorted(self.lists.values(), key=lambda row: row.name)

    def policy_list(self) -> list[Policy]:
        return sorted(self.policies.values(), key=lambda row: row.name)

    def association_list(self) -> list[Association]:
        return [self.associations[key] for key in sorted(self.associations)]

    def jobs_made_of(
        self, *, policy: str | None = None, selection: str | None = None, template: str | None = None
    ) -> list[Job]:
        """Jobs that were made of a policy, for a list (ids), of a template; ``None`` = of any."""
        if policy is not None and selection is not None:
            made = (self.jobs[id] for id in self._made_of.get((policy, selection), ()))
            jobs = sorted(made, key=lambda job: job.name)
        else:
            jobs = self.job_list()
        return [
            job
            for job in jobs
            if job.origin is not None
            and policy in {None, job.origin.policy}
            and selection in {None, job.origin.list}
            and template in {None, job.origin.template}
        ]

    def kit_list(self) -> list[RecoveryKit]:
        """Oldest first."""
        return sorted(self.kits.values(), key=lambda kit: (kit.created_at_ns, kit.id))

    def logon_list(self) -> list[Logon]:
        return [self.logons[name] for name in sorted(self.logons)]

    def permitted(self, logon: Logon) -> frozenset[str]:
        """The ids of the servers that may use a logon."""
        pools = [self.pools[name] for name in logon.pools if name in self.pools]
        voters = [server.id for server in self.servers.values() if server.voter] if logon.voters else ()
        return frozenset(logon.servers).union(voters, *(pool.servers for pool in pools))

    def copy_list(self, server: str | None = None) -> list[Copy]:
        """Copies to a server (id), or to all, in the order in which they were asked for."""
        found = (copy for copy in self.copies.values() if server in {None, copy.server})
        return sorted(found, key=lambda copy: (copy.number, copy.id))

    def voters(self) -> list[Server]:
        return [server for server in self.server_list() if server.voter]

    def servers_of_pool(self, name: str) -> list[Server]:
        """The members of a pool, by name. Raises ``NotFound``."""
        pool = self.pool_named(name)
        return [server for server in self.server_list() if server.id in pool.servers]

    def pools_of(self, server: str) -> list[Pool]:
        return [pool for pool in self.pool_list() if server in pool.servers]

    def devices_of(self, server: str) -> list[Device]:
        """Devices that a server has a path to, enabled or not."""
        self._devices_at = self._devices_at or indexing.devices_at(self.device_list())
        return [*self._devices_at.get(server, ())]

    def open_runs(self) -> list[Run]:
        """By id."""
        return [self._open[id] for id in self._open_ids]

    def open_apart(self) -> list[Run]:
        """The open runs of test runs, and those that erase a device, by id."""
        return [self._apart[id] for id in sorted(self._apart)]

    @property
    def trail(self) -> indexing.Trail:
        """What was written lately."""
        return self._trail

    def readings(self) -> list[Run]:
        """Every closed run that is remembered and that read sets back, or restored some."""
        return list(self._readings.values())

    def found_damage(self) -> list[Attempt]:
        """Every remembered attempt that failed since something was not what it was."""
        return list(self._found_damage.values())

    def runs_of(self, job: str) -> list[Run]:
        """Every run of a job that is still remembered, by the time it was made."""
        return sorted(self._runs_of.get(job).values(), key=lambda run: (run.created_at_ns, run.id))

    def active_attempts(self) -> list[Attempt]:
        return [self._active[id] for id in sorted(self._active)]

    def attempts_of(self, run: str) -> list[Attempt]:
        """Every attempt of a run, by number."""
        return sorted(self._attempts_of.get(run).values(), key=lambda attempt: attempt.number)

    def settings_of(self, server: str) -> dict[str, Value]:
        """Every setting as it holds for a server: default of its preset, mesh, its pools by name, its own."""
        row = self.server(server)
        return effective(row.preset, [layer for _, layer in self._layers(row)])

    def settings_with_origin(self, server: str) -> dict[str, tuple[Value, str]]:
        """As ``settings_of``, each with where it comes from: ``default``, ``mesh``, ``pool:NAME``, ``server``, ``data-location``."""
        row = self.server(server)
        values: dict[str, tuple[Value, str]] = {
            name: (value, "default") for name, value in effective(row.preset, []).items()
        }
        for origin, layer in self._layers(row):
            values.update({name: (value, origin) for name, value in layer.items() if name in values})
        return values

    def settings_of_mesh(self, preset: str = "lan") -> dict[str, Value]:
        """Every setting as it holds where no server is meant."""
        return effective(preset, [self.mesh_settings])

    def roster(self) -> Roster:
        """All that a server needs to decide whom to trust. Nodes by name, then operators."""
        if self._roster is None:
            self._roster = self._make_roster()
        return self._roster

    def _make_roster(self) -> Roster:
        former = tuple(self.former[id] for id in sorted(self.former))
        rows = rows_of(self.servers, self.pools, self.operator_list())
        return Roster(self.info(), self.anchors, rows, tuple(sorted(self.removed)), former)

    def addresses(self) -> tuple[NodeAddress, ...]:
        if self._addresses is None:
            servers = self.server_list()
            self._addresses = tuple(NodeAddress(server.id, server.name, server.addresses) for server in servers)
        return self._addresses

    def orders_version(self, server: str) -> tuple[int, int]:
        """Is another one whenever the orders of a server may be others: with a thousand servers nobody works out all
        orders at each change to see whose have changed."""
        return self._all_orders, self._orders_of.get(server, 0)

    def named_devices(self, target: Target) -> frozenset[str] | None:
        """The ids of the devices that a target is about; ``None`` if it is about servers, or any."""
        match target.kind:
            case TargetKind.DEVICE:
                return frozenset(device.id for device in self.devices.values() if device.name == target.name)
            case TargetKind.DEVICES:
                pool = self.device_pools.get(target.name or "")
                return frozenset(member.device for member in pool.members) if pool else frozenset()
            case _:
                return None

    def target_servers(self, target: Target) -> frozenset[str]:
        """Node ids of the servers that may write for ``target``, whatever their state."""
        match target.kind:
            case TargetKind.ANY:
                return frozenset(self.servers)
            case TargetKind.SERVER:
                return frozenset(server.id for server in self.servers.values() if server.name == target.name)
            case TargetKind.POOL:
                return frozenset(pool.servers if (pool := self.pools.get(target.name or "")) else ())
            case TargetKind.DEVICE | TargetKind.DEVICES:
                named = self.named_devices(target) or ()
                devices = [self.devices[id] for id in named if id in self.devices]
                return frozenset(path.server for device in devices for path in device.paths if path.enabled)

    def servers_of_run(self, run: Run) -> frozenset[str]:
        """Node ids of the servers that may be the media server of a run's attempts, whatever their state."""
        placed = placed_by(run.spec)
        if placed is None:
            return frozenset(self.servers)
        servers = self.target_servers(placed.target)
        return servers if placed.within is None else servers & self.target_servers(placed.within)

    def _layers(self, server: Server) -> list[tuple[str, dict[str, Value]]]:
        pools = [(f"pool:{pool.name}", self.pool_settings.get(pool.name, {})) for pool in self.pools_of(server.id)]
        return [("mesh", self.mesh_settings), *pools, ("server", server.settings), ("data-location", server.imposed)]

    # --- changes: for the reducer alone ----------------------------------------------------------------------------

    def write(self, changes: Iterable[Put]) -> None:
        """Puts rows into their tables. For the reducer alone."""
        for change in changes:
            self._note_orders(change)
            if change.table in _OF_ONE:
                setattr(self, change.table, change.record)
            else:
                table: dict[Any, Any] = getattr(self, change.table)
                if change.table == "jobs":
                    indexing.note_job(self._made_of, table.get(change.key), change.record)
                if change.record is None:
                    table.pop(change.key, None)
                else:
                    table[change.key] = change.record
                if change.table == "runs":
                    self._index_run(change.key)
                elif change.table == "attempts":
                    self._index_attempt(change.key)
                elif change.table == "jobs":
                    runs = self._runs_of.get(change.key)
                    self._trail = self._trail.noted(*(id for id in runs if id in self._open))

    def _note_orders(self, change: Put) -> None:
        """Before a row is written: whose orders it changes, and whether the roster."""
        record: Any = change.record
        if change.table in _IN_ALL_ORDERS:
            self._all_orders += 1
            self._devices_at = None
            if change.table in _ON_ROSTER:
                self._roster = None
        elif change.table == "servers":
            old = self.servers.get(change.key)
            if record is None or old is None or row_of(old) != row_of(record):
                self._roster = None
            if record is None or old is None or (old.name, old.addresses) != (record.name, record.addresses):
                self._addresses = None
            if self._roster is None or self._addresses is None:
                self._all_orders += 1
            self._change_orders_of(change.key)
        elif change.table == "logons":
            for row in (self.logons.get(change.key), record):
                self._change_orders_of(*(() if row is None else self.permitted(row)))
        elif change.table == "copies":
            self._change_orders_of((record or self.copies[change.key]).server)
        elif change.table == "attempts":
            for attempt in (self.attempts.get(change.key), record):
                if attempt is not None:
                    self._change_orders_of(attempt.server, attempt.other)
        elif change.table == "runs":
            for attempt in self._attempts_of.get(change.key).values():
                if attempt.state in ATTEMPT_ACTIVE:
                    self._change_orders_of(attempt.server, attempt.other)

    def _change_orders_of(self, *servers: str) -> None:
        for server in servers:
            self._orders_of[server] = self._orders_of.get(server, 0) + 1

    def draft(self) -> ControlState:
        """A state of its own with the same rows, to find out what changes would come to."""
        fresh = ControlState()
        own = {key: dict(value) if isinstance(value, dict) else value for key, value in vars(self).items()}
        vars(fresh).update(own)
        fresh._open_ids = [*self._open_ids]
        fresh._trail = indexing.Trail()
        fresh._runs_of, fresh._attempts_of = self._runs_of.draft(), self._attempts_of.draft()
        return fresh

    def remember(self, request: Request) -> None:
        """Keeps a request id with its outcome, and forgets the oldest. For the reducer alone."""
        self.requests[request.id] = request
        while len(self.requests) > REQUESTS_KEPT:
            del self.requests[next(iter(self.requests))]

    def _index_run(self, id: str) -> None:
        run = self.runs.get(id)
        job = id.rpartition("@")[0] if run is None else run.job
        is_open = run is not None and run.closed_at_ns is None
        indexing.keep_in_order(self._open_ids, id, id in self._open, is_open)
        indexing.keep(self._open, id, run if is_open else None)
        is_apart = run is not None and is_open and isinstance(run.spec, TestRunSpec | EraseSpec)
        indexing.keep(self._apart, id, run if is_apart else None)
        has_read = run is not None and not is_open and isinstance(run.spec, indexing.READINGS)
        indexing.keep(self._readings, id, run if has_read else None)
        self._trail = self._trail.noted(id)
        self._runs_of.keep(job, id, run)

    def _index_attempt(self, id: str) -> None:
        attempt = self.attempts.get(id)
        run = id.rpartition("#")[0] if attempt is None else attempt.run
        active = attempt is not None and attempt.state in ATTEMPT_ACTIVE
        indexing.keep(self._active, id, attempt if active else None)
        found = attempt is not None and attempt.state is AttemptState.FAILED and is_damage(attempt.failure)
        indexing.keep(self._found_damage, id, attempt if found else None)
        self._attempts_of.keep(run, id, attempt)

    # --- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state. Equal states give equal bytes."""
        return image.encoded(vars(self))

    def restore(self, data: bytes) -> None:
        """Becomes the state of a snapshot. Raises ``StateTooNew``, ``StateDamaged``; then nothing has changed."""
        found = image.decoded(data)
        fresh = ControlState()
        vars(fresh).update(image.tables(found))
        for job in fresh.jobs.values():
            indexing.note_job(fresh._made_of, None, job)
        fresh.write(Put("runs", row.id, row) for row in found.runs)
        fresh.write(Put("attempts", row.id, row) for row in found.attempts)
        fresh._all_orders = self._all_orders + 1
        vars(self).update(vars(fresh))
