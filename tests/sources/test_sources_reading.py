from __future__ import annotations

import os

import pytest
from source_trees import MODIFIED, put, walk

from caso_mesh.sources.reasons import Unreadable
from caso_mesh.sources.walked import Walked


def only(path: bytes) -> Walked:
    [walked] = walk(path)
    return walked


def test_a_file_is_read_at_any_offset(place: bytes) -> None:
    walked = only(put(place + b"/f", b"0123456789"))
    with walked.open() as file:
        data = bytearray(4)
        assert [file.read_into(data, at) for at in (0, 8, 10, 99)] == [4, 2, 0, 0]
        assert file.extents() == [(0, 10)]
        assert not file.changed()


def test_holes_are_told_from_data(place: bytes) -> None:
    path = place + b"/sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
        for offset in (1 << 20, 1 << 39):
            file.seek(offset)
            file.write(b"x" * 65536)
    with only(path).open() as opened:
        found = opened.extents()
    if found == [(0, 1 << 40)]:
        pytest.skip("this file system does not tell holes")
    assert found == [(1 << 20, 65536), (1 << 39, 65536)]
    with open(place + b"/hole", "wb") as file:
        file.truncate(1 << 20)
    with only(place + b"/hole").open() as opened:
        assert opened.extents() == []
        assert opened.extents(10) == []


def test_a_file_that_grows_is_read_to_its_size_at_opening_and_reported(place: bytes) -> None:
    path = put(place + b"/f", b"12345")
    with only(path).open() as file:
        with open(path, "ab") as writer:
            writer.write(b"67890")
        data = bytearray(100)
        assert file.read_into(data, 0) == 5
        change = file.change()
    assert change is not None
    assert (change.reason, change.detail) == ("changed-while-read", "grew from 5 to 10 bytes")


def test_a_file_that_grew_before_it_was_opened_is_read_whole_and_reported(place: bytes) -> None:
    path = put(place + b"/f", b"12345")
    walked = only(path)
    with open(path, "ab") as writer:
        writer.write(b"67890")
    with walked.open() as file:
        assert file.size == 10
        assert file.changed()


def test_a_file_that_shrinks_ends_early_and_is_reported(place: bytes) -> None:
    path = put(place + b"/f", bytes(100_000))
    with only(path).open() as file:
        os.truncate(path, 10)
        assert file.read_into(bytearray(100_000), 0) == 10
        os.truncate(path, 100_000)  # even if it has its old size again
        change = file.change()
    assert change is not None
    assert change.detail == "shrank from 100000 to 10 bytes"


def test_a_write_of_the_same_size_is_noticed_even_with_the_old_time_set_again(place: bytes) -> None:
    path = put(place + b"/f", b"12345")
    with only(path).open() as file:
        put(path, b"54321")
        assert os.stat(path).st_mtime_ns == MODIFIED
        assert file.changed()


@pytest.mark.parametrize("into", ["nothing", "file", "link", "pipe", "folder"])
def test_what_has_gone_or_was_replaced_is_not_read(place: bytes, into: str) -> None:
    walked = only(put(place + b"/f", b"secret"))
    os.rename(place + b"/f", place + b"/moved")
    match into:
        case "file":
            put(place + b"/f", b"other")
        case "link":
            os.symlink(b"moved", place + b"/f")
        case "pipe":
            os.mkfifo(place + b"/f")
        case "folder":
            os.mkdir(place + b"/f")
    with pytest.raises(Unreadable) as caught:
        walked.open()
    assert caught.value.exception.path == place[1:] + b"/f"
    assert caught.value.exception.reason == ("vanished" if into == "nothing" else "replaced-while-read")


def test_a_folder_on_the_way_replaced_by_a_link_leads_to_no_other_file(place: bytes) -> None:
    os.makedirs(place + b"/t/a")
    os.makedirs(place + b"/secret")
    put(place + b"/t/a/f")
    put(place + b"/secret/f", b"secret")
    walked = only(place + b"/t/a/f")
    os.rename(place + b"/t/a", place + b"/t/moved")
    os.symlink(place + b"/secret", place + b"/t/a")
    with pytest.raises(Unreadable) as caught:
        walked.open()
    assert caught.value.exception.reason == "replaced-while-read"
