from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace
from source_trees import (
    ALWAYS,
    DEFAULT_ACL,
    MODIFIED,
    ROOT,
    Report,
    copy,
    deep_tree,
    edge_tree,
    in_mount_namespace,
    put,
    set_raw_flags,
    walk,
)

from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.errors import Misuse, TargetInvalid
from caso_mesh.model.states import Overwrite
from caso_mesh.sources import linux
from caso_mesh.sources.compare import differences
from caso_mesh.sources.handles import resolved
from caso_mesh.sources.writer import RestoreOptions, TreeTarget

NEVER, OLDER = RestoreOptions(Overwrite.NEVER), RestoreOptions(Overwrite.OLDER)


def file_entry(path: bytes, size: int = 3, **fields) -> Entry:
    given = {"uid": os.getuid(), "gid": os.getgid(), "modified": (1_600_000_000, 5), **fields}
    return Entry(path, EntryType.FILE, given.pop("mode", 0o644), size=size, **given)


@pytest.fixture(autouse=True, params=["at once", "in pieces"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files come at once, others in pieces: every rule holds for both."""
    monkeypatch.setattr("test_sources_restore.AT_ONCE", request.param == "at once")


AT_ONCE = True


def restore(target: TreeTarget, entry: Entry, data: bytes = b"new") -> bool:
    if not target.begin(entry):
        return False
    if entry.type is EntryType.FILE and entry.hardlink is None:
        if AT_ONCE:
            target.put(entry, data)
            return True
        target.write(entry.path, 0, data)
    target.finish(entry)
    return True


def target(place: bytes, report: Report, options: RestoreOptions = ALWAYS, **more) -> TreeTarget:
    return TreeTarget(place, options, on_exception=report.exceptions.append, **more)


def read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_every_awkward_object_comes_back_as_it_was(place: bytes) -> None:
    edge_tree(place + b"/from")
    report = copy(place + b"/from", place + b"/to")
    assert not report.exceptions
    assert list(differences(place + b"/from", place + b"/to", holes=True, accessed=False)) == []


def test_restoring_over_a_whole_restore_changes_nothing(place: bytes) -> None:
    edge_tree(place + b"/from")
    copy(place + b"/from", place + b"/to")
    for options in (ALWAYS, NEVER, OLDER):
        assert not copy(place + b"/from", place + b"/to", options).exceptions
        assert list(differences(place + b"/from", place + b"/to")) == []


def test_a_single_file_far_down_is_restored_with_the_folders_it_needs(place: bytes) -> None:
    path = b"/".join([b"d"] * 1500 + [b"f"])
    report = Report()
    tree = target(place + b"/to", report)
    assert restore(tree, file_entry(path))
    tree.close()
    assert not report.exceptions
    fd = os.open(place + b"/to", os.O_RDONLY)
    for _ in range(1500):
        below = os.open(b"d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    assert os.stat(b"f", dir_fd=fd).st_size == 3
    os.close(fd)


def test_a_terabyte_of_holes_costs_no_space(place: bytes) -> None:
    with open(place + b"/from", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"middle")
    report = Report()
    tree = target(place + b"/to", report, strip=place[1:])
    [walked] = walk(place + b"/from")
    with walked.open() as opened:
        extents = opened.extents()
        if extents == [(0, 1 << 40)]:
            tree.close()
            pytest.skip("this file system does not tell holes")
        assert tree.begin(walked.entry)
        for offset, length in extents:
            data = bytearray(length)
            opened.read_into(data, offset)
            tree.write(walked.entry.path, offset, data)
    tree.finish(walked.entry)
    tree.close()
    assert not report.exceptions
    assert os.stat(place + b"/to/from").st_blocks * 512 < 1 << 20
    assert list(differences(place + b"/from", place + b"/to/from", holes=True)) == []


def test_strip_decides_where_entries_go(place: bytes) -> None:
    report = Report()
    tree = target(place + b"/to", report, strip=b"home/u")
    assert restore(tree, file_entry(b"home/u/docs/f"))
    assert not restore(tree, file_entry(b"home/user/f"))
    assert not restore(tree, file_entry(b"home/u"))
    tree.close()
    assert read(place + b"/to/docs/f") == b"new"
    assert report.reasons() == [("f", "unsafe-path"), ("u", "folder-in-the-way")]


@pytest.mark.parametrize("path", [b"../f", b"a/../../f", b"a//f", b"/f", b"./f", b"a/\x00", b"a/."])
def test_a_path_that_would_leave_the_base_is_refused(place: bytes, path: bytes) -> None:
    report = Report()
    tree = target(place + b"/to", report)
    assert not restore(tree, file_entry(path))
    tree.close()
    assert [found.reason for found in report.exceptions] == ["unsafe-path"]
    assert os.listdir(place) == [b"to"]
    assert os.listdir(place + b"/to") == []


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"f", EntryType.SYMLINK, 0o777, link_target=b"a\x00b"),
        Entry(b"f", EntryType.SYMLINK, 0o777, link_target=b""),
        Entry(b"f", EntryType.FILE, 0o644, size=-1),
        Entry(b"f", EntryType.FILE, 0o644, size=1 << 80),
        Entry(b"f", EntryType.CHARACTER_DEVICE, 0o644, rdev=(-5, 1 << 70)),
        Entry(b"f", EntryType.FILE, 1 << 80, os.getuid(), os.getgid()),
        Entry(b"n" * 256, EntryType.FILE, 0o644),
        Entry(b"f", EntryType.FILE, 0o644, hardlink=b"../outside"),
        Entry(b"f", EntryType.FILE, 0o644, hardlink=b"not/there"),
    ],
)
def test_an_entry_that_cannot_be_is_an_exception_and_leaves_nothing(place: bytes, entry: Entry) -> None:
    put(place + b"/outside")
    report = Report()
    tree = target(place + b"/to", report)
    restore(tree, entry, b"")
    tree.close()
    assert len(report.exceptions) == 1
    assert set(os.listdir(place + b"/to")) <= {b"not"}


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 1 << 70},
        {"xattrs": ((b"user.\x00", b""),)},
        {"xattrs": ((b"nonsense", b""),)},
        {"modified": (1 << 70, 0)},
    ],
)
def test_metadata_that_cannot_be_is_an_exception_and_the_content_is_restored(place: bytes, fields: dict) -> None:
    report = Report()
    tree = target(place, report)
    assert restore(tree, file_entry(b"f", **fields))
    tree.close()
    assert len(report.exceptions) == 1
    assert read(place + b"/f") == b"new"


# --- what exists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "existing_s", "replaced"),
    [
        (NEVER, 1_500_000_000, False),
        (OLDER, 1_500_000_000, True),
        (OLDER, 1_600_000_000, True),  # five nanoseconds older
        (OLDER, 1_600_000_001, False),
        (ALWAYS, 1_700_000_000, True),
    ],
)
def test_the_overwrite_rule_decides_about_existing_files(
    place: bytes, options: RestoreOptions, existing_s: int, replaced: bool
) -> None:
    put(place + b"/f", b"old", modified=existing_s * 10**9)
    report = Report()
    tree = target(place, report, options)
    assert restore(tree, file_entry(b"f")) is replaced
    tree.close()
    assert read(place + b"/f") == (b"new" if replaced else b"old")
    assert not report.exceptions
    assert os.listdir(place) == [b"f"]


def test_always_replaces_a_link_itself_and_never_what_it_leads_to(place: bytes) -> None:
    put(place + b"/outside", b"old")
    os.makedirs(place + b"/outside-folder")
    os.mkdir(place + b"/to")
    os.symlink(b"../outside", place + b"/to/f")
    os.symlink(b"../outside-folder", place + b"/to/folder")
    report = Report()
    tree = target(place + b"/to", report)
    assert restore(tree, file_entry(b"f"))
    assert tree.begin(Entry(b"folder", EntryType.DIRECTORY, 0o700, os.getuid(), os.getgid()))
    assert restore(tree, file_entry(b"folder/in"))
    tree.close()
    assert not report.exceptions
    assert read(place + b"/outside") == b"old"
    assert os.listdir(place + b"/outside-folder") == []
    assert stat.S_ISREG(os.lstat(place + b"/to/f").st_mode)
    assert read(place + b"/to/folder/in") == b"new"


def test_existing_folders_are_merged_and_get_the_entrys_metadata(place: bytes) -> None:
    os.makedirs(place + b"/to/folder")
    put(place + b"/to/folder/other", b"stays")
    os.setxattr(place + b"/to/folder", b"user.stale", b"1")
    report = Report()
    tree = target(place + b"/to", report, NEVER)
    folder = Entry(
        b"folder", EntryType.DIRECTORY, 0o750, os.getuid(), os.getgid(), modified=(7, 9), xattrs=((b"user.n", b"2"),)
    )
    assert tree.begin(folder)
    assert restore(tree, file_entry(b"folder/f"))
    tree.finish(folder)
    tree.close()
    assert not report.exceptions
    status = os.stat(place + b"/to/folder")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o750, 7 * 10**9 + 9)
    assert os.listxattr(place + b"/to/folder") == ["user.n"]
    assert read(place + b"/to/folder/other") == b"stays"


def test_a_folder_with_something_in_it_never_gives_way_to_a_file_and_an_empty_one_does(place: bytes) -> None:
    os.makedirs(place + b"/full/in")
    os.makedirs(place + b"/empty")
    report = Report()
    tree = target(place, report)
    assert not restore(tree, file_entry(b"full"))
    assert restore(tree, file_entry(b"empty"))
    tree.close()
    assert report.reasons() == [("full", "folder-in-the-way")]
    assert os.path.isdir(place + b"/full/in")
    assert read(place + b"/empty") == b"new"


def test_a_folder_that_may_not_replace_a_file_is_one_exception_with_all_below(place: bytes) -> None:
    put(place + b"/name", b"old")
    report = Report()
    tree = target(place, report, NEVER)
    assert not tree.begin(Entry(b"name", EntryType.DIRECTORY, 0o755))
    assert not tree.begin(Entry(b"name/below", EntryType.DIRECTORY, 0o755))
    assert not restore(tree, file_entry(b"name/below/f"))
    assert restore(tree, file_entry(b"name2"))
    tree.close()
    assert report.reasons() == [("name", "exists")]
    assert read(place + b"/name") == b"old"


def test_an_aborted_or_unfinished_file_leaves_nothing_and_the_old_one_stays(place: bytes) -> None:
    put(place + b"/a", b"old")
    report = Report()
    tree = target(place, report)
    for name in (b"a", b"b", b"c"):
        assert tree.begin(file_entry(name))
        tree.write(name, 0, b"new")
    tree.abort(b"a")
    tree.abort(b"b")
    tree.close()
    tree.close()
    assert os.listdir(place) == [b"a"]
    assert read(place + b"/a") == b"old"
    assert not report.exceptions


def test_an_acl_inherited_from_the_new_place_does_not_stay_on_what_had_none(place: bytes) -> None:
    try:
        os.setxattr(place, b"system.posix_acl_default", DEFAULT_ACL)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    os.mkdir(place + b"/with")
    report = Report()
    tree = target(place + b"/with", report)
    assert tree.begin(Entry(b"d", EntryType.DIRECTORY, 0o700, os.getuid(), os.getgid()))
    assert restore(tree, file_entry(b"d/f", mode=0o640))
    tree.close()
    assert os.listxattr(place + b"/with/d") == []
    assert os.listxattr(place + b"/with/d/f") == []
    assert stat.S_IMODE(os.stat(place + b"/with/d/f").st_mode) == 0o640


# --- hard links ------------------------------------------------------------------------------------------------------


def test_a_hard_link_to_a_name_that_was_left_alone_joins_it_only_if_it_is_the_same_file(place: bytes) -> None:
    put(place + b"/same", b"new", modified=1_600_000_000 * 10**9 + 5)
    put(place + b"/other", b"quite another")
    report = Report()
    tree = target(place, report, NEVER)
    for name in (b"same", b"other"):
        assert not restore(tree, file_entry(name))
        assert restore(tree, file_entry(name + b"-link", hardlink=name))
    tree.close()
    assert os.stat(place + b"/same").st_ino == os.stat(place + b"/same-link").st_ino
    assert not os.path.exists(place + b"/other-link")
    assert report.reasons() == [("other-link", "hard-link-not-restored")]


def test_a_hard_link_replaces_what_has_its_name_by_the_overwrite_rule(place: bytes) -> None:
    put(place + b"/b", b"old")
    report = Report()
    tree = target(place, report)
    assert restore(tree, file_entry(b"a"))
    assert restore(tree, file_entry(b"b", hardlink=b"a"))
    tree.close()
    assert not report.exceptions
    assert read(place + b"/b") == b"new"
    assert sorted(os.listdir(place)) == [b"a", b"b"]


# --- somebody changes the tree meanwhile -----------------------------------------------------------------------------


def outside_with_guard(place: bytes) -> bytes:
    os.mkdir(place + b"/outside")
    put(place + b"/outside/f", b"guarded", modified=MODIFIED)
    return place + b"/outside"


@pytest.fixture(params=["openat2", "part by part"])
def resolving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With openat2(2) and, as on older kernels and in some sandboxes, without."""
    if request.param == "part by part":
        monkeypatch.setattr(linux, "_has_openat2", lambda: False)


@pytest.mark.parametrize("moment", ["before-begin", "before-finish"])
@pytest.mark.parametrize("handles", ["cached", "new"])
def test_a_folder_replaced_by_a_link_leads_nothing_outside(
    place: bytes, moment: str, handles: str, resolving: None
) -> None:
    outside = outside_with_guard(place)
    report = Report()
    tree = target(place + b"/to", report)
    folder = Entry(b"d", EntryType.DIRECTORY, 0o755, os.getuid(), os.getgid())
    assert tree.begin(folder)
    entry = file_entry(b"d/f")

    def attack() -> None:
        if handles == "new":
            # So many folders since that the handle of the first one is no longer kept.
            for number in range(200):
                assert restore(tree, file_entry(b"more/%d/f" % number))
        os.rename(place + b"/to/d", place + b"/to/moved")
        os.symlink(outside, place + b"/to/d")

    if moment == "before-begin":
        attack()
        if tree.begin(entry):
            tree.write(b"d/f", 0, b"new")
            tree.finish(entry)
    else:
        assert tree.begin(entry)
        tree.write(b"d/f", 0, b"new")
        attack()
        tree.finish(entry)
    tree.close()
    assert os.listdir(outside) == [b"f"]
    assert read(outside + b"/f") == b"guarded"
    assert os.stat(outside + b"/f").st_mtime_ns == MODIFIED
    if handles == "new":
        assert ("f", "symlink-in-path") in report.reasons() or ("f", "not-a-folder") in report.reasons()


def test_a_link_that_the_set_itself_brings_is_not_followed_by_what_comes_after(place: bytes, resolving: None) -> None:
    """A hostile set: first a link that leads out, then a file below it."""
    outside = outside_with_guard(place)
    report = Report()
    tree = target(place + b"/to", report)
    assert restore(tree, Entry(b"d", EntryType.SYMLINK, 0o777, os.getuid(), os.getgid(), link_target=outside))
    assert not restore(tree, file_entry(b"d/f"))
    assert not restore(tree, file_entry(b"d/new/f"))
    tree.close()
    assert len(report.exceptions) == 2
    assert os.listdir(outside) == [b"f"]
    assert read(outside + b"/f") == b"guarded"


def test_a_temporary_name_replaced_by_a_link_to_another_file_harms_it_not(place: bytes) -> None:
    outside = outside_with_guard(place)
    mode = os.stat(outside + b"/f").st_mode
    report = Report()
    tree = target(place + b"/to", report)
    for name, kind in ((b"file", EntryType.FILE), (b"pipe", EntryType.FIFO), (b"link", EntryType.SYMLINK)):
        entry = replace(file_entry(name, mode=0o777), type=kind, link_target=b"x" if name == b"link" else None)
        assert tree.begin(entry)
        if kind is EntryType.FILE:
            tree.write(name, 0, b"new")
        [temporary] = [found for found in os.listdir(place + b"/to") if found.startswith(b".caso-mesh-restore-")]
        os.unlink(place + b"/to/" + temporary)
        os.link(outside + b"/f", place + b"/to/" + temporary)
        tree.finish(entry)
    tree.close()
    assert [reason for _, reason in report.reasons()] == ["replaced-while-written"] * 3
    assert os.stat(outside + b"/f").st_mode == mode
    assert os.stat(outside + b"/f").st_mtime_ns == MODIFIED
    assert read(outside + b"/f") == b"guarded"


def test_a_folder_removed_while_a_file_in_it_is_written_is_an_exception(place: bytes) -> None:
    report = Report()
    tree = target(place, report)
    assert tree.begin(Entry(b"d", EntryType.DIRECTORY, 0o755, os.getuid(), os.getgid()))
    entry = file_entry(b"d/f")
    assert tree.begin(entry)
    tree.write(b"d/f", 0, b"new")
    [temporary] = os.listdir(place + b"/d")
    os.unlink(place + b"/d/" + temporary)
    os.rmdir(place + b"/d")
    tree.finish(entry)
    tree.close()
    assert ("f", "folder-missing") in report.reasons()


def test_trees_beyond_the_longest_path_come_back(place: bytes, resolving: None) -> None:
    os.mkdir(place + b"/from")
    deep_tree(place + b"/from", 40, b"d" * 200)
    assert not copy(place + b"/from", place + b"/to").exceptions
    assert list(differences(place + b"/from", place + b"/to")) == []


# --- flags, rights, misuse -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ROOT, reason="immutable files need root")
def test_immutable_and_append_only_files_and_folders_come_back_with_all_in_them(place: bytes) -> None:
    os.makedirs(place + b"/from/d")
    put(place + b"/from/d/i", b"immutable")
    os.link(place + b"/from/d/i", place + b"/from/linked")
    put(place + b"/from/a", b"append")
    marked = [(b"/d/i", 0x10), (b"/a", 0x20), (b"/d", 0x10)]
    try:
        try:
            for name, flags in marked:
                set_raw_flags(place + b"/from" + name, flags)
        except OSError as error:
            pytest.skip(f"no inode flags here: {error}")
        report = copy(place + b"/from", place + b"/to")
        assert not report.exceptions
        assert list(differences(place + b"/from", place + b"/to")) == []
        flags = {w.entry.path.rpartition(b"/")[2]: w.entry.flags for w in walk(place + b"/to")}
        assert flags[b"i"] & flags[b"linked"] & flags[b"d"] & 0x10
        assert flags[b"a"] & 0x20
    finally:
        for tree in (b"/from", b"/to"):
            for name, _ in reversed(marked):
                if os.path.exists(place + tree + name):
                    set_raw_flags(place + tree + name, 0)


@pytest.mark.skipif(not ROOT, reason="giving files away needs root")
def test_without_ownership_files_belong_to_who_restores_and_set_id_bits_are_dropped(place: bytes) -> None:
    report = Report()
    tree = target(place, report, RestoreOptions(Overwrite.ALWAYS, ownership=False))
    assert restore(tree, file_entry(b"f", uid=1234, gid=2345, mode=0o6755))
    tree.close()
    assert not report.exceptions
    status = os.stat(place + b"/f")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o755)


@pytest.mark.skipif(not ROOT, reason="a full file system of one's own needs root")
def test_a_full_disk_is_an_exception_for_each_file_and_leaves_no_half_ones(place: bytes) -> None:
    out = in_mount_namespace(
        """
        place = os.fsencode(sys.argv[1])
        os.mkdir(place + b"/small")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place + b"/small"], check=True)
        os.mkdir(place + b"/from")
        put(place + b"/from/a", os.urandom(1 << 21))
        put(place + b"/from/b", b"fits")
        report = copy(place + b"/from", place + b"/small")
        print(report.reasons(), sorted(os.listdir(place + b"/small")))
        """,
        place,
    )
    assert out == "[('a', 'no-space')] [b'b']\n"


def test_a_base_that_cannot_be_is_said(place: bytes) -> None:
    put(place + b"/file")
    with pytest.raises(TargetInvalid):
        target(place + b"/file/below", Report())


def test_calls_out_of_order_are_our_own_mistake(place: bytes) -> None:
    tree = target(place, Report())
    with pytest.raises(Misuse):
        tree.write(b"f", 0, b"x")
    with pytest.raises(Misuse):
        tree.finish(file_entry(b"f"))
    with pytest.raises(Misuse):
        tree.put(file_entry(b"f"), b"new")
    tree.begin(file_entry(b"f"))
    with pytest.raises(Misuse):
        tree.begin(file_entry(b"f"))
    tree.write(b"f", 0, b"x")
    with pytest.raises(Misuse):
        tree.put(file_entry(b"f"), b"new")
    tree.close()


def test_several_threads_write_several_files_at_once(place: bytes) -> None:
    report = Report()
    tree = target(place, report)

    def work(worker: int) -> None:
        for number in range(30):
            # More folders than handles are kept, so that the threads push out each other's.
            entry = file_entry(b"%d/%d/f" % (number, worker), size=1 << 16)
            assert tree.begin(entry)
            for offset in range(0, 1 << 16, 1 << 12):
                tree.write(entry.path, offset, bytes([worker]) * (1 << 12))
            tree.finish(entry)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, worker) for worker in range(8)]:
            done.result()
    tree.close()
    assert not report.exceptions
    for worker in range(8):
        for number in range(30):
            assert read(place + b"/%d/%d/f" % (number, worker)) == bytes([worker]) * (1 << 16)


