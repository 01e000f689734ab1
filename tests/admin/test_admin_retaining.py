"""Which sets are counted together: those of one line."""

from __future__ import annotations

from msgspec.structs import replace

from caso_mesh.admin.retaining import line_of
from caso_mesh.control.state import ControlState
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import FACTORY_MEDIA_SETS, BackupSet
from caso_mesh.planning.retention import Keep, judge

DAY_NS = 86400 * 1_000_000_000
WEEKS = FACTORY_MEDIA_SETS[0]


def made(id_: str, day: int) -> BackupSet:
    return BackupSet(
        id=id_, mesh="mesh", vault="v", source="node-a", source_name="alpha", server="node-b", server_name="beta",
        device="near", device_name="near", medium="BETA-000001", media_set=WEEKS.name, type=BackupType.FULL, job="job",
        run="run", attempt="attempt", started_at_ns=day * DAY_NS - 1, ended_at_ns=day * DAY_NS, roots=(b"srv",),
        filters=b"f", root=b"r", parent=None, files=1, entries=1, bytes=1, bytes_read=1, bytes_stored=1, exceptions=0,
    )  # fmt: skip


def copy_of(first: BackupSet, id_: str, device: str) -> BackupSet:
    return replace(first, id=id_, device=device, copy_of=first.id)


def test_copies_are_counted_on_their_own_on_each_device_and_the_last_of_them_stays_as_well():
    old, new = made("old", 100), made("new", 101)
    sets = [
        old,
        new,
        *(copy_of(each, f"{each.id}-{place}", place) for each in (old, new) for place in ("far", "attic")),
    ]
    found = judge(
        sets,
        media_sets={WEEKS.name: replace(WEEKS, keep_last=1)},
        media={},
        locks={},
        redundant=(),
        line_of=line_of(ControlState()),
        now_ns=1000 * DAY_NS,
    )
    assert {id_ for id_, verdict in found.items() if verdict.goes} == {"old", "old-far", "old-attic"}
    for id_ in ("new", "new-far", "new-attic"):
        assert found[id_].kept_by == (Keep.LAST_GOOD, Keep.LAST)
