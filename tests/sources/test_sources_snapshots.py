"""Reading from snapshots, on a real btrfs; who leaves one behind and who finds it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from mesh.mounts import Mounter, mount, run
from msgspec.structs import replace
from source_trees import ROOT, Earlier, Report, put, walk
from waiting import wait_for

from caso_mesh.model.entries import Entry
from caso_mesh.model.errors import SnapshotFailed
from caso_mesh.model.states import SnapshotMode
from caso_mesh.sources.filters import Filters
from caso_mesh.sources.snapshots import SnapshotPlace, frozen, snapshot_name, snapshot_place, sweep
from caso_mesh.sources.unchanged import Same

__all__ = ["mount"]

ATTEMPT = "0d2k3m4n5p6q7r8s9t0v1w2x3y@3#1"


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, level: str, text: str) -> None:
        self.lines.append((level, text))

    def __contains__(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def records(tmp_path: pathlib.Path) -> SnapshotPlace:
    return snapshot_place(str(tmp_path / "records"), "mesh0000000000000000000000", "node" * 13)


@pytest.fixture
def btrfs(mount: Mounter, tmp_path: pathlib.Path) -> bytes:
    """A btrfs with a subvolume in it, and another one inside of that."""
    top = os.fsencode(mount("btrfs", tmp_path / "pool"))
    for subvolume in (b"/srv", b"/srv/nested"):
        run("btrfs", "-q", "subvolume", "create", os.fsdecode(top + subvolume))
    os.mkdir(top + b"/srv/data")
    put(top + b"/srv/data/file", b"as it was")
    put(top + b"/srv/nested/inner", b"inner")
    return top


def taken(
    roots: list[bytes], place: SnapshotPlace | None, log: Log, mode: SnapshotMode = SnapshotMode.REQUIRED, **more
):
    return frozen(roots, mode=mode, place=place, attempt=ATTEMPT, server="alpha", log=log, **more)


def subvolumes(top: bytes) -> list[str]:
    done = subprocess.run(["btrfs", "subvolume", "list", top], check=True, capture_output=True, text=True)
    return sorted(line.split(" path ")[1] for line in done.stdout.splitlines())


def contents(walker) -> dict[bytes, bytes]:
    found = {}
    for walked in walker:
        if walked.entry.type == "file":
            with walked.open() as file:
                buffer = bytearray(file.size)
                file.read_into(buffer, 0)
                found[b"/" + walked.entry.path] = bytes(buffer)
    return found


def test_files_are_read_as_they_were_when_the_snapshot_was_taken_under_their_own_paths(btrfs, records, log) -> None:
    root = btrfs + b"/srv/data"
    with taken([root], records, log) as places:
        put(root + b"/file", b"changed meanwhile")
        put(root + b"/new")
        assert contents(walk(root, places=places)) == {root + b"/file": b"as it was"}
    assert subvolumes(btrfs) == ["srv", "srv/nested"]
    assert os.listdir(records.folder) == []
    assert "takes a read-only btrfs snapshot" in log


def test_a_whole_subvolume_as_the_root_and_what_is_mounted_or_nested_in_it_is_read_live(
    btrfs, records, log, mount: Mounter, tmp_path: pathlib.Path
) -> None:
    root = btrfs + b"/srv"
    os.makedirs(root + b"/mounted")
    mount("tmpfs", pathlib.Path(os.fsdecode(root + b"/mounted")))
    put(root + b"/mounted/m", b"m")
    with taken([root], records, log) as places:
        put(root + b"/data/file", b"later")
        report = Report()
        assert contents(walk(root, report=report, places=places)) == {
            root + b"/data/file": b"as it was",
            root + b"/mounted/m": b"m",
            root + b"/nested/inner": b"inner",
        }
        assert not report.exceptions
        assert f"{os.fsdecode(root)}/nested lies on another file system: it is read as it is" in log
        assert f"{os.fsdecode(root)}/mounted lies on another file system" in log
        one = walk(root, Filters(one_file_system=True), places=places)
        assert set(contents(one)) == {root + b"/data/file"}


def test_the_entries_are_those_of_a_live_walk_so_that_nothing_counts_as_changed(btrfs, records, log) -> None:
    os.link(btrfs + b"/srv/data/file", btrfs + b"/srv/data/link")
    os.symlink(b"file", btrfs + b"/srv/data/symbolic")
    roots = [btrfs + b"/srv", btrfs + b"/srv/data"]

    def entries(walker) -> list[Entry]:
        return [replace(walked.entry, accessed=None) for walked in walker]  # looking at a link may change its own

    before = list(walk(roots))
    live = entries(before)
    with taken(roots, records, log) as places:
        assert entries(walk(roots, places=places)) == live
        known = Earlier(before)
        again = list(walk(roots, places=places, previous=known, settled_before=(1 << 40, 0)).found())
        assert [found for found in again if not (isinstance(found, Same) or found.unchanged)] == []
        seen = [found.before.path if isinstance(found, Same) else found.entry.path for found in again]
        assert seen == [entry.path for entry in live]


def test_a_root_behind_a_link_and_roots_on_other_file_systems_each_find_their_place(
    btrfs, records, log, tmp_path
) -> None:
    os.symlink(btrfs + b"/srv", os.fsencode(tmp_path / "link"))
    linked = os.fsencode(tmp_path / "link") + b"/data"
    plain = os.fsencode(tmp_path / "plain")
    os.mkdir(plain)
    put(plain + b"/p", b"p")
    with taken([linked, plain], records, log, SnapshotMode.AUTO) as places:
        put(btrfs + b"/srv/data/file", b"later")
        assert contents(walk([linked, plain], places=places)) == {linked + b"/file": b"as it was", plain + b"/p": b"p"}
    assert f"{tmp_path}/plain is read as it is, without a snapshot: it lies on" in log


def test_the_root_folder_of_the_file_system_leaves_snapshots_of_others_out(btrfs, records, log) -> None:
    other = snapshot_place(records.folder + "-other", "mesh0000000000000000000000", "zzzz" * 13)
    with taken([btrfs], records, log) as mine, taken([btrfs], other, log) as theirs:
        expected = {btrfs + b"/srv/data/file", btrfs + b"/srv/nested/inner"}
        for places in (None, mine, theirs):
            assert set(contents(walk(btrfs, places=places))) == expected


@pytest.mark.skipif(not ROOT, reason="a plain user is told that snapshots need root")
def test_required_fails_and_auto_falls_back_where_there_are_no_snapshots(records, log, place: bytes) -> None:
    with pytest.raises(SnapshotFailed, match="it lies on"), taken([place], records, log):
        pass
    with taken([place], records, log, SnapshotMode.AUTO) as places:
        assert places is None
    with pytest.raises(SnapshotFailed, match="does not allow"), taken([place], None, log):
        pass
    with taken([place], None, log, SnapshotMode.AUTO) as places:
        assert places is None
    with taken([place], None, log, SnapshotMode.NEVER) as places:
        assert places is None


def test_a_part_of_a_subvolume_mounted_elsewhere_is_said_to_have_none(btrfs, records, log, tmp_path) -> None:
    point = tmp_path / "bound"
    point.mkdir()
    run("mount", "--bind", os.fsdecode(btrfs + b"/srv/data"), str(point))
    try:
        with pytest.raises(SnapshotFailed, match="only a part of its subvolume"), taken([bytes(point)], records, log):
            pass
    finally:
        run("umount", str(point))


def test_it_is_removed_when_the_backup_fails(btrfs, records, log) -> None:
    class Broken(Exception):
        pass

    with contextlib.suppress(Broken), taken([btrfs + b"/srv/data"], records, log):
        assert len(subvolumes(btrfs)) == 3
        raise Broken
    assert subvolumes(btrfs) == ["srv", "srv/nested"]


_CHILD = """
import os, sys, time
from caso_mesh.model.states import SnapshotMode
from caso_mesh.sources.snapshots import SnapshotPlace, frozen
place = SnapshotPlace(sys.argv[1], sys.argv[2])
with frozen([os.fsencode(sys.argv[3])], mode=SnapshotMode.REQUIRED, place=place, attempt="job@1#1", server="a",
            log=lambda level, text: None):
    print("taken", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_one_left_is_swept_once_it_is_dead_and_what_is_of_others_stays(btrfs, records, log) -> None:
    root = os.fsdecode(btrfs + b"/srv/data")
    foreign = snapshot_name(SnapshotPlace("", "caso-mesh-snap.other.node."), ATTEMPT, 0)
    run(
        "btrfs",
        "-q",
        "subvolume",
        "snapshot",
        "-r",
        os.fsdecode(btrfs + b"/srv"),
        os.fsdecode(btrfs) + f"/srv/.{foreign}",
    )
    os.mkdir(os.fsdecode(btrfs) + f"/.{records.prefix}folder.0")  # no subvolume, whatever its name
    argv = [sys.executable, "-c", _CHILD, records.folder, records.prefix, root]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "taken\n"
        assert sweep(records, log) == []
        child.send_signal(signal.SIGKILL)
    assert len(subvolumes(btrfs)) == 4
    wait_for(lambda: sweep(records, log), what="the lock of the dead is free")
    assert subvolumes(btrfs) == ["srv", f"srv/.{foreign}", "srv/nested"]
    assert os.listdir(records.folder) == []
    assert os.path.isdir(os.fsdecode(btrfs) + f"/.{records.prefix}folder.0")


def test_without_its_record_it_is_found_by_its_name(btrfs, records, log) -> None:
    name = snapshot_name(records, ATTEMPT, 0)
    run("btrfs", "-q", "subvolume", "snapshot", "-r", os.fsdecode(btrfs), os.fsdecode(btrfs) + f"/.{name}")
    assert sweep(records, log) == [name]
    assert subvolumes(btrfs) == ["srv", "srv/nested"]


def test_a_machine_that_died_before_anything_was_made_leaves_a_record_that_goes(records, log) -> None:
    os.makedirs(records.folder)
    put(os.fsencode(records.folder) + b"/" + snapshot_name(records, ATTEMPT, 0).encode(), b"")
    put(os.fsencode(records.folder) + b"/something else")
    assert sweep(records, log) == []
    assert os.listdir(records.folder) == ["something else"]


def test_names_say_whose_they_are_and_fit_lvm_and_zfs() -> None:
    place = snapshot_place("/x", "m" * 26, "n" * 52)
    for attempt in (ATTEMPT, "j" * 26 + "/" + "s" * 63 + "@20250101T020000Z#12"):
        name = snapshot_name(place, attempt, 1)
        assert name.startswith("caso-mesh-snap.mmmmmmmmmmmmm.nnnnnnnnnnnnn.")
        assert len(name) < 100
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert snapshot_name(place, "j@1#1", 0) != snapshot_name(place, "j@1#2", 0)