def test_a_folder_on_the_way_that_was_swapped_for_a_link_leads_no_restore_elsewhere(place: bytes) -> None:
    """Where it leads was compared with what may be written, and then it was opened by its name once more: who may write to a folder
    above the target had a restore by root write anywhere."""
    os.makedirs(place + b"/shared/to")
    os.mkdir(place + b"/outside")
    real = resolved(place + b"/shared/to/deep")
    assert real == os.path.realpath(place) + b"/shared/to/deep"
    os.rename(place + b"/shared/to", place + b"/shared/before")
    os.symlink(place + b"/outside", place + b"/shared/to")
    with pytest.raises(TargetInvalid):
        target(real, Report())
    assert os.listdir(place + b"/outside") == [] == os.listdir(place + b"/shared/before")


def test_a_link_of_another_user_on_the_way_to_the_target_is_followed_only_to_what_is_his(place: bytes) -> None:
    os.makedirs(place + b"/system/etc")
    os.makedirs(place + b"/home/own")
    for name, to in ((b"theirs", b"../system/etc"), (b"fine", b"own"), (b"circle", b"circle")):
        os.symlink(to, place + b"/home/" + name)
    assert resolved(place + b"/home/theirs/x/../y") == os.path.realpath(place) + b"/system/etc/y"
    with pytest.raises(TargetInvalid, match=r"circle|levels"):
        resolved(place + b"/home/circle/x")
    if not ROOT:
        return
    for name in (b"theirs", b"fine", b"own"):
        os.chown(place + b"/home/" + name, 1234, 1234, follow_symlinks=False)
    assert resolved(place + b"/home/fine/x") == os.path.realpath(place) + b"/home/own/x"
    with pytest.raises(TargetInvalid, match="another user has made"):
        resolved(place + b"/home/theirs/x")


def test_a_link_that_is_swapped_while_it_gets_its_metadata_gives_it_to_nothing_else(
    place: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given by the link's temporary name: whoever may write to the folder could have put another object there, and root gave
    that away."""
    put(place + b"/victim", b"secret")
    os.utime(place + b"/victim", ns=(1, 1))
    os.mkdir(place + b"/to")
    real, swapped = os.utime, []

    def swap(path, **more):
        for name in os.listdir(place + b"/to"):
            if os.path.islink(place + b"/to/" + name) and not swapped:
                swapped.append(name)
                os.unlink(place + b"/to/" + name)
                os.link(place + b"/victim", place + b"/to/" + name)
        real(path, **more)

    monkeypatch.setattr(os, "utime", swap)
    report = Report()
    there = target(place + b"/to", report)
    entry = Entry(
        b"link", EntryType.SYMLINK, 0o777, link_target=b"x", uid=os.getuid(), gid=os.getgid(), modified=(5, 0)
    )
    restore(there, entry)
    there.close()
    assert swapped and os.stat(place + b"/victim").st_mtime_ns == 1
