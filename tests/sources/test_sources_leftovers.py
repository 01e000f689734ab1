"""What a killed restore left beside the files is gone after the next one, and what a living one writes stays."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

from source_trees import ALWAYS, Report, copy, put

from caso_mesh.model.entries import Entry, EntryType
from caso_mesh.sources.writer import TreeTarget

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
