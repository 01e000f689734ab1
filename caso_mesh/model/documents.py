"""Selection lists, policies and what they name as people write them: in calls, in JSON and in the file of ``apply``.

Names stand for ids, durations and sizes are texts as in ``90s``, ``28d``, ``500MB``; paths are ``SERVER:/PATH`` in their
escaped form, or ``SERVER:@NAME`` for a dump. What has its default may be left out.
"""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.model.storage import DEFAULT_MEDIA_SET

#: How a duration without end is written.
NO_END = "none"


class EntryDoc(Struct, frozen=True):
    """A place with patterns of its own. ``include``: of files below it only those that match one of these are read.
    ``logon``: what the command of a dump is given."""

    path: str
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    logon: str | None = None


class SelectionDoc(Struct, frozen=True):
    """A selection list. ``paths`` are entries without patterns of their own; ``exclude`` and ``include`` hold for all.
    ``window``: when its runs may start, as in ``zone Europe/Berlin; mon-fri 20:00-06:00; sat,sun``. ``within``:
    ``server:NAME`` or ``pool:NAME`` that alone may write it. ``oldest_good``: an alert stands while the newest good
    backup of one of its servers is older."""

    paths: tuple[str, ...] = ()
    entries: tuple[EntryDoc, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    one_file_system: bool = False
    exclude_caches: bool = False
    exclude_larger_than: str | None = None
    default_excludes: bool = True
    priority: str = "medium"
    window: str = ""
    within: str | None = None
    oldest_good: str | None = None


class TemplateDoc(Struct, frozen=True):
    """A template. ``schedule``: a cron line, or ``daily 22:00`` and its like; without one it runs when asked, or when a
    rule starts it. ``exclude_days``: ``2025-12-24``, ``2025-12-24..2026-01-01``; ``calendars`` name such days.
    ``priority`` is the list's, without. ``logon``: what ``pre`` and ``post`` are given. ``second_to``: where a second device
    is, as ``to``; the source is read once."""

    type: str
    to: str | None = None
    schedule: str | None = None
    zone: str | None = None
    exclude_days: tuple[str, ...] = ()
    calendars: tuple[str, ...] = ()
    start_window: str | None = None
    cancel_after: str | None = None
    catch_up: bool = False
    media_set: str = DEFAULT_MEDIA_SET
    priority: str | None = None
    verify: bool = True
    pre: str | None = None
    post: str | None = None
    post_always: bool = False
    ignore_exit_codes: bool = False
    snapshot: str = "never"
    allow_shrink: bool = False
    logon: str | None = None
    second_to: str | None = None


class PolicyDoc(Struct, frozen=True):
    """A policy. ``zone`` is that of templates which do not say their own. ``rules`` as in ``on conflict full supersedes
    incremental``. Runs that are due less than ``conflict_within`` apart conflict."""

    templates: dict[str, TemplateDoc] = {}
    rules: tuple[str, ...] = ()
    zone: str | None = None
    conflict_within: str = "1h"


class LogonDoc(Struct, frozen=True):
    """Logon information as people see it: the user, and who may use it."""

    user: str
    servers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    voters: bool = False


class MediaSetDoc(Struct, frozen=True):
    """A media set; ``none`` is without end. ``append``: how long a medium takes further sets, ``medium_size``: until so much is
    stored on it. ``protection``: how long
    after the last write to a medium nothing on it may be deleted. ``keep``: how long a set is kept; beyond that, of each
    list and server, the ``keep_last`` newest sets, and the newest one of so many days, weeks, months and years."""

    append: str = "6d"
    protection: str = "28d"
    keep: str = "28d"
    keep_last: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    medium_size: str = NO_END


class DevicePoolDoc(Struct, frozen=True):
    """A device pool: ``NAME``, or ``NAME:PRIORITY``; the smaller number is taken first (100, without)."""

    devices: tuple[str, ...] = ()


class CalendarDoc(Struct, frozen=True):
    """Days on which templates that name it have no run."""

    days: tuple[str, ...] = ()


class ErrorRuleDoc(Struct, frozen=True):
    """An error-handling rule. ``errors``: their codes, or categories of them. ``then``: ``hold`` or ``wait``."""

    errors: tuple[str, ...]
    retries: int = 2
    every: str = "10m"
    then: str = "wait"
    any_time: bool = False


class PoolDoc(Struct, frozen=True):
    """A media server pool, and settings for all of its members."""

    servers: tuple[str, ...] = ()
    settings: dict[str, str | int | float] = {}


class ServerDoc(Struct, frozen=True):
    """Settings of one server that is there, and what was set for it: ``enabled``, ``paused`` or ``disabled``, and where its
    device and media data lie."""

    settings: dict[str, str | int | float] = {}
    state: str | None = None
    data_location: str | None = None


class DeviceDoc(Struct, frozen=True):
    """What can be changed of a device that is there. ``quotas``: how much the sets of a server may take on it, or
    ``none``. ``disabled``: the servers that see it and shall not use it, all of them."""

    concurrency: int | None = None
    low_space: str | None = None
    state: str | None = None
    quotas: dict[str, str] = {}
    disabled: tuple[str, ...] | None = None


class JobDoc(Struct, frozen=True):
    """A recurring backup that no policy makes. ``logon``: what its commands are given, dumps as well."""

    paths: tuple[str, ...]
    to: str
    schedule: str
    zone: str = "UTC"
    type: str = "incremental"
    exclude_days: tuple[str, ...] = ()
    start_window: str | None = None
    cancel_after: str | None = None
    catch_up: bool = False
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False
    exclude_caches: bool = False
    exclude_larger_than: str | None = None
    default_excludes: bool = True
    media_set: str = DEFAULT_MEDIA_SET
    priority: str = "medium"
    verify: bool = False
    pre: str | None = None
    post: str | None = None
    post_always: bool = False
    ignore_exit_codes: bool = False
    snapshot: str = "never"
    allow_shrink: bool = False
    logon: str | None = None
    second_to: str | None = None
