"""Snapshots of logical volumes, classic and thin ones (lvcreate(8)), mounted read-only in the state folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from caso_mesh.sources.mounts import Mount
from caso_mesh.sources.snapshot_kinds import PREFIX, Plan, Run, ToolFailed, Unsuitable, inside, run_program

#: A classic snapshot needs room for what is written to its origin while it is there: a share of it, and at least so much.
_SHARE, _LEAST = 5, 256 * 1024 * 1024
#: What else a file system needs to be mounted as it is: no other one with its UUID is looked for, no journal is replayed.
_OPTIONS = {"xfs": "nouuid,norecovery", "ext3": "noload", "ext4": "noload"}
_REPORT = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--options"]

#: The UUID that device-mapper has for a device, given as MAJOR:MINOR; empty for any other device.
UuidOf = Callable[[str], str]


def uuid_of(device: str) -> str:
    """See ``UuidOf``."""
    try:
        with open(f"/sys/dev/block/{device}/dm/uuid", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class Lvm:
    """See ``snapshot_kinds.Kind``."""

    name = "lvm"

    def __init__(self, run: Run = run_program, uuid_of: UuidOf = uuid_of) -> None:
        self._run = run
        self._uuid_of = uuid_of

    def plan(self, path: bytes, mount: Mount, name: str, folder: bytes) -> Plan:
        if not self._uuid_of(mount.device).startswith("LVM-"):
            raise Unsuitable(f"it lies on {mount.kind}, on no logical volume")
        volume = self._volume(mount.source)
        place = os.path.join(folder, name.encode() + b".mounted")
        return Plan(
            self.name,
            name,
            what=f"{volume['vg_name']}/{name}",
            of=f"{volume['vg_name']}/{volume['lv_name']}",
            top=mount.point,
            at=place if mount.root == b"/" else inside(mount.root, b"/", place),
            mounted=place,
            file_system=mount.kind,
        )

    def create(self, plan: Plan, hold: int) -> None:
        volume = self._volume(plan.of)
        made = ["lvcreate", "--yes", "--snapshot", "--permission", "r", "--name", plan.name]
        if volume["segtype"] == "thin":
            made += ["--setactivationskip", "n"]
        else:
            made += ["--size", f"{_room(int(volume['lv_size']), int(volume['vg_free']))}b"]
        self._run([*made, plan.of], hold=hold)
        os.makedirs(plan.mounted, mode=0o700, exist_ok=True)
        options = ",".join(filter(None, ["ro,nodev,nosuid,noexec", _OPTIONS.get(plan.file_system)]))
        place = os.fsdecode(plan.mounted)
        self._run(["mount", "-t", plan.file_system, "-o", options, f"/dev/{plan.what}", place], hold=hold)

    def check(self, plan: Plan) -> None:
        # the fifth character is its state: invalid, or invalid and suspended (lvs(8))
        if any(row["lv_attr"][4:5] in {"I", "S"} for row in self._report("lv_attr", plan.what)):
            raise ToolFailed(f"the snapshot {plan.what} overflowed: more was written to {plan.of} than it had room for")

    def remove(self, plan: Plan, hold: int) -> None:
        if not plan.name.startswith(PREFIX) or not plan.what.endswith(f"/{plan.name}"):
            return
        if plan.mounted:
            if os.path.ismount(plan.mounted):
                self._run(["umount", os.fsdecode(plan.mounted)], hold=hold)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(plan.mounted)
        if any(row["lv_name"] == plan.name for row in self._report("lv_name", plan.what.partition("/")[0])):
            self._run(["lvremove", "--yes", plan.what], hold=hold)

    def leftovers(self, prefix: str, mounts: Sequence[Mount]) -> list[Plan]:
        if not any(self._uuid_of(mount.device).startswith("LVM-") for mount in mounts):
            return []
        rows = [row for row in self._report("vg_name,lv_name,origin") if row["lv_name"].startswith(prefix)]
        return [
            Plan(self.name, row["lv_name"], f"{row['vg_name']}/{row['lv_name']}", row["origin"], b"", b"")
            for row in rows
        ]

    def _volume(self, name: str) -> dict[str, Any]:
        rows = self._report("vg_name,lv_name,lv_size,vg_free,segtype", name)
        if len(rows) != 1:
            raise ToolFailed(f"lvs does not know {name}")
        return rows[0]

    def _report(self, fields: str, *names: str) -> list[dict[str, Any]]:
        answer = self._run([*_REPORT, fields, *names])
        try:
            rows: list[dict[str, Any]] = json.loads(answer)["report"][0]["lv"]
        except (ValueError, LookupError, TypeError):
            raise ToolFailed("lvs gave no report") from None
        return rows


def _room(size: int, free: int) -> int:
    """Bytes for a classic snapshot of a volume. Raises ``ToolFailed`` without any."""
    wanted = min(max(size // _SHARE, _LEAST), size + _LEAST, free)
    if wanted < 1 << 20:
        raise ToolFailed(f"its volume group has {free} bytes free, a snapshot needs room")
    return wanted // 512 * 512
