"""Which backup sets a rule may choose: one table for restores by time, copies, bases, checks, and what counts as the last
good backup. Whoever names a set by its id is not kept from it.

Of a set may be known that it is *missing* (the last inventory of its device did not find it), *damaged* (its last verify or
drill found it so, or the verify of the backup that made it), or *redundant* (its run had a set already).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from caso_mesh.model.errors import DataDamaged, ObjectMissing, SealBroken
from caso_mesh.model.jobs import Failure


class Flaw(StrEnum):
    """What is known against a set, the worst first."""

    MISSING = "missing"
    DAMAGED = "damaged"
    REDUNDANT = "redundant"


class Use(StrEnum):
    """What a set is chosen for. ``READ``: to be restored or looked at as of a time. ``COPY``: to be taken to another device.
    ``BUILD``: to have a full one made of it. ``CHECK``: to be verified. ``COUNT``: to be the last good backup."""

    READ = "read"
    COPY = "copy"
    BUILD = "build"
    CHECK = "check"
    COUNT = "count"


_ALL = frozenset(Flaw)
_BARRED: Mapping[Use, frozenset[Flaw]] = {
    # what its run did not need is as good to read as what it needed
    Use.READ: frozenset({Flaw.MISSING, Flaw.DAMAGED}),
    Use.COPY: _ALL,
    Use.BUILD: _ALL,
    # only a check can tell that what was damaged is whole again
    Use.CHECK: frozenset({Flaw.MISSING, Flaw.REDUNDANT}),
    Use.COUNT: _ALL,
}


#: What fails so has found the content of a set not to be what it was.
_DAMAGE = frozenset({DataDamaged.code, ObjectMissing.code, SealBroken.code})


def is_damage(failure: Failure | None) -> bool:
    """Whether what fails so, and read a set back, has found damage."""
    return failure is not None and failure.code in _DAMAGE


class Damage(Struct, frozen=True, gc=False):
    """``run`` found it, at ``at_ns``; ``failure`` says what."""

    run: str
    at_ns: int
    failure: Failure


class Flaws(Struct, frozen=True):
    """All that is known against sets, by their ids."""

    missing: frozenset[str] = frozenset()
    damaged: Mapping[str, Damage] = {}
    redundant: frozenset[str] = frozenset()

    def of(self, set_id: str) -> list[Flaw]:
        """What is known against a set, the worst first."""
        known = {Flaw.MISSING: self.missing, Flaw.DAMAGED: self.damaged, Flaw.REDUNDANT: self.redundant}
        return [flaw for flaw, sets in known.items() if set_id in sets]

    def bars(self, set_id: str, use: Use) -> Flaw | None:
        """Why a rule does not choose a set; ``None``: it may."""
        return next((flaw for flaw in self.of(set_id) if flaw in _BARRED[use]), None)

    def barred(self, use: Use) -> frozenset[str]:
        """All sets that a rule does not choose."""
        known = {Flaw.MISSING: self.missing, Flaw.DAMAGED: self.damaged, Flaw.REDUNDANT: self.redundant}
        return frozenset().union(*(sets for flaw, sets in known.items() if flaw in _BARRED[use]))
