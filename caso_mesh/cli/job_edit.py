"""``caso-mesh job edit`` and ``copy``: jobs that a person made, with something else in them, or once more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from caso_mesh.cli import output
from caso_mesh.cli.client import ask
from caso_mesh.cli.grammar import Group, Parameter, shared
from caso_mesh.cli.options import DEFAULTS, NOT_LOCAL, Common, EscapedOption, Local, source_place
from caso_mesh.cli.scheduling import UNSET, CancelAfter, CatchUp, ExcludeDays, Schedule, StartWindow
from caso_mesh.model.errors import UsageError
from caso_mesh.model.job_edits import JobCopy, JobEdit, JobEdited
from caso_mesh.model.states import BackupType, Priority, SnapshotMode
from caso_mesh.model.units import parse_duration_s, parse_size

Name = Annotated[str, Parameter(name="NAME", help="A job by name or id; a beginning of the id will do.")]
#: All devices that take work, in place of names.
ALL = "all"


def add_to(jobs: Group) -> None:
    """Adds the commands to those of jobs."""
    jobs.command(edit)
    jobs.command(copy)


@shared
@dataclass(frozen=True)
class Changes:
    """What a job shall be; what is not given stays as it is."""

    path: Annotated[
        tuple[str, ...],
        Parameter(
            name="--path",
            negative=(),
            help="SERVER:PATH or SERVER:@NAME: what is backed up, in place of what was; may be repeated.",
        ),
    ] = ()
    to: Annotated[str | None, Parameter(help="Where: any, device:NAME, devices:POOL, server:NAME or pool:NAME.")] = None
    second_to: Annotated[
        str | None, Parameter(help="Where a second device is, for the same: the source is read once. As --to; or none.")
    ] = None
    type: Annotated[
        Literal["full", "incremental", "differential", "copy"] | None, Parameter(help="What kind of backup it is.")
    ] = None
    exclude: Annotated[
        tuple[str, ...],
        Parameter(
            name="--exclude",
            negative=(),
            help="Leave out what matches, in place of what was; may be repeated; or none.",
        ),
    ] = ()
    one_file_system: Annotated[bool | None, Parameter(help="Do not enter other mounted file systems.")] = None
    exclude_larger_than: Annotated[
        str | None, Parameter(help="Leave out files of more than this size, as in 500MB or 4GiB; or none.")
    ] = None
    exclude_caches: Annotated[bool | None, Parameter(help="Leave out what folders with a CACHEDIR.TAG hold.")] = None
    default_excludes: Annotated[
        bool | None, Parameter(help="Leave out what is in /proc, /sys, /run and /dev, and swap files.")
    ] = None
    media_set: Annotated[str | None, Parameter(help="Media set: decides how long the sets are kept.")] = None
    pre: Annotated[
        str | None, Parameter(help="Command of each source's own file to run before it is read; or none.")
    ] = None
    post: Annotated[
        str | None, Parameter(help="Command of each source's own file to run once it was read; or none.")
    ] = None
    logon: Annotated[str | None, Parameter(help="Logon information that its commands are given; or none.")] = None
    post_always: Annotated[bool | None, Parameter(help="Run the command of --post even if the backup fails.")] = None
    ignore_exit_codes: Annotated[bool | None, Parameter(help="Go on when the command of --pre or --post fails.")] = None
    snapshot: Annotated[
        Literal["never", "auto", "required"] | None, Parameter(help="Read from a snapshot of the file system.")
    ] = None
    allow_shrink: Annotated[
        bool | None, Parameter(help="Accept over 90 % less than the last set of the same paths.")
    ] = None
    verify: Annotated[bool | None, Parameter(help="Read the set back and check it after writing.")] = None
    device: Annotated[
        tuple[str, ...],
        Parameter(
            name="--device",
            negative=(),
            help="Of an inventory, or a catalog that is made anew: which device, in place of those before; may be repeated; "
            "or all.",
        ),
    ] = ()
    schedule: Schedule = None
    zone: Annotated[str | None, Parameter(help="Time zone of the schedule, as in Europe/Berlin.")] = None
    exclude_day: ExcludeDays = ()
    start_window: StartWindow = None
    cancel_after: CancelAfter = None
    catch_up: CatchUp = None
    priority: Annotated[
        Literal["highest", "high", "medium", "low", "lowest"] | None, Parameter(help="Who goes first, of runs to come.")
    ] = None

    def request(self, name: str, *, escaped: bool) -> JobEdit:
        """Raises ``InvalidValue``, ``UsageError``."""
        said = {
            each.name: value
            for each in dataclasses.fields(self)
            if (value := getattr(self, each.name)) not in (None, ())
        }
        clear = tuple(_FIELDS.get(each, each) for each, value in said.items() if value == UNSET and each in _CLEARED)
        values = {_FIELDS.get(each, each): _value(each, value, escaped=escaped) for each, value in said.items()}
        return JobEdit(name, clear=clear, **{each: value for each, value in values.items() if each not in clear})


NOTHING_SAID = Changes()
#: Fields of the request that are called otherwise than the option.
_FIELDS = {
    "path": "sources", "to": "target", "second_to": "second", "exclude": "excludes", "exclude_larger_than": "larger_than",
    "device": "devices", "exclude_day": "exclude_days", "start_window": "start_window_s", "cancel_after": "cancel_after_s",
}  # fmt: skip
_CLEARED = frozenset(
    ("second_to", "exclude_larger_than", "pre", "post", "logon", "schedule", "start_window", "cancel_after")
)


def _value(option: str, value: Any, *, escaped: bool) -> Any:
    if value == UNSET and option in _CLEARED:
        return None
    match option:
        case "path":
            return tuple(source_place(each, escaped=escaped) for each in value)
        case "exclude" | "exclude_day" | "device":
            word = ALL if option == "device" else UNSET
            if word in value and len(value) > 1:
                raise UsageError(detail=f"--{option.replace('_', '-')} {word} stands alone")
            return () if value == (word,) else value
        case "exclude_larger_than":
            return parse_size(value)
        case "start_window" | "cancel_after":
            return parse_duration_s(value)
        case "type":
            return BackupType(value)
        case "snapshot":
            return SnapshotMode(value)
        case "priority":
            return Priority(value)
        case _:
            return value


def edit(
    name: Name,
    /,
    *,
    changes: Changes = NOTHING_SAID,
    escaped: EscapedOption = False,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Change a job that a person made: a backup, an inventory, or a catalog that is made anew. Only what is given changes; runs
    that are open go on as they began. Jobs of policies are changed with their policy or selection list."""
    view = ask(common, local.call("job.edit"), changes.request(name, escaped=escaped), JobEdited)
    output.show(view, common.json, lambda view: _show(view, "was changed"))


def copy(
    name: Name,
    new: Annotated[str, Parameter(name="NEW", help="Name of the new job.")],
    /,
    *,
    local: Local = NOT_LOCAL,
    common: Common = DEFAULTS,
) -> None:
    """Make another job that does the same, by the same schedule; change it with job edit. Nothing runs at once."""
    view = ask(common, local.call("job.copy"), JobCopy(name, new), JobEdited)
    output.show(view, common.json, lambda view: _show(view, f"does what {name} does"))


def _show(view: JobEdited, what: str) -> None:
    for text in view.warnings:
        output.warning(text)
    when = f"it runs next at {view.next_due or '-'}" if view.schedule is not None else "it runs when it is asked to"
    output.line(f"job {view.name} ({view.job}) {what}; {when}")
