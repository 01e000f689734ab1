"""What was found damaged: objects ``damage/<writer>/<n>``, added and never changed.

Whoever reads a vault finds out that something in it is lost; whoever writes must know it, since what is there in name
only would be reused for ever. A record that is named here is absent for every writer: what it held is stored anew.
Readers look for other copies first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec import Struct

from caso_mesh.model.errors import DataDamaged, DeviceError, DeviceVanished, NoKey, ObjectExists, ObjectMissing
from caso_mesh.vault.names import Kind, damage_name, parse_damage
from caso_mesh.vault.objects import ObjectStore, Signer
from caso_mesh.vault.problems import Problems
from caso_mesh.vault.records import decode_record

#: In place of the number of a record: the pack as a whole (it is gone, cut, or its own table cannot be read).
WHOLE = 0xFFFFFFFF
#: Records that one object names at most.
_MOST_RECORDS = 100_000
#: Somebody else takes the same number at the same time: so often it is tried again.
_TRIES = 16


class DamagedPack(Struct, frozen=True):
    """Records of one pack that are lost; none stands for the whole pack. ``kind`` is that of the pack's object."""

    pack: bytes
    kind: int
    records: tuple[int, ...] = ()


class DamageRecord(Struct, frozen=True):
    """What one attempt found. ``server`` (node id) signs it; ``at_ns`` is when, by its clock."""

    writer: str
    number: int
    server: str
    at_ns: int
    attempt: str
    packs: tuple[DamagedPack, ...]


class Damage:
    """All that is known to be damaged in one vault. Thread-safe.

    ``version`` rises with every change; 0: nothing is damaged. What ``note`` takes counts in this process at once, and
    for others when it was written down.
    """

    def __init__(self, store: ObjectStore, problems: Problems) -> None:
        self._store = store
        self._problems = problems
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._written: dict[bytes, set[int]] = {}
        self._noted: dict[bytes, set[int]] = {}
        self._kinds: dict[bytes, Kind] = {}
        self.version = 0

    def refresh(self, check_signer: Callable[[str, str, str], None]) -> None:
        """Lists again. What cannot be read becomes a problem; ``check_signer(name, writer, server)`` raises for what
        somebody else signed."""
        for name, _ in self._store.backend.list("damage/"):
            with self._lock:
                if name in self._seen:
                    continue
                self._seen.add(name)
            try:
                found = self._load(name, check_signer)
            except (DataDamaged, NoKey, ObjectMissing) as error:
                self._problems.add(f"{name}: {error.message}")
                continue
            except DeviceVanished:
                raise
            except DeviceError as error:
                # a sector that cannot be read: the next listing tries again
                self._problems.add(f"{name}: {error.message}")
                with self._lock:
                    self._seen.discard(name)
                continue
            self._take(found)

    def _load(self, name: str, check_signer: Callable[[str, str, str], None]) -> DamageRecord:
        parsed = parse_damage(name)
        if parsed is None:
            raise DataDamaged(object=name, detail="no object of a vault has such a name")
        payload, server = self._store.read(Kind.DAMAGE, name)
        check_signer(name, parsed[0], server)
        found = decode_record(name, payload, DamageRecord)
        if (found.writer, found.number, found.server) != (*parsed, server):
            raise DataDamaged(object=name, detail="it is another one's object")
        return found

    def _take(self, found: DamageRecord) -> None:
        with self._lock:
            for each in found.packs:
                self._written.setdefault(each.pack, set()).update(each.records or (WHOLE,))
            self.version += 1

    def note(self, pack: bytes, kind: Kind, record: int) -> None:
        """A record (its number, or ``WHOLE``) could not be read as what it should be."""
        with self._lock:
            if {record, WHOLE} & (self._written.get(pack, set()) | self._noted.get(pack, set())):
                return
            self._noted.setdefault(pack, set()).add(record)
            self._kinds[pack] = kind
            self.version += 1

    def noted(self) -> list[tuple[bytes, Kind, int]]:
        """(pack, its kind, record) of all that was noted and not written down."""
        with self._lock:
            return [(pack, self._kinds[pack], record) for pack, records in self._noted.items() for record in records]

    def forget(self, pack: bytes, record: int) -> None:
        """It was noted, but another look found it sound."""
        with self._lock:
            records = self._noted.get(pack, set())
            records.discard(record)
            if not records:
                self._noted.pop(pack, None)
            self.version += 1

    def marks(self, rows: Mapping[bytes, int]) -> tuple[int, list[int]]:
        """The version, and (row of the pack << 32 | record) of what is damaged in those packs (id to row)."""
        with self._lock:
            found = [
                rows[pack] << 32 | record
                for known in (self._written, self._noted)
                for pack in known.keys() & rows.keys()
                for record in known[pack]
            ]
            return self.version, found

    def write_down(self, writer: str, signer: Signer, *, attempt: str, at_ns: int) -> int:
        """Adds objects that name what was noted; how many records and packs that are. Raises what ``Backend.put``
        raises."""
        with self._lock:
            noted = {pack: tuple(sorted(records)) for pack, records in sorted(self._noted.items())}
        count = 0
        for packs in _parts(noted, self._kinds):
            self._add(DamageRecord(writer, 1, signer.server, at_ns, attempt, packs), signer)
            count += sum(len(each.records) or 1 for each in packs)
        with self._lock:
            for pack, records in noted.items():
                self._noted.get(pack, set()).difference_update(records)
                if not self._noted.get(pack):
                    self._noted.pop(pack, None)
        return count

    def _add(self, record: DamageRecord, signer: Signer) -> None:
        tries = 0
        while True:
            taken = [parse_damage(name) for name, _ in self._store.backend.list(f"damage/{record.writer}/")]
            number = max((each[1] for each in taken if each is not None), default=0) + 1
            made = msgspec.structs.replace(record, number=number)
            name = damage_name(record.writer, number)
            try:
                self._store.write(Kind.DAMAGE, name, msgspec.msgpack.encode(made), signer)
            except ObjectExists:
                tries += 1
                if tries == _TRIES:
                    raise
                continue
            with self._lock:
                self._seen.add(name)
            self._take(made)
            return


def _parts(noted: Mapping[bytes, tuple[int, ...]], kinds: Mapping[bytes, Kind]) -> Iterator[tuple[DamagedPack, ...]]:
    """What goes into each object."""
    part: list[DamagedPack] = []
    count = 0
    for pack, records in noted.items():
        whole = WHOLE in records
        for at in range(0, 1 if whole else len(records), _MOST_RECORDS):
            piece = () if whole else records[at : at + _MOST_RECORDS]
            if part and count + len(piece) > _MOST_RECORDS:
                yield tuple(part)
                part, count = [], 0
            part.append(DamagedPack(pack, int(kinds[pack]), piece))
            count += len(piece) or 1
    if part:
        yield tuple(part)
