"""How old the newest good backup of a selection list may be: as somebody has set, else as its schedules promise. And when the
first one was due, of a server that has none."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable

from msgspec import Struct

from caso_mesh.control.dues import next_due_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job
from caso_mesh.model.policies import NEVER_TOO_OLD_S, SelectionList
from caso_mesh.model.settings import number
from caso_mesh.model.states import RUN_ENDS, RunState
from caso_mesh.model.units import format_duration
from caso_mesh.planning.schedule import preview

_SECOND = 1_000_000_000
_DAY_NS = 86400 * _SECOND
#: Due times of so many days before and after now are looked at: of a week, and of more if that does not show all.
_AROUND = (4, 35, 400)
_MOST = 20_000
_GOOD = frozenset({RunState.SUCCEEDED, RunState.SUCCEEDED_WITH_EXCEPTIONS})


class Allowed(Struct, frozen=True):
    """``seconds`` ``None``: any age. ``origin`` says where it comes from."""

    seconds: float | None
    origin: str


def allowed_age(state: ControlState, row: SelectionList, jobs: Iterable[Job], now_ns: int) -> Allowed:
    """Of a list, which ``jobs`` back up. Without ``oldest_good_s`` it is twice the longest time between two due times, and
    the time within which a run may begin: one backup that failed is made up for by the next, two are not."""
    if row.oldest_good_s is not None:
        if row.oldest_good_s >= NEVER_TOO_OLD_S:
            return Allowed(None, "set to never")
        return Allowed(row.oldest_good_s, "set for the list")
    schedules = {
        job.schedule for job in jobs if isinstance(job.spec, BackupSpec) and job.schedule and job.schedule.cron
    }
    if not schedules:
        return Allowed(None, "no schedule backs it up")
    longest_s = _longest_s(frozenset(schedules), now_ns // _DAY_NS)
    if longest_s is None:
        return Allowed(None, "its schedules are hardly ever due")
    windows = [each.start_window_s for each in schedules if each.start_window_s is not None]
    window_s = max(windows, default=number(state.settings_of_mesh(), "start-window-s"))
    text = f"2 x {_span(longest_s)} between due times + {_span(window_s)} to begin in"
    return Allowed(2 * longest_s + window_s, text)


class First(Struct, frozen=True):
    """The first backup of a server of a list. ``due_ns``: when it was or is due; ``None``: nothing is due by itself.
    ``under_way``: a run that may bring it is open. ``had``: there has been one, which does not count any more."""

    due_ns: int | None = None
    under_way: bool = False
    had: bool = False


def first_backup(state: ControlState, row: SelectionList, jobs: Iterable[Job], sources: Collection[str]) -> First:
    """Of a server that has no good set of a list. ``sources``: its id, and those of the servers that it replaced. What is
    still remembered of its runs comes before what the schedules say now: they may have been others."""
    due, under_way, had = list[int](), False, False
    for job in jobs:
        if not isinstance(job.spec, BackupSpec):
            continue
        following = next_due_of(job)
        due += [following] if following is not None else []
        had = had or (job.completed_at_ns is not None and len(row.servers()) == 1)
        for run in state.runs_of(job.id):
            for part in run.parts:
                if part.source in sources:
                    due.append(run.due_at_ns)
                    had = had or part.state in _GOOD
                    under_way = under_way or (run.closed_at_ns is None and part.state not in RUN_ENDS)
    return First(min(due, default=None), under_way, had)


@functools.lru_cache(maxsize=4096)
def _longest_s(schedules: frozenset[CronSchedule], day: int) -> float | None:
    """The longest time between two due times of any of some schedules, about a day since 1970; ``None`` without two."""
    for days in _AROUND:
        begins_ns, until_ns = (day - days) * _DAY_NS, (day + days) * _DAY_NS
        dues = sorted({due for each in schedules for due in preview(each, begins_ns, until_ns, _MOST)})
        if len(dues) < 2:
            continue
        longest_ns = max(later - earlier for earlier, later in itertools.pairwise(dues))
        # what lies across an end of the time that is looked at may be longer: a holiday that has begun
        if max(dues[0] - begins_ns, until_ns - dues[-1]) <= longest_ns or days == _AROUND[-1]:
            return longest_ns / _SECOND
    return None


def _span(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds >= 2 * 86400 and not seconds % 86400 else format_duration(seconds)
