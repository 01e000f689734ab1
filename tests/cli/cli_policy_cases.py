"""What commands about policies ask, and what they print."""

from __future__ import annotations

from typing import Any

from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import (
    CalendarDoc,
    DevicePoolDoc,
    EntryDoc,
    MediaSetDoc,
    PolicyDoc,
    SelectionDoc,
    TemplateDoc,
)

LISTED = SelectionDoc(
    ("files:/srv",), (EntryDoc("web:/var", ("*.tmp",)),), window="20:00-06:00", within="pool:west", oldest_good="26h"
)
SELECTION = v.SelectionView(
    "office", "l1", LISTED, ("nightly",), ("office.nightly.full",), "2025-01-01T00:00:00Z", "ann"
)
POLICY_DOC = PolicyDoc(
    {
        "full": TemplateDoc("full", to="any", schedule="fri 22:00", catch_up=True, calendars=("holidays",)),
        "check": TemplateDoc("verify"),
    },
    ("when full succeeds start check",),
    zone="Europe/Berlin",
)
POLICY = v.PolicyView("nightly", "p1", POLICY_DOC, ("office",), ("office.nightly.full",), "2025-01-01T00:00:00Z", "ann")
CALENDAR = v.CalendarView("holidays", CalendarDoc(("2025-12-24",)))
POOL = v.DevicePoolView("disks", DevicePoolDoc(("disk1:10", "disk2")))
PREVIEW = v.PreviewList(
    (
        v.PreviewRow("2025-01-10T21:00:00Z", "office.nightly.full", "full", "office", "nightly", "full", "scheduled",
                     after="office.nightly.x", starts=("when full succeeds start check",)),
        v.PreviewRow("2025-01-10T21:00:00Z", "office.nightly.daily", "incremental", "office", "nightly", "daily",
                     "superseded", by="office.nightly.full", by_due="2025-01-10T21:00:00Z"),
    ),
    more=True,
)  # fmt: skip

STORY = v.Story(
    "office", "list", "2025-01-10", "Europe/Berlin",
    (
        v.StoryRun("j@1", "office.nightly.full", "running", "2025-01-10T21:00:00Z", None,
                   (v.SetOutcome("files", None, "delegated"),)),
        v.StoryRun("j@2", "office.nightly.daily", "superseded", "2025-01-10T21:00:00Z", "2025-01-10T21:00:00Z",
                   (v.SetOutcome("files", None, "superseded"),)),
    ),
    (
        v.StoryLine("2025-01-10T21:00:01Z", "waited", "waited 1m 00s: all devices of the target are busy: dev", run="j@1",
                    name="office.nightly.full", source="files", reason="no-idle-device", seconds=60.0,
                    until="2025-01-10T21:01:01Z"),
    ),
)  # fmt: skip

CREATED = (
    "selection create office files:/srv --exclude *.o --include *.c --priority high --window 20:00-06:00 --within none "
    "--oldest-good 26h --one-file-system --no-default-excludes --exclude-larger-than 5GB --exclude-caches"
)

