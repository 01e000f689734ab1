"""The ransomware brake: whether a set looks as if somebody had encrypted what was backed up.

Two figures that every attempt has must both be out of the ordinary: more than half of what there is had changed, and
stored / read, which tells how well content compresses and how much of it was there before, has doubled against the
median of the last five. What is encrypted is all new, and does not compress.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from msgspec import Struct

from caso_mesh.model.storage import BackupSet

#: How many earlier sets count, and how many there must be.
_LAST, _FEWEST = 5, 3
#: Of a set that read less than this part of all, stored / read tells of its own bookkeeping and not of content.
_TELLING = 0.01
#: stored / read where no earlier set tells: of ordinary documents.
_USUAL = 0.4
_CHANGED, _DOUBLED = 0.5, 2.0


class Suspicion(Struct, frozen=True):
    """``changed``: the part of all bytes that is new; ``ratio``: stored / read, and ``usual`` before."""

    changed: float
    ratio: float
    usual: float


def suspicion(backup: BackupSet, earlier: Iterable[BackupSet]) -> Suspicion | None:
    """What is suspicious of a set; ``earlier`` are sets of its line on its device, in any order.

    A set that was measured against another one read what had changed. One that was not has read everything: of that the
    stored part is what is new. They are compared with their like.
    """
    if not backup.bytes or not backup.bytes_read:
        return None
    like = sorted(
        (each for each in earlier if (each.parent is None) == (backup.parent is None) and each.id != backup.id),
        key=lambda each: (each.ended_at_ns, each.id),
        reverse=True,
    )
    like = [each for each in like if each.ended_at_ns <= backup.ended_at_ns]
    if len(like) < _FEWEST:
        return None
    telling = [each for each in like if each.bytes_read and each.bytes_read >= _TELLING * each.bytes][:_LAST]
    ratios = [each.bytes_stored / each.bytes_read for each in telling]
    usual = statistics.median(ratios) if len(ratios) >= _FEWEST else _USUAL
    ratio = backup.bytes_stored / backup.bytes_read
    changed = min(1.0, (backup.bytes_stored if backup.parent is None else backup.bytes_read) / backup.bytes)
    if changed > _CHANGED and ratio >= _DOUBLED * usual:
        return Suspicion(changed, ratio, usual)
    return None
