"""``caso-mesh backup``: submit a backup, or make it a job that recurs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import structs

from caso_mesh.cli.grammar import Parameter
from caso_mesh.cli.options import (
    DEFAULTS,
    NOT_LOCAL,
    NOT_WAITING,
    Common,
    EscapedOption,
    Local,
    Waiting,
    source_place,
)
from caso_mesh.cli.scheduling import NOW, Scheduling
from caso_mesh.cli.waiting import submit
from caso_mesh.model import requests as q
from caso_mesh.model.errors import UsageError
from caso_mesh.model.states import BackupType, Priority, SnapshotMode
from caso_mesh.model.storage import DEFAULT_MEDIA_SET
from caso_mesh.model.units import parse_size

PriorityOption = Annotated[
    Literal["highest", "high", "medium", "low", "lowest"], Parameter(name="--priority", help="Who goes first.")
]


def backup(
    *sources: Annotated[
        str,
        Parameter(
            name="SERVER:PATH",
            help="What to back up; absolute paths of any servers, or SERVER:@NAME for what its command NAME dumps.",
        ),
    ],
    to: Annotated[str, Parameter(help="Where: any, device:NAME, devices:POOL, server:NAME or pool:NAME.")],
    second_to: Annotated[
        str | None,
        Parameter(help="Where a second device is, for the same: what is backed up is read once. As --to."),
    ] = None,
    type: Annotated[
        Literal["full", "incremental", "differential", "copy"] | None,
        Parameter(
            help="Default: full; with --schedule incremental. An incremental without a whole set to build on is a full one."
        ),
    ] = None,
    exclude: Annotated[
        tuple[str, ...], Parameter(name="--exclude", negative=(), help="Leave out what matches; may be repeated.")
    ] = (),
    one_file_system: Annotated[bool, Parameter(negative=(), help="Do not enter other mounted file systems.")] = False,
    exclude_larger_than: Annotated[
        str | None, Parameter(help="Leave out files of more than this size, as in 500MB or 4GiB.")
    ] = None,
    exclude_caches: Annotated[
        bool, Parameter(negative=(), help="Leave out what folders with a CACHEDIR.TAG hold.")
    ] = False,
    no_default_excludes: Annotated[
        bool, Parameter(negative=(), help="Read what is in /proc, /sys, /run and /dev, and swap files, too.")
    ] = False,
    media_set: Annotated[str, Parameter(help="Media set: decides how long the set is kept.")] = DEFAULT_MEDIA_SET,
    priority: PriorityOption = "medium",
    pre: Annotated[str | None, Parameter(help="Command of each source's own file to run before it is read.")] = None,
    post: Annotated[str | None, Parameter(help="Command of each source's own file to run once it was read.")] = None,
    logon: Annotated[
        str | None,
        Parameter(help="Logon information that its commands are given: dumps, and those of --pre and --post."),
    ] = None,
    post_always: Annotated[
        bool, Parameter(negative=(), help="Run the command of --post even if the backup fails or is canceled.")
    ] = False,
    ignore_exit_codes: Annotated[
        bool, Parameter(negative=(), help="Go on when the command of --pre or --post fails; the job log tells.")
    ] = False,
    snapshot: Annotated[
        Literal["never", "auto", "required"],
        Parameter(
            help="Read from a snapshot of the file system: where it has them (btrfs, LVM, ZFS), or fail without."
        ),
    ] = "never",
    allow_shrink: Annotated[
        bool,
        Parameter(negative=(), help="Accept over 90 % less, in files or bytes, than the last set of the same paths."),
    ] = False,
    test_run: Annotated[
        bool,
        Parameter(
            negative=(), help="Only find out whether it would work, and predict files, bytes and time; moves nothing."
        ),
    ] = False,
    verify: Annotated[bool, Parameter(help="Read the set back and check it after writing.")] = False,
    scheduling: Scheduling = NOW,
    escaped: EscapedOption = False,
    local: Local = NOT_LOCAL,
    waiting: Waiting = NOT_WAITING,
    common: Common = DEFAULTS,
) -> int:
    """Back up paths of servers, now or by a schedule."""
    if not sources:
        raise UsageError(detail="Say what to back up, as SERVER:/PATH")
    when = scheduling.words(waiting)
    if when is not None and test_run:
        raise UsageError(detail="A test run is made now: leave --schedule away")
    request = q.BackupRequest(
        sources=tuple(source_place(source, escaped=escaped) for source in sources),
        target=to,
        type=BackupType(type) if type else None,
        excludes=exclude,
        one_file_system=one_file_system,
        exclude_caches=exclude_caches,
        larger_than=parse_size(exclude_larger_than) if exclude_larger_than is not None else None,
        default_excludes=not no_default_excludes,
        media_set=media_set,
        verify=verify,
        pre=pre,
        post=post,
        post_always=post_always,
        ignore_exit_codes=ignore_exit_codes,
        snapshot=SnapshotMode(snapshot),
        allow_shrink=allow_shrink,
        test_run=test_run,
        priority=Priority(priority),
        name=scheduling.name,
        logon=logon,
        second=second_to,
    )
    if when is not None:
        request = structs.replace(request, **structs.asdict(when))
    return submit(common, waiting, "backup", request, local)
