"""``caso-mesh job``: jobs, runs, attempts and their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from caso_mesh.cli import following, job_edit, output
from caso_mesh.cli.client import Client, ask, connect
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.listing import (
    ANY_SERVER,
    ANY_TIME,
    LISTING,
    AfterOption,
    LimitOption,
    Listing,
    Servers,
    Time,
    note_more,
)
from caso_mesh.cli.options import (
    DEFAULTS,
    NOT_LOCAL,
    NOT_WAITING,
    Common,
    Local,
    Waiting,
)
from caso_mesh.cli.waiting import goes_to, submit, watch
from caso_mesh.model import outcomes as o
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.canceling import RunsCanceled
from caso_mesh.model.errors import NotFound, UsageError
from caso_mesh.model.states import Priority, RunState, WaitReason

app = Group(name="job", help="Jobs, their runs and logs: list, show, watch, cancel, hold ...")

job_edit.add_to(app)

Name = Annotated[str, Parameter(name="NAME", help="A job by name or id, a run, or an attempt; a beginning will do.")]
#: What ``job list --state`` takes beside the states of runs.
GROUPS = ("all", "ended")


@app.command(name="list")
def list_(
    *,
    listing: Listing = LISTING,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    limit: LimitOption = 500,
    after: AfterOption = None,
    local: Local = NOT_LOCAL,
) -> None:
    """List the runs that are not ended, with the reason of each that waits; or those in a state (or: all, ended). Their time is
    that at which they are due."""
    state, common = listing.split({*GROUPS, *(each.value for each in RunState)})
    request = q.JobListRequest(state, servers.server, servers.pool, limit, time.since_ns, time.until_ns, after)
    view = ask(common, local.call("job.list"), request, o.JobList)
    output.show(view, common.json, lambda view: _list(view, local.words))


def _list(view: o.JobList, local: str = "") -> None:
    output.table(
        view.jobs,
        ("run", lambda row: row.run or row.job),
        ("name", lambda row: row.name),
        ("kind", lambda row: row.kind if row.type is None else f"{row.kind} {row.type}"),
        ("state", lambda row: f"{row.state} (local)" if row.local else row.state),
        ("source", lambda row: row.source),
        ("server", lambda row: row.server),
        ("device", lambda row: row.device),
        ("done", lambda row: None if row.percent is None else f"{row.percent:.0f} %"),
        ("read", lambda row: output.size(row.bytes_read)),
        ("rate", lambda row: f"{output.size(int(row.rate))}/s" if row.rate else None),
        ("waits because", lambda row: row.reason_text or row.reason),
        ("since", lambda row: row.reason_since),
        ("ends", lambda row: None if row.reason == WaitReason.NOT_YET_DUE.value else _ends(row, local)),
        empty="Nothing runs and nothing waits. What has ended: caso-mesh history; what comes: caso-mesh schedule preview",
        spare=("rate", "read", "kind", "ends", "device", "server"),
    )
    note_more(view.more, view.jobs[-1].run or view.jobs[-1].job if view.jobs else None)


def _ends(row: o.JobView, local: str) -> str | None:
    """What ends a wait, below the heading that says so; a command in it is for the list that it was asked of."""
    if row.reason_ends is None:
        return None
    return row.reason_ends.removeprefix("ends ") + (local if row.reason == WaitReason.ON_HOLD.value else "")


@app.command
def show(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Show a job with its runs and attempts."""
    output.show(ask(common, local.call("job.show"), q.JobName(name), o.JobDetail), common.json, _show)


def _show(view: o.JobDetail) -> None:
    output.details(
        ("job", view.job),
        ("name", view.name),
        ("kind", view.kind),
        ("state", view.state),
        ("priority", view.priority),
        ("created", f"{view.created} by {view.created_by}"),
        ("schedule", f"{view.schedule} ({view.zone})" if view.schedule else None),
        ("next due", view.next_due),
        ("start window", None if view.start_window_s is None else output.duration(view.start_window_s)),
        ("cancel after", None if view.cancel_after_s is None else output.duration(view.cancel_after_s)),
        ("catch up", "yes" if view.catch_up else None),
        ("without a run", view.exclude_days or None),
        ("made of", _origin(view)),
        *(
            (key.replace("_", " "), output.size(value) if key == "larger_than" else value)
            for key, value in view.spec.items()
            if value not in (None, [], (), "")
        ),
        *goes_to(view.destinations),
    )
    if view.runs:
        output.line("")
        rows = [(run, attempt) for run in view.runs for attempt in (run.attempts or (None,))]
        output.table(
            rows,
            ("attempt", lambda row: row[1].attempt if row[1] else row[0].run),
            ("state", lambda row: row[1].state if row[1] else row[0].state),
            ("source", lambda row: row[1] and row[1].source),
            ("server", lambda row: row[1] and row[1].server),
            ("device", lambda row: row[1] and row[1].device),
            ("started", lambda row: row[1] and row[1].started),
            ("time", lambda row: output.duration(row[1].seconds) if row[1] else None),
            ("files", lambda row: row[1] and row[1].files),
            ("stored", lambda row: output.size(row[1].bytes_stored) if row[1] else None),
            ("set", lambda row: row[1] and row[1].set),
            ("note", lambda row: _note(row[1]) or row[0].note),
        )
    waits = [(run, each) for run in view.runs for each in run.waits]
    if waits:
        output.line("")
        output.table(
            waits,
            ("run", lambda row: row[0].run),
            ("source", lambda row: row[1].source),
            ("waits because", lambda row: row[1].reason_text),
            ("since", lambda row: row[1].reason_since),
            ("ends", lambda row: row[1].reason_ends.removeprefix("ends ")),
        )


