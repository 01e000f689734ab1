"""What selection lists name of the file systems of servers, and how old the backups of lists may be."""

from __future__ import annotations

from typing import Any

import pytest

from caso_mesh.control.ageing import allowed_age
from caso_mesh.control.coverage import Named, cover, is_backup_disk
from caso_mesh.control.state import ControlState
from caso_mesh.model.jobs import BackupSpec, CronSchedule, Job, Origin, SourceRoots, Target, TargetKind
from caso_mesh.model.policies import NEVER_TOO_OLD_S, SelectionList
from caso_mesh.model.resources import FileSystem

DAY_S, HOUR_S = 86400.0, 3600.0
#: Wednesday 2025-01-08, noon in UTC.
NOW = 1_736_337_600 * 1_000_000_000


@pytest.mark.parametrize(
    ("path", "places", "wholly", "partly"),
    [
        (b"srv", [Named(b"srv", "a")], {"a"}, set()),
        (b"srv", [Named(b"", "a")], {"a"}, set()),
        (b"", [Named(b"", "a", one_file_system=True)], {"a"}, set()),
        (b"srv", [Named(b"", "a", one_file_system=True)], set(), set()),
        (b"srv", [Named(b"srv/www", "a")], set(), {"a"}),
        (b"", [Named(b"etc", "a")], set(), {"a"}),
        (b"srv", [Named(b"srv2", "a"), Named(b"sr", "b")], set(), set()),
        (b"srv", [Named(b"srv", "a", whole=False)], set(), {"a"}),
        (b"srv", [Named(b"srv", "a"), Named(b"srv/x", "b"), Named(b"srv/y", "a")], {"a"}, {"b"}),
    ],
)
def test_a_file_system_is_covered_by_what_names_it_or_a_folder_above_it(
    path: bytes, places: list[Named], wholly: set[str], partly: set[str]
) -> None:
    assert cover(FileSystem(path, "ext4"), places) == (wholly, partly)


def test_a_disk_that_holds_a_device_is_there_for_backups() -> None:
    assert is_backup_disk(FileSystem(b"mnt/usb", "ext4"), [b"/mnt/usb"])
    assert is_backup_disk(FileSystem(b"mnt/usb", "ext4"), [b"/mnt/usb/vault"])
    assert not is_backup_disk(FileSystem(b"srv", "ext4"), [b"/srv/other/vault", b"/srv2"])
    assert not is_backup_disk(FileSystem(b"", "ext4"), [b"/vault"]), "the root holds more than that"


def listed(**fields: Any) -> SelectionList:
    return SelectionList("l", "home", (), "ann", 0, **fields)


def job(cron: str, **fields: Any) -> Job:
    spec = BackupSpec((SourceRoots("s", (b"srv",)),), Target(TargetKind.ANY))
    return Job(
        f"j-{cron}", cron, spec, "ann", 0, schedule=CronSchedule(cron, "UTC", **fields), origin=Origin("p", "l", "t")
    )


@pytest.mark.parametrize(
    ("jobs", "seconds"),
    [
        ([job("0 2 * * *")], 2 * DAY_S + 4 * HOUR_S),
        ([job("0 2 * * *", start_window_s=HOUR_S)], 2 * DAY_S + HOUR_S),
        ([job("0 2 * * 1-5")], 6 * DAY_S + 4 * HOUR_S),
        ([job("0 2 * * 1-5"), job("0 2 * * 0,6")], 2 * DAY_S + 4 * HOUR_S),
        ([job("0 2 1 * *")], 62 * DAY_S + 4 * HOUR_S),
        ([job("0 * * * *")], 2 * HOUR_S + 4 * HOUR_S),
        ([job("0 2 * * *", excludes=("2025-01-01..2025-01-20",))], 42 * DAY_S + 4 * HOUR_S),
    ],
    ids=["nightly", "short window", "workdays", "two templates", "monthly", "hourly", "holiday"],
)
def test_without_a_word_a_backup_may_be_as_old_as_its_schedules_promise(jobs: list[Job], seconds: float) -> None:
    allowed = allowed_age(ControlState(), listed(), jobs, NOW)
    assert allowed.seconds == seconds
    assert "between due times" in allowed.origin


def test_what_was_set_for_a_list_goes_before_its_schedules() -> None:
    state, jobs = ControlState(), [job("0 2 * * *")]
    assert allowed_age(state, listed(oldest_good_s=60.0), jobs, NOW).seconds == 60.0
    assert allowed_age(state, listed(oldest_good_s=NEVER_TOO_OLD_S), jobs, NOW).seconds is None
    assert allowed_age(state, listed(), [], NOW).seconds is None
    once = Job("o", "once", jobs[0].spec, "ann", 0, schedule=CronSchedule("", "UTC", at_ns=NOW))
    assert allowed_age(state, listed(), [once], NOW).seconds is None
