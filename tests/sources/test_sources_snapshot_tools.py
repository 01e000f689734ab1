"""LVM and ZFS by what their programs are asked and answer. The answers of LVM are those of LVM 2.03, in its JSON; those of
ZFS of OpenZFS 2.1. Whether the programs do it is not shown here."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

import pytest

from caso_mesh.model.errors import SnapshotFailed
from caso_mesh.model.states import SnapshotMode
from caso_mesh.sources.lvm import Lvm
from caso_mesh.sources.mounts import Mount, mount_of, mounted, parse
from caso_mesh.sources.snapshot_kinds import Plan, ToolFailed, Unsuitable
from caso_mesh.sources.snapshots import frozen, snapshot_place, sweep
from caso_mesh.sources.zfs import Zfs

NAME = "caso-mesh-snap.mesh.node.job_1_1.0"
MOUNTINFO = rb"""22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/vg0-root rw
30 22 253:1 / /srv/my\040data rw,relatime shared:2 - xfs /dev/mapper/vg0-data rw,attr2
31 22 0:40 / /tank rw,relatime - zfs tank rw,xattr,noacl
32 31 0:41 /sub /tank/part rw,relatime - zfs tank/home rw,xattr,noacl
"""
LV = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--options"]


class Script:
    """Programs as a transcript: each call and its answer, in order."""

    def __init__(self, *expected: tuple[str, str | Exception]) -> None:
        self.expected = list(expected)

    def __call__(self, argv: Sequence[str], *, hold: int | None = None) -> str:
        said = " ".join(argv).replace(" ".join(LV), "lvs")
        assert self.expected, f"nothing more was expected, but: {said}"
        wanted, answer = self.expected.pop(0)
        assert said == wanted
        if isinstance(answer, Exception):
            raise answer
        return answer


def rows(*lvs: dict[str, str]) -> str:
    return json.dumps({"report": [{"lv": list(lvs)}]})


def volume(name: str, segtype: str = "linear", size: int = 10 << 30, free: int = 4 << 30) -> str:
    row = {"vg_name": "vg0", "lv_name": name, "lv_size": str(size), "vg_free": str(free), "segtype": segtype}
    return rows(row)


def at(point: bytes) -> Mount:
    return next(mount for mount in parse(MOUNTINFO) if mount.point == point)


def lvm(script: Script) -> Lvm:
    return Lvm(script, uuid_of=lambda device: "LVM-abc" if device.startswith("253:") else "")


FIELDS = "lvs vg_name,lv_name,lv_size,vg_free,segtype"


def test_a_classic_snapshot_gets_room_is_mounted_without_replay_and_goes(tmp_path: pathlib.Path) -> None:
    place = f"{tmp_path}/{NAME}.mounted"
    script = Script(
        (f"{FIELDS} /dev/mapper/vg0-data", volume("data")),
        (f"{FIELDS} vg0/data", volume("data")),
        (f"lvcreate --yes --snapshot --permission r --name {NAME} --size {2 << 30}b vg0/data", ""),
        (f"mount -t xfs -o ro,nodev,nosuid,noexec,nouuid,norecovery /dev/vg0/{NAME} {place}", ""),
        (f"lvs lv_attr vg0/{NAME}", rows({"lv_attr": "sri-aos---"})),
        ("lvs lv_name vg0", rows({"lv_name": "data"}, {"lv_name": NAME})),
        (f"lvremove --yes vg0/{NAME}", ""),
    )
    kind = lvm(script)
    plan = kind.plan(b"/srv/my data/x", at(b"/srv/my data"), NAME, bytes(tmp_path))
    assert (plan.what, plan.of, plan.top) == (f"vg0/{NAME}", "vg0/data", b"/srv/my data")
    kind.create(plan, 9)
    assert os.path.isdir(plan.at)
    kind.check(plan)
    kind.remove(plan, 9)
    assert not os.path.exists(place)
    assert not script.expected


def test_a_thin_snapshot_needs_no_size_and_is_made_active(tmp_path: pathlib.Path) -> None:
    script = Script(
        (f"{FIELDS} /dev/mapper/vg0-root", volume("root", "thin")),
        (f"{FIELDS} vg0/root", volume("root", "thin", free=0)),
        (f"lvcreate --yes --snapshot --permission r --name {NAME} --setactivationskip n vg0/root", ""),
        (f"mount -t ext4 -o ro,nodev,nosuid,noexec,noload /dev/vg0/{NAME} {tmp_path}/{NAME}.mounted", ""),
    )
    kind = lvm(script)
    kind.create(kind.plan(b"/etc", at(b"/"), NAME, bytes(tmp_path)), 9)
    assert not script.expected


def test_without_room_in_the_volume_group_there_is_none_and_nothing_is_made(tmp_path: pathlib.Path) -> None:
    script = Script(
        (f"{FIELDS} /dev/mapper/vg0-root", volume("root")),
        (f"{FIELDS} vg0/root", volume("root", free=0)),
    )
    kind = lvm(script)
    with pytest.raises(ToolFailed, match="0 bytes free"):
        kind.create(kind.plan(b"/etc", at(b"/"), NAME, bytes(tmp_path)), 9)
    assert not script.expected


def test_a_snapshot_that_overflowed_is_noticed(tmp_path: pathlib.Path) -> None:
    plan = Plan("lvm", NAME, f"vg0/{NAME}", "vg0/data", b"/srv", b"/x")
    kind = lvm(Script((f"lvs lv_attr vg0/{NAME}", rows({"lv_attr": "sri-Ios---"}))))
    with pytest.raises(ToolFailed, match="overflowed"):
        kind.check(plan)


def test_what_is_no_logical_volume_has_no_snapshot_and_no_program_is_run() -> None:
    with pytest.raises(Unsuitable, match="no logical volume"):
        lvm(Script()).plan(b"/tank/x", at(b"/tank"), NAME, b"/x")
    assert lvm(Script()).leftovers("caso-mesh-snap.", [at(b"/tank")]) == []


def test_a_volume_of_another_name_is_never_removed() -> None:
    lvm(Script()).remove(Plan("lvm", "precious", "vg0/precious", "vg0/data", b"", b""), 9)
    lvm(Script()).remove(Plan("lvm", NAME, "vg0/precious", "vg0/data", b"", b""), 9)
    Zfs(Script()).remove(Plan("zfs", "precious", "tank@precious", "tank", b"", b""), 9)


def test_zfs_is_read_below_the_dataset_and_destroyed_by_its_whole_name() -> None:
    listed = "zfs list -H -t snapshot -o name -d 1 tank"
    script = Script(
        (f"zfs snapshot tank@{NAME}", ""),
        (listed, f"tank@daily\ntank@{NAME}\n"),
        (f"zfs destroy tank@{NAME}", ""),
        (listed, "tank@daily\n"),
        (listed, f"tank@daily\ntank@{NAME}\ntank@{NAME.replace('node', 'other')}\n"),
        ("zfs list -H -t snapshot -o name -d 1 tank/home", ""),
    )
    kind = Zfs(script)
    plan = kind.plan(b"/tank/x", at(b"/tank"), NAME, b"/unused")
    assert (plan.top, plan.at) == (b"/tank", b"/tank/.zfs/snapshot/" + NAME.encode())
    kind.create(plan, 9)
    kind.remove(plan, 9)
    kind.remove(plan, 9)
    (left,) = kind.leftovers("caso-mesh-snap.mesh.node.", parse(MOUNTINFO))
    assert left.what == plan.what
    assert not script.expected
    with pytest.raises(Unsuitable, match="part of its dataset"):
        kind.plan(b"/tank/part", at(b"/tank/part"), NAME, b"/unused")


@pytest.mark.skipif(os.geteuid() != 0, reason="a plain user is told that snapshots need root")
def test_a_snapshot_that_cannot_be_mounted_or_removed_stays_recorded_until_it_can(tmp_path: pathlib.Path) -> None:
    place = snapshot_place(str(tmp_path / "records"), "mesh", "node")
    name, mounted_at = f"{place.prefix}job_1_1.0", f"{tmp_path}/records/{place.prefix}job_1_1.0.mounted"
    data = tmp_path / "data"
    data.mkdir()
    fake = Mount(1, "253:1", b"/", bytes(tmp_path), "ext4", "/dev/mapper/vg0-data")
    listed = ("lvs vg_name,lv_name,origin", rows({"vg_name": "vg0", "lv_name": "data", "origin": ""}))
    here = ("lvs lv_name vg0", rows({"lv_name": name}))
    script = Script(
        listed,
        (f"{FIELDS} /dev/mapper/vg0-data", volume("data", "thin")),
        (f"{FIELDS} vg0/data", volume("data", "thin")),
        (f"lvcreate --yes --snapshot --permission r --name {name} --setactivationskip n vg0/data", ""),
        (f"mount -t ext4 -o ro,nodev,nosuid,noexec,noload /dev/vg0/{name} {mounted_at}", ToolFailed("mount: bad disk")),
        here,
        (f"lvremove --yes vg0/{name}", ToolFailed("it is in use")),
    )
    lines: list[str] = []

    def log(level: str, text: str) -> None:
        lines.append(text)

    options = {"kinds": (lvm(script),), "table": lambda: [fake], "mount_of": lambda path, table: fake}
    with (
        pytest.raises(SnapshotFailed, match="bad disk"),
        frozen(
            [bytes(data)], mode=SnapshotMode.REQUIRED, place=place, attempt="job@1#1", server="a", log=log, **options
        ),
    ):
        pass
    assert any("it is tried again before the next one is taken: it is in use" in line for line in lines)
    assert os.listdir(place.folder) == [name]
    again = Script(listed, here, (f"lvremove --yes vg0/{name}", ""))
    assert sweep(place, log, kinds=(lvm(again),), table=lambda: [fake]) == [name]
    assert os.listdir(place.folder) == []
    assert not script.expected + again.expected


def test_the_mount_that_a_path_lies_on_is_the_kernels_answer() -> None:
    found = mount_of(b"/proc/self", mounted())
    assert found is not None
    assert (found.point, found.kind) == (b"/proc", "proc")
