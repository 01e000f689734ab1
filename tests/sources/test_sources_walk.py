from __future__ import annotations

import os
import resource
import stat

import pytest
from source_trees import (
    MODIFIED,
    ROOT,
    Earlier,
    Report,
    deep_tree,
    edge_tree,
    in_mount_namespace,
    paths,
    put,
    socket_at,
    walk,
)

from caso_mesh.model.entries import EntryType, path_key
from caso_mesh.sources.filters import CACHE_SIGNATURE, VAULT_MARKER, Filters
from caso_mesh.sources.unchanged import Same
from caso_mesh.sources.walked import Walked


def test_entries_come_in_path_order_with_all_metadata(place: bytes) -> None:
    edge_tree(place + b"/t")
    report = Report()
    entries = [walked.entry for walked in walk(place + b"/t", report=report)]
    keys = [path_key(entry.path) for entry in entries]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert not report.exceptions
    by_name = {entry.path[len(place) + 2 :]: entry for entry in entries}
    assert by_name[b"times/before-1970"].modified == (-86400 * 365 - 1, 499_999_999)
    assert by_name[b"times/y2400"].modified == (13569465600, 0)
    assert by_name[b"links/long"].link_target == b"x" * 1000
    assert by_name[b"links/good2"].hardlink == place[1:] + b"/t/links/good"
    assert by_name[b"special/pipe2"].hardlink == place[1:] + b"/t/special/pipe"
    assert by_name[b"modes/7777"].mode == 0o7777
    assert {entry.type for entry in entries} >= {EntryType.FIFO, EntryType.SOCKET, EntryType.SYMLINK}


