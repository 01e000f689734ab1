"""The index: what the model test does not say by name."""

from __future__ import annotations

import fnmatch
import itertools

import msgspec
import pytest
from catalog_material import changes, connect, file, find, folder, full, listing, make_set, raw_segment, tree

from caso_mesh.catalog import blocks, in_order, index, search, walk
from caso_mesh.catalog import changes as changes_module
from caso_mesh.catalog.segment import CatalogEntry, SegmentReader
from caso_mesh.model.entries import EntryType, path_key
from caso_mesh.model.errors import (
    AlreadyExists,
    CatalogBaseMissing,
    CatalogNotHere,
    DataDamaged,
    InvalidValue,
    NotFound,
    PathNotInSet,
)


@pytest.fixture
def conn():
    connection = connect()
    yield connection
    connection.close()


def take(conn, backup_set, wanted, base=None, before=None):
    index.add_set(conn, backup_set)
    segment = full(backup_set, wanted) if base is None else changes(backup_set, base, before, wanted)
    return index.ingest(conn, segment)


def rows(conn, table="block"):
    return conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def everything(conn):
    tables = ("block", "touched", "pending", "name_block", "folder", "backup_set")
    return {table: conn.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def test_an_unchanged_file_costs_a_backup_nothing(conn):
    wanted = tree(*(file(b"srv/d%d/f%d" % (n % 9, n)) for n in range(300)))
    assert take(conn, make_set("s1"), wanted).appeared == len(wanted)
    before = rows(conn), rows(conn, "touched"), rows(conn, "name_block"), rows(conn, "folder")
    again = take(conn, make_set("s2"), wanted)
    assert (again.appeared, again.ended, again.first_seen) == (0, 0, 0)
    last = take(conn, make_set("s3"), wanted, base="s2", before=wanted)
    assert (last.appeared, last.ended) == (0, 0)
    assert before == (rows(conn), rows(conn, "touched"), rows(conn, "name_block"), rows(conn, "folder"))
    assert listing(conn, "s1") == listing(conn, "s2") == listing(conn, "s3") == wanted


@pytest.mark.parametrize(
    "other",
    [
        CatalogEntry(b"srv/a", EntryType.FILE, 2, (1000, 0), 0o644),
        CatalogEntry(b"srv/a", EntryType.FILE, 1, (1000, 1), 0o644),
        CatalogEntry(b"srv/a", EntryType.FILE, 1, (1001, 0), 0o644),
        CatalogEntry(b"srv/a", EntryType.FILE, 1, (1000, 0), 0o600),
        CatalogEntry(b"srv/a", EntryType.FILE, 1, (1000, 0), 0o644, 1),
        CatalogEntry(b"srv/a", EntryType.FILE, 1, (1000, 0), 0o644, 0, 1),
        CatalogEntry(b"srv/a", EntryType.FILE, 1, (1000, 0), 0o644, 0, 0, b"new"),
        CatalogEntry(b"srv/a", EntryType.SYMLINK, 1, (1000, 0), 0o644),
    ],
)
@pytest.mark.parametrize("base", [None, "s1"])
def test_any_change_of_an_entry_is_a_version(conn, other, base):
    first, second = tree(file(b"srv/a")), tree(other)
    take(conn, make_set("s1", ended=1), first)
    result = take(conn, make_set("s2", ended=2), second, base=base, before=first)
    assert (result.appeared, result.ended, result.first_seen) == (1, 1, 0)
    assert index.versions(conn, "node-a", b"srv/a") == [
        index.Version(other, "s2", "s2", 1),
        index.Version(file(b"srv/a"), "s1", "s1", 1),
    ]


def test_versions_go_over_all_chains_of_a_source_by_time_and_not_by_arrival(conn):
    old, new = tree(file(b"srv/a")), tree(file(b"srv/a", size=9))
    take(conn, make_set("monday", ended=1), old)
    take(conn, make_set("wednesday", ended=3), new)
    take(conn, make_set("tuesday", ended=2), old, base="wednesday", before=new)
    take(conn, make_set("other", ended=4, roots=(b"srv", b"etc")), new)
    take(conn, make_set("stranger", ended=5, source="node-b"), old)
    assert index.versions(conn, "node-a", b"srv/a") == [
        index.Version(new[b"srv/a"], "wednesday", "other", 2),
        index.Version(old[b"srv/a"], "monday", "tuesday", 2),
    ]
    assert index.versions(conn, "node-c", b"srv/a") == index.versions(conn, "node-a", b"no/such") == []


def test_a_set_is_known_before_its_detail_arrives(conn):
    index.add_set(conn, make_set("s1"))
    assert [record.id for record in index.sets(conn)] == ["s1"]
    assert not index.has_detail(conn, "s1")
    for ask in (index.list_folder, index.lookup, index.usage):
        with pytest.raises(CatalogNotHere, match="s1"):
            ask(conn, "s1", b"srv")
        with pytest.raises(NotFound):
            ask(conn, "s2", b"srv")
    assert find(conn, "*") == []
    assert not index.has_detail(conn, "s2")


def test_a_record_comes_back_as_it_was_and_is_not_replaced_by_another(conn):
    record = make_set("s1", roots=(b"\xff", b"srv"))
    index.add_set(conn, record)
    index.add_set(conn, record)
    assert index.sets(conn) == [record]
    with pytest.raises(AlreadyExists):
        index.add_set(conn, msgspec.structs.replace(record, bytes=1))


def test_sets_are_asked_for_by_source_time_and_detail(conn):
    for number in range(4):
        index.add_set(conn, make_set(f"a{number}", ended=number))
    take(conn, make_set("b", ended=2, source="node-b"), {})
    ids = lambda **question: [record.id for record in index.sets(conn, **question)]
    assert ids() == ["a3", "b", "a2", "a1", "a0"]
    assert ids(source="node-a", since_ns=1, until_ns=2) == ["a2", "a1"]
    assert ids(detail=True) == ["b"]
    assert ids(detail=False, limit=2) == ["a3", "a2"]
    assert ids(source="nobody") == []


def test_the_set_as_of_a_time_covers_the_path_wholly_if_any_does(conn):
    index.add_set(conn, make_set("all", ended=1, roots=(b"",)))
    index.add_set(conn, make_set("share", ended=3, roots=(b"usr/share",)))
    index.add_set(conn, make_set("shared", ended=4, roots=(b"usr/shared",)))

    def as_of(path, at, source="node-a"):
        found = index.set_as_of(conn, source, path, at)
        return found and found.id

    assert as_of(b"usr/share/doc", 9) == "share"
    assert as_of(b"usr/share", 3) == "share"
    assert as_of(b"/usr/share", 2) == "all"
    assert as_of(b"usr", 9) == "all"
    assert as_of(b"usr/share", 0) is None
    assert as_of(b"usr", 9, "node-b") is None
    index.remove_set(conn, "all")
    assert as_of(b"usr", 9) == "shared"
    assert as_of(b"usr", 3) == "share"
    assert as_of(b"", 9) == "shared"
    assert as_of(b"etc", 9) is None


def test_folders_above_the_roots_appear_as_implied(conn):
    record = make_set("s1", roots=(b"etc/x", b"usr/share"))
    take(conn, record, {b"usr/share": folder(b"usr/share"), b"usr/share/a": file(b"usr/share/a")})
    assert index.list_folder(conn, "s1", b"") == [index.implied(b"usr")]
    assert index.list_folder(conn, "s1", b"usr") == [folder(b"usr/share")]
    assert index.list_folder(conn, "s1", b"/usr/share/") == [file(b"usr/share/a")]
    assert index.list_folder(conn, "s1", b"usr/share/a") == [file(b"usr/share/a")]
    assert index.lookup(conn, "s1", b"usr") == index.implied(b"usr")
    assert index.lookup(conn, "s1", b"") == index.implied(b"")
    assert index.lookup(conn, "s1", b"etc") is None
    assert index.usage(conn, "s1", b"", depth=9) == [
        index.FolderUsage(b"", 1, 1),
        index.FolderUsage(b"usr", 1, 1),
        index.FolderUsage(b"usr/share", 1, 1),
    ]
    for path in (b"etc", b"usr/shar", b"usr/share/a/b", b"usr/lib"):
        with pytest.raises(PathNotInSet):
            index.list_folder(conn, "s1", path)
        with pytest.raises(PathNotInSet):
            index.usage(conn, "s1", path)


def test_implied_folders_keep_their_place_when_a_listing_is_given_in_pages(conn):
    record = make_set("s1", roots=(b"a", b"b/x", b"c", b"d/y/z", b"e"))
    wanted = {path: folder(path) for path in record.roots}
    take(conn, record, wanted)
    whole = index.list_folder(conn, "s1", b"")
    assert [entry.path for entry in whole] == [b"a", b"b", b"c", b"d", b"e"]
    for limit in range(1, 6):
        pages = []
        while page := index.list_folder(conn, "s1", b"", after=pages[-1].path if pages else None, limit=limit):
            assert len(page) <= limit
            pages += page
        assert pages == whole


def test_names_of_any_bytes_and_very_long_paths_are_listed_and_found(conn):
    deep = b"srv"
    for _ in range(300):
        deep += b"/" + b"d" * 200
    names = [b"\xff\xfe\x80", b"new\nline", b"*[a]?", b"'; DROP TABLE version; --", b'"quoted"', b"sp ace", b"\\x41",
             "ünïcödé.txt".encode(), "雪".encode(), b"n" * 255]  # fmt: skip
    wanted = tree(*(file(b"srv/" + name) for name in names), file(deep + b"/needle.txt"))
    take(conn, make_set("s1"), wanted)
    assert listing(conn, "s1") == wanted
    for name in names:
        pattern = name.decode("utf-8", "surrogateescape")
        pattern = "".join(f"[{char}]" if char in "*?[" else char for char in pattern)
        for asked in (pattern, pattern.encode("utf-8", "surrogateescape"), "/srv/" + pattern):
            assert [match.path for match in find(conn, asked)] == [b"srv/" + name], asked
    assert [match.path for match in find(conn, "*needle*")] == [deep + b"/needle.txt"]
    assert [match.path for match in find(conn, "?")] == ["srv/雪".encode()]
    assert index.usage(conn, "s1", b"srv") == [index.FolderUsage(b"srv", len(names) + 1, len(names) + 1)]


def test_find_gives_the_newest_set_that_has_the_path_as_asked_for(conn):
    small, large = tree(file(b"srv/report", size=1)), tree(file(b"srv/report", size=100))
    take(conn, make_set("s1", ended=10), small)
    take(conn, make_set("s2", ended=20), large)
    take(conn, make_set("s3", ended=30), tree(folder(b"srv")))
    found = lambda **bounds: [(m.set, m.entry.size) for m in find(conn, "rep*", **bounds)]
    assert found() == [("s2", 100)]
    assert found(size_max=50) == [("s1", 1)]
    assert found(until_ns=19) == [("s1", 1)]
    assert found(since_ns=11) == [("s2", 100)]
    assert found(since_ns=21) == found(size_min=101) == found(sources=frozenset({"node-b"})) == found(limit=0) == []


def test_find_refuses_what_is_no_pattern(conn):
    for pattern in ("", "/", b"", "a\0b", "x" * 5000, "\ud800"):
        with pytest.raises(InvalidValue):
            find(conn, pattern)
    take(conn, make_set("s1"), tree(file(b"srv/[a")))
    assert len(find(conn, "[a")) == 1
    assert find(conn, "*a" * 200 + "b") == []


@pytest.mark.parametrize(
    ("base", "records", "removed", "words"),
    [
        *(
            (base, records, [], words)
            for base in (None, "s1")
            for records, words in (
                ([file(b"etc/passwd")], "outside the roots"),
                ([file(b"srv/none/a")], "no folder"),
                ([file(b"srv/file/a")], "no folder"),
                ([file(b"srv/file"), file(b"srv/file/a")], "no folder"),
                ([file(b"srv/dir"), file(b"srv/dir/x", size=3)], "no folder"),
                ([file(b"srv/deep/er/est/a")], "no folder"),
            )
        ),
        ("s1", [], [b"etc"], "outside the roots"),
        ("s1", [file(b"srv/dir/a")], [b"srv/dir"], "no folder"),
        ("s1", [file(b"srv/dir/x", size=3)], [b"srv/dir"], "no folder"),
    ],
)
def test_a_segment_that_makes_no_tree_is_refused_and_leaves_nothing(conn, base, records, removed, words):
    wanted = tree(file(b"srv/file", size=5), file(b"srv/dir/x"), file(b"srv/deep/er/x"))
    take(conn, make_set("s1"), wanted)
    record = make_set("s2")
    index.add_set(conn, record)
    before = everything(conn)
    # In a full listing, what is there before has to be said.
    said = (
        [] if base else [folder(b"srv"), *([] if any(r.path == b"srv/file" for r in records) else [file(b"srv/file")])]
    )
    with pytest.raises(DataDamaged, match=words):
        index.ingest(conn, SegmentReader(raw_segment(record, [*said, *records], removed, base)))
    assert everything(conn) == before
    assert listing(conn, "s1") == wanted


def test_a_root_may_not_lie_below_what_is_no_folder(conn):
    record = make_set("s1", roots=(b"usr/share",))
    index.add_set(conn, record)
    with pytest.raises(DataDamaged, match="root lies below"):
        index.ingest(conn, SegmentReader(raw_segment(record, [file(b"usr"), folder(b"usr/share")])))


def test_a_segment_of_another_chain_or_of_an_unknown_set_is_refused(conn):
    index.add_set(conn, make_set("s1"))
    with pytest.raises(DataDamaged, match="another chain"):
        index.ingest(conn, full(make_set("s1", roots=(b"etc",)), {}))
    with pytest.raises(NotFound):
        index.ingest(conn, full(make_set("s2"), {}))


def test_a_missing_base_is_said_so_that_a_full_listing_can_be_asked_for(conn):
    first = tree(file(b"srv/a"))
    index.add_set(conn, make_set("s0"))
    index.add_set(conn, make_set("other", roots=(b"srv", b"x")))
    index.ingest(conn, full(make_set("other", roots=(b"srv", b"x")), first))
    for base in ("s0", "nowhere", "other", "s1"):
        with pytest.raises(CatalogBaseMissing, match=base):
            take(conn, make_set("s1"), first, base=base, before={})
    assert take(conn, make_set("s1"), first).appeared == 2


def test_removing_what_is_removed_with_its_folder_may_be_said_or_not(conn):
    before = tree(file(b"srv/d/a"), file(b"srv/d/e/b"), file(b"srv/z"))
    after = tree(file(b"srv/z"))
    take(conn, make_set("s1"), before)
    for name, removed in {
        "s2": [b"srv/d"],
        "s3": [b"srv/d", b"srv/d/a", b"srv/d/e", b"srv/d/e/b", b"srv/none"],
    }.items():
        record = make_set(name)
        index.add_set(conn, record)
        index.ingest(conn, SegmentReader(raw_segment(record, [], removed, base="s1")))
        assert listing(conn, name) == after


def test_a_folder_that_becomes_a_file_loses_what_it_held(conn):
    before = tree(file(b"srv/d/a"), file(b"srv/d/e/b"))
    take(conn, make_set("s1"), before)
    record = make_set("s2")
    index.add_set(conn, record)
    index.ingest(conn, SegmentReader(raw_segment(record, [file(b"srv/d")], [], base="s1")))
    assert listing(conn, "s2") == tree(file(b"srv/d"))
    assert listing(conn, "s1") == before


def test_a_large_folder_is_compared_page_by_page_and_taken_in_over_many_slices(conn, monkeypatch):
    monkeypatch.setattr(changes_module, "SLICE", 100)
    first = tree(*(file(b"srv/flat/%04d" % n) for n in range(0, 3000, 2)), file(b"srv/gone/x/y"))
    second = tree(*(file(b"srv/flat/%04d" % n, size=n % 7) for n in range(0, 3000, 3)))
    take(conn, make_set("s1"), first)
    take(conn, make_set("s2"), second)
    take(conn, make_set("s3"), first, base="s1", before=first)
    take(conn, make_set("s4"), second, base="s3", before=first)
    assert listing(conn, "s1") == listing(conn, "s3") == first
    assert listing(conn, "s2") == listing(conn, "s4") == second
    assert len(find(conn, "*flat*", limit=10_000)) == 2001


def test_nothing_is_seen_between_slices_and_all_of_it_can_be_taken_back(conn, monkeypatch):
    monkeypatch.setattr(changes_module, "SLICE", 3)
    monkeypatch.setattr(walk, "RUN", 2)
    first = tree(*(file(b"srv/d%d/f%d" % (n % 4, n)) for n in range(20)))
    second = tree(*(file(b"srv/d%d/g%d" % (n % 4, n)) for n in range(20)), file(b"srv/d1/f1", size=99))
    take(conn, make_set("s1"), first)
    index.add_set(conn, make_set("s2"))
    kept = conn.execute("SELECT * FROM block").fetchall()
    for segment in (full(make_set("s2"), second), changes(make_set("s2"), "s1", first, second)):
        work, steps = index.Ingest(segment), 0
        while steps < 8 and work.step(conn) is None:
            steps += 1
            assert listing(conn, "s1") == first
            assert {m.path for m in find(conn, "*")} == set(first)
            assert index.versions(conn, "node-a", b"srv/d1/f1") == [index.Version(first[b"srv/d1/f1"], "s1", "s1", 1)]
            assert not index.has_detail(conn, "s2")
        assert steps == 8
        index.abandon_all(conn)
        assert conn.execute("SELECT * FROM block").fetchall() == kept
        assert rows(conn, "pending") == 0
        with pytest.raises(index.SliceLost):
            work.step(conn)
    assert not index.ingest(conn, full(make_set("s2"), second)).repeated
    assert listing(conn, "s2") == second


def test_removing_a_set_removes_what_only_it_had_and_joins_what_it_parted(conn):
    a, b = tree(file(b"srv/x", size=1)), tree(file(b"srv/x", size=2), file(b"srv/only/here"))
    take(conn, make_set("s1", ended=1), a)
    take(conn, make_set("s2", ended=2), b)
    take(conn, make_set("s3", ended=3), a)
    index.remove_set(conn, "s2")
    assert [v.sets for v in index.versions(conn, "node-a", b"srv/x")] == [2]
    assert find(conn, "*here*") == []
    assert index.versions(conn, "node-a", b"srv/only/here") == []
    assert conn.execute("SELECT name FROM folder WHERE parent != 0").fetchall() == [(b"srv",)]
    with pytest.raises(NotFound):
        index.list_folder(conn, "s2", b"")
    index.remove_set(conn, "s3")
    assert take(conn, make_set("s4"), a).appeared == 0
    with pytest.raises(CatalogBaseMissing):
        take(conn, make_set("s5"), b, base="s3", before=a)


def test_the_index_of_names_is_built_anew_when_most_names_are_gone(conn):
    take(conn, make_set("s1"), tree(*(file(b"srv/%05d" % n) for n in range(12_000)), file(b"srv/stays")))
    take(conn, make_set("s2"), tree(file(b"srv/stays")))
    assert not index.names_want_rebuild(conn)
    index.remove_set(conn, "s1")
    assert index.names_want_rebuild(conn)
    index.rebuild_names(conn)
    assert not index.names_want_rebuild(conn)
    assert rows(conn, "name_block") == 2
    assert [match.path for match in find(conn, "stay*")] == [b"srv/stays"]


def test_a_pattern_never_needs_long_whatever_its_stars(conn):
    """Stars are possessive in the standard library's translation (since 3.11), which is what this rests on."""
    assert "(?>" in fnmatch.translate("*a*b")
    take(conn, make_set("s1"), tree(file(b"srv/" + b"a" * 250)))
    assert find(conn, "*a*a*a*a*a*a*a*a*a*a*a*a*b") == []


def test_a_folder_of_one_source_is_not_taken_for_a_gone_one_of_another(conn):
    """Ids of folders were given again; a note about a gone folder then led to the removal of a stranger's."""
    take(conn, make_set("a1"), tree(file(b"srv/x/y/f")))
    take(conn, make_set("a2"), tree(folder(b"srv")))
    take(conn, make_set("a3"), tree(folder(b"srv"), file(b"srv/z")))
    index.remove_set(conn, "a1")
    take(conn, make_set("b1", source="node-b"), tree(file(b"srv/f")))
    index.remove_set(conn, "a2")
    index.remove_set(conn, "a3")
    assert listing(conn, "b1") == tree(file(b"srv/f"))


def test_a_search_may_ask_for_type_time_of_change_and_letters_of_any_case(conn):
    link = CatalogEntry(b"srv/Report", EntryType.SYMLINK, 5, (2000, 7), 0o777)
    wanted = tree(file(b"srv/REPORT.txt", modified=(2000, 5)), link, file(b"srv/old/report", modified=(1000, 0)))
    wanted |= tree(file("srv/ÄRGER.txt".encode()), file(b"srv/\xc4rger.txt"))
    take(conn, make_set("s1"), wanted)
    found = lambda glob, **bounds: [match.path for match in find(conn, glob, **bounds)]
    assert found("report*") == [b"srv/old/report"]
    assert found("report*", ignore_case=True) == [b"srv/REPORT.txt", b"srv/Report", b"srv/old/report"]
    assert found("r*rt", ignore_case=True) == [b"srv/Report", b"srv/old/report"]
    assert found("*ärger.txt", ignore_case=True) == ["srv/ÄRGER.txt".encode()]
    assert found("?rger*", ignore_case=True) == ["srv/ÄRGER.txt".encode(), b"srv/\xc4rger.txt"]
    assert found("*TXT", ignore_case=True) == [b"srv/REPORT.txt", "srv/ÄRGER.txt".encode(), b"srv/\xc4rger.txt"]
    assert found("*/OLD/*", ignore_case=True) == [b"srv/old/report"]
    assert found("*LD/*ORT", ignore_case=True) == [b"srv/old/report"]
    assert found("*", type=EntryType.SYMLINK) == found("Rep*", type=EntryType.SYMLINK) == [b"srv/Report"]
    assert found("*", type=EntryType.DIRECTORY) == [b"srv", b"srv/old"]
    files = {"type": EntryType.FILE, "ignore_case": True}
    assert found("rep*", modified_since=(2000, 5), **files) == found("rep*", modified_since=(1000, 1), **files)
    assert found("rep*", modified_since=(2000, 5), **files) == [b"srv/REPORT.txt"]
    assert found("rep*", modified_until=(2000, 4), **files) == [b"srv/old/report"]
    assert found("rep*", modified_since=(2000, 6), **files) == []


def test_a_search_that_takes_too_long_is_cut_off_and_says_so(conn):
    take(conn, make_set("s1"), tree(*(file(b"srv/f%05d" % number) for number in range(30_000))))
    asked = []

    def is_over() -> bool:
        asked.append(1)
        return len(asked) > 3

    for glob in ("?", "*7*"):
        asked.clear()
        found = index.find(conn, glob, limit=100_000, is_over=is_over)
        assert found.is_cut_off and len(asked) <= 5 and len(found.matches) < 10_000
    assert not index.find(conn, "f00017", is_over=lambda: True).is_cut_off  # quicker than anybody looks at the clock
    assert len(find(conn, "*7*", limit=100_000)) == 10_317


@pytest.mark.parametrize(("first_folders", "count"), [(500, 2000), (3, 0), (40, 0)])
def test_a_search_goes_on_behind_any_place_whichever_way_it_takes(conn, monkeypatch, first_folders, count):
    """By the index alone, through some folders first, or through all; with blocks that are fetched ahead, too many or not."""
    monkeypatch.setattr(in_order, "_AHEAD", 3)
    monkeypatch.setattr(blocks, "_MANY", 2)
    monkeypatch.setattr(search, "_FIRST_FOLDERS", first_folders)
    monkeypatch.setattr(search, "_COUNT", count)
    for node in ("node-a", "node-b"):
        wanted = tree(*(file(b"srv/%s/%d.d/report-%d" % (b"ab"[n % 2 :][:1], n % 7, n)) for n in range(60)))
        wanted |= tree(*(file(b"srv/reports/deep/%d/x" % n) for n in range(40)), file(b"srv/report", size=7))
        take(conn, make_set(f"{node}-1", source=node, ended=1), wanted)
        again = wanted | tree(file(b"srv/b-report"))
        take(conn, make_set(f"{node}-2", source=node, ended=2, filters=b"others"), again)
    for glob in ("*report*", "report*", "*/reports/*", "?", "*.d/*"):
        whole = find(conn, glob)
        places = [(match.source, path_key(match.path)) for match in whole]
        assert places == sorted(places) and len({*places}) == len(places) > 40
        assert {match.set for match in whole} == {"node-a-2", "node-b-2"}
        for at in range(0, len(whole), 5):
            after = (whole[at].source, whole[at].path)
            assert find(conn, glob, after=after, limit=6) == whole[at + 1 : at + 7]
        behind = [match for match in whole if places[whole.index(match)] > ("node-b", b"srv\x00a\xff")]
        assert find(conn, glob, after=("node-b", b"srv/a\xff")) == behind


def test_a_search_that_was_cut_off_goes_on_where_it_got_to_and_misses_nothing(conn, monkeypatch):
    monkeypatch.setattr(search, "_LOOK_EACH", 10)
    take(conn, make_set("s1"), tree(*(file(b"srv/d%03d/f%d" % (n % 200, n)) for n in range(1000)), file(b"srv/f")))
    found, after, rounds = list[index.Match](), None, 0
    while True:
        looks = itertools.count()
        step = index.find(conn, "f*[05]", after=after, limit=10_000, is_over=lambda: next(looks) > 0)  # noqa: B023
        found += step.matches
        if not step.is_cut_off:
            break
        assert step.reached is not None and step.reached != after
        after, rounds = step.reached, rounds + 1
    assert rounds >= 9
    assert found == find(conn, "f*[05]") and len(found) == 200
