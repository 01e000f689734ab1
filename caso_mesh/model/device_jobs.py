"""Jobs that are about devices as a whole, not about somebody's files.

A run of one has a part per device; the *source* of such a part is the device's id, since nobody's files are touched.
"""

from __future__ import annotations

from msgspec import Struct


class InventorySpec(Struct, frozen=True, tag="inventory", tag_field="kind"):
    """Look what lies in ``devices`` (ids), and compare it with what is believed to be there. A run knows them; a job without
    any is about every device that takes work when the run begins. Their parts have the device's id as source."""

    devices: tuple[str, ...] = ()


class CatalogSpec(Struct, frozen=True, tag="catalog", tag_field="kind"):
    """Make the records of the sets in ``devices`` (ids) and their catalog anew, from what lies there. As of ``InventorySpec``
    a run knows them, and a job without any is about all that take work."""

    devices: tuple[str, ...] = ()


class EraseSpec(Struct, frozen=True, tag="erase", tag_field="kind"):
    """Empty the vault of ``device`` (id), and begin a new one there, with the id ``becomes``. ``last_good``: also if it holds the
    last good set of a list; locked or protected ones it never takes along."""

    device: str
    becomes: str
    last_good: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        return (self.device,)


#: What looks at devices, and takes in what lies there.
SurveySpec = InventorySpec | CatalogSpec
#: What is about devices as a whole.
OfDevices = SurveySpec | EraseSpec


class Inventoried(Struct, frozen=True):
    """What an inventory found in a device. Of sets those that are there (not deleted), have a tombstone, are believed to be
    there and are not, and were not known. ``media``: labels. ``sessions`` without an end, ``abandoned`` of them."""

    sets: int
    deleted: int
    missing: int
    added: int
    unreadable: int
    media: tuple[str, ...]
    writers: int
    sessions: int
    abandoned: int
    packs: int
    pack_bytes: int
    free_bytes: int
    total_bytes: int


class Catalogued(Struct, frozen=True):
    """What making the catalog of a device anew came to. Of ``sets`` there (not deleted) nobody knew ``added``, and ``deleted``
    were known and have a tombstone. ``lacked`` had no catalog where it is to be; of those ``made`` have one now, of ``files``
    files. ``seconds``: how long that took."""

    sets: int
    deleted: int
    added: int
    lacked: int
    made: int
    files: int
    seconds: float
