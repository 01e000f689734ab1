"""What people ask to be done: backups, restores, verifies, and the control of their jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from caso_mesh.admin import backup_words
from caso_mesh.admin.bases import bases_of
from caso_mesh.admin.flaws import FlawsNow
from caso_mesh.admin.newest import newest_set, newest_sets
from caso_mesh.admin.on_device import OnDevice
from caso_mesh.admin.ports import Caller, Links, Submit, done_before
from caso_mesh.admin.tables import Tables
from caso_mesh.control.documents import clean_path, parse_target
from caso_mesh.control.keeper import ControlKeeper
from caso_mesh.control.policies import check_target
from caso_mesh.control.seconds import is_second
from caso_mesh.model import nodes as n
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.canceling import RunCanceled, RunsCanceled
from caso_mesh.model.clock import Clock
from caso_mesh.model.commands import (
    CancelRun,
    CloseAttempt,
    CreateJob,
    DeleteJob,
    HoldRun,
    RunNow,
    SetJob,
    SetRunPriority,
)
from caso_mesh.model.device_jobs import EraseSpec
from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import Conflict, InvalidValue, NotFound, Unavailable, UsageError, WrongState
from caso_mesh.model.host_commands import CommandKind, is_reserved
from caso_mesh.model.ids import IdSource, check_name, resolve_prefix, run_of_attempt
from caso_mesh.model.inventories import ScheduleWords
from caso_mesh.model.jobs import (
    CronSchedule,
    DrillSpec,
    DuplicateSpec,
    Failure,
    Job,
    JobSpec,
    RestoreSpec,
    Run,
    SyntheticSpec,
    TestRunSpec,
    VerifySpec,
)
from caso_mesh.model.selections import LISTED, spread, unpack
from caso_mesh.model.states import ATTEMPT_ACTIVE, AttemptState, JobState, Priority, RunState
from caso_mesh.model.storage import DEFAULT_MEDIA_SET, BackupSet
from caso_mesh.model.units import format_instant, format_number
from caso_mesh.planning.choosing import Use
from caso_mesh.planning.schedule import next_due_ns
from caso_mesh.wire.typed import ask

_SAY_WHERE = "{source} is a server of another mesh: say where to, with --to SERVER:FOLDER; --to SERVER:/ puts everything where it was there"
_SAY_SERVER = "{source} is a server of another mesh: say which server is to restore it, with --on"


def _with_places(paths: tuple[bytes, ...], backup: BackupSet) -> tuple[bytes, ...]:
    """What is restored to where it came from: of a whole set all that came from a place. Raises ``UsageError``."""
    chosen = paths or tuple(root for root in backup.roots if not is_reserved(root))
    if not chosen or any(is_reserved(path) for path in chosen):
        raise UsageError(detail="What a dump wrote came from no place: say where to, with --to or --into-command")
    return chosen


class Work:
    """Turns requests into commands."""

    def __init__(
        self,
        *,
        keeper: ControlKeeper,
        tables: Tables,
        links: Links,
        submit: Submit,
        clock: Clock,
        new_id: IdSource,
        on_device: OnDevice,
        flaws: FlawsNow,
    ) -> None:
        self._keeper = keeper
        self._tables = tables
        self._links = links
        self._submit = submit
        self._clock = clock
        self._new_id = new_id
        self._on_device = on_device
        self._flaws = flaws

    # --- backup ---

    async def backup(self, caller: Caller, request: q.BackupRequest) -> o.Submitted:
        """Raises ``NotFound`` for a server, device, pool or media set, ``SourcePathMissing``, ``NotAllowedHere``,
        ``CommandNotAllowed``, ``LogonNotPermitted``, ``InvalidSchedule``."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        state = self._keeper.state
        said = backup_words.checked(state, request)
        warnings: list[str] = []
        for server, paths in said.roots:
            warnings += await self.check_paths(server, sorted(paths), said.commands, must=request.test_run)
        spec = backup_words.spec_of(state, request, said)
        names = "-".join(state.name_of(server) for server, _ in said.roots)
        if request.test_run:
            trial = TestRunSpec(spec)
            return await self._create(
                caller, trial, request.priority, request.name or "", f"test-run-{names}", None, tuple(warnings)
            )
        schedule = None if request.schedule is None else backup_words.schedule_of(request, self._clock.now_ns())
        return await self._create(
            caller, spec, request.priority, request.name or "", f"backup-{names}", schedule, tuple(warnings)
        )

    async def check_paths(
        self, server: str, paths: Sequence[bytes], commands: tuple[tuple[str, CommandKind], ...], *, must: bool
    ) -> tuple[str, ...]:
        """Asks the source's own server. A server that is away is asked when the run starts: the job waits for it, unless
        that it answers is what shall be found out (``must``)."""
        request = n.PathCheck(tuple(b"/" + path for path in paths), "read", commands)
        try:
            reply = await ask(self._links.get(server), "path.check", request, n.PathCheckReply)
        except Unavailable:
            if must:
                raise
            name = self._keeper.state.name_of(server)
            return (f"{name} does not answer now: what it has and allows is looked at when the run starts",)
        return reply.warnings

    async def _create(
        self,
        caller: Caller,
        spec: JobSpec,
        priority: Priority,
        name: str,
        stem: str,
        schedule: CronSchedule | None,
        warnings: tuple[str, ...] = (),
    ) -> o.Submitted:
        now_ns = self._clock.now_ns()
        id_ = self._new_id()
        if name:
            check_name(name, "job")
        else:
            # what has an @ in it is a run
            name = f"{stem[:50].replace('@', '-')}-{id_[10:18]}"
        job = Job(
            id=id_,
            name=name,
            spec=spec,
            created_by=caller.who,
            created_at_ns=now_ns,
            priority=priority,
            schedule=schedule,
        )
        result = await self._submit(
            CreateJob(job, run_now=schedule is None, at_ns=now_ns), who=caller.who, request_id=caller.request_id
        )
        return self._submitted(result, warnings)

    def _submitted(self, result: dict[str, Any], warnings: tuple[str, ...] = ()) -> o.Submitted:
        """What came of a request, also when it is asked again."""
        job = self._keeper.state.jobs.get(result["job"])
        due = None
        if job is not None and job.schedule is not None and result["run"] is None:
            due = next_due_ns(job.schedule, job.created_at_ns)
        return o.Submitted(
            job=result["job"],
            run=result["run"],
            name=job.name if job is not None else "",
            next_due=format_instant(due),
            warnings=warnings,
        )

    # --- restore and verify ---

    async def find_set(self, text: str) -> BackupSet:
        """A set by its id or a unique prefix of it. Raises ``NotFound``, ``Ambiguous``."""
        set_id = resolve_prefix(text, await self._tables.set_ids(), "set")
        backup = await self._tables.set(set_id)
        if backup is None:
            raise NotFound(kind="set", name=text)
        return backup

    def _at(self, backup: BackupSet) -> str:
        """The server whose files a set has: the machine that is there now."""
        now = self._keeper.state.successor_of(backup.source)
        return backup.source if now is None else now.id

    def _is_foreign(self, backup: BackupSet) -> bool:
        """Whether it is a set of another mesh, on a device that was imported from there."""
        device = self._keeper.state.devices.get(backup.device)
        return device is not None and device.imported is not None

    async def restore(self, caller: Caller, request: q.RestoreRequest) -> o.Submitted:
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        state = self._keeper.state
        device: str | None = None
        if request.from_device is None:
            backup = await self.find_set(request.set)
        else:
            device = state.device_named(request.from_device).id
            backup = await self._on_device.find(request.from_device, request.set)
        if request.logon is not None and request.into_command is None:
            raise UsageError(detail="--logon belongs to --into-command")
        if request.into_command is not None:
            return await self._restore_into(caller, request, backup, device)
        server, base = self._at(backup), None
        if request.to is not None:
            server = state.server_named(request.to[0]).id
            base = b"/" + clean_path(request.to[1])
        elif request.strip:
            raise UsageError(detail="--strip belongs to --to")
        elif self._is_foreign(backup):
            raise UsageError(detail=_SAY_WHERE.format(source=backup.source_name))
        elif server not in state.servers:
            raise NotFound(kind="server", name=backup.source_name)
        asked = request.paths + (unpack(request.selection) if request.selection else ())
        paths = tuple(sorted({clean_path(b"/" + path.lstrip(b"/")) for path in asked}, key=path_key))
        if base is None:
            paths = _with_places(paths, backup)
        listed, selection = spread(paths)
        # of many it is looked at where they lie; the server looks at each when it starts
        places = listed or sorted({path.rpartition(b"/")[0] for path in paths})[:LISTED]
        targets = tuple(b"/" + path for path in places) if base is None else (base,)
        try:
            check = n.PathCheck(targets, "write")
            await ask(self._links.get(server), "path.check", check, n.PathCheckReply)
        except Unavailable:
            pass  # it waits for that server, which checks again when it starts
        spec = RestoreSpec(
            set=backup.id,
            server=server,
            paths=listed,
            selection=selection,
            base=base,
            strip=request.strip,
            overwrite=request.overwrite,
            ownership=request.ownership,
            device=device,
            foreign=self._is_foreign(backup),
        )
        return await self._create(
            caller, spec, request.priority, "", f"restore-{backup.source_name}-to-{state.name_of(server)}", None
        )

    async def restore_selected(self, caller: Caller, request: q.RestoreRequest) -> o.Submitted:
        """A call of its own, since an administrator that did not know the field would restore everything."""
        if not request.selection:
            raise UsageError(detail="Nothing is selected")
        return await self.restore(caller, request)

    async def _restore_into(
        self, caller: Caller, request: q.RestoreRequest, backup: BackupSet, device: str | None
    ) -> o.Submitted:
        """One file of a set becomes the input of a command of a server's own file."""
        assert request.into_command is not None
        if request.selection:
            raise UsageError(detail="--into-command takes one file of the set: name it")
        if request.to is not None or request.strip:
            raise UsageError(detail="--into-command takes the place of --to")
        state, (server_name, name) = self._keeper.state, request.into_command
        server = state.server_named(server_name or state.name_of(backup.source)).id
        paths = tuple(clean_path(b"/" + path.lstrip(b"/")) for path in request.paths)
        if not paths:
            paths = tuple(root for root in backup.roots if is_reserved(root))
        if len(paths) != 1:
            raise UsageError(detail="--into-command takes one file of the set: name it")
        try:
            check = n.PathCheck((), "write", ((name, CommandKind.RESTORE),))
            await ask(self._links.get(server), "path.check", check, n.PathCheckReply)
        except Unavailable:
            pass  # it waits for that server, which checks again when it starts
        spec = RestoreSpec(
            set=backup.id, server=server, paths=paths, into_command=name, device=device, logon=request.logon,
            foreign=self._is_foreign(backup),
        )  # fmt: skip
        return await self._create(caller, spec, request.priority, "", f"restore-{backup.source_name}-into-{name}", None)

    async def verify(self, caller: Caller, request: q.VerifyRequest) -> o.Submitted:
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        backup = await self.find_set(request.set)
        spec = VerifySpec(backup.id, source=backup.source)
        return await self._create(caller, spec, request.priority, "", f"verify-{backup.source_name}", None)

    async def duplicate(self, caller: Caller, request: q.DuplicateRequest) -> o.Submitted:
        """Raises ``NotFound`` for a set, target or media set, ``Conflict`` where the target is the device of the set."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        state = self._keeper.state
        backup = await self.find_set(request.set)
        target = parse_target(request.target)
        check_target(state, target)
        if state.named_devices(target) is not None and set(state.named_devices(target) or ()) <= {backup.device}:
            raise Conflict(detail=f"The set {backup.id} is on {backup.device_name} already: name another device")
        known = {row.name for row in state.media_set_list()}
        media_set = request.media_set or (backup.media_set if backup.media_set in known else DEFAULT_MEDIA_SET)
        state.media_set_named(media_set)
        foreign = self._is_foreign(backup)
        spec = DuplicateSpec((backup.source,), target, (backup.id,), media_set, request.verify, foreign=foreign)
        return await self._create(caller, spec, request.priority, "", f"duplicate-{backup.source_name}", None)

    async def synthetic(self, caller: Caller, request: q.SyntheticRequest) -> o.Submitted:
        """Raises ``NotFound`` for a server, list or media set, and where there is no set to make a full one of."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        barred = (await self._flaws()).barred(Use.BUILD)
        found = await bases_of(self._keeper.state, self._tables, request, barred)
        spec = SyntheticSpec(
            tuple(each.source for each in found.sets),
            tuple(each.id for each in found.sets),
            found.media_set,
            request.verify,
            found.list,
        )
        return await self._create(caller, spec, request.priority, "", f"synthetic-{found.name}", None)

    async def create(
        self,
        caller: Caller,
        make: Callable[[], Awaitable[JobSpec]],
        priority: Priority,
        stem: str,
        *,
        name: str = "",
        when: ScheduleWords | None = None,
    ) -> o.Submitted:
        """Work that is worked out first, and begins now or by a schedule; asked for again, what came of it."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        schedule = None if when is None else backup_words.schedule_of(when, self._clock.now_ns())
        return await self._create(caller, await make(), priority, name, stem, schedule)

    async def drill(self, caller: Caller, request: q.DrillRequest) -> o.Submitted:
        """Raises ``NotFound`` for a set or server, ``InvalidValue`` for a sample of impossible size, ``RoleTooLow``."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        state = self._keeper.state
        named = next((server for server in state.server_list() if server.name == request.set), None)
        if named is not None:
            newest = await newest_set(state, self._tables, None, named.id, (await self._flaws()).barred(Use.CHECK))
            if newest is None:
                raise NotFound(kind="backup of the server", name=named.name)
            backup = newest
        else:
            backup = await self.find_set(request.set)
        server = self._at(backup) if request.server is None else state.server_named(request.server).id
        if request.server is None and self._is_foreign(backup):
            raise UsageError(detail=_SAY_SERVER.format(source=backup.source_name))
        if server not in state.servers:
            raise NotFound(kind="server", name=backup.source_name)
        if request.percent is not None and (request.entries is not None or not 0 < request.percent <= 100):
            raise InvalidValue(
                value=f"{format_number(request.percent)}%",
                what="sample",
                expected="Use a number of entries, or 0 to 100 %",
            )
        if (request.entries is not None and request.entries < 1) or request.max_bytes < 0:
            raise InvalidValue(value=request.entries, what="sample", expected="Use at least one entry")
        entries = None if request.percent is not None else request.entries or 100
        spec = DrillSpec(
            backup.id, server, entries, request.percent, request.max_bytes, foreign=self._is_foreign(backup)
        )
        return await self._create(caller, spec, request.priority, "", f"drill-{backup.source_name}", None)

    # --- jobs ---

    def find_job(self, text: str) -> Job:
        """A job by name, id or prefix; also the job of a run or attempt."""
        state = self._keeper.state
        for job in state.job_list():
            if job.name == text:
                return job
        return state.job(resolve_prefix(text.partition("@")[0], state.jobs, "job"))

    def find_run(self, text: str) -> Run:
        """The run of a run or attempt id (or a unique prefix), or the newest run of a job."""
        state = self._keeper.state
        if "@" in text:
            return state.run_named(run_of_attempt(text) if "#" in text else text)
        runs = [run for run in state.runs_of(self.find_job(text).id) if not is_second(run)]
        if not runs:
            raise NotFound(kind="run", name=text)
        return runs[-1]

    async def run_now(self, caller: Caller, request: q.JobName) -> o.Submitted:
        """Raises ``NotFound``, ``Conflict`` for an erase: once more it would make the vault that it has made before."""
        before = done_before(self._keeper, caller)
        if before is not None:
            return self._submitted(before.result)
        job = self.find_job(request.name)
        if isinstance(job.spec, EraseSpec):
            raise Conflict(
                detail="An erase does not run a second time: caso-mesh device erase asks anew what speaks against it"
            )
        sets = await newest_sets(self._keeper.state, self._tables, job, self._flaws)
        command = RunNow(job.id, self._clock.now_ns(), sets)
        return self._submitted(await self._submit(command, who=caller.who, request_id=caller.request_id))

    async def cancel(self, caller: Caller, request: q.JobCancel) -> RunsCanceled:
        """One run, or all open runs of a job. By force it ends as well where the media server cannot be told: what that
        server may still publish is kept as redundant. ``WrongState`` if it ended by itself meanwhile."""
        runs = [self.find_run(request.name)]
        if "@" not in request.name:
            runs = [run for run in self._keeper.state.runs_of(runs[0].job) if run.closed_at_ns is None] or runs
        told, ended = list[RunCanceled](), list[Run]()
        for run in runs:
            request_id = f"{caller.request_id}/{run.id}"
            is_first = request_id not in self._keeper.state.requests
            already = is_first and self._is_canceled(run, by_force=request.by_force)
            command = CancelRun(run.id, self._clock.now_ns(), request.by_force)
            await self._submit(command, who=caller.who, request_id=request_id)
            lost = (each for each in self._keeper.state.attempts_of(run.id) if not self._links.linked(each.server))
            for attempt in lost if request.by_force else ():
                if attempt.state in ATTEMPT_ACTIVE:
                    failure = Failure("canceled", {"who": caller.who})
                    close = CloseAttempt(attempt.id, AttemptState.CANCELED, self._clock.now_ns(), failure=failure)
                    await self._submit(close, who=caller.who, request_id=f"{caller.request_id}/{attempt.id}")
            after = self._keeper.state.run(run.id)
            if after.closed_at_ns is None:
                told.append(RunCanceled(run.id, "canceling", already))
            elif any(part.state is RunState.CANCELED for part in after.parts):
                told.append(RunCanceled(run.id, "canceled", already))
            else:
                ended.append(after)  # by itself, before it heard of this
        if ended and not told:
            raise WrongState(kind="run", name=ended[0].id, state=ended[0].state)
        return RunsCanceled(tuple(told))

    def _is_canceled(self, run: Run, *, by_force: bool) -> bool:
        """Whether there is nothing left to ask for: it has ended, or all that is active of it was told to."""
        if run.closed_at_ns is not None:
            return True
        active = [each for each in self._keeper.state.attempts_of(run.id) if each.state in ATTEMPT_ACTIVE]
        told = all(each.cancel and (each.by_force or not by_force) for each in active)
        return bool(active) and told and not any(part.state is RunState.READY for part in run.parts)

    async def set_priority(self, caller: Caller, request: q.JobSet) -> v.Done:
        """Raises ``MadeByPolicy`` for a job that a policy made: its runs have a priority of their own."""
        command: SetRunPriority | SetJob
        if "@" in request.name:
            command = SetRunPriority(self.find_run(request.name).id, request.priority)
        else:
            command = SetJob(self.find_job(request.name).id, priority=request.priority)
        await self._submit(command, who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def hold(self, caller: Caller, request: q.JobName, *, held: bool) -> v.Done:
        if "@" in request.name:
            run = self.find_run(request.name)
            await self._submit(HoldRun(run.id, held), who=caller.who, request_id=caller.request_id)
            return v.Done()
        job = self.find_job(request.name)
        state = JobState.ON_HOLD if held else JobState.ACTIVE
        await self._submit(SetJob(job.id, state), who=caller.who, request_id=caller.request_id)
        return v.Done()

    async def delete(self, caller: Caller, request: q.JobName) -> v.Done:
        if done_before(self._keeper, caller) is not None:
            return v.Done()
        job = self.find_job(request.name)
        await self._submit(DeleteJob(job.id), who=caller.who, request_id=caller.request_id)
        return v.Done()
