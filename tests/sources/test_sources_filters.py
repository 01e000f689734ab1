from __future__ import annotations

import pytest

from caso_mesh.model.errors import InvalidValue
from caso_mesh.sources.filters import Filters, Matcher, merged_roots, normal_path


def matcher(*patterns: str, roots: tuple[bytes, ...] = (b"/",), **filters) -> Matcher:
    return Matcher(Filters(excludes=patterns, **filters), roots)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.o", b"/src/a.o", True),
        ("*.o", b"/src/a.obj", False),
        ("*.o", b"/src.o/a", False),
        ("c*e", b"/cache/some", False),
        ("c*e", b"/some/cache", True),
        ("*c*e*", b"/a/c/e/f", True),
        ("*a*a*a*a*a*a*a*a*a*a*b", b"/" + b"a" * 4000, False),
        ("cache", b"/home/u/cache", True),
        ("cache", b"/home/u/cached", False),
        ("/home/*/cache", b"/home/u/deep/cache", True),
        ("/home/*/cache", b"/srv/home/u/cache", False),
        ("build/*.o", b"/src/build/x/y.o", True),
        ("build/*.o", b"/src/rebuild/y.o", False),
        ("a?c", b"/abc", True),
        ("a?c", "/aüc".encode(), True),
        ("a?c", b"/a\xffc", True),
        ("a?c", b"/ac", False),
        ("[a-c]x", b"/bx", True),
        ("[!a-c]x", b"/bx", False),
        ("[!a-c]x", b"/dx", True),
        ("[]]", b"/]", True),
        ("[ä-ü]", "/ö".encode(), True),
        ("[", b"/[", True),
        ("[z-a]", b"/m", False),
        ("new*line", b"/new\nline", True),
        ("caf\udce9", b"/caf\xe9", True),
        ("(a+)+$", b"/(a+)+$", True),
    ],
)
def test_a_pattern_matches_as_the_manual_says(pattern: str, path: bytes, matches: bool) -> None:
    assert matcher(pattern).excluded(path, is_dir=False) is matches


def test_a_pattern_that_ends_in_a_slash_is_for_folders_only() -> None:
    assert matcher("tmp/").excluded(b"/a/tmp", is_dir=True)
    assert not matcher("tmp/").excluded(b"/a/tmp", is_dir=False)


@pytest.mark.parametrize("pattern", ["", "/", "//"])
def test_a_pattern_that_would_leave_out_everything_by_mistake_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidValue):
        matcher(pattern)


def test_default_excludes_empty_the_kernels_folders_and_keep_the_folders_themselves() -> None:
    default = matcher()
    for folder in (b"/proc", b"/sys", b"/run", b"/dev"):
        assert not default.excluded(folder, is_dir=True)
        assert default.emptied(folder)
        assert default.excluded(folder + b"/anything", is_dir=False)
    assert default.excluded(b"/swapfile", is_dir=False)
    assert not default.excluded(b"/lost+found", is_dir=True)
    assert not default.excluded(b"/running/x", is_dir=False)
    assert not matcher(default_excludes=False).excluded(b"/proc/1", is_dir=True)


def test_a_root_inside_a_folder_of_the_default_excludes_was_asked_for_and_is_read() -> None:
    assert not matcher(roots=(b"/dev/shm/data",)).excluded(b"/dev/shm/data/x", is_dir=False)
    assert matcher(roots=(b"/dev/shm/data",)).excluded(b"/proc/1", is_dir=False)


def test_own_paths_and_all_below_are_left_out_even_as_a_root() -> None:
    own = matcher(own_paths=(b"/var/lib/caso-mesh/",), roots=(b"/var/lib/caso-mesh/catalog",))
    assert own.excluded(b"/var/lib/caso-mesh", is_dir=True)
    assert own.excluded(b"/var/lib/caso-mesh/catalog", is_dir=True)
    assert not own.excluded(b"/var/lib/caso-mesh2", is_dir=True)


def test_the_digest_tells_whatever_changes_what_is_read_and_nothing_else() -> None:
    roots = [b"/a", b"/b"]
    plain = Filters(excludes=("x", "y"))
    same = [
        plain.digest([b"/b/", b"//a", b"/a/inside"]),
        Filters(excludes=("y", "x", "x")).digest(roots),
        Filters(excludes=("x", "y"), own_paths=(b"/var/lib/caso-mesh",)).digest(roots),
    ]
    assert set(same) == {plain.digest(roots)}
    assert len(plain.digest(roots)) == 32
    others = [
        plain.digest([b"/a"]),
        Filters(excludes=("x",)).digest(roots),
        Filters(excludes=("x", "y"), one_file_system=True).digest(roots),
        Filters(excludes=("x", "y"), exclude_caches=True).digest(roots),
        Filters(excludes=("x", "y"), larger_than=5).digest(roots),
        Filters(excludes=("x", "y"), default_excludes=False).digest(roots),
    ]
    assert len({*others, plain.digest(roots)}) == len(others) + 1


def test_roots_are_normal_sorted_in_path_order_and_merged() -> None:
    assert merged_roots([b"/a-b", b"/a/c", b"/a", b"/a//", b"/a/./c/d"]) == [b"/a", b"/a-b"]
    assert merged_roots([b"/a", b"/"]) == [b"/"]
    assert merged_roots([b"/a-b", b"/a/c", b"/a"], nested=True) == [b"/a", b"/a/c", b"/a-b"]


@pytest.mark.parametrize("path", [b"relative", b"", b"/a/../b", b"/a\x00b"])
def test_a_path_that_is_not_absolute_or_ambiguous_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidValue):
        normal_path(path)
