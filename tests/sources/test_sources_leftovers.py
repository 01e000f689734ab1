"""What a killed restore left beside the files is gone after the next one, and what a living one writes stays."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys

import pytest
from source_trees import ALWAYS, Report, copy, put

from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.model.states import Overwrite
from caso_mesh.sources.compare import differences
from caso_mesh.sources.writer import RestoreOptions, TreeTarget

NEVER = RestoreOptions(Overwrite.NEVER)
NOBODY = 0xFFFFFFFF

KILLED = """
import os, signal, sys
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.sources.writer import RestoreOptions, TreeTarget

def entry(path, type, **more):
    return Entry(path=path, type=type, mode=0o644, uid=os.getuid(), gid=os.getgid(), modified=(1, 0), **more)

tree = TreeTarget(os.fsencode(sys.argv[1]), RestoreOptions(), on_exception=print)
for name in (b"a", b"d/b"):
    assert tree.begin(entry(name, EntryType.FILE, size=5))
    tree.write(name, 0, b"half")
assert tree.begin(entry(b"link", EntryType.SYMLINK, link_target=b"a"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_restore_removes_what_a_killed_one_left(place: bytes) -> None:
    os.makedirs(place + b"/from/d")
    put(place + b"/from/a")
    put(place + b"/from/d/b")
    to = place + b"/to"
    done = subprocess.run([sys.executable, "-c", KILLED, os.fsdecode(to)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-9, "", "")
    assert len(os.listdir(to)) == 3  # the folder, and two names that are none of the tree's
    assert len(os.listdir(to + b"/d")) == 1
    assert not copy(place + b"/from", to, ALWAYS).exceptions
    assert sorted(os.listdir(to)) == [b"a", b"d"]
    assert os.listdir(to + b"/d") == [b"b"]


def test_a_restore_leaves_alone_what_another_one_writes_now(place: bytes) -> None:
    os.mkdir(place + b"/from")
    put(place + b"/from/a")
    report = Report()
    one = TreeTarget(place + b"/to", ALWAYS, on_exception=report.exceptions.append)
    other = Entry(path=b"b", type=EntryType.FILE, mode=0o644, uid=os.getuid(), gid=os.getgid(), modified=(1, 0), size=3)
    assert one.begin(other)
    one.write(b"b", 0, b"now")
    assert not copy(place + b"/from", place + b"/to", ALWAYS).exceptions
    one.finish(other)
    one.close()
    assert not report.exceptions
    assert sorted(os.listdir(place + b"/to")) == [b"a", b"b"]
    assert stat.S_IMODE(os.stat(place + b"/to/b").st_mode) == 0o644


KILLED_AT_ONCE = """
import os, signal, sys
from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.sources import writer

tree = writer.TreeTarget(os.fsencode(sys.argv[1]), writer.RestoreOptions(), on_exception=print)
for name in (b"a", b"other", b"d/b"):
    entry = Entry(path=name, type=EntryType.FILE, mode=0o644, uid=os.getuid(), gid=os.getgid(), modified=(1, 0), size=5)
    assert tree.begin(entry)
    if name != b"d/b":
        tree.put(entry, b"whole")
tree._apply.file = lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL)
tree.put(entry, b"whole")
"""


def test_a_file_that_a_killed_restore_was_making_under_its_own_name_is_removed_by_the_next_one(place: bytes) -> None:
    """Small files are made without a temporary name; whatever the overwrite rule, half a one is never taken for whole."""
    os.makedirs(place + b"/from/d")
    put(place + b"/from/a")
    put(place + b"/from/d/other")
    to = place + b"/to"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_ONCE, os.fsdecode(to)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-9, "", "")
    assert os.listdir(to + b"/d") == [b"b"]
    assert stat.S_IMODE(os.stat(to + b"/d/b").st_mode) & 0o777 == stat.S_IWUSR
    assert not copy(place + b"/from", to, NEVER).exceptions
    assert sorted(os.listdir(to)) == [b"a", b"d", b"other"]
    assert os.listdir(to + b"/d") == [b"other"]
    with open(to + b"/a", "rb") as file:
        assert file.read() == b"whole"


def test_where_a_folder_decides_about_modes_files_are_made_beside_their_name(place: bytes) -> None:
    """An inherited ACL takes from the owner what marks a file that is not whole yet."""
    acl = struct.pack("<I" + "HHI" * 3, 2, 1, 4, NOBODY, 4, 0, NOBODY, 32, 0, NOBODY)
    os.mkdir(place + b"/to")
    try:
        os.setxattr(place + b"/to", b"system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    os.mkdir(place + b"/from")
    for name in (b"/a", b"/b"):
        put(place + b"/from" + name)
    assert not copy(place + b"/from", place + b"/to", ALWAYS).exceptions
    assert list(differences(place + b"/from", place + b"/to")) == []