@pytest.mark.skipif(not ROOT, reason="device nodes need root")
def test_device_nodes_keep_their_numbers(place: bytes) -> None:
    os.mknod(place + b"/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    [_, walked] = walk(place)
    assert (walked.entry.type, walked.entry.rdev) == (EntryType.CHARACTER_DEVICE, (1, 3))


def test_owners_have_their_names_and_unknown_ones_none(place: bytes) -> None:
    put(place + b"/f")
    entry = list(walk(place))[1].entry
    assert entry.uid == os.getuid()
    assert (entry.user == "root") == (entry.uid == 0)


def test_links_are_kept_and_never_followed(place: bytes) -> None:
    os.makedirs(place + b"/t/folder")
    put(place + b"/outside")
    os.symlink(b"..", place + b"/t/up")
    os.symlink(place, place + b"/t/folder/away")
    assert paths(place + b"/t", walk(place + b"/t")) == [".", "folder", "folder/away", "up"]


def test_a_root_that_is_a_link_is_kept_as_one_and_said(place: bytes) -> None:
    os.mkdir(place + b"/real")
    put(place + b"/real/f")
    os.symlink(b"real", place + b"/link")
    report = Report()
    [walked] = walk(place + b"/link", report=report)
    assert walked.entry.link_target == b"real"
    assert report.noted() == [("link", "root-is-a-link")]
    assert paths(place + b"/link/f", walk(place + b"/link/f")) == ["."]


def test_nested_and_repeated_roots_are_walked_once(place: bytes) -> None:
    os.makedirs(place + b"/a/b/c")
    roots = [place + b"/a/b", place + b"/a", place + b"/a/b/c", place + b"/a"]
    assert paths(place, walk(roots)) == ["a", "a/b", "a/b/c"]


def test_a_root_inside_what_is_left_out_is_still_walked_in_its_place(place: bytes) -> None:
    for folder in (b"a/skip/deep/wanted", b"a/skip/other", b"a/z"):
        os.makedirs(os.path.join(place, folder))
    roots = [place + b"/a", place + b"/a/skip/deep/wanted"]
    assert paths(place, walk(roots, Filters(excludes=("skip",)))) == ["a", "a/skip/deep/wanted", "a/z"]


def test_a_missing_root_is_an_exception_and_the_others_are_walked(place: bytes) -> None:
    put(place + b"/there")
    report = Report()
    assert paths(place, walk([place + b"/gone", place + b"/there"], report=report)) == ["there"]
    assert report.reasons() == [("gone", "missing")]


def test_excluded_folders_are_not_entered_and_large_files_left_out(place: bytes) -> None:
    os.makedirs(place + b"/node_modules/x")
    put(place + b"/keep.o~", b"12345")
    put(place + b"/drop.o")
    put(place + b"/large", bytes(6))
    filters = Filters(excludes=("*.o", "node_modules/"), larger_than=5)
    assert paths(place, walk(place, filters)) == [".", "keep.o~"]


def test_a_vault_is_left_out_with_a_note_wherever_it_is(place: bytes) -> None:
    os.makedirs(place + b"/disk/vault/packs")
    put(place + b"/disk/vault/format", VAULT_MARKER + b" 1\n")
    os.mkdir(place + b"/other")
    put(place + b"/other/format", b"some other program's")
    report = Report()
    assert paths(place, walk(place, report=report)) == [".", "disk", "other", "other/format"]
    assert report.noted() == [("vault", "excluded-vault")]
    assert not report.exceptions
    assert list(walk(place + b"/disk/vault", report=report)) == []


def test_own_state_is_left_out_with_a_note_also_under_another_name(place: bytes) -> None:
    os.makedirs(place + b"/state/identity")
    os.symlink(b"state", place + b"/alias")
    report = Report()
    filters = Filters(own_paths=(place + b"/alias",))
    assert paths(place, walk(place, filters, report)) == ["."]
    assert report.noted() == [("alias", "excluded-own-state"), ("state", "excluded-own-state")]
    report = Report()
    assert list(walk(place + b"/state", Filters(own_paths=(place + b"/state",)), report)) == []
    assert report.noted() == [("state", "excluded-own-state")]


def test_a_cache_with_a_valid_tag_is_kept_as_an_empty_folder(place: bytes) -> None:
    for name, tag in ((b"cache", CACHE_SIGNATURE + b"\n# made by x"), (b"fake", b"Signature: no")):
        os.makedirs(os.path.join(place, name, b"data"))
        put(os.path.join(place, name, b"CACHEDIR.TAG"), tag)
    filters = Filters(exclude_caches=True)
    assert paths(place, walk(place, filters)) == [".", "cache", "fake", "fake/CACHEDIR.TAG", "fake/data"]
    assert "cache/data" in paths(place, walk(place))


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
def test_other_file_systems_are_kept_as_empty_folders_unless_asked_for(place: bytes) -> None:
    out = in_mount_namespace(
        """
        place = os.fsencode(sys.argv[1])
        os.makedirs(place + b"/a/mounted")
        subprocess.run(["mount", "-t", "tmpfs", "none", place + b"/a/mounted"], check=True)
        os.mkdir(place + b"/a/mounted/in")
        os.mkdir(place + b"/a/next")
        alone = Filters(one_file_system=True)
        print(paths(place, walk(place, alone)))
        print(paths(place, walk([place, place + b"/a/mounted/in"], alone)))
        print(paths(place, walk(place + b"/a/mounted", alone)))
        print(paths(place, walk(place)))
        """,
        place,
    )
    assert out.splitlines() == [
        "['.', 'a', 'a/mounted', 'a/next']",
        "['.', 'a', 'a/mounted', 'a/mounted/in', 'a/next']",
        "['a/mounted', 'a/mounted/in']",
        "['.', 'a', 'a/mounted', 'a/mounted/in', 'a/next']",
    ]


def test_trees_beyond_the_longest_path_are_walked_with_few_descriptors(place: bytes) -> None:
    os.mkdir(place + b"/t")
    deep_tree(place + b"/t", 120, b"d" * 200)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, before[1]))
    try:
        report = Report()
        found = []
        for walked in walk(place + b"/t", report=report, max_open=4):
            if walked.entry.type is EntryType.FILE:
                with walked.open() as file:
                    data = bytearray(8)
                    found.append(int(data[: file.read_into(data, 0)]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found == list(range(119, -1, -1))
    assert not report.exceptions


def test_a_name_that_goes_while_its_folder_is_read_costs_a_note_only(place: bytes) -> None:
    os.makedirs(place + b"/t/b")
    for name in (b"a", b"c", b"d"):
        put(place + b"/t/" + name)
    report = Report()
    seen = []
    for walked in walk(place + b"/t", report=report):
        seen.append(os.path.basename(walked.entry.path))
        if seen[-1] == b"a":
            os.rmdir(place + b"/t/b")
            os.unlink(place + b"/t/c")
    assert seen == [b"t", b"a", b"d"]
    assert report.noted() == [("b", "vanished"), ("c", "vanished")]
    assert not report.exceptions


def test_a_folder_removed_while_it_is_walked_ends_there_and_the_rest_goes_on(place: bytes) -> None:
    os.makedirs(place + b"/t/a/b/c")
    put(place + b"/t/a/z")
    put(place + b"/t/z")
    report = Report()
    seen = []
    for walked in walk(place + b"/t", report=report, max_open=2):
        seen.append(walked.entry.path[len(place) :])
        if seen[-1].endswith(b"/c"):
            os.rename(place + b"/t/a/b", place + b"/away")
            os.rename(place + b"/t/a", place + b"/gone")
    assert seen == [b"t", b"t/a", b"t/a/b", b"t/a/b/c", b"t/z"]
    assert report.reasons() == [("a", "replaced-while-read")]


def test_walking_leaves_no_access_times_on_what_one_owns(place: bytes) -> None:
    os.mkdir(place + b"/t")
    put(place + b"/t/f")
    for name in (b"/t", b"/t/f"):
        os.utime(place + name, ns=(1, MODIFIED))
    for walked in walk(place + b"/t"):
        if walked.entry.type is EntryType.FILE:
            with walked.open() as file:
                file.read_into(bytearray(4), 0)
    assert [os.stat(place + name).st_atime_ns for name in (b"/t", b"/t/f")] == [1, 1]


def test_a_socket_as_servers_leave_it_is_kept(place: bytes) -> None:
    socket_at(os.fsdecode(place) + "/s")
    [_, walked] = walk(place)
    assert walked.entry.type is EntryType.SOCKET


# --- measured against an earlier set ---------------------------------------------------------------------------------


def unchanged(place: bytes, known: Earlier, filters: Filters | None = None, **options) -> dict[str, bool]:
    found = {}
    for each in walk(place, filters, previous=known, **options).found():
        path = each.before.path if isinstance(each, Same) else each.entry.path
        found[os.fsdecode(os.path.basename(path))] = isinstance(each, Same) or each.unchanged
    return found


def test_an_unchanged_file_brings_its_previous_entry_and_no_further_reading(place: bytes) -> None:
    os.mkdir(place + b"/t")
    put(place + b"/t/f", b"12345")
    os.setxattr(place + b"/t/f", b"user.a", b"1")
    known = Earlier(walk(place + b"/t"), user="then")
    [top, walked] = walk(place + b"/t", previous=known).found()
    assert known.asked == [place[1:] + b"/t", place[1:] + b"/t/f"]
    assert top.unchanged
    assert walked.unchanged
    assert walked.previous == known.entries[place[1:] + b"/t/f"]
    assert walked.entry.xattrs == ((b"user.a", b"1"),)
    assert walked.entry.chunks == ()


def test_what_is_the_same_to_the_last_field_is_named_by_its_place_in_the_earlier_set(place: bytes) -> None:
    """But for what wants a closer look: hard links, device nodes, and what one set says of owners and another not."""
    os.mkdir(place + b"/t")
    put(place + b"/t/f", b"12345")
    os.symlink(b"f", place + b"/t/s")
    os.mkfifo(place + b"/t/pipe")
    put(place + b"/t/y", b"")
    os.link(place + b"/t/y", place + b"/t/z")
    kinds = {os.path.basename(path): kind for path, kind in same_kinds(place, Earlier(walk(place + b"/t")))}
    assert kinds == {b"t": Same, b"f": Same, b"s": Same, b"pipe": Same, b"y": Walked, b"z": Walked}
    assert all(kind is Walked for _, kind in same_kinds(place, Earlier(walk(place + b"/t"), user="then")))


def same_kinds(place: bytes, known: Earlier) -> list[tuple[bytes, type]]:
    return [
        (each.before.path if isinstance(each, Same) else each.entry.path, type(each))
        for each in walk(place + b"/t", previous=known).found()
    ]


def test_each_kind_of_change_is_noticed(place: bytes) -> None:
    os.mkdir(place + b"/t")
    for name in (b"same", b"size", b"content", b"mode", b"xattr", b"replaced", b"type"):
        put(place + b"/t/" + name, b"12345")
    known = Earlier(walk(place + b"/t"), user="then")
    put(place + b"/t/size", b"123456")
    put(place + b"/t/content", b"54321")  # the same size and mtime: ctime tells
    os.chmod(place + b"/t/mode", 0o600)
    os.setxattr(place + b"/t/xattr", b"user.a", b"1")
    put(place + b"/t/new", b"12345")
    os.rename(place + b"/t/new", place + b"/t/replaced")
    os.unlink(place + b"/t/type")
    os.symlink(b"12345", place + b"/t/type")
    found = unchanged(place + b"/t", known)
    assert [name for name, same in found.items() if same] == ["same"]


def test_what_was_not_read_whole_last_time_counts_as_changed(place: bytes) -> None:
    os.mkdir(place + b"/t")
    put(place + b"/t/f", b"12345")
    put(place + b"/t/empty", b"")
    assert unchanged(place + b"/t", Earlier(walk(place + b"/t"), whole=False, user="then")) == {
        "t": True,
        "empty": True,
        "f": False,
    }


def test_a_change_in_the_same_clock_tick_as_the_earlier_set_is_not_trusted(place: bytes) -> None:
    put(place + b"/f", b"12345")
    known = Earlier(walk(place), user="then")
    moment = divmod(os.stat(place + b"/f").st_ctime_ns, 10**9)
    assert unchanged(place + b"/f", known, settled_before=moment) == {"f": False}
    assert unchanged(place + b"/f", known, settled_before=(moment[0] + 1, 0)) == {"f": True}


def test_hard_links_keep_their_first_name_when_nothing_changed(place: bytes) -> None:
    os.mkdir(place + b"/t")
    put(place + b"/t/a", b"12345")
    os.link(place + b"/t/a", place + b"/t/b")
    known = Earlier(walk(place + b"/t"), user="then")
    found = list(walk(place + b"/t", previous=known).found())
    assert [(walked.unchanged, walked.entry.hardlink) for walked in found] == [
        (True, None),
        (True, None),
        (True, place[1:] + b"/t/a"),
    ]
    # The name that held the content is left out now: the second must bring it.
    [_, second] = walk(place + b"/t", Filters(excludes=("a",)), previous=known).found()
    assert not second.unchanged
    assert second.entry.hardlink is None
