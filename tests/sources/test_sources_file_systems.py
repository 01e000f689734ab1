"""Which file systems of a machine somebody may want to have backed up."""

from __future__ import annotations

import os

from caso_mesh.sources.file_systems import chosen, local_file_systems, on_disks
from caso_mesh.sources.mounts import parse

KINDS = on_disks(
    b"nodev\tproc\nnodev\ttmpfs\n\text4\n\txfs\nnodev\toverlay\nnodev\tzfs\n\tsquashfs\n\tbtrfs\nnodev\tnfs4\n"
)
TABLE = b"""\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /proc rw - proc proc rw
22 20 0:6 / /tmp rw - tmpfs tmpfs rw
23 20 8:2 / /srv rw - xfs /dev/sda2 rw
24 20 8:2 /data /mnt/shown\\040again rw - xfs /dev/sda2 rw
25 20 0:30 / /net rw - nfs4 far:/x rw
26 20 7:1 / /snap/x ro - squashfs /dev/loop1 ro
27 20 0:40 /@home /home rw - btrfs /dev/sdb rw
28 20 0:41 / /tank rw - zfs tank rw
29 20 8:3 / /hidden rw - ext4 /dev/sda3 rw
30 20 0:50 / /hidden rw - tmpfs tmpfs rw
"""


def test_own_disks_are_told_of_once_and_nothing_else() -> None:
    assert {"ext4", "xfs", "zfs", "btrfs"} == KINDS
    assert [mount.point for mount in chosen(parse(TABLE), KINDS)] == [b"/", b"/srv", b"/home", b"/tank"]


def test_the_root_counts_whatever_it_is() -> None:
    container = b"1 0 0:90 / / rw - overlay overlay rw\n2 1 8:1 /docker/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n"
    assert [mount.point for mount in chosen(parse(container), KINDS)] == [b"/", b"/etc/hosts"]


def test_what_is_told_of_this_machine_is_there() -> None:
    found = local_file_systems()
    assert found
    for each in found:
        assert os.path.isdir(b"/" + each.path), "a file that is mounted over is no place to back up"
        assert 0 <= each.used_bytes <= each.total_bytes
    assert b"" in {each.path for each in found}