def _note(attempt: o.AttemptView | None) -> str | None:
    """Why it failed, or what it found in a device."""
    if attempt is None:
        return None
    if attempt.error:
        return str(attempt.error.get("message"))
    if (found := attempt.inventory) is not None:
        return f"{found.sets} sets, {found.missing} missing, {found.added} that nobody knew"
    if (made := attempt.catalog) is not None:
        return f"{made.sets} sets, {made.added} that nobody knew; {made.made} of {made.lacked} catalogs made"
    return None


def _origin(view: o.JobDetail) -> str | None:
    """Where it is edited."""
    if view.origin is None:
        return None
    return f"selection list {view.origin.selection}, template {view.origin.template} of policy {view.origin.policy}"


@app.command
def log(
    name: Name,
    /,
    *,
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, Parameter(help="Only lines of at least this level.")
    ] = None,
    attempt: Annotated[int | None, Parameter(help="Only of the attempt with this number.")] = None,
    follow: Annotated[
        bool,
        Parameter(
            negative=(), help="Go on with each line that comes, until the run has ended; with --json as records."
        ),
    ] = False,
    export: Annotated[Path | None, Parameter(help="Into a file that is not there yet.")] = None,
    servers: Servers = ANY_SERVER,
    time: Time = ANY_TIME,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Print the job log of a run (of a job: its newest), or of one attempt."""
    chosen = (level, servers.server, servers.pool, time.since, time.until, export)
    if follow and (local.local or any(each is not None for each in chosen)):
        raise UsageError(detail="--follow shows all of a run of the mesh, or of one attempt of it, and nothing else")
    if follow:
        with connect(common) as client:
            following.follow(client, name, attempt, as_json=common.json)
        return
    if attempt is not None:
        # of a job: its newest run
        if "@" not in name:
            with connect(common) as client:
                name = _newest(client, name, local)
        name = f"{name.partition('#')[0]}#{attempt}"
    request = q.JobLogRequest(name, servers.server, servers.pool, level, time.since_ns, time.until_ns)
    view = ask(common, local.call("job.log"), request, o.JobLogView)
    if export is not None:
        following.export(view, export)
        return
    output.show(view, common.json, _log)


def _log(view: o.JobLogView) -> None:
    for server in view.away:
        output.warning(f"{server} keeps its part of the log, and cannot be asked now")
    if not view.away and not any(attempt.lines for attempt in view.attempts):
        output.note("The log is empty.")
    for attempt in view.attempts:
        if len(view.attempts) > 1:
            output.line(f"{attempt.attempt}:")
        for entry in attempt.lines:
            output.line(f"{entry.at}  {entry.level:<7}  {entry.text}")


@app.command
def run(name: Name, /, *, local: Local = NOT_LOCAL, waiting: Waiting = NOT_WAITING, common: Common = DEFAULTS) -> int:
    """Run a job now."""
    return submit(common, waiting, "job.run", q.JobName(name), local)


@app.command(name="watch")
def watch_(
    name: Name,
    /,
    *,
    json_lines: Annotated[
        bool, Parameter(name="--json-lines", negative=(), help="Print progress as JSON, one record a line.")
    ] = False,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> int:
    """Watch a run (of a job: its newest) to its end, as --wait does."""
    if json_lines and common.json:
        raise UsageError(detail="Give --json or --json-lines, not both")
    with connect(common) as client:
        run = name.partition("#")[0] if "@" in name else _newest(client, name, local)
        return watch(client, run, as_json=common.json, json_lines=json_lines, local=local)


def _newest(client: Client, name: str, local: Local) -> str:
    detail = client.call(local.call("job.show"), q.JobName(name), o.JobDetail)
    if not detail.runs:
        raise NotFound(kind="run", name=name)
    return detail.runs[0].run


def _do(common: Common, call: str, name: str, done: str) -> None:
    view = ask(common, call, q.JobName(name), v.Done)
    output.show(view, common.json, lambda _: output.line(f"{name} {done}"))


@app.command
def cancel(
    name: Name,
    /,
    *,
    force: Annotated[
        bool, Parameter(negative=(), help="At once: kill its workers, and do not wait for a server that is away.")
    ] = False,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """End a run; nothing half-done becomes visible. What does not end within 30 s, or within the time limit of a post command that
    has begun, is killed."""
    view = ask(common, local.call("job.cancel"), q.JobCancel(name, force), RunsCanceled)

    def say(view: RunsCanceled) -> None:
        for each in view.runs:
            is_so = "is canceled" if each.state == "canceled" else "is being canceled"
            output.line(f"{each.run} {is_so}{' already' if each.already else ''}")
        if not view.runs:
            output.line(f"{name} is being canceled")

    output.show(view, common.json, say)


@app.command(name="set")
def set_(
    name: Name,
    /,
    *,
    priority: Annotated[Literal["highest", "high", "medium", "low", "lowest"], Parameter(help="Who goes first.")],
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Change the priority of a job and of what waits of it, or of one run."""
    view = ask(common, local.call("job.set"), q.JobSet(name, Priority(priority)), v.Done)
    output.show(view, common.json, lambda _: output.line(f"{name} has the priority {priority}"))


@app.command
def hold(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Hold a job (no further runs), or one run (nothing of it is started)."""
    _do(common, local.call("job.hold"), name, "is on hold")


@app.command
def release(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Release what was held."""
    _do(common, local.call("job.release"), name, "was released")


@app.command
def delete(name: Name, /, *, local: Local = NOT_LOCAL, common: Common = DEFAULTS) -> None:
    """Delete a job without open runs; its sets stay."""
    _do(common, local.call("job.delete"), name, "was deleted")
