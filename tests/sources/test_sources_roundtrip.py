from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_trees import copy, put, walk

from caso_mesh.model.entries import path_key
from caso_mesh.sources.compare import differences

names = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"/", b"~").replace(b"\x00", b"!"))
names = names.filter(lambda name: name not in {b".", b".."})
modes = st.integers(0, 0o7777)
moments = st.integers(-(2**31), 2**33).flatmap(
    lambda s: st.integers(0, 999_999_999).map(lambda ns: s * 1_000_000_000 + ns)
)
parts = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=200)), max_size=3)
leaves = st.one_of(
    st.tuples(st.just("file"), parts, modes, moments),
    st.tuples(st.just("link"), names, modes, moments),
    st.tuples(st.just("pipe"), names, modes, moments),
    st.tuples(st.just("same"), st.integers(0, 50), modes, moments),
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(names, st.one_of(leaves, below), max_size=5),
    max_leaves=25,
)


def build(folder: bytes, tree: dict, made: list[bytes]) -> None:
    os.mkdir(folder)
    for name, what in tree.items():
        path = folder + b"/" + name
        if isinstance(what, dict):
            build(path, what, made)
            continue
        kind, argument, mode, moment = what
        if kind == "same" and made:
            os.link(made[argument % len(made)], path, follow_symlinks=False)
            made.append(path)
            continue
        made.append(path)
        if kind == "link":
            os.symlink(argument, path)
        elif kind == "pipe":
            os.mkfifo(path)
            os.chmod(path, mode | 0o400)
        else:
            with open(path, "wb") as file:
                for offset, data in argument if kind == "file" else ():
                    file.seek(offset)
                    file.write(data)
            os.chmod(path, mode | 0o400)
        os.utime(path, ns=(moment, moment), follow_symlinks=False)


@settings(max_examples=60, deadline=None, database=None)
@given(trees)
def test_any_tree_comes_back_as_it_was(tree: dict) -> None:
    with tempfile.TemporaryDirectory(prefix="caso-sources-") as folder:
        place = os.fsencode(folder)
        build(place + b"/from", tree, [])
        keys = [path_key(walked.entry.path) for walked in walk(place + b"/from")]
        assert keys == sorted(keys)
        assert not copy(place + b"/from", place + b"/to").exceptions
        assert list(differences(place + b"/from", place + b"/to", holes=True)) == []


def change_nothing(path: bytes) -> None:
    """The control: no change, no difference."""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_nothing, []),
        (lambda f: put(f, b"54321"), ["content of 'f'"]),
        (lambda f: put(f, b"123456"), ["size of 'f'"]),
        (lambda f: put(f, b"12345", modified=7), ["modification time of 'f'"]),
        (lambda f: os.chmod(f, 0o600), ["mode of 'f'"]),
        (os.unlink, ["missing: 'f'"]),
        (lambda f: put(f + b"2"), ["added: 'f2'"]),
        (lambda f: os.setxattr(f, b"user.a", b"1"), ["xattr 'user.a' of 'f'"]),
        (lambda f: (os.unlink(f), os.symlink(b"12345", f)), ["type of 'f'"]),
    ],
)
def test_each_difference_is_told(place: bytes, change: Callable[[bytes], object], told: list[str]) -> None:
    os.mkdir(place + b"/from")
    put(place + b"/from/f", b"12345")
    copy(place + b"/from", place + b"/to")
    change(place + b"/to/f")
    found = [
        line.partition(": ")[0] if " of " in line else line
        for line in differences(place + b"/from", place + b"/to", top=False)
    ]
    assert found == told


def test_what_is_a_link_of_what_is_a_difference(place: bytes) -> None:
    for tree, second in ((b"/from", b"a"), (b"/to", b"c")):
        os.mkdir(place + tree)
        for name in (b"a", b"c"):
            put(place + tree + b"/" + name)
        os.link(place + tree + b"/" + second, place + tree + b"/d")
    assert list(differences(place + b"/from", place + b"/to", top=False)) == ["hard link of 'd': b'a', b'c'"]


def test_holes_and_flags_are_compared_when_asked(place: bytes) -> None:
    for tree in (b"/from", b"/to"):
        os.mkdir(place + tree)
    put(place + b"/to/f", bytes(1 << 20))
    with open(place + b"/from/f", "wb") as file:
        file.truncate(1 << 20)
    with next(w for w in walk(place + b"/from/f")).open() as opened:
        if opened.extents():
            pytest.skip("this file system does not tell holes")
    assert list(differences(place + b"/from", place + b"/to", top=False, times=False)) == []
    [told] = differences(place + b"/from", place + b"/to", top=False, times=False, holes=True)
    assert told.startswith("holes of 'f'")
