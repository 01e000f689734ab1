"""What a restore has written goes to disk while it goes on."""

from __future__ import annotations

import errno
import os
import threading

from source_trees import ALWAYS, Report
from test_sources_restore import file_entry
from waiting import wait_for

from caso_mesh.sources import linux, settling
from caso_mesh.sources.settling import Settling
from caso_mesh.sources.writer import TreeTarget


def at_work() -> bool:
    return any(thread.name == "settling" for thread in threading.enumerate())


def test_it_is_brought_to_disk_each_time_that_enough_has_come():
    synced = []
    work = Settling(lambda: synced.append(threading.current_thread().name))
    work.wrote(settling.EVERY_BYTES - 1)
    assert not at_work()
    for number in (1, 2):
        work.wrote(settling.EVERY_BYTES)
        wait_for(lambda number=number: len(synced) == number)
    work.close()
    assert set(synced) == {"settling"}
    assert not at_work()


def test_nothing_is_begun_once_it_is_closed():
    work = Settling(lambda: None)
    work.close()
    work.wrote(settling.EVERY_BYTES)
    assert not at_work()


def test_a_disk_that_fails_while_files_are_made_is_told_of(place, monkeypatch):
    """The kernel tells of a failed write once: whoever asks in between must not keep it to himself."""
    monkeypatch.setattr(settling, "EVERY_BYTES", 3)
    asked = threading.Event()

    def fails_once(fd):
        if not asked.is_set():
            asked.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(linux, "syncfs", fails_once)
    report = Report()
    target = TreeTarget(place, ALWAYS, on_exception=report.exceptions.append)
    for number in range(3):
        entry = file_entry(b"f%d" % number)
        assert target.begin(entry)
        target.put(entry, b"new")
    wait_for(asked.is_set)
    target.close()
    assert [each.reason for each in report.exceptions] == ["not-on-disk"]
