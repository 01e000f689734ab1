"""Indices over the tables of the control state, kept as rows are written."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from caso_mesh.model.jobs import DrillSpec, Job, RestoreSpec, VerifySetsSpec, VerifySpec
from caso_mesh.model.storage import Device

T = TypeVar("T")

#: So many changes are told one by one; who did not look meanwhile looks at everything.
_TRAIL = 20_000
#: What reads the content of sets, and may find that it is damaged.
READINGS = (VerifySpec, VerifySetsSpec, DrillSpec, RestoreSpec)


class Trail:
    """Which runs may be others than they were: their rows or those of their jobs were written. Who looks again and
    again remembers how far the trail was; another trail means that all may have changed."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def noted(self, *runs: str) -> Trail:
        """The trail with these runs: another one when it has become too long."""
        self.runs.extend(runs)
        return self if len(self.runs) <= _TRAIL else Trail()


def devices_at(devices: Iterable[Device]) -> dict[str, list[Device]]:
    """By server the devices that it has a path to, in their order."""
    found: dict[str, list[Device]] = {}
    for device in devices:
        for server in dict.fromkeys(place.server for place in device.paths):
            found.setdefault(server, []).append(device)
    return found


def keep(index: dict[Any, Any], key: Any, record: Any) -> None:
    """Puts a record into an index, or takes it out of it (``None``)."""
    if record is None:
        index.pop(key, None)
    else:
        index[key] = record


class Groups(Generic[T]):
    """An index of groups, as ``keep`` keeps one. A draft shares its groups with what it is a draft of until one of both writes
    into one: of a long history there are a hundred thousand, of which neither touches more than a few."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, T]] = {}
        # Which nobody else has; ``None``: all.
        self._own: set[str] | None = None

    def get(self, group: str) -> Mapping[str, T]:
        return self._groups.get(group, {})

    def keep(self, group: str, key: str, record: T | None) -> None:
        if self._own is not None and group not in self._own:
            self._groups[group] = dict(self._groups.get(group, {}))
            self._own.add(group)
        if record is not None:
            self._groups.setdefault(group, {})[key] = record
        elif group in self._groups:
            self._groups[group].pop(key, None)
            if not self._groups[group]:
                del self._groups[group]
                if self._own is not None:
                    self._own.discard(group)

    def draft(self) -> Groups[T]:
        """One of its own with the same records."""
        fresh = Groups[T]()
        fresh._groups = dict(self._groups)
        self._own, fresh._own = set(), set()
        return fresh


def keep_in_order(ids: list[str], id: str, was: bool, shall: bool) -> None:
    """Puts an id into a sorted list, or takes it out of it. ``was``: whether it is there."""
    if shall and not was:
        insort(ids, id)
    elif was and not shall:
        del ids[bisect_left(ids, id)]


def note_job(made_of: dict[tuple[str, str], tuple[str, ...]], old: Job | None, new: Job | None) -> None:
    """Before a job is written: to which association, as (policy, list), it belongs."""
    before = None if old is None else old.origin
    after = None if new is None else new.origin
    if old is not None and before is not None and before != after:
        key = (before.policy, before.list)
        left = tuple(id for id in made_of.get(key, ()) if id != old.id)
        keep(made_of, key, left or None)
    if new is not None and after is not None and before != after:
        key = (after.policy, after.list)
        made_of[key] = (*made_of.get(key, ()), new.id)
