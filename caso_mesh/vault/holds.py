"""Holds: what was said about a set after it was published. Objects ``holds/<set>/<n>``, added and never changed.

A *tombstone* takes a set out of the sight of every reader; what it alone needs is freed by a reclaim. A *lock* protects
a set until an instant, or without end, and nobody can shorten it: of several locks the longest counts, and a tombstone
that was made while a lock was in force is void.
"""

from __future__ import annotations

import threading
from typing import Literal

import msgspec
from msgspec import Struct

from caso_mesh.model.errors import DataDamaged, NoKey, ObjectExists, ObjectMissing
from caso_mesh.vault.names import Kind, check_id, hold_name, parse_hold
from caso_mesh.vault.objects import ObjectStore, Signer
from caso_mesh.vault.problems import Problems
from caso_mesh.vault.records import decode_record

#: Somebody else takes the same number at the same time: so often it is tried again.
_TRIES = 16


class Hold(Struct, frozen=True):
    """One hold. ``until_ns`` is the end of a lock, ``None`` = without end. ``server`` (node id) signs it, ``who`` asked
    for it."""

    set: str
    number: int
    hold: Literal["tombstone", "lock"]
    at_ns: int
    server: str
    who: str = ""
    until_ns: int | None = None

    def locks_at(self, at_ns: int) -> bool:
        """Whether it is a lock that is in force at an instant."""
        return self.hold == "lock" and self.at_ns <= at_ns and (self.until_ns is None or at_ns < self.until_ns)


class Holds:
    """All holds of one vault, as far as they were listed. Thread-safe."""

    def __init__(self, store: ObjectStore, problems: Problems) -> None:
        self._store = store
        self._problems = problems
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._of: dict[str, list[Hold]] = {}
        self._unreadable: dict[str, str] = {}

    def refresh(self, set_id: str = "") -> None:
        """Lists again: those of one set, or all. What cannot be read becomes a problem."""
        prefix = f"holds/{set_id}/" if set_id else "holds/"
        for name, _ in self._store.backend.list(prefix):
            with self._lock:
                if name in self._seen:
                    continue
                self._seen.add(name)
            parsed = parse_hold(name)
            if parsed is None:
                self._problems.add(f"{name}: no object of a vault has such a name")
                continue
            try:
                found = self._load(name, *parsed)
            except (DataDamaged, NoKey, ObjectMissing) as error:
                self._problems.add(f"{name}: {error.message}")
                with self._lock:
                    self._unreadable[parsed[0]] = name
                continue
            with self._lock:
                self._of.setdefault(parsed[0], []).append(found)

    def _load(self, name: str, set_id: str, number: int) -> Hold:
        payload, server = self._store.read(Kind.HOLD, name)
        found = decode_record(name, payload, Hold)
        if (found.set, found.number, found.server) != (set_id, number, server):
            raise DataDamaged(object=name, detail="it is another hold's object")
        return found

    def of(self, set_id: str) -> list[Hold]:
        """Those of a set that were listed."""
        with self._lock:
            return list(self._of.get(set_id, ()))

    def unreadable(self, set_id: str) -> str | None:
        """The name of a hold of this set that cannot be read: it may be a lock."""
        with self._lock:
            return self._unreadable.get(set_id)

    def is_gone(self, set_id: str) -> bool:
        """Whether a tombstone counts."""
        with self._lock:
            holds = self._of.get(set_id)
            if not holds:
                return False
            return any(
                each.hold == "tombstone" and not any(other.locks_at(each.at_ns) for other in holds) for each in holds
            )

    def lock_of(self, set_id: str) -> Hold | None:
        """The lock of a set that lasts longest, over or not."""
        locks = [each for each in self.of(set_id) if each.hold == "lock"]
        return max(locks, key=lambda each: (each.until_ns is None, each.until_ns or 0), default=None)

    def add(
        self,
        set_id: str,
        hold: Literal["tombstone", "lock"],
        *,
        at_ns: int,
        who: str,
        signer: Signer,
        until_ns: int | None = None,
    ) -> Hold:
        """Adds a hold behind those that are there. Raises what ``Backend.put`` raises."""
        check_id(set_id, "set")
        tries = 0
        while True:
            numbers = [parse_hold(name) for name, _ in self._store.backend.list(f"holds/{set_id}/")]
            number = max((each[1] for each in numbers if each is not None), default=0) + 1
            made = Hold(set_id, number, hold, at_ns, signer.server, who, until_ns)
            try:
                self._store.write(Kind.HOLD, hold_name(set_id, number), msgspec.msgpack.encode(made), signer)
            except ObjectExists:
                tries += 1
                if tries == _TRIES:
                    raise
                continue
            self.refresh(set_id)
            return made