POLICY_CASES: list[tuple[str, str, Any, Any, list[str]]] = [
    (
        "selection list",
        "selection.list",
        q.Nothing(),
        v.SelectionViews((SELECTION,)),
        ["office", "files:/srv, web:/var"],
    ),
    (
        "selection show office",
        "selection.show",
        q.Named("office"),
        SELECTION,
        ["exclude *.tmp", "pool:west", "26h", "nightly", "office.nightly.full"],
    ),
    (
        CREATED,
        "selection.create",
        q.SelectionCreate(
            "office",
            SelectionDoc(
                ("files:/srv",),
                exclude=("*.o",),
                include=("*.c",),
                one_file_system=True,
                exclude_caches=True,
                exclude_larger_than="5GB",
                default_excludes=False,
                priority="high",
                window="20:00-06:00",
                oldest_good="26h",
            ),
        ),
        SELECTION,
        ["office"],
    ),
    ("selection rename office site", "selection.rename", q.Renamed("office", "site"), SELECTION, ["office"]),
    ("selection copy office site", "selection.copy", q.Renamed("office", "site"), SELECTION, ["office"]),
    ("selection delete office", "selection.delete", q.Named("office"), v.Done(), ["deleted"]),
    ("policy list", "policy.list", q.Nothing(), v.PolicyViews((POLICY,)), ["nightly", "full, check", "office"]),
    (
        "policy show nightly",
        "policy.show",
        q.Named("nightly"),
        POLICY,
        ["when full succeeds start check", "fri 22:00", "catch-up", "calendar=holidays"],
    ),
    (
        "policy create nightly --zone Europe/Berlin",
        "policy.create",
        q.PolicyCreate("nightly", PolicyDoc(zone="Europe/Berlin")),
        POLICY,
        ["nightly"],
    ),
    ("policy rename nightly n", "policy.rename", q.Renamed("nightly", "n"), POLICY, ["nightly"]),
    ("policy copy nightly n", "policy.copy", q.Renamed("nightly", "n"), POLICY, ["nightly"]),
    ("policy delete nightly", "policy.delete", q.Named("nightly"), v.Done(), ["deleted"]),
    ("associate office nightly", "associate", q.AssociationEdit("office", "nightly"), POLICY, ["office.nightly.full"]),
    (
        "associate office nightly --remove",
        "dissociate",
        q.AssociationEdit("office", "nightly"),
        POLICY,
        ["not backed up by the policy nightly any more"],
    ),
    ("calendar list", "calendar.list", q.Nothing(), v.CalendarViews((CALENDAR,)), ["holidays", "2025-12-24"]),
    (
        "calendar create holidays --day 2025-12-24",
        "calendar.create",
        q.CalendarEdit("holidays", CalendarDoc(("2025-12-24",))),
        CALENDAR,
        ["holidays"],
    ),
    (
        "calendar set holidays --day 2025-12-24",
        "calendar.set",
        q.CalendarEdit("holidays", CalendarDoc(("2025-12-24",))),
        CALENDAR,
        ["holidays"],
    ),
    ("calendar delete holidays", "calendar.delete", q.Named("holidays"), v.Done(), ["deleted"]),
    ("device pool list", "device-pool.list", q.Nothing(), v.DevicePoolViews((POOL,)), ["disks", "disk1:10, disk2"]),
    (
        "device pool create disks --device disk1:10 --device disk2",
        "device-pool.create",
        q.DevicePoolEdit("disks", DevicePoolDoc(("disk1:10", "disk2"))),
        POOL,
        ["disk1:10"],
    ),
    (
        "device pool set disks --device disk1",
        "device-pool.set",
        q.DevicePoolEdit("disks", DevicePoolDoc(("disk1",))),
        POOL,
        ["disk1:10"],
    ),
    ("device pool delete disks", "device-pool.delete", q.Named("disks"), v.Done(), ["deleted"]),
    (
        "mediaset create archive --protection 365d --keep none --keep-monthly 24",
        "mediaset.create",
        q.MediaSetEdit("archive", MediaSetDoc(protection="365d", keep="none", keep_monthly=24)),
        v.Done(),
        ["archive"],
    ),
    ("mediaset delete archive", "mediaset.delete", q.Named("archive"), v.Done(), ["deleted"]),
    (
        "schedule preview office --days 30 --limit 9",
        "schedule.preview",
        q.SchedulePreview("office", 30.0, 9),
        PREVIEW,
        ["superseded", "office.nightly.full is due at 2025-01-10T21:00:00Z", "runs after office.nightly.x"],
    ),
    (
        "why office --night 2025-01-10",
        "why",
        q.Why("office", "2025-01-10"),
        STORY,
        [
            "list office, night of 2025-01-10 (Europe/Berlin)",
            "2025-01-10T21:00:01Z  office.nightly.full: waited 1m 00s: all devices of the target are busy: dev",
            "office.nightly.daily (j@2): superseded, no set",
        ],
    ),
]
